"""Tokenizers on disk."""

import json
from pathlib import Path

import pytest
import torch
from known_factors import encode
from safetensors.torch import load_file, save_file

from tokenizer.base import artefact
from tokenizer.base.config import TokenizerConfig
from tokenizer.base.embeddings import Embeddings, TokenizerError
from tokenizer.base.tokenizer import Tokenizer
from tokenizer.dst.model import DST
from tokenizer.training.fitting import fit

CONFIG = TokenizerConfig(codebook_size=8, dim=16, hidden=32, epochs=1, min_steps=40, batch_size=64)


def items(count: int = 300) -> Embeddings:
    g = torch.Generator().manual_seed(0)
    has_image = torch.rand(count, generator=g) > 0.2
    vectors = torch.randn(count, 12, generator=g)
    return Embeddings(vectors, vectors[:, :10] + 1, torch.ones(count, dtype=torch.bool), has_image)


ENCODERS = {"text": "1", "image": "2"}


@pytest.fixture(scope="module")
def model() -> Tokenizer:
    return fit(items(), CONFIG)


def test_a_saved_tokenizer_comes_back_the_same(model: Tokenizer, tmp_path: Path) -> None:
    fingerprint = artefact.save(model, tmp_path / "a", {"items": 3}, ENCODERS)
    loaded = artefact.load(tmp_path / "a")
    assert (loaded.fingerprint, loaded.encoders, loaded.metrics) == (fingerprint, ENCODERS, {"items": 3})
    assert loaded.config == CONFIG
    assert not loaded.model.training
    codes = encode(model, items())
    assert torch.equal(encode(loaded.model, items()), codes)
    assert all(torch.equal(a, b) for a, b in zip(loaded.model.decode(codes), model.decode(codes), strict=True))
    assert sorted(p.name for p in (tmp_path / "a").iterdir()) == ["config.json", "metrics.json", "model.safetensors"]


def test_fingerprint_names_weights_configuration_and_encoders_but_not_metrics(model: Tokenizer, tmp_path: Path) -> None:
    first = artefact.save(model, tmp_path / "a", {"x": 1}, ENCODERS)
    assert len(first) == 16
    assert artefact.save(model, tmp_path / "b", {"x": 2}, ENCODERS) == first
    assert artefact.save(model, tmp_path / "b", {"x": 1}, ENCODERS | {"text": "2"}) != first
    other = DST(CONFIG, 12, 10)
    assert artefact.save(other, tmp_path / "c", {}, ENCODERS) != first


@pytest.mark.parametrize("name", ["config.json", "model.safetensors", "metrics.json"])
def test_a_missing_or_broken_file_is_named(model: Tokenizer, tmp_path: Path, name: str) -> None:
    artefact.save(model, tmp_path, {}, ENCODERS)
    (tmp_path / name).write_bytes((tmp_path / name).read_bytes()[:-20] if name != "metrics.json" else b"{")
    with pytest.raises(TokenizerError, match=name):
        artefact.load(tmp_path)
    (tmp_path / name).unlink()
    with pytest.raises(TokenizerError, match=name):
        artefact.load(tmp_path)


def test_tampering_is_noticed(model: Tokenizer, tmp_path: Path) -> None:
    artefact.save(model, tmp_path, {}, ENCODERS)
    weights = load_file(tmp_path / "model.safetensors")
    weights["shared.codebooks_LKD"][0, 0, 0] += 1
    save_file(weights, tmp_path / "model.safetensors")
    with pytest.raises(TokenizerError, match="do not belong together"):
        artefact.load(tmp_path)
    artefact.save(model, tmp_path, {}, ENCODERS)
    described = json.loads((tmp_path / "config.json").read_text())
    described["encoders"]["text"] = "another"
    (tmp_path / "config.json").write_text(json.dumps(described))
    with pytest.raises(TokenizerError, match="do not belong together"):
        artefact.load(tmp_path)


def test_a_broken_tokenizer_is_not_saved(tmp_path: Path) -> None:
    broken = DST(CONFIG, 12, 10)
    broken.shared.codebooks_LKD[0, 0, 0] = float("nan")
    with pytest.raises(TokenizerError, match="not saved"):
        artefact.save(broken, tmp_path / "a", {}, ENCODERS)
    assert not (tmp_path / "a").exists()
