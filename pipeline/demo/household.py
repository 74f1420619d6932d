"""Things for the home, each drawn in four styles numbered 0 to 3."""

import numpy as np

from pipeline.demo.drawing import BODY, DARK, LIGHT, METAL, TRIM, Sketch


def lamp(s: Sketch, style: int) -> None:
    """A table, a floor, a pendant and a desk lamp."""
    if style == 0:  # table lamp
        s.polygon(BODY, (0.34, 0.14), (0.66, 0.14), (0.82, 0.5), (0.18, 0.5))
        s.blob(TRIM, (0.47, 0.5), (0.53, 0.5), (0.6, 0.68), (0.55, 0.84), (0.45, 0.84), (0.4, 0.68))
        s.box(DARK, 0.34, 0.84, 0.66, 0.89, 0.02)
    elif style == 1:  # floor lamp
        s.line(METAL, 0.022, (0.5, 0.3), (0.5, 0.92))
        s.polygon(BODY, (0.4, 0.06), (0.6, 0.06), (0.7, 0.32), (0.3, 0.32))
        s.oval(DARK, 0.34, 0.89, 0.66, 0.95)
    elif style == 2:  # pendant
        s.line(DARK, 0.014, (0.5, 0.0), (0.5, 0.34))
        s.box(METAL, 0.46, 0.3, 0.54, 0.4, 0.01)
        s.oval(LIGHT, 0.42, 0.6, 0.58, 0.78)
        s.blob(BODY, (0.5, 0.38), (0.68, 0.44), (0.84, 0.68), (0.5, 0.7), (0.16, 0.68), (0.32, 0.44))
    else:  # desk lamp
        s.box(DARK, 0.14, 0.84, 0.5, 0.89, 0.02)
        s.line(METAL, 0.028, (0.32, 0.85), (0.22, 0.52), (0.58, 0.24))
        s.oval(DARK, 0.185, 0.485, 0.255, 0.555)
        s.polygon(BODY, (0.54, 0.16), (0.66, 0.2), (0.88, 0.42), (0.52, 0.52))
        s.oval(LIGHT, 0.62, 0.43, 0.77, 0.52)


def cup(s: Sketch, style: int) -> None:
    """A mug, a teacup, a tumbler, a tankard."""
    if style == 0:  # mug
        s.arc(TRIM, 0.055, (0.58, 0.36, 0.9, 0.7), 270, 90)
        s.box(BODY, 0.2, 0.26, 0.7, 0.82, 0.05)
        s.oval(LIGHT, 0.2, 0.2, 0.7, 0.32)
    elif style == 1:  # teacup
        s.oval(TRIM, 0.1, 0.74, 0.86, 0.88)
        s.arc(TRIM, 0.035, (0.66, 0.42, 0.9, 0.64), 250, 110)
        s.blob(BODY, (0.16, 0.4), (0.48, 0.4), (0.78, 0.4), (0.7, 0.66), (0.56, 0.78), (0.4, 0.78), (0.24, 0.66))
        s.oval(LIGHT, 0.16, 0.36, 0.78, 0.46)
    elif style == 2:  # travel tumbler
        s.polygon(BODY, (0.31, 0.24), (0.69, 0.24), (0.63, 0.92), (0.37, 0.92))
        s.box(DARK, 0.28, 0.16, 0.72, 0.25, 0.03)
        s.box(DARK, 0.4, 0.11, 0.5, 0.17, 0.02)
        s.polygon(TRIM, (0.33, 0.46), (0.67, 0.46), (0.655, 0.66), (0.345, 0.66))
    else:  # tankard
        s.arc(METAL, 0.07, (0.52, 0.32, 0.92, 0.76), 270, 90)
        s.box(BODY, 0.16, 0.28, 0.68, 0.88, 0.02)
        for y in (0.36, 0.76):
            s.box(METAL, 0.15, y, 0.69, y + 0.06)
        for x, y in ((0.24, 0.26), (0.38, 0.22), (0.52, 0.24), (0.62, 0.27)):
            s.oval(LIGHT, x - 0.11, y - 0.09, x + 0.11, y + 0.08)


