"""Pictures, texts and a vision model that throughput is measured with, all of them functions of a seed."""

import io
from pathlib import Path

import numpy as np
import torch
from PIL import Image

WORDS = 3_000


def jpegs(count: int) -> list[bytes]:
    """Of 256 × 256 pixels, about 15 kB."""
    rng, made = np.random.default_rng(0), []
    for _ in range(count):
        smooth = Image.fromarray(rng.integers(0, 255, (20, 20, 3), dtype=np.uint8))
        target = io.BytesIO()
        smooth.resize((256, 256), Image.Resampling.BICUBIC).save(target, "JPEG", quality=90)
        made.append(target.getvalue())
    return made


def texts(count: int, model: str) -> list[str]:
    """Of 10 to 60 words of the model's vocabulary."""
    rng = np.random.default_rng(0)
    known = [word for word in (Path(model) / "vocab.txt").read_text().split("\n") if word.isalpha() and len(word) > 3]
    words = rng.permutation(known)[:WORDS]
    return [" ".join(rng.choice(words, rng.integers(10, 60))) + f" {n}" for n in range(count)]


def vision_transformer(folder: Path) -> str:
    """The base size of ViT with random weights."""
    import transformers

    torch.manual_seed(0)
    transformers.ViTModel(transformers.ViTConfig()).save_pretrained(folder)
    transformers.ViTImageProcessorPil().save_pretrained(folder)
    return str(folder)
