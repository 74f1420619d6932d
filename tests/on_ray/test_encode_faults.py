"""What a batch that raises, does not fit, or kills its process costs: the rows at fault, and no others."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import killers
import numpy as np
import pyarrow as pa
import pytest
import ray
from handmade import config_of, digest
from killers import Fussy, broken, fussy

from pipeline.errors import JobError
from pipeline.on_ray.deaths import Ledger, start_ledger
from pipeline.on_ray.encode import in_two_stages
from pipeline.on_ray.encode_stages import KILLED, EmbedBatches, EncodeInputs, PrepareInputs
from pipeline.on_ray.pools import Pool, Stage

ray.cloudpickle.register_pickle_by_value(killers)  # the tests' folder is nothing that workers import from
SLOW = pytest.mark.slow  # a process is started after every death
pytestmark = [pytest.mark.ray, pytest.mark.usefixtures("ray")]

SETTINGS = config_of(Path(), encoders={"text": {"batch_size": 8}}).encoders.text
MODELS = Pool(1, on_gpu=True, share=0)  # actors as for a GPU


def batch(*texts: str) -> pa.Table:
    return pa.table({"sha": [digest(text) for text in texts], "input": list(texts)})


def in_one_stage(block: pa.Table, load: Any) -> pa.Table:
    return EncodeInputs("text", SETTINGS, start_ledger(), load)(block)


def through_two_stages(block: pa.Table, load: Any) -> pa.Table:
    ledger = start_ledger()
    return EmbedBatches("text", SETTINGS, ledger, load)(PrepareInputs("text", SETTINGS, ledger, load)(block))


def by_text(rows: pa.Table, texts: list[str]) -> dict[str, str | None]:
    faults = {row["sha"]: row["fault"] for row in rows.to_pylist()}
    assert len(faults) == rows.num_rows == len(texts)
    assert [row["vector"] is None for row in rows.to_pylist()] == [f is not None for f in rows["fault"].to_pylist()]
    return {text: faults[digest(text)] for text in texts}


@pytest.mark.parametrize("stages", [in_one_stage, through_two_stages])
def test_a_batch_is_halved_down_to_the_inputs_at_fault(stages: Callable[..., pa.Table]) -> None:
    texts = ["a", "raise 1", "b", "nan", "c", "raise 2", "d", *(f"e{n}" for n in range(9))]
    faults = by_text(stages(batch(*texts), fussy), texts)
    said = "RuntimeError: cannot read this"
    expected = {"raise 1": said, "raise 2": said, "nan": "the vector is not finite"}
    assert {text: fault for text, fault in faults.items() if fault} == expected
    alone = by_text(stages(batch("nan"), fussy), ["nan"])  # a whole batch fails, but the encoder does not
    assert alone == {"nan": "the vector is not finite"}


def test_an_encoder_that_fails_on_anything_stops_the_job_and_records_nothing() -> None:
    class Broken:
        def __call__(self, inputs: list[str]) -> np.ndarray:
            return np.full((len(inputs), 3), np.nan, np.float32)

    with pytest.raises(JobError, match=r"encoders\.text: builtin gives no usable vector of anything"):
        in_one_stage(batch("a", "b"), lambda *_: Broken())


def test_a_batch_that_does_not_fit_is_halved_and_so_are_later_ones() -> None:
    encoder = Fussy()
    texts = [f"large {n}" for n in range(24)]
    faults = by_text(in_one_stage(batch(*texts), lambda *_: encoder), texts)
    assert not any(faults.values())
    assert encoder.sizes == [8, 4, 4, 4, 4, 4, 4]


@pytest.mark.parametrize(
    ("stages", "count", "pool"),
    [
        (1, 6, Pool(1, on_gpu=False, few=True)),
        pytest.param(1, 40, Pool(2, on_gpu=False, few=True), marks=SLOW),
        pytest.param(1, 40, Pool(2, on_gpu=False), marks=SLOW),
        pytest.param(2, 40, Pool(1, on_gpu=False), marks=SLOW),
        pytest.param(2, 40, Pool(1, on_gpu=False, few=True), marks=SLOW),
    ],
    ids=["a task", "tasks", "actors", "two stages", "tasks for actors"],
)
def test_an_input_that_kills_its_process_costs_itself(stages: int, count: int, pool: Pool) -> None:
    texts = [f"text {n}" for n in range(count)]
    texts[4] = "kill 1"
    if stages == 2:
        texts[30] = "host kill"
    stage = partial(Stage, args=("text", SETTINGS, start_ledger(), fussy))
    inputs = ray.data.from_arrow([batch(*texts[: count // 2]), batch(*texts[count // 2 :])])
    rows = pool.map(inputs, stage(EncodeInputs)) if stages == 1 else in_two_stages(inputs, stage, pool, MODELS)
    faults = by_text(pa.concat_tables(ray.get(rows.to_arrow_refs())), texts)
    assert {text: fault for text, fault in faults.items() if fault} == {t: KILLED for t in texts if "kill" in t}


@SLOW
@pytest.mark.parametrize("few", [True, False], ids=["tasks", "actors"])
def test_an_encoder_that_kills_its_process_with_anything_ends_the_job(few: bool) -> None:
    stage = Stage(EncodeInputs, ("text", SETTINGS, start_ledger(), broken))
    with pytest.raises(JobError, match="kills its process with whatever it is given"):
        Pool(1, on_gpu=False, few=few).map(ray.data.from_arrow(batch("a")), stage).materialize()


def test_a_ledger_counts_what_was_begun_and_not_done() -> None:
    ledger = Ledger()
    assert [ledger.begin("a"), ledger.begin("a"), ledger.begin("b")] == [0, 1, 0]
    ledger.done("a")
    assert ledger.deaths(["a", "b", "c"]) == [0, 1, 0]
