"""The steps of the images on this machine, in a bare virtual environment and on a real object store."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from deployed import DOCKER, ROOT, compose_steps, script
from jars import S3_KEYS, jars_for

from pipeline.lake.storage import Lake
from schemas.tables import RELEASED_IDS

pytestmark = [
    pytest.mark.slow,
    pytest.mark.native_delta,
    pytest.mark.spark_on_s3,
    pytest.mark.timeout(3600),
]


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of programs of an environment with what the Spark image installs, its JARs in Spark's own folder."""
    folder = tmp_path_factory.mktemp("image")
    source = folder / "source"
    source.mkdir()
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    for name in ("schemas", "tokenizer", "ranker", "pipeline", "jobs"):
        shutil.copytree(ROOT / name, source / name)
    subprocess.run([sys.executable, "-m", "venv", folder / "venv"], check=True)
    programs = folder / "venv/bin"
    for what in (["--requirement", str(DOCKER / "requirements.txt")], ["--no-deps", str(source)]):
        subprocess.run([programs / "pip", "install", "--quiet", *what], check=True)
    subprocess.run([programs / "pip", "check"], check=True)
    (spark_home,) = (folder / "venv/lib").glob("python*/site-packages/pyspark")
    for jar in jars_for("native_delta") + jars_for("spark_on_s3"):
        shutil.copy(jar, spark_home / "jars")
    return programs


def environment(programs: str, s3: dict[str, str], **settings: str) -> dict[str, str]:
    """That of a container: the image's programs first, the store's settings, nothing of this project's folder."""
    inherited = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "SPARK_HOME")}
    return inherited | {"PATH": f"{programs}:{os.environ['PATH']}"} | s3 | S3_KEYS | settings


def test_the_steps_of_compose_lead_to_a_release(installed: Path, s3: dict[str, str], tmp_path: Path) -> None:
    no_java = tmp_path / "no-java"
    no_java.mkdir()
    (no_java / "java").write_text("#!/bin/sh\nexit 1\n")
    (no_java / "java").chmod(0o755)
    work = tmp_path / "work"
    work.mkdir()
    said = ""
    for name, step in compose_steps("cpu").items():
        if name == "storage":
            continue
        on_ray = "ray" in step["image"]
        path = f"{no_java}:{installed}" if on_ray else str(installed)  # Ray's image has no Java
        text = re.sub(r"(hisam demo \S+)", r"\1 --items 600 --users 60", script(step))
        done = subprocess.run(
            [*step["entrypoint"], text],
            cwd=work,
            env=environment(path, s3, **({"JAVA_HOME": ""} if on_ray else {})),
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, f"{name}: {done.stdout}{done.stderr}"
        said += done.stdout
    assert "released tokenizer" in said
    assert "AUC" in said
    assert Lake.open("s3://lakes/shop", s3).rows(RELEASED_IDS) > 580


def test_the_entrypoint_of_the_spark_image_runs_a_driver(installed: Path, s3: dict[str, str], tmp_path: Path) -> None:
    python = str(installed / "python")
    subprocess.run([installed / "hisam", "demo", "shop", "--items", "120", "--generate-only"], cwd=tmp_path, check=True)
    (spark_home,) = installed.parent.glob("lib/python*/site-packages/pyspark")
    (tmp_path / "spark.properties").write_text(f"spark.master=local[2]\nspark.pyspark.python={python}\n")
    command = ["driver", "--properties-file", "spark.properties", "--class", "org.apache.spark.deploy.PythonRunner"]
    job = [f"local://{DOCKER}/hisam.py", "extract", "--config", "shop/config.yaml"]
    settings = {"SPARK_HOME": str(spark_home), "SPARK_DRIVER_BIND_ADDRESS": "127.0.0.1", "PYSPARK_PYTHON": python}
    done = subprocess.run(
        [DOCKER / "spark-entrypoint.sh", *command, *job],
        cwd=tmp_path,
        env=environment(str(installed), s3, **settings),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "extract: done in" in done.stdout
