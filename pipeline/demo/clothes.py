"""Things to wear and carry, each drawn in four styles numbered 0 to 3."""

from pipeline.demo.drawing import BODY, DARK, GLASS, LIGHT, METAL, NOTHING, TRIM, Sketch


def shoe(s: Sketch, style: int) -> None:
    """A sneaker, a boot, a high heel, a sandal."""
    if style == 0:  # sneaker
        s.blob(BODY, (0.12, 0.68), (0.12, 0.4), (0.24, 0.36), (0.36, 0.42), (0.56, 0.54), (0.82, 0.6), (0.9, 0.69))
        s.box(LIGHT, 0.1, 0.67, 0.91, 0.75, 0.035)
        s.blob(TRIM, (0.13, 0.66), (0.13, 0.52), (0.24, 0.54), (0.26, 0.66))
        for i in range(4):
            s.line(LIGHT, 0.022, (0.36 + 0.07 * i, 0.53 + 0.025 * i), (0.43 + 0.07 * i, 0.45 + 0.035 * i))
    elif style == 1:  # boot
        s.polygon(BODY, (0.22, 0.16), (0.55, 0.16), (0.54, 0.55), (0.22, 0.75))
        s.blob(BODY, (0.21, 0.74), (0.24, 0.52), (0.5, 0.5), (0.72, 0.58), (0.86, 0.68), (0.85, 0.76))
        s.box(DARK, 0.2, 0.75, 0.87, 0.8, 0.01)
        s.box(DARK, 0.2, 0.77, 0.4, 0.87, 0.01)
        s.box(TRIM, 0.21, 0.15, 0.56, 0.23, 0.02)
        s.line(DARK, 0.015, (0.4, 0.28), (0.38, 0.5))
    elif style == 2:  # high heel
        s.blob(BODY, (0.14, 0.36), (0.22, 0.3), (0.4, 0.54), (0.6, 0.66), (0.88, 0.76), (0.62, 0.78), (0.34, 0.66))
        s.polygon(TRIM, (0.13, 0.38), (0.28, 0.56), (0.21, 0.8), (0.17, 0.8))
        s.line(DARK, 0.018, (0.3, 0.64), (0.6, 0.785), (0.89, 0.785))
    else:  # sandal
        s.box(TRIM, 0.1, 0.68, 0.9, 0.76, 0.04)
        s.box(LIGHT, 0.12, 0.66, 0.88, 0.69, 0.015)
        s.arc(BODY, 0.09, (0.54, 0.42, 0.86, 0.94), 180, 360)
        s.line(BODY, 0.06, (0.16, 0.68), (0.24, 0.36), (0.36, 0.68))
        s.line(BODY, 0.05, (0.26, 0.4), (0.6, 0.56))
        s.oval(METAL, 0.21, 0.35, 0.29, 0.43)


def bag(s: Sketch, style: int) -> None:
    """A tote, a backpack, a handbag, a duffel."""
    if style == 0:  # tote
        s.arc(TRIM, 0.035, (0.32, 0.1, 0.68, 0.66), 180, 360)
        s.polygon(BODY, (0.18, 0.36), (0.82, 0.36), (0.76, 0.88), (0.24, 0.88))
        s.line(TRIM, 0.02, (0.19, 0.41), (0.81, 0.41))
    elif style == 1:  # backpack
        s.arc(DARK, 0.03, (0.42, 0.06, 0.58, 0.26), 180, 360)
        s.box(TRIM, 0.16, 0.5, 0.28, 0.82, 0.04)
        s.box(TRIM, 0.72, 0.5, 0.84, 0.82, 0.04)
        s.box(BODY, 0.24, 0.14, 0.76, 0.88, 0.14)
        s.box(TRIM, 0.31, 0.54, 0.69, 0.82, 0.05)
        s.line(METAL, 0.015, (0.36, 0.6), (0.64, 0.6))
        s.arc(DARK, 0.016, (0.3, 0.22, 0.7, 0.6), 200, 340)
    elif style == 2:  # handbag
        s.arc(METAL, 0.03, (0.3, 0.16, 0.7, 0.76), 180, 360)
        s.blob(BODY, (0.2, 0.46), (0.5, 0.42), (0.8, 0.46), (0.86, 0.78), (0.5, 0.84), (0.14, 0.78))
        s.blob(TRIM, (0.2, 0.45), (0.5, 0.41), (0.8, 0.45), (0.76, 0.6), (0.5, 0.66), (0.24, 0.6))
        s.box(METAL, 0.46, 0.6, 0.54, 0.7, 0.02)
    else:  # duffel
        s.arc(DARK, 0.03, (0.34, 0.26, 0.66, 0.66), 180, 360)
        s.box(BODY, 0.08, 0.42, 0.92, 0.78, 0.16)
        s.line(TRIM, 0.05, (0.32, 0.42), (0.32, 0.78))
        s.line(TRIM, 0.05, (0.68, 0.42), (0.68, 0.78))
        s.line(METAL, 0.014, (0.16, 0.47), (0.84, 0.47))


