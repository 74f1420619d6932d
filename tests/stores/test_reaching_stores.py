"""Every engine is told of a store in one place, and finds who asks by itself: keys, a profile or a role."""

import json
import os
import re
import subprocess
import sys
import uuid
from collections.abc import Callable
from pathlib import Path

import pytest
from py4j.protocol import Py4JJavaError
from pyspark.errors import PySparkException
from pyspark.sql import SparkSession
from writing import as_writer

import pipeline.on_spark.object_store
from jobs.error_messages import one_line
from pipeline.config.models import LockSettings
from pipeline.errors import ConfigError
from pipeline.lake.commit import create
from pipeline.lake.lock import one_writer
from pipeline.lake.object_store import KEYS, S3Store
from pipeline.lake.storage import Lake
from pipeline.on_spark.object_store import reach_store
from schemas.tables import QUARANTINE

NOBODY = "http://127.0.0.1:9"


def test_what_each_engine_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in os.environ:
        if name.startswith("AWS_"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "needle")
    monkeypatch.setenv("AWS_REGION", "eu-west-1")

    def told(**options: str) -> tuple[dict[str, str], dict[str, str]]:
        store = S3Store.of("s3a://shop/lake", options)
        assert store is not None
        assert "needle" not in repr((store, store.delta_rs(), store.hadoop()))
        hadoop = {key.removeprefix("fs.s3a."): value for key, value in store.hadoop().items()}
        keys = ("endpoint", "endpoint.region", "path.style.access", "aws.credentials.provider")
        return (
            {key: value for key, value in store.delta_rs().items() if key.startswith("AWS_")},
            {key: hadoop[key] for key in keys if key in hadoop},
        )

    assert S3Store.of("/tmp/lake", {}) is None
    assert told() == (
        {"AWS_REGION": "eu-west-1", "AWS_VIRTUAL_HOSTED_STYLE_REQUEST": "true", "AWS_ALLOW_HTTP": "false"},
        {"endpoint.region": "eu-west-1", "path.style.access": "false"},
    )
    own = {"AWS_ENDPOINT_URL": "http://store:9000/"}
    delta, hadoop = told(**own, AWS_REGION="north")
    assert delta == {
        **{"AWS_REGION": "north", "AWS_VIRTUAL_HOSTED_STYLE_REQUEST": "false", "AWS_ALLOW_HTTP": "true"},
        "AWS_ENDPOINT_URL": "http://store:9000",
    }
    assert hadoop == {"endpoint": "http://store:9000", "endpoint.region": "north", "path.style.access": "true"}
    delta, hadoop = told(**own, AWS_VIRTUAL_HOSTED_STYLE_REQUEST="true")
    assert delta["AWS_ENDPOINT_URL"] == "http://shop.store:9000"
    assert hadoop["endpoint"] == "http://store:9000"
    assert hadoop["path.style.access"] == "false"
    monkeypatch.setenv("AWS_PROFILE", "shop")
    delta, hadoop = told()
    assert delta["AWS_FORCE_CREDENTIAL_LOAD"] == "true"
    assert hadoop["aws.credentials.provider"].endswith("ProfileAWSCredentialsProvider")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "key")
    assert "AWS_FORCE_CREDENTIAL_LOAD" not in told()[0]


@pytest.fixture
def write(s3: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """Writes by Arrow, delta-rs and obstore, without keys in the environment."""
    for name in KEYS[:2]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_REGION", "us-east-1")

    def write() -> None:
        lake = as_writer(Lake.create(f"s3://lakes/{uuid.uuid4().hex}", s3))
        create(lake, QUARANTINE)
        with one_writer(lake, LockSettings(), "test", "run"):
            assert lake.version(QUARANTINE) == 0

    return write


def test_a_profile_is_enough(write: Callable[[], None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "credentials"
    file.write_text(
        "[default]\nregion = eu\n[shop]\naws_access_key_id = key\naws_secret_access_key = needle-0b5e7c4f\n"
    )
    (tmp_path / "config").write_text("[profile single]\nsso_session = company\n")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(file))
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    monkeypatch.setenv("AWS_PROFILE", "shop")
    write()
    monkeypatch.setenv("AWS_PROFILE", "single")
    store = S3Store.of("s3://lakes/x", {"AWS_ENDPOINT_URL": NOBODY})
    assert store is not None
    with pytest.raises(ConfigError, match=r"the profile single has no keys of its own: .*export-credentials"):
        store.obstore("s3://lakes/x")


def test_a_role_is_enough(write: Callable[[], None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    keys = {"AccessKeyId": "key", "SecretAccessKey": "needle-0b5e7c4f", "Token": ""}
    (tmp_path / "role").write_text(json.dumps(keys | {"Expiration": "2099-01-01T00:00:00Z"}))
    (tmp_path / "token").write_text("mine")
    # As a container's: a process of its own, since delta-rs holds Python's lock while it waits for an answer.
    command = [sys.executable, "-u", "-m", "http.server", "0", "--bind", "127.0.0.1", "--directory", str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as server:
        try:
            assert server.stdout is not None
            [port] = re.findall(r"port (\d+)", server.stdout.readline())
            monkeypatch.setenv("AWS_CONTAINER_CREDENTIALS_FULL_URI", f"http://127.0.0.1:{port}/role")
            monkeypatch.setenv("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE", str(tmp_path / "token"))
            write()
        finally:
            server.kill()


@pytest.mark.spark
def test_spark_without_a_connector_is_told_its_name(spark: SparkSession, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pipeline.on_spark.object_store, "CONNECTOR", "org.apache.hadoop.fs.s3a.Missing")
    reach_store(spark, "/tmp/lake", {})
    with pytest.raises(
        ConfigError, match=r"no connector to S3: name its JARs in spark.conf, as spark.jars.packages: org"
    ):
        reach_store(spark, "s3://lakes/x", {"AWS_ENDPOINT_URL": NOBODY})


@pytest.mark.spark
@pytest.mark.spark_on_s3
def test_what_spark_cannot_read_has_its_cause_in_one_line(spark: SparkSession, s3: dict[str, str]) -> None:
    hadoop = spark.sparkContext._jsc.hadoopConfiguration()  # type: ignore[union-attr]
    reach_store(spark, "s3://lakes/x", s3)
    hadoop.set("fs.s3a.bucket.nobody.endpoint", NOBODY)
    hadoop.set(
        "fs.s3a.bucket.refused.aws.credentials.provider", "org.apache.hadoop.fs.s3a.SimpleAWSCredentialsProvider"
    )
    hadoop.set("fs.s3a.bucket.refused.access.key", "nobody")
    hadoop.set("fs.s3a.bucket.refused.secret.key", "wrong")
    for bucket, said in {
        "nobody": "java.net.ConnectException: Connection refused",
        "refused": "Status Code: 403",
    }.items():
        with pytest.raises((Py4JJavaError, PySparkException)) as error:
            spark.read.parquet(f"s3a://{bucket}/x")
        told = one_line(error.value)
        assert told is not None
        assert told.startswith("Spark: ")
        assert said in told
