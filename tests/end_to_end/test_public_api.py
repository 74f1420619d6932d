"""What is imported from outside: the examples of the docs, run as they stand."""

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from test_ranker_data import LAYOUT, TOKENIZER, taste_windows

import ranker
import tokenizer
from ranker.architectures import build
from ranker.artefact import ArtefactError, TrainedRanker
from ranker.config import RankerConfig
from ranker.windows import collate
from tokenizer.base import artefact
from tokenizer.base.embeddings import TokenizerError
from tokenizer.baselines.rq_kmeans import RQKMeans

PAGE = Path(__file__).parents[2] / "docs" / "api.md"


def example(title: str) -> dict[str, Any]:
    """The names that the Python example under a title of the page ends with."""
    section = PAGE.read_text().split(f"## {title}\n")[1].split("\n## ")[0]
    (code,) = re.findall(r"```python\n(.*?)```", section, re.DOTALL)
    names: dict[str, Any] = {}
    exec(compile(code, title, "exec"), names)
    return names


def test_a_tokenizer_is_fitted_saved_and_loaded(tmp_path: Path) -> None:
    names = example("Train a tokenizer on tensors")
    assert (tuple(names["codes"].shape), names["codes"].dtype) == ((500, 4), torch.int16)
    assert names["rebuilt_text"].shape == names["text"].shape
    artefact.save(names["tokenizer"], tmp_path, {}, {"text": "a", "image": "b"})
    inputs = (names["text"], names["image"], names["has_text"], names["has_image"])
    assert torch.equal(tokenizer.load(tmp_path).model.encode(*inputs), names["codes"])
    assert torch.equal(tokenizer.DisentangledSemanticTokenizer.load(str(tmp_path)).encode(*inputs), names["codes"])
    with pytest.raises(TokenizerError, match="method dst, not a RQKMeans"):
        RQKMeans.load(tmp_path)


def test_a_ranker_scores_and_is_loaded(tmp_path: Path) -> None:
    names = example("Rank")
    assert names["logits"].shape == (3, 20)
    assert names["scores"].shape == (3, 5)
    config = RankerConfig(dim=16, heads=2, layers=1)
    model = ranker.HMAT(config, LAYOUT).eval()
    TrainedRanker(config, LAYOUT, TOKENIZER, model.state_dict()).save(tmp_path, {})
    batch = collate(taste_windows(3, seed=0), LAYOUT)
    with torch.no_grad():
        expected = model(batch.tokens, batch.items, batch.labels)
        assert torch.equal(ranker.load(tmp_path).model()(batch.tokens, batch.items, batch.labels), expected)
        assert torch.equal(ranker.HMAT.load(str(tmp_path))(batch.tokens, batch.items, batch.labels), expected)
    din = RankerConfig(dim=16, heads=2, layers=1, arch="din")
    TrainedRanker(din, LAYOUT, TOKENIZER, build(din, LAYOUT).state_dict()).save(tmp_path, {})
    with pytest.raises(ArtefactError, match="arch din, not an HMAT"):
        ranker.HMAT.load(tmp_path)


@pytest.mark.parametrize("package", ["pipeline", "tokenizer", "ranker"])
def test_importing_a_package_starts_no_engine(package: str) -> None:
    code = f"import sys, {package}; print([m for m in ('torch', 'ray', 'pyspark') if m in sys.modules])"
    assert subprocess.check_output([sys.executable, "-c", code], text=True).strip() == "[]"


def test_a_name_that_is_not_there_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError):
        tokenizer.nothing  # noqa: B018
    with pytest.raises(AttributeError):
        ranker.nothing  # noqa: B018
