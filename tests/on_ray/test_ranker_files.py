"""What a ranker's training reads and writes beside its windows: the codes of all items, figures for TensorBoard."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from handmade import TOKENIZER, Codes, config_of, identified, trained, writable
from pyarrow import fs
from tensorboardX.proto.event_pb2 import Event

from pipeline.lake.run import Run
from pipeline.lake.storage import Lake
from pipeline.on_ray.tokenize import load_tokenizer
from pipeline.on_ray.training import code_vectors as reading
from pipeline.on_ray.training.code_vectors import decoded_vectors
from pipeline.on_ray.training.tensorboard import tensorboard
from tokenizer.quality import code_vectors as fitting

NIGHT = {f"i{n}": f"content {n}" for n in range(120)}


def codes(item: int) -> Codes:
    rng = np.random.default_rng(item)
    shared, shared_too, text, image = rng.integers(0, 8, 4).tolist()
    return shared, shared_too, text, image if item % 3 else None


@pytest.mark.ray
@pytest.mark.usefixtures("ray")
@pytest.mark.parametrize("most", [50_000, 40])
def test_decoded_vectors_do_not_depend_on_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, most: int) -> None:
    monkeypatch.setattr(fitting, "MOST_ITEMS", most)  # here; the tasks sample nothing away
    lake = writable(tmp_path / "lake")
    encoders = {"text": "e" * 16, "image": "f" * 16}
    one, other = (trained(lake, encoders, seed) for seed in (0, 1))
    for first in range(0, 120, 30):  # files of the other tokenizer lie between them
        some = {f"i{n}": codes(n) for n in range(first, first + 30)}
        identified(lake, one, some, NIGHT)
        identified(lake, other, dict.fromkeys(some, (0, 0, 0, 0)), NIGHT)
    absent = TOKENIZER.layout().absent
    rows = [[absent if code is None else code for code in codes(n)] for n in range(120)]
    sampled = fitting.sampled(np.array(rows, np.int16))
    assert len(sampled) == min(most, len(np.unique(rows, axis=0)))
    expected = fitting.code_vectors(load_tokenizer(lake, one).model, torch.from_numpy(sampled), ["text", "image"])
    monkeypatch.setattr(reading, "BLOCK", 7)
    found = decoded_vectors(lake, one, ["text", "image"])
    assert found is not None
    torch.testing.assert_close(found.vectors_CV, expected)


def events(file: Path) -> Iterator[Event]:
    """Of a file of TensorBoard's: a length of 8 bytes, a checksum of 4, an event, a checksum of 4, and so on."""
    content = file.read_bytes()
    while content:
        length = int.from_bytes(content[:8], "little")
        yield Event.FromString(content[12 : 12 + length])
        content = content[16 + length :]


@pytest.mark.parametrize("local", [True, False], ids=["a folder", "an object store"])
def test_figures_of_passes_are_there_for_tensorboard(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, local: bool
) -> None:
    told: list[float] = []

    def interrupted(run: Run) -> None:
        with tensorboard(run, lambda done, *_: told.append(done)) as progress:
            progress(0.5, 2, {"loss": 0.7})
            progress(1, 2, {"loss": 0.6, "learning_rate": 0.01})
            progress(2, 2, {"loss": 0.5, "learning_rate": 0.001, "validation": 0.55})
            raise KeyboardInterrupt

    with Run("train-ranker", config_of(tmp_path)) as run:
        if not local:
            store = fs.SubTreeFileSystem(str(tmp_path), fs.LocalFileSystem())
            monkeypatch.setattr(Lake, "_located", (store, "lake"))
        with pytest.raises(KeyboardInterrupt):
            interrupted(run)
    (file,) = (tmp_path / "lake" / "tensorboard" / run.run_id / "train-ranker").iterdir()
    found = {(value.tag, event.step): value.simple_value for event in events(file) for value in event.summary.value}
    expected = {("loss", 1): 0.6, ("learning_rate", 1): 0.01}
    expected |= {("loss", 2): 0.5, ("learning_rate", 2): 0.001, ("validation", 2): 0.55}
    assert found == pytest.approx(expected)
    assert told == [0.5, 1, 2]
