"""Pictures as a vision model's image processor makes them, of which the last steps wait for the device.

Most processors resize, crop, and then map each of the 256 values that a channel's pixel can have to a number: rescaled
and normalised. Of those the host makes small uint8 pictures, a quarter of the bytes, and the device looks the numbers
up in the processor's own table, to the last bit. Whether a processor is one of those is tried on pictures of several
shapes; any other (SigLIP 2 with patches and masks) does all its work itself, on the host.

Letters: N pictures, H height, W width, C = 3 channels, V = 256 values.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from pipeline.on_ray.encoders.token_batches import Batch

SHAPES = ((300, 411), (523, 260), (17, 40), (33, 9))  # height and width of pictures that tell how a processor works
SMALL = "small_pixels"  # the name of pictures that are looked up


class PictureBatches:
    """RGB pictures of any shape to what the model takes: on the host with ``()``, the rest with :meth:`on_device`."""

    def __init__(self, processor: Any) -> None:
        """``processor``: of transformers, with its backend of Pillow."""
        self._processor = processor
        self._table_CV = self._found_table()

    def __call__(self, pictures: Sequence[Image.Image]) -> Batch:
        """``small_pixels``, uint8 ``(N, H, W, C)``, or whatever the processor makes."""
        if self._table_CV is None:
            return dict(self._processor(images=list(pictures), return_tensors="np"))
        return {SMALL: np.stack([self._small(picture) for picture in pictures])}

    def on_device(self, tensors: dict[str, Tensor], dtype: torch.dtype) -> dict[str, Tensor]:
        """What the model takes, its floating-point numbers as ``dtype``; of small pictures ``pixel_values``."""
        if self._table_CV is not None:
            pixels_NHWC = tensors[SMALL]
            table_CV = torch.from_numpy(self._table_CV).to(pixels_NHWC.device, dtype)
            channels = (table_CV[c][pixels_NHWC[..., c].int()] for c in range(3))
            return {"pixel_values": torch.stack(list(channels), 1)}
        return {name: x.to(dtype) if x.is_floating_point() else x for name, x in tensors.items()}

    def _found_table(self) -> NDArray[np.float32] | None:
        """``(C, V)``, if the processor looks up what :meth:`_small` leaves, else ``None``."""
        rng = np.random.default_rng(0)
        pictures = [Image.fromarray(rng.integers(0, 256, (*shape, 3), dtype=np.uint8)) for shape in SHAPES]
        expected = self._processor(images=pictures, return_tensors="np")
        try:
            values_NCHW = np.broadcast_to(np.arange(256, dtype=np.uint8), (1, 3, 1, 256)).copy()
            table_CV = self._processor(
                images=list(values_NCHW),
                do_resize=False,
                do_center_crop=False,
                input_data_format="channels_first",
                return_tensors="np",
            )["pixel_values"][0, :, 0]
            small_NHWC = np.stack([self._small(picture) for picture in pictures])
            found_NCHW = table_CV[np.arange(3)[:, None, None], np.moveaxis(small_NHWC, -1, 1)]
        except (AttributeError, IndexError, KeyError, TypeError, ValueError):  # it has other steps or other settings
            return None
        same = set(expected) == {"pixel_values"} and np.array_equal(expected["pixel_values"], found_NCHW)
        return np.ascontiguousarray(table_CV) if same else None

    def _small(self, picture: Image.Image) -> NDArray[np.uint8]:
        """Resized and cropped, ``(H, W, C)``; where transformers would go through arrays, Pillow alone."""
        stated = self._processor
        if stated.do_resize:
            picture = picture.resize(_size(picture, stated.size), stated.resample)
        if getattr(stated, "do_center_crop", None):
            height, width = stated.crop_size["height"], stated.crop_size["width"]
            left, top = (picture.width - width) // 2, (picture.height - height) // 2
            picture = picture.crop((left, top, left + width, top + height))
        return np.asarray(picture)


def _size(picture: Image.Image, size: Any) -> tuple[int, int]:
    """Width and height that ``size`` asks for: fixed ones, or the shorter side's."""
    edge = size.get("shortest_edge")
    if edge is None:
        return size["width"], size["height"]
    short, long = sorted(picture.size)
    longer = int(edge * long / short)
    return (edge, longer) if picture.width <= picture.height else (longer, edge)
