"""The ranker of the tokenizer: its training curves, and what its last evaluation found beside the cheapest rules."""

from collections.abc import Mapping
from typing import Any

from pipeline.lake.artefacts import fingerprints
from pipeline.lake.run_records import RunRecords
from pipeline.lake.storage import Lake

EVALUATIONS = 20  # newest runs of evaluate that are looked through


def ranker(lake: Lake, records: RunRecords, tokenizer: str) -> dict[str, Any]:
    """The newest ranker that reads this tokenizer's codes: its ``epochs`` and its newest ``evaluation``, each ``None``
    where there is none, how it does ``beside`` each rule; and how many ``others`` read another tokenizer's codes."""
    trained = fingerprints(lake, "rankers")
    described = {name: lake.read_json(f"rankers/{name}/config.json") for name in trained}
    ours = [name for name in trained if described[name].get("tokenizer") == tokenizer]
    found: dict[str, Any] = {"ranker": None, "arch": None, "epochs": None, "evaluation": None, "beside": []}
    found["others"] = len(trained) - len(ours)
    if not ours:
        return found
    newest = ours[-1]
    evaluations = (
        record["metrics"] for record in records.newest("evaluate", EVALUATIONS) if record["status"] == "done"
    )
    figures = next((figures for figures in evaluations if figures.get("ranker") == newest), None)
    return found | {
        "ranker": newest,
        "arch": described[newest]["ranker"].get("arch"),
        "epochs": lake.read_json(f"rankers/{newest}/metrics.json").get("epochs"),
        "evaluation": figures,
        "beside": [(rule, _standing(part["ranker_less"])) for rule, part in figures["references"].items()]
        if figures
        else [],
    }


def _standing(less: Mapping[str, Any]) -> str:
    """Whether the ranker is ahead of a rule, behind it, or no more than by chance apart from it."""
    ends = less["intervals"].get("gauc")
    if not ends or ends[0] <= 0 <= ends[1]:
        return "level"
    return "ahead" if ends[0] > 0 else "behind"
