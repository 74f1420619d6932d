"""To name a lake, to open one, to make one; what it is refused for; and that nothing of it that travels is a secret."""

import json
import os
import pickle
import subprocess
import sys
import threading
import uuid
from pathlib import Path

import pyarrow as pa
import pytest
from pyarrow import fs
from writing import as_writer

from pipeline import Lake as PublicLake
from pipeline.errors import ConfigError, JobError
from pipeline.lake.commit import append
from pipeline.lake.storage import DESCRIPTION, Lake
from schemas.tables import QUARANTINE

NEEDLE = "needle-in-the-hay"

COUNT = """
import pickle, sys
lake, filesystem = pickle.load(sys.stdin.buffer)
from schemas.tables import QUARANTINE
print(lake.read(QUARANTINE, ["item_id"]).num_rows, lake.rows(QUARANTINE), lake.writer)
print(len(filesystem.open_input_file(lake.path("lake.json")).read()) > 0)
"""


def fill(lake: Lake) -> Lake:
    row = {"item_id": "a", "reason": "empty", "detail": "", "source": "x", "run_id": "r", "seen_at": 0}
    append(as_writer(lake), QUARANTINE, pa.Table.from_pylist([row], schema=QUARANTINE.schema))
    return lake


def test_to_name_a_lake_touches_no_disk_and_readers_make_none(tmp_path: Path) -> None:
    lake = PublicLake(str(tmp_path / "typo"))
    assert not lake.exists(QUARANTINE)
    assert lake.version(QUARANTINE) is None
    assert lake.names("runs") == []
    assert lake.read(QUARANTINE, ["item_id"]).num_rows == 0
    for attempt, said in (
        (lambda: PublicLake.open(str(tmp_path / "typo")), r"there is no lake in .*typo: is it the right place\?"),
        (lake.released_ids, r"nothing is released in .*typo: run publish first"),
        (lambda: lake.delta(QUARANTINE), "there is no table quarantine in .*: run the job that writes it first"),
        (lambda: lake.read_json("x.json"), r"x\.json cannot be read"),
    ):
        with pytest.raises(JobError, match=said):
            attempt()
    assert list(tmp_path.iterdir()) == []


def test_a_lake_is_made_once_and_then_opened(tmp_path: Path) -> None:
    made = Lake.create(str(tmp_path / "lake"))
    assert made.read_json(DESCRIPTION) == {"form": 2}
    before = (tmp_path / "lake" / DESCRIPTION).stat().st_mtime_ns
    assert Lake.create(str(tmp_path / "lake")).uri == Lake.open(f"{tmp_path}/lake/").uri == str(tmp_path / "lake")
    assert (tmp_path / "lake" / DESCRIPTION).stat().st_mtime_ns == before


@pytest.mark.parametrize(
    ("present", "form"),
    [({"items"}, 1), ({"embeddings"}, 1), ({"semantic_ids", "releases"}, 1), ({"lake.json"}, 1), ({"lake.json"}, 3)],
)
def test_a_lake_of_another_form_is_refused(tmp_path: Path, present: set[str], form: int) -> None:
    for name in present:
        if name == DESCRIPTION:
            (tmp_path / name).write_text(json.dumps({"form": form}))
        else:
            (tmp_path / name / "_delta_log").mkdir(parents=True)
    before = sorted(tmp_path.rglob("*"))
    for way in (Lake.open, Lake.create):
        with pytest.raises(JobError, match=rf"is a lake of form {form}, this version knows form 2: begin a new lake$"):
            way(str(tmp_path))
    assert sorted(tmp_path.rglob("*")) == before


def test_a_broken_description_is_named(tmp_path: Path) -> None:
    (tmp_path / DESCRIPTION).write_text("{")
    with pytest.raises(JobError, match=r"lake\.json cannot be read"):
        Lake.open(str(tmp_path))


