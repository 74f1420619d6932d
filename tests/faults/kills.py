"""Every kill point: which job, which instant of it, who dies there."""

from dataclasses import dataclass
from typing import Literal

Victim = Literal["driver", "java", "raylet", "gcs_server", "self", "node"]

COMMIT = "deltalake.table:DeltaTable.create_write_transaction"  # of Spark's files and of Ray's
STAGE, STAGING = "pipeline.on_ray.plan_reader:stage_rows", "pipeline.on_ray.plan_reader:_stage_rows"
ENCODE, TOKENIZE = "pipeline.on_ray.encode:_encode_chunk", "pipeline.on_ray.tokenize:_tokenize_chunk"
STORE, RESTORE = "pipeline.lake.artefacts:store", "deltalake.table:DeltaTable.restore"


@dataclass(frozen=True)
class Fault:
    """Whom to kill, at which call of which function.

    ``victim``: ``driver`` is the job's own process, ``self`` the process that makes the call, whichever that is,
    ``node`` the raylet above it and all that runs under that; the others are programs' names among the job's children.
    """

    at: str
    when: Literal["before", "after"] = "before"
    nth: int = 1
    victim: Victim = "driver"


@dataclass(frozen=True)
class Kill:
    """A job and the fault that befalls it.

    ``chunk``: the one it is in, of a job that commits chunks. ``settings`` override the shop's configuration.
    """

    job: str
    name: str
    fault: Fault
    chunk: int | None = None
    settings: tuple[str, ...] = ()

    @property
    def id(self) -> str:
        """For pytest."""
        return f"{self.job}: {self.name}".replace(" ", "_")


def at(function: str, when: Literal["before", "after"] = "before", nth: int = 1, victim: Victim = "driver") -> Fault:
    """A fault, in few words."""
    return Fault(function, when, nth, victim)


PREPARE = "pipeline.on_spark.prepare:Prepare.__call__"
COMPARE = "pipeline.on_spark.extract:resolve_duplicates"
ENCODER = "pipeline.on_ray.encode_stages:EncodeInputs.__call__"
TOKENIZER = "pipeline.on_ray.tokenize:TokenizeItems.__call__"
READER, PLAN = "pipeline.on_ray.plan_reader:_read_part", "pipeline.lake.plans:save_plan"
PICTURE, WINDOWS = "pipeline.on_spark.prepare:Prepare._picture", "pipeline.on_spark.sequences:build_windows"
TRAINED = {"train-tokenizer": "pipeline.on_ray.training.tokenizer", "train-ranker": "pipeline.on_ray.training.ranker"}
PURGED = "pipeline.on_spark.delta:EmbeddedDelta.delete"

