from pathlib import Path

import pytest
import yaml

from pipeline.config.file import config_hash, load_config
from pipeline.errors import ConfigError

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
    said = faults(tmp_path, GOOD | {"storage_options": {"AWS_SECRET_ACCESS_KEY": "abc"}})
    assert "set it in the environment" in said
    assert "abc" not in said
    said = faults(tmp_path, GOOD | {"spark": {"conf": {"spark.hadoop.fs.s3a.secret.key": "abc"}}})
    assert "spark.hadoop.fs.s3a.secret.key looks like a secret" in said
    assert "abc" not in said


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
