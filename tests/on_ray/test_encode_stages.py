"""A stored vector is that of its input: whatever the order, its neighbours, the blocks, and the number of stages."""

import io
import random
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from test_encoders import joint, vision
from test_text_models import bge, e5
from tiny_models import TEXTS, pictures

from pipeline.config.encoders import Encoder, TextEncoder
from pipeline.on_ray.deaths import start_ledger
from pipeline.on_ray.encode_stages import EmbedBatches, EncodeInputs, PrepareInputs

pytestmark = [pytest.mark.ray, pytest.mark.usefixtures("ray")]


def png(number: int) -> bytes:
    target = io.BytesIO()
    pictures()[number % 3].rotate(number).save(target, "PNG")
    return target.getvalue()


def stored(stages: list[Any], inputs: dict[str, Any], order: list[str], block: int) -> dict[str, list[float]]:
    found = []
    for first in range(0, len(order), block):
        shas = order[first : first + block]
        rows = pa.table({"sha": shas, "input": [inputs[sha] for sha in shas]})
        for stage in stages:
            rows = stage(rows)
        found += rows.to_pylist()
    assert [row for row in found if row["fault"] is not None] == []
    return {row["sha"]: row["vector"] for row in found}


@pytest.mark.parametrize("model", ["bge", "e5", "CLIP text", "ViT", "Siglip2"])
def test_order_blocks_and_stages_change_no_stored_vector(model: str, tmp_path: Path) -> None:
    text = model in ("bge", "e5", "CLIP text")
    made = {"bge": bge, "e5": e5, "CLIP text": lambda folder: joint(folder, "CLIP")}
    make: Any = made.get(model) or (lambda folder: (vision if model == "ViT" else joint)(folder, model))
    folder = str(make(tmp_path))
    settings: Encoder = (
        TextEncoder(model=folder, batch_size=8, max_length=64) if text else Encoder(model=folder, batch_size=8)
    )
    inputs = {str(n): " ".join(TEXTS * (n % 4 + 1))[: 5 + 3 * n] if text else png(n) for n in range(30)}
    args = ("text" if text else "image", settings, start_ledger())
    one, two = [EncodeInputs(*args)], [PrepareInputs(*args), EmbedBatches(*args)]
    order = list(inputs)
    expected = stored(one, inputs, order, 30)
    assert len({tuple(vector) for vector in expected.values()}) > 10
    assert stored(two, inputs, order, 30) == expected
    random.Random(0).shuffle(order)
    for stages, block in ((one, 7), (two, 11)):
        found = stored(stages, inputs, order, block)
        x_ND, expected_ND = (np.array([vectors[sha] for sha in inputs]) for vectors in (found, expected))
        # How many rows a matrix multiplication has may move a number by 1e-7, and its float16 by a step.
        np.testing.assert_allclose(x_ND, expected_ND, rtol=2**-10, atol=1e-7)
        assert (x_ND == expected_ND).mean() > 0.99