def watch(s: Sketch, style: int) -> None:
    """A round, a rectangular, a smart and a pocket watch."""
    if style == 3:  # pocket watch
        s.arc(METAL, 0.02, (0.5, -0.06, 0.86, 0.3), 90, 270)
        s.box(METAL, 0.46, 0.2, 0.54, 0.32)
        s.oval(METAL, 0.2, 0.28, 0.8, 0.88)
        s.oval(BODY, 0.25, 0.33, 0.75, 0.83)
        s.oval(LIGHT, 0.33, 0.41, 0.67, 0.75)
        centre = 0.58
    else:
        s.polygon(BODY, (0.37, 0.02), (0.63, 0.02), (0.66, 0.5), (0.34, 0.5))
        s.polygon(BODY, (0.34, 0.5), (0.66, 0.5), (0.63, 0.98), (0.37, 0.98))
        centre = 0.5
    if style == 0:  # round dress watch
        s.oval(METAL, 0.25, 0.25, 0.75, 0.75)
        s.oval(LIGHT, 0.3, 0.3, 0.7, 0.7)
    elif style == 1:  # tank watch
        s.box(METAL, 0.28, 0.24, 0.72, 0.76, 0.02)
        s.box(LIGHT, 0.34, 0.3, 0.66, 0.7)
    elif style == 2:  # smartwatch
        s.box(DARK, 0.25, 0.26, 0.75, 0.74, 0.1)
        s.box(GLASS, 0.3, 0.31, 0.7, 0.69, 0.06)
        s.box(METAL, 0.75, 0.42, 0.79, 0.54)
        for i, height in enumerate((0.08, 0.16, 0.11, 0.2)):
            s.box(DARK, 0.36 + 0.08 * i, 0.62 - height, 0.4 + 0.08 * i, 0.62)
        return
    s.line(DARK, 0.018, (0.5, centre - 0.12), (0.5, centre), (0.59, centre + 0.05))


def top(s: Sketch, style: int) -> None:
    """A T-shirt, a long-sleeve, a tank top, a hoodie."""
    sleeve = {0: 0.42, 1: 0.82, 2: 0.0, 3: 0.82}[style]
    if sleeve:
        s.polygon(TRIM if style == 1 else BODY, (0.3, 0.16), (0.3, 0.36), (0.17, sleeve), (0.06, sleeve - 0.05))
        s.polygon(TRIM if style == 1 else BODY, (0.7, 0.16), (0.7, 0.36), (0.83, sleeve), (0.94, sleeve - 0.05))
    if style == 2:  # tank top
        s.box(BODY, 0.27, 0.36, 0.73, 0.9, 0.02)
        for side in (-1, 1):
            inner, outer = 0.5 + side * 0.1, 0.5 + side * 0.17
            s.polygon(
                BODY, (inner, 0.1), (outer, 0.1), (0.5 + side * 0.23, 0.4), (0.5, 0.42), (0.5 + side * 0.06, 0.34)
            )
        s.arc(TRIM, 0.025, (0.39, 0.0, 0.61, 0.4), 10, 170)
        return
    s.polygon(BODY, (0.3, 0.14), (0.7, 0.14), (0.74, 0.3), (0.73, 0.9), (0.27, 0.9), (0.26, 0.3))
    if style == 0:  # t-shirt
        s.oval(NOTHING, 0.4, 0.06, 0.6, 0.22)
    elif style == 1:  # raglan long-sleeve
        s.arc(TRIM, 0.03, (0.38, 0.05, 0.62, 0.24), 0, 180)
        s.oval(NOTHING, 0.41, 0.06, 0.59, 0.2)
    else:  # hoodie
        s.blob(TRIM, (0.34, 0.2), (0.38, 0.04), (0.62, 0.04), (0.66, 0.2), (0.5, 0.32))
        s.oval(DARK, 0.41, 0.08, 0.59, 0.24)
        s.polygon(TRIM, (0.36, 0.6), (0.64, 0.6), (0.7, 0.8), (0.3, 0.8))
        for x in (0.45, 0.55):
            s.line(LIGHT, 0.014, (x, 0.28), (x, 0.46))