def chair(s: Sketch, style: int) -> None:
    """A dining chair, an armchair, a stool, an office chair."""
    if style == 0:  # dining chair
        for x in (0.28, 0.68):
            s.line(DARK, 0.035, (x, 0.6), (x - 0.02, 0.94))
        s.line(DARK, 0.03, (0.36, 0.62), (0.36, 0.84))
        s.box(BODY, 0.26, 0.1, 0.36, 0.62, 0.03)
        s.box(TRIM, 0.25, 0.56, 0.74, 0.65, 0.02)
        s.line(DARK, 0.02, (0.28, 0.78), (0.67, 0.78))
    elif style == 1:  # armchair
        s.box(DARK, 0.2, 0.82, 0.26, 0.92)
        s.box(DARK, 0.74, 0.82, 0.8, 0.92)
        s.box(BODY, 0.2, 0.2, 0.8, 0.7, 0.12)
        s.box(TRIM, 0.26, 0.56, 0.74, 0.72, 0.04)
        s.box(BODY, 0.1, 0.46, 0.27, 0.84, 0.07)
        s.box(BODY, 0.73, 0.46, 0.9, 0.84, 0.07)
        s.box(BODY, 0.18, 0.7, 0.82, 0.84, 0.02)
    elif style == 2:  # bar stool
        for x, foot in ((0.38, 0.26), (0.62, 0.74), (0.5, 0.5)):
            s.line(METAL, 0.026, (x, 0.28), (foot, 0.94))
        s.arc(METAL, 0.02, (0.32, 0.64, 0.68, 0.74), 0, 360)
        s.box(BODY, 0.26, 0.18, 0.74, 0.32, 0.06)
    else:  # office chair
        s.line(METAL, 0.04, (0.5, 0.6), (0.5, 0.84))
        for x in (0.24, 0.5, 0.76):
            s.line(DARK, 0.028, (0.5, 0.82), (x, 0.89))
            s.oval(DARK, x - 0.035, 0.87, x + 0.035, 0.94)
        s.box(BODY, 0.32, 0.06, 0.68, 0.54, 0.1)
        s.box(TRIM, 0.24, 0.56, 0.76, 0.66, 0.04)
        s.line(DARK, 0.03, (0.24, 0.6), (0.16, 0.44), (0.3, 0.44))
        s.line(DARK, 0.03, (0.76, 0.6), (0.84, 0.44), (0.7, 0.44))


def vase(s: Sketch, style: int) -> None:
    """A bud vase, an amphora, a cylinder with stems, a bowl."""
    if style == 0:  # bud vase
        s.blob(BODY, (0.44, 0.12), (0.56, 0.12), (0.55, 0.42), (0.72, 0.68), (0.6, 0.9), (0.4, 0.9), (0.28, 0.68),
               (0.45, 0.42))  # fmt: skip
        s.oval(DARK, 0.43, 0.1, 0.57, 0.15)
    elif style == 1:  # amphora with two handles
        s.arc(TRIM, 0.03, (0.14, 0.2, 0.5, 0.58), 90, 290)
        s.arc(TRIM, 0.03, (0.5, 0.2, 0.86, 0.58), 250, 90)
        s.blob(BODY, (0.4, 0.14), (0.6, 0.14), (0.57, 0.3), (0.76, 0.48), (0.58, 0.88), (0.42, 0.88), (0.24, 0.48),
               (0.43, 0.3))  # fmt: skip
        s.box(TRIM, 0.36, 0.1, 0.64, 0.17, 0.02)
        s.box(TRIM, 0.4, 0.87, 0.6, 0.93, 0.01)
    elif style == 2:  # cylinder with stems
        for x, top in ((0.36, 0.1), (0.5, 0.04), (0.64, 0.12)):
            s.line(DARK, 0.014, (0.5, 0.5), (x, top))
            s.oval(LIGHT, x - 0.06, top - 0.03, x + 0.06, top + 0.09)
        s.box(BODY, 0.32, 0.4, 0.68, 0.92, 0.02)
        s.box(TRIM, 0.32, 0.4, 0.68, 0.46)
    else:  # bowl
        s.box(TRIM, 0.38, 0.76, 0.62, 0.86, 0.01)
        s.blob(BODY, (0.1, 0.4), (0.5, 0.44), (0.9, 0.4), (0.78, 0.66), (0.58, 0.8), (0.42, 0.8), (0.22, 0.66))
        s.oval(DARK, 0.1, 0.34, 0.9, 0.48)


