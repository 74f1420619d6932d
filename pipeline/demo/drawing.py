"""A drawing surface whose strokes name the region of a product they paint, not a colour.

``BODY`` later takes the product's colour, partly covered by ``PATTERN``; ``TRIM`` is a darker shade of it, the
others have a tone of their own.
"""

from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw

NOTHING, BODY, PATTERN, TRIM, LIGHT, DARK, METAL, GLASS = range(8)

Points = Sequence[tuple[float, float]]


class Sketch:
    """Paints region numbers on an 8-bit picture; coordinates run from (0, 0) top left to (1, 1).

    Args:
        size: pixels a side.
        stretch: horizontal and vertical scale about the centre.
        shift: horizontal and vertical offset, in units of the square.
    """

    def __init__(self, size: int, stretch: tuple[float, float], shift: tuple[float, float]) -> None:
        self.regions = Image.new("L", (size, size), NOTHING)
        self._draw = ImageDraw.Draw(self.regions)
        self._size, self._stretch, self._shift = size, stretch, shift

    def _at(self, points: Points) -> list[tuple[float, float]]:
        (sx, sy), (dx, dy), n = self._stretch, self._shift, self._size
        return [(n * (0.5 + dx + sx * (x - 0.5)), n * (0.5 + dy + sy * (y - 0.5))) for x, y in points]

    def _width(self, width: float) -> int:
        return max(2, round(width * self._size * min(self._stretch)))

    def polygon(self, region: int, *points: tuple[float, float]) -> None:
        """A filled polygon."""
        self._draw.polygon(self._at(points), fill=region)

    def blob(self, region: int, *points: tuple[float, float]) -> None:
        """A filled closed curve through the points (Catmull-Rom)."""
        p = np.array(points)
        before, after, second = np.roll(p, 1, 0), np.roll(p, -1, 0), np.roll(p, -2, 0)
        t = np.linspace(0, 1, 8, endpoint=False)[:, None, None]
        curve = 0.5 * (
            2 * p
            + (after - before) * t
            + (2 * before - 5 * p + 4 * after - second) * t**2
            + (3 * p - before - 3 * after + second) * t**3
        )
        self._draw.polygon(self._at([(x, y) for x, y in curve.swapaxes(0, 1).reshape(-1, 2)]), fill=region)

    def oval(self, region: int, left: float, top: float, right: float, bottom: float) -> None:
        """A filled ellipse in a box."""
        (x0, y0), (x1, y1) = self._at([(left, top), (right, bottom)])
        self._draw.ellipse((x0, y0, x1, y1), fill=region)

    def box(self, region: int, left: float, top: float, right: float, bottom: float, round_: float = 0) -> None:
        """A filled rectangle with rounded corners."""
        (x0, y0), (x1, y1) = self._at([(left, top), (right, bottom)])
        self._draw.rounded_rectangle((x0, y0, x1, y1), round_ * self._size, fill=region)

    def line(self, region: int, width: float, *points: tuple[float, float]) -> None:
        """A polyline."""
        self._draw.line(self._at(points), fill=region, width=self._width(width), joint="curve")

    def arc(self, region: int, width: float, box: tuple[float, float, float, float], start: float, end: float) -> None:
        """Part of an ellipse's outline; degrees clockwise from three o'clock."""
        (x0, y0), (x1, y1) = self._at([box[:2], box[2:]])
        self._draw.arc((x0, y0, x1, y1), start, end, fill=region, width=self._width(width))
