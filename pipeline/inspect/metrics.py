"""What a lake's run records, release and quarantine tell, as Prometheus's text format, for a collector of text files.

https://prometheus.io/docs/instrumenting/exposition_formats/
"""

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import pyarrow.compute as pc

from pipeline.lake.run_records import RunRecords
from pipeline.lake.storage import Lake
from pipeline.release.pointer import released
from schemas.tables import QUARANTINE, RELEASED_IDS


@dataclass
class Gauge:
    """A metric whose value may fall and rise, with its samples by labels."""

    name: str
    meaning: str
    samples: list[tuple[dict[str, str], float]] = field(default_factory=list)

    def add(self, value: float, **labels: str) -> None:
        """A sample."""
        self.samples.append((labels, value))

    def lines(self) -> Iterator[str]:
        """The metric in the text format; nothing where it has no sample."""
        if self.samples:
            yield f"# HELP {self.name} {self.meaning}"
            yield f"# TYPE {self.name} gauge"
        for labels, value in self.samples:
            named = ",".join(f'{name}="{_escaped(label)}"' for name, label in labels.items())
            yield f"{self.name}{{{named}}} {float(value)!r}" if named else f"{self.name} {float(value)!r}"


def exposition(lake: Lake, now: datetime) -> str:
    """The newest run of every job, what is released, and the quarantine; reads logs, records and one small column.

    Args:
        lake: to tell of.
        now: what ages are counted to, with a time zone.
    """
    gauges = [*_runs(RunRecords(lake).newest_of_each(), now), *_release(lake), _quarantine(lake)]
    return "".join(f"{line}\n" for gauge in gauges for line in gauge.lines())


def _runs(records: Mapping[str, Mapping[str, Any]], now: datetime) -> list[Gauge]:
    done = Gauge("hisam_job_success", "1 if the newest run of the job came to its end, 0 if it failed")
    age = Gauge("hisam_job_age_seconds", "since the newest run of the job began")
    seconds = Gauge("hisam_job_phase_seconds", "that a phase of the newest run took; they add up to the whole")
    memory = Gauge("hisam_job_peak_memory_bytes", "of the newest run, with Java and Ray's processes")
    counts = Gauge("hisam_job_rows", "what the newest run counted")
    figures = Gauge("hisam_gate_figure", "what the newest publish measured")
    limits = Gauge("hisam_gate_limit", "what it may be")
    for job, record in records.items():
        done.add(record["status"] == "done", job=job)
        age.add((now - datetime.fromisoformat(record["started"])).total_seconds(), job=job)
        memory.add(record["peak_memory_bytes"], job=job)
        for phase, took in record["seconds"].items():
            if phase != "total":
                seconds.add(took, job=job, phase=phase)
        for name, count in record["counts"].items():
            counts.add(count, job=job, count=name)
    for gate, entry in records.get("publish", {}).get("metrics", {}).get("gates", {}).items():
        if isinstance(entry, dict):
            figures.add(entry["figure"], gate=gate)
            limits.add(entry["limit"], gate=gate)
    return [done, age, seconds, memory, counts, figures, limits]


def _release(lake: Lake) -> list[Gauge]:
    version = Gauge("hisam_release", "version of the current release, by its tokenizer")
    items = Gauge("hisam_released_items", "that readers see an ID of")
    if release := released(lake):
        version.add(release.version, tokenizer=release.tokenizer)
        items.add(lake.rows(RELEASED_IDS))
    return [version, items]


def _quarantine(lake: Lake) -> Gauge:
    found: Counter[str] = Counter()
    if lake.exists(QUARANTINE):
        for batch in lake.dataset(QUARANTINE).scanner(columns=["reason"]).to_batches():
            found.update({row["values"]: row["counts"] for row in pc.value_counts(batch["reason"]).to_pylist()})
    gauge = Gauge("hisam_quarantine_items", "of the newest source that something is wrong with, by reason")
    for reason in sorted(found):
        gauge.add(found[reason], reason=reason)
    return gauge


def _escaped(label: str) -> str:
    return label.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")