def test_a_folder_of_other_things_is_no_lake_and_may_become_one(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("x")
    with pytest.raises(JobError, match="there is no lake in"):
        Lake.open(str(tmp_path))
    Lake.create(str(tmp_path))
    assert (tmp_path / "notes.txt").read_text() == "x"


def test_a_file_is_no_lake(tmp_path: Path) -> None:
    (tmp_path / "lake").write_text("x")
    for way in (Lake.open, Lake.create):
        with pytest.raises(ConfigError, match=r"^lake: .*/lake is a file, a lake is a folder$"):
            way(str(tmp_path / "lake"))


def test_many_that_make_a_lake_at_once_make_one(tmp_path: Path) -> None:
    together, failures = threading.Barrier(8), []

    def make() -> None:
        together.wait()
        try:
            Lake.create(str(tmp_path / "lake"))
        except BaseException as error:  # noqa: BLE001
            failures.append(error)

    threads = [threading.Thread(target=make) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures
    assert [path.name for path in (tmp_path / "lake").iterdir()] == [DESCRIPTION]


@pytest.mark.parametrize(
    "name", ["my l\u00e4ke", "a'b\"c", "with:colon", "comma, and #1", "\u65e5\u672c", "a=b", "~x", "$HOME"]
)
def test_a_lake_may_have_an_odd_name(tmp_path: Path, name: str) -> None:
    lake = fill(Lake.create(str(tmp_path / name / "lake")))
    assert (tmp_path / name / "lake" / "quarantine").is_dir()
    assert Lake.open(lake.uri).read(QUARANTINE, ["item_id"])["item_id"].to_pylist() == ["a"]
    assert lake.whole(QUARANTINE, 1)
    assert len(lake.files(QUARANTINE)) == 1


@pytest.mark.parametrize("character", "%*?[]{}\\")
def test_what_engines_take_for_a_pattern_is_refused(tmp_path: Path, character: str) -> None:
    with pytest.raises(ConfigError, match=r"^lake: .* in its path, which engines take for patterns$"):
        Lake(str(tmp_path / f"la{character}ke"))


@pytest.mark.parametrize("uri", ["file:///data/my%20lake", "s3://bucket/la#ke", "s3://bucket/a?b"])
def test_what_engines_decode_in_different_ways_is_refused_in_a_uri(uri: str) -> None:
    with pytest.raises(ConfigError, match=r"^lake: .* in its path, which engines decode in different ways$"):
        Lake(uri)


def test_a_relative_path_is_made_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert Lake("lake").uri == Lake("./x/../lake/").uri == str(tmp_path / "lake")


@pytest.mark.parametrize("uri", ["https://example.com/lake", "ftp://host/lake", "nonsense://x"])
def test_a_place_that_no_lake_can_have_is_a_mistake_in_the_configuration(uri: str) -> None:
    for way in (Lake.open, Lake.create):
        with pytest.raises(
            ConfigError, match=f"^lake: {uri}( cannot be reached|: web addresses are not read)"
        ) as refused:
            way(uri)
        assert "\n" not in str(refused.value)


def test_what_is_pickled_has_no_secret_and_works_elsewhere(
    s3: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    keys = {name: os.environ[name] for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")}
    for uri, options in ((str(tmp_path / "lake"), {}), (f"s3://lakes/{uuid.uuid4().hex}", s3)):
        for name, value in keys.items():
            monkeypatch.setenv(name, value)
        lake = fill(Lake.create(uri, options))
        for name in keys:
            monkeypatch.setenv(name, NEEDLE)
        monkeypatch.setenv("AWS_SESSION_TOKEN", NEEDLE)
        fresh = Lake(uri, options)
        assert isinstance(fresh.filesystem, fs.FileSystem)
        for each in (lake, fresh, lake.filesystem, fresh.filesystem):
            assert NEEDLE.encode() not in pickle.dumps(each)
        monkeypatch.delenv("AWS_SESSION_TOKEN")
        sent = pickle.dumps((lake, lake.filesystem))
        elsewhere = subprocess.run(
            [sys.executable, "-c", COUNT], input=sent, env={**os.environ, **keys}, capture_output=True, check=False
        )
        assert elsewhere.stdout.decode() == "1 1 None\nTrue\n", elsewhere.stderr.decode()


def test_a_lake_on_s3_is_made_opened_and_refused_like_any(s3: dict[str, str]) -> None:
    uri = f"s3://lakes/{uuid.uuid4().hex}"
    with pytest.raises(JobError, match="there is no lake in s3://lakes/"):
        Lake.open(uri, s3)
    lake = fill(Lake.create(uri, s3))
    assert Lake.open(f"{uri}/", s3).rows(QUARANTINE) == 1
    assert lake.whole(QUARANTINE, 1)
    assert not lake.whole(QUARANTINE, 2)
    lake.delete("nothing/here")
    lake.write_json("plans/x/plan.json", {"a": "\u00e9"})
    assert lake.read_json("plans/x/plan.json") == {"a": "\u00e9"}
    assert lake.names("plans/x") == ["plan.json"]
    lake.delete("plans/x")
    assert lake.names("plans/x") == []
    lake.write_json(DESCRIPTION, {"form": 1})
    with pytest.raises(JobError, match="is a lake of form 1"):
        Lake.open(uri, s3)


def test_files_go_up_and_come_down(tmp_path: Path) -> None:
    lake = Lake.create(str(tmp_path / "lake"))
    (tmp_path / "here").mkdir()
    for name in ("first", "last"):
        (tmp_path / "here" / name).write_text(name)
    lake.upload(tmp_path / "here", "artefacts/a")
    found = lake.download("artefacts/a", tmp_path / "there")
    assert {file.name: file.read_text() for file in found.iterdir()} == {"first": "first", "last": "last"}


def test_versions_files_and_changes_of_rows(tmp_path: Path) -> None:
    lake = fill(fill(Lake.create(str(tmp_path / "lake"))))
    assert lake.version(QUARANTINE) == 2
    assert lake.rows_changed(QUARANTINE, 1)
    assert not lake.rows_changed(QUARANTINE, 2)
    lake.delta(QUARANTINE).optimize.compact()
    assert not lake.rows_changed(QUARANTINE, 2)
    assert lake.rows_changed(QUARANTINE, 1)
    [file] = lake.files(QUARANTINE)
    assert len(lake.files(QUARANTINE, version=2)) == 2
    assert lake.whole(QUARANTINE, 2)
    assert lake.whole(QUARANTINE, 3)
    (Path(lake.table_uri(QUARANTINE)) / file).unlink()
    assert not lake.whole(QUARANTINE, 3)
    assert lake.whole(QUARANTINE, 2)
    assert lake.logged(QUARANTINE, 3)
    assert not lake.logged(QUARANTINE, 4)
