"""Vectors and codes made on a device are those of a CPU."""

from pathlib import Path

import numpy as np
import pytest
import torch
from known_factors import BRIEF, encode, known_factors
from test_encoders import joint, vision
from tiny_models import TEXTS, pictures, save

from pipeline.config.encoders import Encoder, TextEncoder
from pipeline.on_ray.encoders.load import load_encoder
from tokenizer.base import artefact
from tokenizer.training.fitting import fit


@pytest.mark.parametrize("method", ["dst", "rq_vae"])
def test_codes(device: torch.device, method: str, tmp_path: Path) -> None:
    items = known_factors(300)[0]
    artefact.save(fit(items, BRIEF.model_copy(update={"method": method})), tmp_path, {}, {"text": "1", "image": "2"})
    expected, model = encode(artefact.load(tmp_path).model, items), artefact.load(tmp_path, device).model
    there = (x.to(device) for x in (items.text_ND, items.image_ND, items.has_text_N, items.has_image_N))
    assert torch.equal(model.encode(*there).cpu(), expected)


def test_vectors(device: torch.device, tmp_path: Path) -> None:
    folders = {name: tmp_path / name for name in ("bert", "clip", "vit")}
    for folder in folders.values():
        folder.mkdir()
    save(folders["bert"], "Bert"), joint(folders["clip"], "CLIP"), vision(folders["vit"], "ViT")
    for name, modality in (("bert", "text"), ("clip", "text"), ("clip", "image"), ("vit", "image")):
        kind, inputs = (TextEncoder, TEXTS) if modality == "text" else (Encoder, pictures())
        settings = kind(model=str(folders[name]))
        found, expected = (load_encoder(modality, settings, str(where))(inputs) for where in (device, "cpu"))
        np.testing.assert_allclose(found, expected, atol=1e-4, err_msg=f"{name}, {modality}")
