"""What the last runs cost, by job and phase."""

from typing import Any

from pipeline.lake.run_records import RunRecords

RUNS = 14  # of a job, the newest
NIGHT = ("extract", "encode", "tokenize")  # whose failure means that tonight's IDs are not all there
WHOLE = ("nightly", "demo", "report")  # jobs that others run in, and the one that made this page


def costs(records: RunRecords) -> list[dict[str, Any]]:
    """By job its newest runs, the oldest first: when, how it ended, ``total`` seconds and seconds by ``phases``,
    rows and peak memory. Newest jobs first."""
    jobs = [
        {"job": job, "runs": [_run(record) for record in reversed(records.newest(job, RUNS))]}
        for job in records.jobs()
        if job not in WHOLE
    ]
    return sorted(jobs, key=lambda each: each["runs"][-1]["started"], reverse=True)


def _run(record: dict[str, Any]) -> dict[str, Any]:
    seconds = {name: float(s) for name, s in record["seconds"].items() if isinstance(s, (int, float))}
    total = seconds.pop("total")
    return {
        "run_id": record["run_id"],
        "started": record["started"],
        "status": record["status"],
        "error": record.get("error"),
        "total": total,
        "phases": {name: s for name, s in seconds.items() if s},
        "rows_out": record["counts"].get("rows_out"),
        "peak_memory_bytes": record.get("peak_memory_bytes"),
    }
