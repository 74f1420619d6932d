"""The gates: the limits that new IDs keep before readers see them, and what is said of a broken one."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from pipeline.config.models import Gates
from pipeline.lake.artefacts import tokenizer_metrics
from pipeline.lake.storage import Lake

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
AT_LEAST = {"min_perplexity": "perplexity", "min_generalisation": "generalisation", "min_coverage": "coverage"}
NEVER = {
    "items_sharing_an_id": "items that have both codes and item hash of another one",
    "ids_moved": "items whose content and modalities are as released and whose ID is not, under the same tokenizer",
}


@dataclass(frozen=True)
class Limit:
    """What a gate asks of a figure: that it be at most, or at least, a value."""

    gate: str
    figure: str
    sign: Literal["≤", "≥"]
    value: float

    def holds(self, figure: float) -> bool:
        """Whether the gate lets the figure through."""
        return figure <= self.value if self.sign == "≤" else figure >= self.value


def limits(gates: Gates, *, same_tokenizer: bool = True) -> list[Limit]:
    """Every gate that there is, whether or not its figure is measured."""
    never = ("items_sharing_an_id", "ids_moved") if same_tokenizer else ("items_sharing_an_id",)
    return [
        *(Limit(gate, figure, "≤", getattr(gates, gate)) for gate, figure in AT_MOST.items()),
        *(Limit(name, name, "≤", 0) for name in never),
        *(Limit(gate, figure, "≥", getattr(gates, gate)) for gate, figure in AT_LEAST.items()),
    ]


def of_training(lake: Lake, tokenizer: str) -> dict[str, Any]:
    """The figures that were measured when a tokenizer was trained, on items that were held out; none if too few were.

    Raises:
        ConfigError: the lake has no such tokenizer.
        JobError: what it was measured by cannot be read.
    """
    measured = tokenizer_metrics(lake, tokenizer).get("generalisation")
    return {"generalisation": measured["share"]} if measured else {}


def check(figures: Mapping[str, Any], gates: Gates, *, same_tokenizer: bool = True) -> dict[str, Any]:
    """Every gate that applies, with its figure, its limit, and whether it holds; at the very limit it does."""
    return {
        limit.gate: {"figure": figures[limit.figure], "limit": limit.value, "ok": limit.holds(figures[limit.figure])}
        for limit in limits(gates, same_tokenizer=same_tokenizer)
        if limit.figure in figures
    }


def broken(checked: Mapping[str, Any]) -> list[str]:
    """A sentence for every gate that does not hold: what it limits, its figure and its limit."""

    def meaning(gate: str) -> str:
        return NEVER.get(gate) or Gates.model_fields[gate].description or gate

    return [
        f"{gate}: {entry['figure']:.4g}, limit {entry['limit']:.4g} ({meaning(gate)})"
        for gate, entry in checked.items()
        if not entry["ok"]
    ]
