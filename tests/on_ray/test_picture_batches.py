"""Pictures that are resized on the host and looked up on the device are those of the model's own processor."""

from typing import Any

import numpy as np
import pytest
import torch
import transformers
from PIL import Image

from pipeline.on_ray.encoders.picture_batches import SMALL, PictureBatches

SQUARE = {"height": 30, "width": 24}
LOOKED_UP: dict[str, Any] = {
    "ViT": transformers.ViTImageProcessorPil(size=SQUARE),
    "SigLIP": transformers.SiglipImageProcessorPil(size=SQUARE),
    "CLIP": transformers.CLIPImageProcessorPil(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32}),
    "crop beyond the picture": transformers.CLIPImageProcessorPil(
        size={"shortest_edge": 32}, crop_size={"height": 41, "width": 36}
    ),
    "no normalising": transformers.ViTImageProcessorPil(size=SQUARE, do_normalize=False),
    "no rescaling": transformers.ViTImageProcessorPil(size=SQUARE, do_rescale=False),
    "other numbers": transformers.ViTImageProcessorPil(size=SQUARE, image_mean=[0.1, 0.2, 0.3], rescale_factor=0.01),
}
BY_ITSELF: dict[str, Any] = {
    "SigLIP 2": transformers.Siglip2ImageProcessorPil(patch_size=8, max_num_patches=16),
    "ConvNeXT": transformers.ConvNextImageProcessorPil(size={"shortest_edge": 32}),
    "padding": transformers.ViTImageProcessorPil(size=SQUARE, do_pad=True, pad_size={"height": 40, "width": 40}),
}


@pytest.mark.parametrize("name", LOOKED_UP | BY_ITSELF)
def test_a_model_is_given_what_its_processor_makes(name: str) -> None:
    rng = np.random.default_rng(1)
    shapes = [tuple(rng.integers(8, 200, 2)) for _ in range(12)]
    pictures = [Image.fromarray(rng.integers(0, 256, (*shape, 3), dtype=np.uint8)) for shape in shapes]
    processor = (LOOKED_UP | BY_ITSELF)[name]
    ours = PictureBatches(processor)
    batch = ours(pictures)
    assert (set(batch) == {SMALL} and batch[SMALL].dtype == np.uint8) == (name in LOOKED_UP)
    expected = processor(images=pictures, return_tensors="np")
    found = ours.on_device({key: torch.from_numpy(array) for key, array in batch.items()}, torch.float32)
    assert found.keys() == expected.keys()
    for key, x in found.items():
        np.testing.assert_array_equal(x.numpy(), expected[key])
    half = ours.on_device({key: torch.from_numpy(array) for key, array in batch.items()}, torch.bfloat16)
    pixels = torch.from_numpy(np.asarray(expected["pixel_values"], np.float32))
    assert torch.equal(half["pixel_values"], pixels.to(torch.bfloat16))
