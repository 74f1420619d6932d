from pathlib import Path

import pytest
import yaml

from pipeline.config.file import config_hash, load_config
from pipeline.errors import ConfigError
from pipeline.lake.storage import Lake

GOOD = {"lake": "./lake", "catalog": {"source": {"path": "items.csv", "format": "csv"}, "id": "id", "text": "{title}"}}


def write(folder: Path, content: object) -> Path:
    file = folder / "hisam.yaml"
    file.write_text(yaml.safe_dump(content))
    return file


def faults(folder: Path, content: object, overrides: list[str] | None = None) -> str:
    with pytest.raises(ConfigError) as caught:
        load_config(write(folder, content), overrides or [])
    assert caught.value.exit_status == 2
    return str(caught.value)


def test_paths_are_those_of_the_file_not_of_the_caller(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir("/")
    (tmp_path / "model").mkdir()
    content = GOOD | {"encoders": {"text": {"model": "model"}, "image": {"model": "google/siglip2-base-patch16-224"}}}
    config = load_config(write(tmp_path, content))
    assert config.lake == str(tmp_path / "lake")
    assert config.catalog.source.path == str(tmp_path / "items.csv")
    assert config.encoders.text.model == str(tmp_path / "model")
    assert config.encoders.image.model == "google/siglip2-base-patch16-224"
    assert load_config(write(tmp_path, GOOD | {"lake": "s3://bucket/lake"})).lake == "s3://bucket/lake"


def test_every_fault_is_told_with_its_path_and_what_is_allowed(tmp_path: Path) -> None:
    said = faults(
        tmp_path,
        GOOD | {"tokenizer": {"codebook_sise": 64, "codebook_size": 1}, "split": {"test_fraction": 1.5}, "gate": {}},
    )
    assert "4 faults" in said
    assert "tokenizer.codebook_sise: unknown key; did you mean codebook_size?" in said
    assert "tokenizer.codebook_size" in said
    assert "allowed: ≥ 2 and ≤ 32767" in said
    assert "split.test_fraction" in said
    assert "allowed: > 0 and < 1" in said
    assert "gate: unknown key; did you mean gates?" in said


@pytest.mark.parametrize(
    ("place", "said"),
    [
        ("", "must not be empty"),
        ("https://shop/items.csv", "web addresses are not read"),
        ("S3://bucket/x", "write s3: in small letters"),
        ("s3:/bucket/x", "two slashes follow the scheme: s3://"),
        ("file:/x", "two slashes follow the scheme: file://"),
    ],
)
def test_places_that_are_none_are_refused_under_their_keys(tmp_path: Path, place: str, said: str) -> None:
    source = {"path": place, "format": "csv"}
    log = {"source": source, "user": "u", "item": "i", "time": {"column": "t"}, "label": "true"}
    told = faults(tmp_path, {"lake": place, "catalog": {"source": source, "id": "id"}, "interactions": log})
    for key in ("lake", "catalog.source.path", "interactions.source.path"):
        assert f"{key}: {said}" in told
    with pytest.raises(ConfigError, match="lake: "):
        Lake(place)


def test_the_split_is_a_fraction_or_a_time(tmp_path: Path) -> None:
    for at, moment in (("2025-06-01", 1_748_736_000_000), ("2025-06-01T02:00:00+02:00", 1_748_736_000_000)):
        assert load_config(write(tmp_path, GOOD), [f"split.at={at}"]).split.at_ms == moment
    assert load_config(write(tmp_path, GOOD)).split.at_ms is None
    assert "split: give test_fraction or at, not both" in faults(
        tmp_path, GOOD | {"split": {"test_fraction": 0.2, "at": "2025-06-01"}}
    )
    assert "split.at: must be a date" in faults(tmp_path, GOOD, ["split.at=20250601"])


def test_what_only_texts_have_is_no_key_of_pictures(tmp_path: Path) -> None:
    text = {"prompt": "passage: ", "truncate_dim": 256, "max_length": 512, "trust_remote_code": True}
    assert load_config(write(tmp_path, GOOD | {"encoders": {"text": text}})).encoders.text.prompt == "passage: "
    said = faults(tmp_path, GOOD | {"encoders": {"image": text, "text": {"truncate_dim": 1, "max_length": 4}}})
    assert "5 faults" in said
    for key in ("prompt", "truncate_dim", "max_length"):
        assert f"encoders.image.{key}: unknown key; it is a key of encoders.text" in said
    assert "encoders.text.truncate_dim" in said
    assert "encoders.text.max_length" in said


def test_a_missing_section_is_named(tmp_path: Path) -> None:
    assert "catalog: Field required" in faults(tmp_path, {"lake": "x"})
    assert "must hold sections" in faults(tmp_path, ["a list"])


def test_overrides_are_laid_over_the_file(tmp_path: Path) -> None:
    file = write(tmp_path, GOOD)
    config = load_config(file, ["tokenizer.epochs=5", "catalog.image={column: picture, root: pics}"])
    assert config.tokenizer.epochs == 5
    assert load_config(file, ["catalog.text={a}. {b}"]).catalog.text == "{a}. {b}"
    assert config.catalog.image is not None
    assert config.catalog.image.root == str(tmp_path / "pics")
    assert config_hash(config) != config_hash(load_config(file))
    assert "the form is key.path=value" in faults(tmp_path, GOOD, ["tokenizer.epochs"])
    assert "lake is a value, not a section" in faults(tmp_path, GOOD, ["lake.path=1"])


def test_secrets_stay_out_of_the_file(tmp_path: Path) -> None:
    for key in (
        "AWS_SECRET_ACCESS_KEY",
        "aws_session_token",
        "AWS_PROFILE",
        "AWS_ROLE_ARN",
        "AZURE_STORAGE_ACCOUNT_KEY",
    ):
        said = faults(tmp_path, GOOD | {"storage_options": {key: "abc"}})
        assert f"storage_options: {key} says who asks" in said
        assert "set it in the environment" in said
        assert "abc" not in said
    assert "9876" not in faults(tmp_path, GOOD | {"storage_options": {"AWS_SECRET_ACCESS_KEY": 9876}})
    said = faults(tmp_path, GOOD | {"spark": {"conf": {"spark.hadoop.fs.s3a.secret.key": "abc"}}})
    assert "spark.hadoop.fs.s3a.secret.key looks like a secret" in said
    assert "abc" not in said


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"aws_region": "eu-west-1"}, "aws_region is an unknown key; did you mean AWS_REGION?"),
        ({"conditional_put": "etag"}, "conditional_put is an unknown key; known keys: AWS_ENDPOINT_URL, AWS_REGION"),
        ({"AWS_ENDPOINT_URL": "store:9000"}, "AWS_ENDPOINT_URL is http:// or https:// and a host"),
        ({"AWS_ENDPOINT_URL": "http://user:pass@store"}, "AWS_ENDPOINT_URL is http:// or https:// and a host"),
        ({"AWS_VIRTUAL_HOSTED_STYLE_REQUEST": "yes"}, 'is "true" (the bucket is part of the host'),
    ],
)
def test_what_is_said_of_a_store_is_known(tmp_path: Path, options: dict[str, str], said: str) -> None:
    told = faults(tmp_path, GOOD | {"storage_options": options})
    assert f"storage_options: {said}" in told if said[0] != "i" else said in told
    assert "pass" not in told