KILLS = [
    Kill("encode", "driver, vectors of chunk 2 written, not committed", at(COMMIT, nth=2), 2),
    Kill("nightly", "driver, items committed, quarantine not", at(COMMIT, "after", 1)),
    Kill("rollback", "driver, rows restored, pointer not moved", at(RESTORE, "after")),
    Kill("extract", "driver, source staged", at(COMPARE)),
    Kill("extract", "driver, items written, not committed", at(COMMIT)),
    Kill("extract", "driver, items committed, quarantine not", at(COMMIT, "after")),
    Kill("extract", "driver, quarantine written, not committed", at(COMMIT, nth=2)),
    Kill("extract", "driver, quarantine committed", at(COMMIT, "after", 2)),
    Kill("extract", "Python worker of Spark in a picture", at(PICTURE, nth=3, victim="self")),
    Kill("extract", "Spark's JVM, source being read", at(PREPARE, victim="java")),
    Kill("extract", "Spark's JVM, items committed", at(COMMIT, "after", victim="java")),
    Kill("encode", "driver, chunk 1 committed", at(COMMIT, "after"), 1),
    Kill("encode", "driver, vectors of chunk 2 written, commit not begun", at(ENCODE, "after", 2), 2),
    Kill("encode", "driver, last chunk committed, no record", at("pipeline.lake.run:Run.wrote"), 2),
    Kill("encode", "Ray worker, encoding", at(ENCODER, victim="self"), 1),
    Kill("encode", "driver, plan written", at(PLAN, "after")),
    Kill("encode", "Ray worker, reading items", at(READER, victim="self"), 1),
    Kill("encode", "Ray worker, writing Parquet", at(STAGING, victim="self"), 1),
    Kill("encode", "raylet, in chunk 2", at(STAGE, "before", 3, "raylet"), 2),
    Kill("encode", "Ray's control process, in chunk 2", at(STAGE, "before", 3, "gcs_server"), 2),
    Kill("train-tokenizer", "driver, trained, not stored", at(f"{TRAINED['train-tokenizer']}:store")),
    Kill("train-tokenizer", "driver, half of the artefact stored", at("pyarrow.fs:copy_files", nth=2)),
    Kill("train-tokenizer", "driver, stored, checkpoints there", at(STORE, "after")),
    Kill("train-tokenizer", "raylet, training", at("pipeline.on_ray.training.runs:_follow", victim="raylet")),
    Kill("tokenize", "driver, chunk 1 committed", at(COMMIT, "after"), 1),
    Kill("tokenize", "driver, IDs of chunk 2 written, not committed", at(COMMIT, nth=2), 2),
    Kill("tokenize", "Ray worker, tokenising", at(TOKENIZER, victim="self"), 1),
    Kill("tokenize", "Ray worker, writing Parquet", at(STAGING, victim="self"), 1),
    Kill("backfill", "driver, chunk 1 committed", at(COMMIT, "after"), 1),
    Kill("backfill", "driver, IDs of chunk 2 written, not committed", at(COMMIT, nth=2), 2),
    Kill("backfill", "Ray worker, tokenising", at(TOKENIZER, "after", victim="self"), 1),
    Kill("publish", "driver, rows staged", at("pipeline.on_spark.gate_figures:measure")),
    Kill("publish", "driver, gates passed, changes not committed", at(COMMIT)),
    Kill("publish", "driver, changes committed, rows not", at(COMMIT, "after")),
    Kill("publish", "driver, rows committed, pointer not moved", at(COMMIT, "after", 2)),
    Kill("publish", "driver, released, no record", at(COMMIT, "after", 3)),
    Kill("publish", "Spark's JVM, gates being measured", at("pipeline.on_spark.gate_figures:measure", victim="java")),
    Kill("rollback", "driver, rows not restored", at(RESTORE)),
    Kill("rollback", "driver, released, no record", at(COMMIT, "after")),
    Kill("purge", "driver, items not committed", at(PURGED)),
    Kill("purge", "driver, items committed, IDs not", at(PURGED, "after")),
    Kill("purge", "driver, IDs committed, vectors not", at(PURGED, "after", 2)),
    Kill("purge", "driver, vectors committed, no record", at(PURGED, "after", 3)),
    Kill("purge", "Spark's JVM, items committed", at(PURGED, "after", victim="java")),
    Kill("sequences", "driver, windows written, not committed", at(COMMIT)),
    Kill("sequences", "driver, windows committed", at(COMMIT, "after")),
    Kill("sequences", "Spark's JVM, windows being cut", at(WINDOWS, victim="java")),
    Kill("train-ranker", "driver, trained, not stored", at(f"{TRAINED['train-ranker']}:store")),
    Kill("train-ranker", "driver, stored, no record", at(STORE, "after")),
    Kill("train-ranker", "raylet, training", at("pipeline.on_ray.training.runs:_follow", victim="raylet")),
    Kill("nightly", "driver, between extract and encode", at("pipeline.on_ray.encode:encode")),
    Kill("nightly", "driver, vectors committed", at(ENCODE, "after")),
    Kill("nightly", "driver, IDs committed", at(TOKENIZE, "after")),
    Kill("nightly", "driver, not yet released", at("pipeline.on_spark.publish:publish")),
    Kill("nightly", "Spark's JVM, items written", at(COMMIT, victim="java")),
    Kill("nightly", "raylet, tokenising", at(TOKENIZE, victim="raylet")),
]
