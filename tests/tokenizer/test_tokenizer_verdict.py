"""What is said of a tokenizer's settings after it was trained."""

import re
from typing import Any

import pytest

from tokenizer.base.config import TokenizerConfig
from tokenizer.quality.verdict import codes_for, verdict


def metrics(share: float | None = 0.9, worth: int | None = 2, items: int = 1200) -> dict[str, Any]:
    """Of a tokenizer, as far as the verdict looks."""
    consensus = None if worth is None else {"bits": 5.1, "levels_worth_sharing": worth}
    return {
        "items": items,
        "generalisation": None if share is None else {"share": share},
        "held_out": {"consensus": consensus},
    }


@pytest.mark.parametrize(
    ("found", "config", "said"),
    [
        (
            metrics(),
            {"shared_levels": 3},
            "shares too many levels: text and image have 5.1 bits in common, which fill 2",
        ),
        (metrics(worth=0), {"shared_levels": 3}, "set tokenizer.shared_levels: 1, and give the others to text"),
        (metrics(worth=2), {"shared_levels": 2}, "fits, and may share more: .* try tokenizer.shared_levels: 3"),
        (metrics(worth=0), {"shared_levels": 1}, "^fits: of held-out items the codes keep 90%"),
        (metrics(worth=8), {"shared_levels": 8}, "^fits: "),
        (metrics(worth=None), {}, "^fits: "),
        (metrics(worth=1), {"method": "rq_kmeans"}, "^fits: "),
        (metrics(0.73), {}, "too many codes for 1,200 items: .* 73% .*; set tokenizer.codebook_size: 32 .now 256"),
        (metrics(0.73), {"codebook_size": 32}, "; set tokenizer.input_noise: 1.0, .* or train on more items"),
        (metrics(None), {}, "not known: fewer than 50 items are held out"),
    ],
)
def test_a_sentence_names_what_to_set(found: dict[str, Any], config: dict[str, Any], said: str) -> None:
    line = verdict(found, TokenizerConfig.model_validate(config), least=0.8)
    assert re.search(said, line), line


def test_a_code_has_thirty_items_where_it_can() -> None:
    assert [codes_for(items) for items in (0, 100, 480, 1200, 2000, 10_000, 10**6)] == [8, 8, 16, 32, 64, 256, 32768]