@pytest.mark.parametrize("lake", ["gs://bucket/x", "az://container/x", "abfss://container@account/x"])
def test_a_lake_lies_in_no_store_that_was_never_tried(tmp_path: Path, lake: str) -> None:
    assert f"no lake has been tried in {lake.partition(':')[0]}://" in faults(tmp_path, GOOD | {"lake": lake})


def test_a_missing_or_broken_file_is_told(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="there is no configuration file"):
        load_config(tmp_path / "none.yaml")
    (tmp_path / "bad.yaml").write_text("a: [")
    with pytest.raises(ConfigError, match="is not YAML"):
        load_config(tmp_path / "bad.yaml")


def test_the_examples_are_valid() -> None:
    examples = sorted((Path(__file__).parents[2] / "jobs" / "configs").glob("*.yaml"))
    assert examples
    for file in examples:
        assert load_config(file).catalog.id


def test_an_encoder_is_a_model_or_a_column_of_vectors(tmp_path: Path) -> None:
    column = {"column": "title_vector", "name": "my-encoder", "version": 3}
    config = load_config(write(tmp_path, GOOD | {"encoders": {"text": column}}))
    assert (config.encoders.vector_columns.keys(), config.encoders.models.keys()) == ({"text"}, {"image"})
    given = config.encoders.vector_columns["text"]
    fingerprints = {given.fingerprint("text"), given.fingerprint("image")}
    for other in ({"version": 4}, {"name": "b"}, {"dtype": "float32"}, {"dim": 8}, {"column": "renamed"}):
        fingerprints.add(given.model_copy(update={k: str(v) for k, v in other.items()}).fingerprint("text"))
    assert len(fingerprints) == 5  # a column's name and a width that is checked decide no vector

    said = faults(tmp_path, GOOD | {"encoders": {"text": {"column": "v", "nam": "a", "dim": 0, "model": "x"}}})
    assert "encoders.text.name: Field required" in said
    assert "encoders.text.version: Field required" in said
    assert "encoders.text.dim: Input should be greater than or equal to 1 (given: 0, allowed: ≥ 1 and ≤ 65536)" in said
    assert "encoders.text.nam: unknown key; did you mean name?" in said
    assert "encoders.text.model: unknown key; known keys: column, name, version, dtype, dim" in said
    said = faults(tmp_path, GOOD | {"encoders": {"text": {"modle": "x"}, "image": {"batch_size": 0}}})
    assert "encoders.text.modle: unknown key; did you mean model?" in said
    assert "encoders.image.batch_size" in said
    assert "allowed: ≥ 1 and ≤ 65536" in said


def test_hosts_are_names_and_addresses_and_every_other_one_is_told(tmp_path: Path) -> None:
    def with_hosts(*hosts: str, **limits: float) -> dict[str, object]:
        image = {"column": "picture", "fetch": {"hosts": list(hosts), **limits}}
        return GOOD | {"catalog": GOOD["catalog"] | {"image": image}}  # type: ignore[operator]

    good = with_hosts("CDN.Example.org ", "example.org:8443", "10.0.0.1:80", "::1", "[::0:1]:80")
    image = load_config(write(tmp_path, good)).catalog.image
    assert image is not None
    assert image.fetch is not None
    assert image.fetch.hosts == ["cdn.example.org", "example.org:8443", "10.0.0.1:80", "::1", "[::1]:80"]
    bad = [
        "https://example.org",
        "example.org/images",
        "user@example.org",
        "*.example.org",
        "example.org:port",
        " ",
        "[x]",
    ]
    said = faults(tmp_path, with_hosts(*bad, per_host=0))
    assert "8 faults" in said
    for at, host in enumerate(bad):
        assert f"catalog.image.fetch.hosts.{at}: {host!r} is no host" in said
    assert "catalog.image.fetch.per_host" in said
    assert "catalog.image.fetch.hosts: List should have at least 1 item" in faults(tmp_path, with_hosts())
