"""What the training measured of the tokenizer: reconstruction, neighbours, and how far text and picture agree."""

from typing import Any

from pipeline.lake.artefacts import tokenizer_metrics
from pipeline.lake.storage import Lake

SPLITS = ("held_out", "train")  # the first that was measured


def quality(lake: Lake, tokenizer: str) -> dict[str, Any]:
    """Of the items that the training held out, else of its own: ``consensus`` of the modalities level by level, the
    shared ``codes_kept`` where one of them is withheld, ``reconstruction``, ``neighbour_overlap``; ``None`` where a
    tokenizer has no such measure."""
    metrics = tokenizer_metrics(lake, tokenizer)
    split = next((name for name in SPLITS if metrics.get(name)), None)
    measured = metrics[split] if split else {}
    names = ("items", "consensus", "codes_kept", "reconstruction", "neighbour_overlap")
    method = lake.read_json(f"tokenizers/{tokenizer}/config.json")["config"].get("method")
    return {"tokenizer": tokenizer, "method": method, "split": split} | {name: measured.get(name) for name in names}
