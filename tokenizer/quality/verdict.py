"""What a trained tokenizer's measures say of its settings, in words."""

import math
from collections.abc import Mapping
from typing import Any

from tokenizer.base.config import TokenizerConfig
from tokenizer.quality.generalisation import LEAST_HELD_OUT

ITEMS_PER_CODE = 30  # docs/tokenizer.md
LEAST_CODES = 8
MOST_SHARED = 8


def verdict(metrics: Mapping[str, Any], config: TokenizerConfig, least: float) -> str:
    """That the settings fit, or which one does not suit the items, and what to set it to.

    Args:
        metrics: of :func:`tokenizer.quality.metrics.evaluate`.
        config: of the tokenizer.
        least: share that codes must keep of held-out items, by what they keep of training items.
    """
    found = metrics["generalisation"]
    if found is None:
        return f"not known: fewer than {LEAST_HELD_OUT} items are held out, too few to tell whether the codes fit"
    if found["share"] < least:
        return _too_many_codes(metrics["items"], found, config)
    of_levels = _of_shared_levels(metrics["held_out"]["consensus"], config)
    keeps = f"of held-out items the codes keep {found['share']:.0%} of what they keep of training items"
    return of_levels or f"fits: {keeps}"


def codes_for(items: int) -> int:
    """A power of two that leaves each code :data:`ITEMS_PER_CODE` items, if it can."""
    return int(max(LEAST_CODES, 2 ** math.floor(math.log2(max(1, items) / ITEMS_PER_CODE))))


def _too_many_codes(items: int, found: Mapping[str, Any], config: TokenizerConfig) -> str:
    keeps = f"of held-out items they keep {found['share']:.0%} of what they keep of training items"
    if codes_for(items) < config.codebook_size:
        remedy = f"set tokenizer.codebook_size: {codes_for(items)} (now {config.codebook_size})"
    else:
        quieter = (
            "set tokenizer.input_noise: 1.0, dropout: 0.3 and linear_start: true, " if config.method == "dst" else ""
        )
        remedy = f"{quieter}lower tokenizer.text_levels and image_levels, or train on more items"
    return f"too many codes for {items:,} items: {keeps}; {remedy}"


def _of_shared_levels(consensus: Mapping[str, Any] | None, config: TokenizerConfig) -> str | None:
    if consensus is None or config.method != "dst":
        return None
    worth, shared = consensus["levels_worth_sharing"], config.shared_levels
    said = f"text and image have {consensus['bits']:.1f} bits in common, which fill {worth} of {shared} shared levels"
    fewer = f"set tokenizer.shared_levels: {max(1, worth)}, and give the others to text and image"
    if worth < shared and shared > 1:
        return f"shares too many levels: {said}; {fewer}"
    if worth == shared < MOST_SHARED:
        return f"fits, and may share more: {said}; try tokenizer.shared_levels: {shared + 1}"
    return None
