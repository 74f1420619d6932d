"""Product-like pictures of the demo's catalogue: a drawing in one of 32 finishes before a studio background.

A picture's *finish* is the image-only factor: one of eight colours in one of four looks (a pattern on the product
together with a background). Nothing in an item's text tells it. The drawing is the shared factor.
"""

import colorsys
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter

from pipeline.demo import clothes, household
from pipeline.demo.drawing import BODY, DARK, GLASS, LIGHT, METAL, NOTHING, PATTERN, TRIM, Sketch

HUES = (0.99, 0.08, 0.14, 0.33, 0.48, 0.60, 0.75, 0.90)  # red orange yellow green teal blue violet pink
LOOKS = ("solid on white", "stripes on sand", "dots on slate", "checks on mint")
FINISHES = len(HUES) * len(LOOKS)

_BACKGROUNDS = np.array([(247, 247, 247), (226, 208, 180), (84, 92, 106), (198, 226, 214)], np.float32)
_LIGHTER = (0.0, 0.78, 0.78, 0.5)  # how far each look's pattern is from the body towards white
_SIZE, _SUPERSAMPLING = 160, 2

DRAWINGS: tuple[Callable[[Sketch, int], None], ...] = (
    *(clothes.shoe, clothes.bag, clothes.watch, clothes.top),
    *(clothes.hat, clothes.glasses, clothes.headphones, clothes.umbrella),
    *(household.lamp, household.cup, household.chair, household.vase),
    *(household.clock, household.pot, household.guitar, household.table),
)
STYLES = 4  # of each drawing

Pixels = NDArray[np.float32]


def draw(shared: int, finish: int, rng: np.random.Generator) -> Image.Image:
    """An RGB picture of ``_SIZE`` × ``_SIZE`` pixels.

    Args:
        shared: ``category * STYLES + style``.
        finish: ``hue * len(LOOKS) + look``.
        rng: decides size, position, mirroring, shade, pattern width, light and grain.
    """
    hue, look = divmod(finish, len(LOOKS))
    side = _SIZE * _SUPERSAMPLING
    regions = _sketch(shared, side, rng)
    regions = np.where((regions == BODY) & _pattern(look, side, rng), np.uint8(PATTERN), regions)
    coloured = Image.fromarray(regions)
    coloured.putpalette(_palette(hue, look, rng).tobytes())
    product = np.asarray(coloured.convert("RGB").reduce(_SUPERSAMPLING), np.float32)  # black where there is none
    mask = Image.fromarray((regions != NOTHING) * np.uint8(255)).reduce(_SUPERSAMPLING)
    light = np.linspace(rng.uniform(1.06, 1.14), rng.uniform(0.84, 0.92), _SIZE, dtype=np.float32)
    picture = product * light[:, None]
    picture += _backdrop(look, mask, rng)
    picture += 2.5 * rng.standard_normal((_SIZE, _SIZE, 1), dtype=np.float32)
    return Image.fromarray(np.clip(picture, 0, 255).astype(np.uint8))


def _sketch(shared: int, side: int, rng: np.random.Generator) -> NDArray[np.uint8]:
    category, style = divmod(shared, STYLES)
    scale = rng.uniform(0.78, 0.92)
    stretch = (scale * rng.uniform(0.94, 1.06), scale * rng.uniform(0.94, 1.06))
    sketch = Sketch(side, stretch, (rng.uniform(-0.04, 0.04), rng.uniform(-0.04, 0.04)))
    DRAWINGS[category](sketch, style)
    tilted = sketch.regions.rotate(rng.uniform(-4, 4))
    regions = np.asarray(tilted)
    return np.ascontiguousarray(regions[:, ::-1]) if rng.random() < 0.3 else regions


def _palette(hue: int, look: int, rng: np.random.Generator) -> NDArray[np.uint8]:
    """One RGB colour a region, ``(8, 3)``; only those of body, pattern and trim follow the finish."""
    tone = (HUES[hue] + rng.uniform(-0.015, 0.015)) % 1
    saturation, value = rng.uniform(0.68, 0.82), rng.uniform(0.74, 0.9)
    palette = np.zeros((8, 3))
    palette[BODY] = colorsys.hsv_to_rgb(tone, saturation, value)
    palette[PATTERN] = palette[BODY] + _LIGHTER[look] * (1 - palette[BODY])
    palette[TRIM] = colorsys.hsv_to_rgb(tone, saturation, 0.66 * value)
    palette[LIGHT] = (0.96, 0.94, 0.9)
    palette[DARK] = (0.16, 0.16, 0.18)
    palette[METAL] = (0.68, 0.69, 0.71)
    palette[GLASS] = (0.74, 0.85, 0.9)
    return (255 * palette).astype(np.uint8)


def _pattern(look: int, side: int, rng: np.random.Generator) -> NDArray[np.bool_]:
    """Where the body's lighter second tone lies, ``(side, side)``."""
    pitch = rng.uniform(0.075, 0.095)
    steps = np.arange(side, dtype=np.float32) / side / pitch
    row, column = (steps + rng.uniform())[:, None], (steps + rng.uniform())[None, :]
    if look == 0:
        return np.zeros((side, side), bool)
    if look == 1:
        return np.broadcast_to(row % 1 < 0.4, (side, side))
    if look == 2:
        staggered = (column + 0.5 * (np.floor(row) % 2)) % 1
        return (row % 1 - 0.5) ** 2 + (staggered - 0.5) ** 2 < 0.27**2
    return (np.floor(0.8 * row) % 2) == (np.floor(0.8 * column) % 2)


def _backdrop(look: int, mask: Image.Image, rng: np.random.Generator) -> Pixels:
    """A studio backdrop that darkens towards the floor, with the product's soft shadow; black under ``mask``."""
    fall = np.linspace(1.02, rng.uniform(0.86, 0.94), _SIZE, dtype=np.float32)[:, None]
    shadow = np.asarray(mask.filter(ImageFilter.BoxBlur(_SIZE // 16)), np.float32) / 255
    shade = fall * (1 - 0.32 * np.roll(shadow, (_SIZE // 28, _SIZE // 45), (0, 1)))
    shade *= 1 - np.asarray(mask, np.float32) / 255
    return shade[..., None] * (_BACKGROUNDS[look] + rng.normal(0, 3, 3).astype(np.float32))