def hat(s: Sketch, style: int) -> None:
    """A beanie, a cap, a fedora, a bucket hat."""
    if style == 0:  # beanie
        s.blob(BODY, (0.2, 0.72), (0.24, 0.36), (0.5, 0.2), (0.76, 0.36), (0.8, 0.72), (0.5, 0.74))
        s.box(TRIM, 0.17, 0.62, 0.83, 0.8, 0.04)
        s.oval(LIGHT, 0.4, 0.08, 0.6, 0.28)
    elif style == 1:  # baseball cap
        s.blob(BODY, (0.16, 0.64), (0.18, 0.4), (0.42, 0.26), (0.64, 0.38), (0.7, 0.62), (0.44, 0.66))
        s.blob(TRIM, (0.5, 0.58), (0.7, 0.56), (0.94, 0.66), (0.9, 0.72), (0.66, 0.68), (0.46, 0.67))
        s.oval(DARK, 0.39, 0.24, 0.47, 0.3)
        s.arc(TRIM, 0.014, (0.26, 0.27, 0.62, 0.9), 180, 285)
    elif style == 2:  # fedora
        s.oval(TRIM, 0.06, 0.56, 0.94, 0.78)
        s.blob(BODY, (0.26, 0.66), (0.3, 0.3), (0.4, 0.24), (0.5, 0.31), (0.6, 0.24), (0.7, 0.3), (0.74, 0.66))
        s.polygon(DARK, (0.27, 0.54), (0.73, 0.54), (0.74, 0.65), (0.26, 0.65))
    else:  # bucket hat
        s.polygon(TRIM, (0.24, 0.54), (0.76, 0.54), (0.92, 0.8), (0.08, 0.8))
        s.polygon(BODY, (0.32, 0.22), (0.68, 0.22), (0.77, 0.56), (0.23, 0.56))
        s.line(LIGHT, 0.012, (0.18, 0.68), (0.82, 0.68))


def glasses(s: Sketch, style: int) -> None:
    """Round glasses, aviators, cat-eye and square glasses."""
    s.line(TRIM, 0.03, (0.1, 0.42), (0.03, 0.34))
    s.line(TRIM, 0.03, (0.9, 0.42), (0.97, 0.34))
    s.arc(TRIM, 0.03, (0.4, 0.4, 0.6, 0.56), 190, 350)
    for side in (-1, 1):
        x = 0.5 + side * 0.23
        if style == 0:  # round
            s.oval(BODY, x - 0.19, 0.3, x + 0.19, 0.68)
            s.oval(GLASS, x - 0.145, 0.345, x + 0.145, 0.635)
        elif style == 1:  # aviator
            for region, k in ((BODY, 1.0), (DARK, 0.83)):
                curve = ((-0.16, -0.14), (0.17, -0.15), (0.18, 0.06), (0.06, 0.24), (-0.08, 0.2), (-0.17, 0.02))
                s.blob(region, *((x + side * k * dx, 0.47 + k * dy) for dx, dy in curve))
        elif style == 2:  # cat-eye
            for region, k in ((BODY, 1.0), (GLASS, 0.68)):
                curve = ((-0.17, -0.08), (0.1, -0.13), (0.24, -0.22), (0.19, 0.08), (0.02, 0.17), (-0.15, 0.1))
                s.blob(region, *((x + side * k * dx, 0.48 + k * dy) for dx, dy in curve))
        else:  # square
            s.box(BODY, x - 0.19, 0.33, x + 0.19, 0.65, 0.03)
            s.box(GLASS, x - 0.135, 0.385, x + 0.135, 0.595, 0.015)