def clock(s: Sketch, style: int) -> None:
    """A wall, an alarm, a mantel and a pendulum clock."""
    x, y, r = 0.5, {0: 0.5, 1: 0.56, 2: 0.5, 3: 0.3}[style], {0: 0.38, 1: 0.28, 2: 0.19, 3: 0.16}[style]
    if style == 1:  # twin-bell alarm clock
        for side in (-1, 1):
            s.oval(METAL, x + side * 0.2 - 0.13, 0.14, x + side * 0.2 + 0.13, 0.38)
            s.line(DARK, 0.045, (x, y), (x + side * 0.22, 0.92))
        s.box(DARK, 0.47, 0.12, 0.53, 0.3)
    elif style == 2:  # mantel clock
        s.blob(BODY, (0.06, 0.8), (0.16, 0.62), (0.3, 0.3), (0.5, 0.2), (0.7, 0.3), (0.84, 0.62), (0.94, 0.8))
        s.box(TRIM, 0.06, 0.76, 0.94, 0.86, 0.02)
    elif style == 3:  # pendulum clock
        s.polygon(TRIM, (0.28, 0.12), (0.5, 0.02), (0.72, 0.12))
        s.box(BODY, 0.3, 0.1, 0.7, 0.94, 0.02)
        s.box(DARK, 0.38, 0.5, 0.62, 0.88)
        s.line(METAL, 0.018, (0.5, 0.5), (0.53, 0.78))
        s.oval(METAL, 0.47, 0.72, 0.59, 0.84)
    s.oval(TRIM if style >= 2 else BODY, x - r, y - r, x + r, y + r)
    s.oval(LIGHT, x - 0.78 * r, y - 0.78 * r, x + 0.78 * r, y + 0.78 * r)
    for angle in np.arange(12) * np.pi / 6:
        dx, dy = np.cos(angle) * r, np.sin(angle) * r
        s.line(DARK, 0.014, (x + 0.64 * dx, y + 0.64 * dy), (x + 0.74 * dx, y + 0.74 * dy))
    s.line(DARK, 0.024, (x, y - 0.52 * r), (x, y), (x + 0.36 * r, y + 0.2 * r))


def pot(s: Sketch, style: int) -> None:
    """A teapot, a kettle, a moka pot, a pitcher."""
    if style == 0:  # teapot
        s.arc(TRIM, 0.05, (0.64, 0.38, 0.94, 0.72), 250, 100)
        s.polygon(TRIM, (0.3, 0.7), (0.06, 0.42), (0.14, 0.4), (0.32, 0.52))
        s.oval(BODY, 0.2, 0.34, 0.76, 0.86)
        s.oval(TRIM, 0.34, 0.31, 0.62, 0.41)
        s.oval(DARK, 0.44, 0.22, 0.52, 0.32)
    elif style == 1:  # stovetop kettle
        s.arc(DARK, 0.05, (0.26, 0.1, 0.74, 0.74), 190, 350)
        s.polygon(METAL, (0.26, 0.62), (0.06, 0.46), (0.12, 0.4), (0.34, 0.5))
        s.blob(BODY, (0.36, 0.4), (0.64, 0.4), (0.8, 0.62), (0.84, 0.84), (0.5, 0.86), (0.16, 0.84), (0.2, 0.62))
        s.oval(DARK, 0.45, 0.33, 0.55, 0.43)
    elif style == 2:  # moka pot
        s.line(DARK, 0.055, (0.64, 0.3), (0.86, 0.32), (0.82, 0.6))
        s.polygon(METAL, (0.3, 0.22), (0.16, 0.22), (0.34, 0.4))
        s.polygon(BODY, (0.28, 0.22), (0.7, 0.22), (0.63, 0.54), (0.37, 0.54))
        s.polygon(BODY, (0.37, 0.58), (0.63, 0.58), (0.74, 0.9), (0.26, 0.9))
        s.box(METAL, 0.35, 0.53, 0.65, 0.6, 0.01)
        s.polygon(TRIM, (0.28, 0.22), (0.49, 0.12), (0.7, 0.22))
        s.oval(DARK, 0.46, 0.06, 0.52, 0.14)
    else:  # pitcher
        s.arc(TRIM, 0.05, (0.5, 0.26, 0.9, 0.7), 250, 110)
        s.blob(BODY, (0.22, 0.12), (0.44, 0.18), (0.64, 0.14), (0.6, 0.4), (0.72, 0.68), (0.6, 0.88), (0.36, 0.88),
               (0.24, 0.68), (0.36, 0.4))  # fmt: skip
        s.oval(DARK, 0.3, 0.13, 0.62, 0.21)


