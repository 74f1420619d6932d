"""The gates: the limits that new IDs keep before readers see them, and what is said of a broken one."""

import operator
from collections.abc import Mapping
from typing import Any

from pipeline.config.models import Gates

# Gate, figure. A figure that was not measured, as drift before anything is released, has no gate.
AT_MOST = {
    "max_collision_rate": "collision_rate",
    "max_group": "largest_group",
    "max_code_share": "code_share",
    "max_without_text": "without_text",
    "max_without_image": "without_image",
    "max_without_text_growth": "without_text_growth",
    "max_without_image_growth": "without_image_growth",
    "max_row_drift": "row_drift",
    "max_delete_fraction": "deleted_fraction",
}
AT_LEAST = {"min_perplexity": "perplexity", "min_coverage": "coverage"}
NEVER = {
    "items_sharing_an_id": "items that have both codes and item hash of another one",
    "ids_moved": "items whose content is as released and whose ID is not, under the same tokenizer",
}


def check(figures: Mapping[str, Any], gates: Gates, *, same_tokenizer: bool = True) -> dict[str, Any]:
    """Every gate that applies, with its figure, its limit, and whether it holds; at the very limit it does."""
    never = ("items_sharing_an_id", "ids_moved") if same_tokenizer else ("items_sharing_an_id",)
    at_most = {gate: (figure, getattr(gates, gate)) for gate, figure in AT_MOST.items()} | {n: (n, 0) for n in never}
    at_least = {gate: (figure, getattr(gates, gate)) for gate, figure in AT_LEAST.items()}
    found = {}
    for limits, holds in ((at_most, operator.le), (at_least, operator.ge)):
        for gate, (figure, limit) in limits.items():
            if figure in figures:
                found[gate] = {"figure": figures[figure], "limit": limit, "ok": holds(figures[figure], limit)}
    return found


def broken(checked: Mapping[str, Any]) -> list[str]:
    """A sentence for every gate that does not hold: what it limits, its figure and its limit."""

    def meaning(gate: str) -> str:
        return NEVER.get(gate) or Gates.model_fields[gate].description or gate

    return [
        f"{gate}: {entry['figure']:.4g}, limit {entry['limit']:.4g} ({meaning(gate)})"
        for gate, entry in checked.items()
        if not entry["ok"]
    ]