def headphones(s: Sketch, style: int) -> None:
    """Over-ear headphones, a headset, earbuds, a neckband."""
    if style == 2:  # earbuds in their case
        s.box(BODY, 0.18, 0.48, 0.82, 0.88, 0.14)
        s.line(DARK, 0.012, (0.18, 0.62), (0.82, 0.62))
        s.oval(METAL, 0.47, 0.7, 0.53, 0.76)
        for x in (0.34, 0.66):
            s.box(LIGHT, x - 0.035, 0.2, x + 0.035, 0.48, 0.03)
            s.oval(LIGHT, x - 0.09, 0.12, x + 0.09, 0.3)
            s.oval(DARK, x - 0.04, 0.17, x + 0.04, 0.25)
        return
    if style == 3:  # neckband
        s.arc(BODY, 0.07, (0.16, 0.24, 0.84, 1.04), 150, 390)
        for side in (-1, 1):
            s.line(DARK, 0.014, (0.5 + side * 0.3, 0.8), (0.5 + side * 0.14, 0.56), (0.5 + side * 0.08, 0.42))
            s.oval(TRIM, 0.5 + side * 0.08 - 0.06, 0.34, 0.5 + side * 0.08 + 0.06, 0.46)
        return
    s.arc(TRIM, 0.06, (0.18, 0.1, 0.82, 0.94), 180, 360)
    if style == 1:  # headset with a microphone
        s.line(DARK, 0.024, (0.2, 0.7), (0.26, 0.9), (0.46, 0.9))
        s.box(DARK, 0.43, 0.86, 0.56, 0.94, 0.03)
    for x in (0.2, 0.8):
        s.box(BODY, x - 0.11, 0.44, x + 0.11, 0.78, 0.09 if style == 0 else 0.02)
        s.oval(METAL if style == 0 else DARK, x - 0.05, 0.55, x + 0.05, 0.67)


def umbrella(s: Sketch, style: int) -> None:
    """A classic umbrella, a parasol, a dome, a folded umbrella."""
    if style == 3:  # folded
        s.arc(DARK, 0.035, (0.36, 0.72, 0.52, 0.96), 0, 180)
        s.line(DARK, 0.035, (0.51, 0.66), (0.51, 0.84))
        s.polygon(BODY, (0.5, 0.06), (0.62, 0.62), (0.51, 0.72), (0.4, 0.62))
        s.line(TRIM, 0.05, (0.41, 0.5), (0.61, 0.5))
        return
    top, rim, half = {0: (0.16, 0.5, 0.42), 1: (0.14, 0.34, 0.46), 2: (0.06, 0.62, 0.32)}[style]
    s.line(METAL if style == 1 else DARK, 0.026, (0.5, top - 0.05), (0.5, 0.88))
    if style == 1:  # parasol on a foot
        s.box(DARK, 0.32, 0.87, 0.68, 0.94, 0.02)
        s.polygon(BODY, (0.5, top), (0.5 + half, rim), (0.5 - half, rim))
        s.polygon(TRIM, (0.5, top), (0.5 + half / 3, rim), (0.5 - half / 3, rim))
        for i in range(6):
            s.oval(TRIM if i % 2 else BODY, 0.04 + i * 0.153, rim - 0.04, 0.193 + i * 0.153, rim + 0.05)
        return
    s.arc(DARK, 0.03, (0.36, 0.78, 0.513, 0.96), 0, 180)  # hooked handle; a wide canopy or a dome
    s.blob(BODY, (0.5 - half, rim), (0.5 - 0.7 * half, top + 0.1), (0.5, top), (0.5 + 0.7 * half, top + 0.1),
           (0.5 + half, rim), (0.5, rim))  # fmt: skip
    scallops = 4 if style == 0 else 2
    for i in range(scallops):
        left = 0.5 - half + i * 2 * half / scallops
        s.oval(NOTHING, left, rim - 0.06, left + 2 * half / scallops, rim + 0.06)
    s.line(DARK, 0.026, (0.5, rim - 0.08), (0.5, rim + 0.1))
    for side in (-1, 1):
        s.line(TRIM, 0.014, (0.5, top), (0.5 + side * half * 0.3, rim - 0.26), (0.5 + side * half * 0.48, rim - 0.03))