def guitar(s: Sketch, style: int) -> None:
    """An acoustic guitar, a flying V, an electric guitar, a banjo."""
    s.line(DARK, 0.045, (0.5, 0.62), (0.5, 0.14))
    s.polygon(TRIM, (0.45, 0.02), (0.55, 0.02), (0.53, 0.16), (0.47, 0.16))
    if style == 0:  # acoustic
        s.blob(BODY, (0.5, 0.42), (0.66, 0.48), (0.63, 0.62), (0.75, 0.78), (0.62, 0.95), (0.38, 0.95), (0.25, 0.78),
               (0.37, 0.62), (0.34, 0.48))  # fmt: skip
        s.oval(DARK, 0.42, 0.57, 0.58, 0.73)
    elif style == 1:  # flying V
        s.polygon(BODY, (0.45, 0.46), (0.55, 0.46), (0.82, 0.94), (0.68, 0.97), (0.5, 0.78), (0.32, 0.97), (0.18, 0.94))
        s.box(DARK, 0.44, 0.56, 0.56, 0.6)
        s.box(DARK, 0.44, 0.65, 0.56, 0.69)
    elif style == 2:  # electric with two horns
        s.blob(BODY, (0.5, 0.58), (0.66, 0.42), (0.67, 0.58), (0.74, 0.8), (0.56, 0.94), (0.36, 0.92), (0.28, 0.76),
               (0.35, 0.58), (0.3, 0.44))  # fmt: skip
        s.blob(LIGHT, (0.44, 0.62), (0.62, 0.64), (0.62, 0.82), (0.48, 0.84))
        for y in (0.66, 0.73, 0.8):
            s.box(DARK, 0.44, y, 0.57, y + 0.03)
    else:  # banjo
        s.oval(METAL, 0.24, 0.44, 0.76, 0.96)
        s.oval(BODY, 0.27, 0.47, 0.73, 0.93)
        s.oval(LIGHT, 0.34, 0.54, 0.66, 0.86)
    s.line(METAL, 0.012, (0.49, 0.12), (0.49, 0.82))
    s.line(METAL, 0.012, (0.515, 0.12), (0.515, 0.82))
    s.box(DARK, 0.42, 0.81, 0.58, 0.845)


def table(s: Sketch, style: int) -> None:
    """A pedestal, a dining table, a desk, a trestle table."""
    if style == 0:  # round pedestal
        s.polygon(TRIM, (0.46, 0.42), (0.54, 0.42), (0.57, 0.86), (0.43, 0.86))
        s.oval(DARK, 0.3, 0.82, 0.7, 0.92)
        s.oval(BODY, 0.08, 0.3, 0.92, 0.5)
    elif style == 1:  # four-legged dining table
        for x, foot in ((0.16, 0.12), (0.84, 0.88), (0.3, 0.3), (0.7, 0.7)):
            s.line(TRIM, 0.04, (x, 0.42), (foot, 0.9 if x in (0.16, 0.84) else 0.76))
        s.polygon(BODY, (0.2, 0.28), (0.8, 0.28), (0.96, 0.44), (0.04, 0.44))
        s.box(DARK, 0.04, 0.43, 0.96, 0.48)
    elif style == 2:  # desk with drawers
        s.line(DARK, 0.03, (0.12, 0.36), (0.1, 0.9))
        s.box(TRIM, 0.54, 0.36, 0.92, 0.88)
        for i in range(3):
            s.box(BODY, 0.57, 0.4 + 0.16 * i, 0.89, 0.53 + 0.16 * i)
            s.oval(METAL, 0.71, 0.445 + 0.16 * i, 0.75, 0.485 + 0.16 * i)
        s.box(BODY, 0.05, 0.28, 0.95, 0.37, 0.01)
    else:  # folding trestle table
        for x in (0.26, 0.74):
            s.line(METAL, 0.03, (x - 0.14, 0.88), (x + 0.08, 0.44))
            s.line(METAL, 0.03, (x + 0.14, 0.88), (x - 0.08, 0.44))
        s.line(METAL, 0.02, (0.2, 0.72), (0.8, 0.72))
        s.box(BODY, 0.06, 0.36, 0.94, 0.46, 0.03)
