"""A store that refuses, is not there, is silent, is full or loses an answer: one sentence, and nothing half done."""

import re
import uuid
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pyarrow as pa
import pytest
from faulty_store import FaultyStore
from pyarrow import fs

import pipeline.lake.object_store
from jobs.error_messages import one_line
from pipeline.config.models import Config
from pipeline.errors import ConfigError, JobError
from pipeline.lake.commit import commit, stage
from pipeline.lake.object_store import KEYS
from pipeline.lake.run import Run
from pipeline.lake.storage import Lake
from schemas.tables import QUARANTINE

NOBODY = "http://127.0.0.1:9"


def of_bucket(bucket: str, **settings: str) -> Config:
    catalog = {"source": {"path": "items.csv", "format": "csv"}, "id": "id", "text": "{t}"}
    lake = f"s3://{bucket}/{uuid.uuid4().hex}"
    return Config.model_validate({"lake": lake, "storage_options": settings, "catalog": catalog})


def rows(item: str) -> pa.Table:
    row = {"item_id": item, "reason": "empty", "detail": "", "source": "x", "run_id": "r", "seen_at": 0}
    return pa.Table.from_pylist([row], schema=QUARANTINE.schema)


def items(config: Config) -> list[str]:
    return sorted(Lake.open(config.lake, config.storage_options).read(QUARANTINE, ["item_id"])["item_id"].to_pylist())


def write(config: Config, item: str, run_id: str | None = None, before: Callable[[], None] = lambda: None) -> Run:
    """A run that adds a row, in a step of its own."""
    with Run("extract", config, run_id=run_id) as run:
        before()
        commit(run.lake, QUARANTINE, [stage(run.lake, QUARANTINE, rows(item), {})], step=(run.run_id, 0))
    return run


def test_who_may_not_is_told_as_whom_it_asked(
    s3: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(said: str, *unset: str, bucket: str = "lakes", endpoint: str = "", **environment: str) -> None:
        with monkeypatch.context() as process:
            for name in unset:
                process.delenv(name)
            for name, value in environment.items():
                process.setenv(name, value)
            config = of_bucket(bucket, **({"AWS_ENDPOINT_URL": endpoint} if endpoint else s3))
            for way in (Lake.open, Lake.create):
                with pytest.raises(JobError, match=said) as error:
                    way(config.lake, config.storage_options)
                assert "\n" not in str(error.value)
                assert "needle" not in str(error.value)

    (tmp_path / "credentials").write_text("[other]\naws_access_key_id=nobody\naws_secret_access_key=needle\n")
    profile = {"AWS_PROFILE": "other", "AWS_SHARED_CREDENTIALS_FILE": str(tmp_path / "credentials")}
    where = re.escape(f"cannot be reached at {s3['AWS_ENDPOINT_URL']}: ")
    keys = (
        r"the keys in this process's environment \(AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY\) are not allowed to \(.*"
    )
    refused(where + keys + "SIGNATURE_DOES_NOT_MATCH", AWS_SECRET_ACCESS_KEY="needle")
    refused(where + keys + "INVALID_ACCESS_KEY_ID", AWS_ACCESS_KEY_ID="nobody")
    refused(where + r"the profile other \(AWS_PROFILE\) is not allowed to", *KEYS[:2], **profile)
    refused(where + "this process has no keys", *KEYS[:2], AWS_EC2_METADATA_DISABLED="true")
    refused(f"cannot be reached at {NOBODY}: is the store up, and storage_options right", endpoint=NOBODY)
    refused("there is no bucket nowhere at http://.*: make it, or name another as lake", bucket="nowhere")
    store = fs.S3FileSystem(endpoint_override=s3["AWS_ENDPOINT_URL"], region="us-east-1")
    assert store.get_file_info("nowhere").type == fs.FileType.NotFound  # this server makes a bucket of what is written


def test_amazons_buckets_have_a_region(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_REGION", "AWS_DEFAULT_REGION", "AWS_ENDPOINT_URL"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(ConfigError, match="AWS_REGION is missing: name the region of the bucket shop"):
        Lake.open("s3://shop/lake")
    with pytest.raises(ConfigError, match="storage_options: AWS_REGIN is an unknown key; did you mean AWS_REGION"):
        Lake("s3://shop/lake", {"AWS_REGIN": "eu-west-1"})


def test_a_store_that_does_not_answer_is_given_up(store: FaultyStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pipeline.lake.object_store, "SILENT_SECONDS", 1)
    config = of_bucket("lakes", **store.options)
    store.fails("silent", "GET", "list-type=2")
    with pytest.raises(JobError, match=r"is the store up, and storage_options right\? \(.*Timeout was reached"):
        Lake.create(config.lake, config.storage_options)


def test_a_store_that_takes_nothing_more_leaves_the_table_as_it_was(store: FaultyStore) -> None:
    config = of_bucket("lakes", **store.options)
    write(config, "before")
    for fault, path, said in (
        (507, "(quarantine|runs)/", "HTTP status 507.*: make room; what was committed stays; run it again"),
        (507, "_delta_log", "Generic S3 error: 507 Insufficient Storage.*: make room"),
        (503, "parquet", "SLOW_DOWN.*; what was committed stays; run it again"),
    ):
        with pytest.raises((OSError, JobError)) as error:
            write(config, "later", before=partial(store.fails, fault, "PUT", path))
        store.works()
        told = one_line(error.value)
        assert told is not None
        assert re.search(said, told), told
        assert "\n" not in told
        assert items(config) == ["before"]
    write(config, "later")
    assert items(config) == ["before", "later"]


@pytest.mark.parametrize("times", [1, 10_000], ids=["once", "every time"])
def test_a_commit_whose_answer_is_lost_is_made_once(store: FaultyStore, times: int) -> None:
    config = of_bucket("lakes", **store.options)
    first = write(config, "before")
    version = first.lake.version(QUARANTINE)
    assert version is not None
    lost = rf"quarantine/_delta_log/0*{version + 1}\.json"
    run_id = None
    try:
        run_id = write(config, "later", before=lambda: store.fails("lost", "PUT", lost, times)).run_id
    except JobError as error:
        assert re.search("the answer to this commit was lost on its way .*: run it again", str(error))  # noqa: PT017
    store.works()
    assert items(config) == ["before", "later"]
    if run_id is None:  # the same step again, as the next run of a plan does it
        [run_id] = set(first.lake.names("runs")) - {first.run_id}
    write(config, "later", run_id=run_id)
    assert items(config) == ["before", "later"]
    assert first.lake.version(QUARANTINE) == version + 1
