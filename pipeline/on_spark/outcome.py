"""What became of the rows of a source, and when that is a reason to stop before anything is written."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from pipeline.errors import GateRefused, JobError
from pipeline.lake.run import Run
from pipeline.on_spark.changes import OF_MODALITIES, Totals
from schemas.reasons import Reason

WRITTEN = ("new", "changed", "refreshed")
GAVE_WAY = ("repeated", "conflicting")
NOT_DELIVERED = (Reason.MISSING_IMAGE, Reason.IMAGE_NOT_ALLOWED, Reason.FETCH_FAILED)
DELIVERED = " Is catalog.image.root the right folder, and whole? Do the hosts of catalog.image.fetch answer?"


def count(run: Run, found: Totals, verdicts: DataFrame) -> int:
    """Note what became of every row of the source: ``rows_in = rows_out + skipped + quarantined``.

    Returns:
        How many rows gave way to another one of their id.

    ``degraded`` are the rows that go on without a modality: those with a fault that was found now, and unchanged ones
    that have one from before. ``fetch_failed`` are those whose picture was not fetched, whether or not they have one.

    Raises:
        JobError: the source had other rows when it was read again.
    """

    def of(*status: str) -> Column:
        return F.count_if(F.col("status").isin(*status))

    row = verdicts.agg(
        F.count("*").alias("seen"),
        of(*WRITTEN).alias("rows_out"),
        *(of(status).alias(status) for status in WRITTEN),
        of("unchanged", "repeated").alias("skipped"),
        of("rejected", "conflicting").alias("quarantined"),
        F.count_if(F.col("faulty") & (F.col("status") != "rejected")).alias("degraded"),
        F.count_if("unfetched").alias("fetch_failed"),
        of(*GAVE_WAY).alias("gave_way"),
    ).first()
    assert row is not None  # an aggregate without groups has one row
    counts = row.asDict()
    gave_way = int(counts.pop("gave_way"))
    if counts.pop("seen") != found.pending:
        raise JobError(f"catalog.source: {run.config.catalog.source.path} changed while it was read: run extract again")
    unchanged = found.rows - found.pending
    deleted = found.gone if run.config.catalog.full_snapshot else 0
    run.count(**counts, rows_in=found.rows, deleted=deleted)
    run.count(skipped=unchanged, degraded=found.standing)
    return gave_way


def count_again(run: Run, since: str, rows: int, last: Mapping[str, int]) -> None:
    """:func:`count` for a source of ``rows`` that is as the run ``since`` left it, as are items and quarantine."""
    run.metrics["unchanged_since"] = since
    run.count(rows_out=0, **dict.fromkeys(WRITTEN, 0), deleted=0, fetch_failed=0, rows_in=rows)
    quarantined = last["quarantined"]
    run.count(skipped=rows - quarantined, quarantined=quarantined, degraded=last["degraded"])


def refuse_faults_alone(run: Run, staged: DataFrame, *, first: bool) -> None:
    """Stop before anything is written where no row of a catalogue, or of the ``first`` night, could become an item.

    Raises:
        JobError: with the reason that most rows have, and what one of them holds.
    """
    rows, catalog = run.counts["rows_in"], run.config.catalog
    if not rows or run.counts["quarantined"] < rows or not (first or catalog.full_snapshot):
        return
    main = _main_fault(staged, list(Reason))
    assert main is not None  # a row that is rejected has a fault
    raise JobError(
        f"catalog.source: none of the {rows:,} rows of {catalog.source.path} can become an item, {main.rows:,} for "
        f"{main.said} Nothing was written"
    )


@dataclass(frozen=True)
class _Fault:
    """The fault that most rows have, and what one of them holds."""

    reason: Reason
    rows: int
    detail: str

    @property
    def said(self) -> str:
        return f"{self.reason}: {self.detail}. {self.reason.remedy}"


def _main_fault(staged: DataFrame, among: Sequence[Reason]) -> _Fault | None:
    faults = staged.select(F.explode("faults").alias("fault")).where(F.col("fault.reason").isin(*among))
    shown = faults.groupBy("fault.reason").agg(F.count("*").alias("rows"), F.min("fault.detail").alias("detail"))
    main = shown.orderBy(F.desc("rows"), "reason").first()
    if main is None:
        return None
    reason = next(reason for reason in Reason if reason == main["reason"])
    return _Fault(reason, main["rows"], main["detail"])


def refuse_harm(run: Run, staged: DataFrame, current: int) -> None:
    """Stop before anything is written when the source looks truncated, or its pictures gone.

    Raises:
        GateRefused: with the figure and the gate that it broke, and the fault that most rows were found to have.
    """
    rows, degraded, gone = (run.counts[name] for name in ("rows_in", "degraded", "deleted"))
    gates = run.config.gates
    if degraded > gates.max_degraded_fraction * rows:
        main = _main_fault(staged, OF_MODALITIES)
        found = f" Of those found now, {main.rows:,} are {main.said}" if main else ""
        asked = "" if main and main.reason not in NOT_DELIVERED else DELIVERED
        raise GateRefused(
            f"{degraded} of {rows} rows lost a modality to a fault, more than gates.max_degraded_fraction = "
            f"{gates.max_degraded_fraction} allows.{found}{asked}"
        )
    if gone > gates.max_delete_fraction * current:
        raise GateRefused(
            f"{gone} of {current} live items are absent from {run.config.catalog.source.path}, more than "
            f"gates.max_delete_fraction = {gates.max_delete_fraction} allows: check the source, or raise the limit for "
            "this run"
        )
