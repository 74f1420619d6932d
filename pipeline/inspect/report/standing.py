"""A report that a new one would only repeat."""

from typing import Any

from pipeline.config.file import lasting_settings
from pipeline.inspect.report.costs import NIGHT
from pipeline.lake.artefacts import fingerprints
from pipeline.lake.run import Run
from pipeline.lake.run_records import RunRecords, unchanged_since
from pipeline.release.pointer import tokenizer_of_nights
from schemas.tables import ITEMS, QUARANTINE, RELEASED_IDS, RELEASES, SEMANTIC_IDS, VECTORS

SHOWN = (ITEMS, VECTORS, SEMANTIC_IDS, QUARANTINE, RELEASED_IDS, RELEASES)


def standing_report(run: Run, tokenizer: str | None) -> dict[str, Any] | None:
    """The metrics of the lake's newest report, if it lies there still and nothing that it shows has changed since, but
    what later runs cost.

    Args:
        run: of the job ``report``; gets the facts that the next one compares.
        tokenizer: that the report is about, by default that which a night would use.
    """
    records = RunRecords(run.lake)
    newest, last = records.newest_of_each(), records.finished("report")
    facts = {
        "settings": lasting_settings(run.config),
        "tokenizer": tokenizer or tokenizer_of_nights(run.lake),
        "ranker": next(reversed(fingerprints(run.lake, "rankers")), None),
        "evaluated": newest["evaluate"]["run_id"] if "evaluate" in newest else None,
        "failed": [job for job in (*NIGHT, "publish") if job in newest and newest[job]["status"] != "done"],
    }
    since = unchanged_since(run, last, SHOWN, **facts)
    if last is None or since is None:
        return None
    found: dict[str, Any] = last["metrics"] | {"unchanged_since": since}
    there = (found["page"].startswith(f"{run.lake.uri}/reports/{name}/") for name in run.lake.names("reports"))
    return found if any(there) else None
