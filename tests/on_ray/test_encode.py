"""What is encoded: a text or a picture once, whichever item has it; and what becomes of one that cannot be."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import transformers
from handmade import become_run, config_of, digest, writable
from pyspark.sql import SparkSession
from tiny_models import SIZES, WORDS, save, save_tokenizer

from jobs.error_messages import one_line
from pipeline.config.models import Config
from pipeline.errors import ConfigError, JobError
from pipeline.lake.commit import append
from pipeline.lake.plans import load_plan
from pipeline.lake.progress import Done
from pipeline.lake.run import Run
from pipeline.lake.storage import Lake
from pipeline.lake.vectors import forget_failures
from pipeline.on_ray.encode import encode
from pipeline.on_ray.encoders.builtin import TextDescriptor
from pipeline.on_ray.encoders.fingerprint import encoder_fingerprints
from pipeline.on_ray.rows_done import rows_done
from pipeline.on_spark.plans import plan_encoding
from schemas.tables import ITEMS, VECTORS

pytestmark = [pytest.mark.spark, pytest.mark.ray, pytest.mark.usefixtures("ray")]


def add_items(lake: Lake, texts: dict[str, str], files: int = 1) -> None:
    """Items of texts alone, in so many files."""
    run_id = become_run(lake)
    rows = [
        {"item_id": item, "run_id": run_id, "text": text, "text_sha": digest(text), "deleted": False, "extracted_at": 0}
        for item, text in texts.items()
    ]
    for part in range(files):
        append(lake, ITEMS, pa.Table.from_pylist(rows[part::files], schema=ITEMS.schema))


def night(spark: SparkSession, config: Config) -> dict[str, int]:
    encoders = encoder_fingerprints(config.encoders)
    with Run("encode", config) as run:
        plan = plan_encoding(spark, run, encoders)
        if plan.rows:
            encode(run, plan)
    return run.counts


def vectors(lake: Lake) -> dict[str, list[float] | None]:
    rows = lake.read(VECTORS, ["encoder", "sha", "vector"]).to_pylist()
    found = {row["sha"]: row["vector"] for row in rows}
    assert len(found) == len(rows)
    return found


def test_every_text_is_encoded_once_and_only_what_is_new(spark: SparkSession, tmp_path: Path) -> None:
    config = config_of(tmp_path, encoders={"commit_rows": 100})
    lake = writable(config.lake)
    texts = {f"i{n}": f"a text number {n % 150}" for n in range(250)}
    add_items(lake, texts, files=4)
    progress = rows_done(150)
    first = night(spark, config)
    assert (first["rows_in"], first["texts_encoded"], first["rows_out"]) == (150, 150, 150)
    assert progress() == Done(150, 150, "rows")
    assert set(vectors(lake)) == {digest(text) for text in texts.values()}
    assert night(spark, config) == {}

    add_items(lake, {"i0": "an edited text", "new": "an edited text", "old": "a text number 3"})
    assert night(spark, config)["texts_encoded"] == 1
    known = sorted({*texts.values(), "an edited text"})
    at_once_ND = TextDescriptor()(known).astype(np.float16)
    assert vectors(lake) == {digest(text): row.tolist() for text, row in zip(known, at_once_ND, strict=True)}


@pytest.mark.slow
def test_a_text_of_which_the_model_makes_nan_costs_that_text_alone(spark: SparkSession, tmp_path: Path) -> None:
    """A real model, one of whose word embeddings is not finite, as a half-precision training may leave it."""
    model = tmp_path / "bert"
    config = transformers.BertConfig(vocab_size=len(WORDS), max_position_embeddings=16, **SIZES)
    bert = transformers.BertModel(config)
    bert.embeddings.word_embeddings.weight.data[WORDS.index("chair")] = float("nan")
    bert.save_pretrained(model)
    save_tokenizer(model)
    config = config_of(tmp_path, encoders={"text": {"model": str(model), "batch_size": 8}})
    lake = writable(config.lake)
    texts = [f"a {colour} lamp {'with wood ' * n}" for n in range(3) for colour in ("red", "blue")]
    add_items(lake, {text: text for text in texts} | {"bad": "a red chair"})
    counts = night(spark, config)
    assert (counts["rows_out"], counts["failed"]) == (7, 1)
    found = vectors(lake)
    assert found.pop(digest("a red chair")) is None
    assert all(np.isfinite(vector).all() for vector in found.values())
    (fault,) = lake.read(VECTORS, ["fault"])["fault"].drop_null().to_pylist()
    assert fault == "the vector is not finite"
    assert night(spark, config) == {}  # not tried again
    become_run(lake)
    forget_failures(lake, encoder_fingerprints(config.encoders))
    again = night(spark, config)
    assert (again["rows_in"], again["failed"]) == (1, 1)
    assert len(vectors(lake)) == 7


@pytest.mark.slow
def test_a_model_that_does_not_load_and_a_text_that_is_cut_are_told(
    spark: SparkSession, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    model = save(tmp_path / "roberta", "Roberta", max_position_embeddings=34)
    config = config_of(tmp_path, encoders={"text": {"model": str(model), "max_length": 512}})
    lake = writable(config.lake)
    add_items(lake, {"long": "red lamp " * 300, "short": "a chair"})
    assert night(spark, config) == {"rows_in": 2, "rows_out": 2, "texts_encoded": 2, "images_encoded": 0, "failed": 0}
    assert [record.message for record in caplog.records if "max_length" in record.message] == [
        "encoders.text.max_length is 512: the model reads 32 tokens, longer texts are cut there"
    ]
    (model / "model.safetensors").write_bytes(b"no weights")
    with pytest.raises(ConfigError) as refusal:
        night(spark, config)
    said = one_line(refusal.value)
    assert said is not None
    assert said.startswith(f"encoders.text.model: {model} does not load (")
    assert lake.read(VECTORS, ["sha"]).num_rows == 2


@pytest.mark.slow
def test_a_plan_is_done_elsewhere_once_and_refused_when_it_is_old(spark: SparkSession, tmp_path: Path) -> None:
    config = config_of(tmp_path, encoders={"commit_rows": 100})
    lake = writable(config.lake)
    add_items(lake, {f"i{n}": f"text {n}" for n in range(250)}, files=3)
    encoders = encoder_fingerprints(config.encoders)
    with Run("encode-plan", config) as planning:
        plan = plan_encoding(spark, planning, encoders)
    assert (plan.rows, plan.chunks) == (250, 2)
    assert load_plan(lake, "encode", planning.run_id) == plan

    with pytest.raises(KeyboardInterrupt), Run("encode", config, run_id=plan.run_id) as run:
        encode(_Dying(run, after=1), plan)  # type: ignore[arg-type]
    done = len(vectors(lake))
    assert 0 < done < 250
    with Run("encode", config, run_id=plan.run_id) as run:
        encode(run, plan)
    assert (run.counts["rows_out"], len(vectors(lake))) == (250 - done, 250)
    with Run("encode", config, run_id=plan.run_id) as run:
        encode(run, plan)
    assert run.counts["rows_out"] == 0

    add_items(lake, {"late": "a late text"})
    with Run("encode-plan", config) as planning:
        old = plan_encoding(spark, planning, encoders)
    assert night(spark, config)["rows_out"] == 1
    with (
        pytest.raises(JobError, match="has been written by a later run"),
        Run("encode", config, run_id=old.run_id) as run,
    ):
        encode(run, old)
    assert len(vectors(lake)) == 251


class _Dying:
    """A run whose process is interrupted after so many chunks."""

    def __init__(self, run: Run, after: int) -> None:
        self._run, self._left = run, after

    def __getattr__(self, name: str) -> object:
        return getattr(self._run, name)

    def count(self, **counts: int) -> None:
        if "failed" in counts and "rows_in" not in counts:
            if not self._left:
                raise KeyboardInterrupt
            self._left -= 1
        self._run.count(**counts)
