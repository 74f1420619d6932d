import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageDraw

from pipeline.on_ray.encoders.builtin import ImageDescriptor, TextDescriptor

TEXTS = [
    "Leather ankle boot with a cushioned sole",
    "Ankle boots in leather, cushioned soles",
    "Pendant light of brushed steel for the kitchen",
    "and the of it",
    "été 海 😀",
    "x",
    "",
    " \n",
]

TEXT_START = (
    0.00000,
    -0.25607,
    0.00000,
    0.00000,
    0.00000,
    0.06045,
    0.06045,
    0.00000,
    -0.06045,
    0.00000,
    -0.06045,
    0.00000,
)
IMAGE_START = (-0.10708, -0.00245, 0.04616, -0.07189, 0.02089, -0.05267)


def picture(shape: str, colour: str, background: str = "white", side: int = 90) -> Image.Image:
    image = Image.new("RGB", (side, side), background)
    draw = ImageDraw.Draw(image)
    box = (side // 5, side // 4, side - side // 5, side - side // 4)
    if shape == "oval":
        draw.ellipse(box, fill=colour)
    else:
        for x in range(box[0], box[2], side // 8):
            draw.line((x, box[1], x + side // 6, box[3]), fill=colour, width=3)
    return image


IMAGES = [
    picture("oval", "red"),
    picture("lines", "red"),
    picture("oval", "blue", "black", 33),
    Image.new("RGB", (1, 1), (127, 127, 127)),
    Image.new("RGB", (300, 2), "black"),
    Image.new("RGB", (50, 50), (128, 128, 128)),
    picture("oval", "green").convert("P"),
    picture("oval", "green").convert("CMYK"),
]


@pytest.mark.parametrize(("encoder", "batch"), [(TextDescriptor(), TEXTS), (ImageDescriptor(), IMAGES)])
def test_every_input_has_a_float32_vector_of_length_one(encoder, batch):
    vectors = encoder(batch)
    assert vectors.shape == (len(batch), encoder.dim)
    assert vectors.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, rtol=1e-5)
    assert encoder([]).shape == (0, encoder.dim)


@pytest.mark.parametrize(("encoder", "batch"), [(TextDescriptor(), TEXTS), (ImageDescriptor(), IMAGES)])
def test_a_vector_depends_on_neither_batch_nor_order(encoder, batch):
    together = encoder(batch)
    order = np.random.default_rng(0).permutation(len(batch))
    np.testing.assert_array_equal(encoder([batch[i] for i in order]), together[order])
    np.testing.assert_array_equal(np.concatenate([encoder([one]) for one in batch]), together)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.text(max_size=40), min_size=1, max_size=5))
def test_any_text_can_be_encoded(texts):
    vectors = TextDescriptor()(texts)
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, rtol=1e-5)
    np.testing.assert_array_equal(TextDescriptor()(texts[-1:]), vectors[-1:])


def test_texts_that_share_words_are_closer_than_texts_that_do_not():
    boot, same, lamp, stop_words, *_ = TextDescriptor()(TEXTS)
    assert boot @ same > 0.5
    assert abs(boot @ lamp) < 0.25
    assert abs(stop_words @ boot) < 0.25
    plain, padded = TextDescriptor()(["steel lamp", "the steel and a lamp of it"])
    np.testing.assert_array_equal(plain, padded)  # stop words say nothing beside others


def test_pictures_are_told_apart_by_shape_and_by_colour():
    red_oval, red_lines, blue_oval, large_red_oval = ImageDescriptor()(
        [picture("oval", "red"), picture("lines", "red"), picture("oval", "blue"), picture("oval", "red", side=200)]
    )
    assert red_oval @ large_red_oval > 0.85
    assert red_oval @ red_lines < 0.6
    assert red_oval @ blue_oval < 0.8


def test_unrelated_pictures_are_nearly_orthogonal():
    rng = np.random.default_rng(0)
    scenes = [
        Image.fromarray(rng.integers(0, 256, (4, 4, 3), dtype=np.uint8)).resize((80, 80), Image.Resampling.BICUBIC)
        for _ in range(40)
    ]
    vectors = ImageDescriptor()(scenes)
    cosines = (vectors @ vectors.T)[~np.eye(len(scenes), dtype=bool)]
    assert abs(cosines.mean()) < 0.2
    assert cosines.max() < 0.8


def test_vectors_have_not_moved_since_their_version():
    """Whoever changes a vector on purpose (or by a library's new version) must raise the encoder's ``version``."""
    text = TextDescriptor()(["A red lamp"])[0]
    image = ImageDescriptor()([picture("oval", "red")])[0]
    np.testing.assert_allclose(text[:12], TEXT_START, atol=2e-4)
    np.testing.assert_allclose(image[:6], IMAGE_START, atol=2e-3)
    assert (TextDescriptor.version, ImageDescriptor.version) == (1, 1)


def test_a_fingerprint_follows_every_parameter():
    assert TextDescriptor().fingerprint == TextDescriptor().fingerprint != ImageDescriptor().fingerprint
    for encoder, values in (
        (TextDescriptor, {"version": 2, "dim": 8, "character_weight": 0.1, "density": 0.1}),
        (ImageDescriptor, {"version": 2, "side": 32, "weights": (1, 1, 1), "usual_grey": 0.1}),
    ):
        for name, value in values.items():
            assert type("Changed", (encoder,), {name: value})().fingerprint != encoder().fingerprint


def test_a_fingerprint_loads_nothing_heavy():
    code = (
        "import sys; from pipeline.on_ray.encoders import builtin as b;"
        "b.TextDescriptor().fingerprint, b.ImageDescriptor().fingerprint;"
        "print([m for m in ('sklearn', 'skimage', 'scipy', 'torch', 'ray', 'pyspark') if m in sys.modules])"
    )
    assert subprocess.check_output([sys.executable, "-c", code], text=True).strip() == "[]"
