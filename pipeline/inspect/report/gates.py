"""The gates' figures, their limits, and how near the figures came to them."""

from collections.abc import Mapping
from typing import Any

from pipeline.config.models import Gates
from pipeline.inspect.report.subject import Subject
from pipeline.on_spark.gate_figures import figures
from pipeline.release.gates import NEVER, check, of_training

NEAR = 0.8  # of the way from the best figure to the limit
BEST = {"max_group": 1.0, "max_code_share": 1.0}  # what cannot be bettered, where that is not 0 (at most), 1 (at least)


def gates(about: Subject) -> dict[str, Any]:
    """``figures`` as ``publish`` would measure them, and for each of the ``gates`` that apply its figure, ``limit``,
    ``ok``, ``meaning`` and ``way``: 0 for the best figure there can be, 1 at the limit, more where it is broken."""
    measured = about.totals.coverage(about.live_items) | of_training(about.lake, about.tokenizer)
    measured |= figures(about.rows, about.totals, about.layout, about.current, about.standing, about.release)
    same = about.release is None or about.release.tokenizer == about.tokenizer
    checked = check(measured, about.config.gates, same_tokenizer=same)
    return {"figures": measured, "gates": [judged(name, gate) for name, gate in checked.items()]}


def judged(name: str, gate: Mapping[str, Any]) -> dict[str, Any]:
    """A gate with its ``meaning``, and how far on the ``way`` to its limit it is."""
    field = Gates.model_fields.get(name)
    meaning = NEVER.get(name) or (field.description if field else None) or name
    way = _way(name, float(gate["figure"]), float(gate["limit"]))
    return {"name": name, **gate, "meaning": meaning, "way": way, "near": bool(gate["ok"]) and way >= NEAR}


def _way(name: str, figure: float, limit: float) -> float:
    best = BEST.get(name, 1.0 if name.startswith("min_") else 0.0)
    gone, room = abs(figure - best), abs(limit - best)
    if gone == 0:
        return 0.0
    return gone / room if room else 2.0
