"""The images' files: linted, pinned, checked; what can be run of them without a container engine is run."""

import hashlib
import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pyspark
import pytest
import yaml
from deployed import COMPOSE, DOCKER, DOCKERFILES, ROOT, instructions
from jars import jars_for
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

JARS = dict(reversed(line.split()) for line in (DOCKER / "jars.sha256").read_text().splitlines())
PINNED = {
    canonicalize_name(name): version
    for line in (DOCKER / "requirements.txt").read_text().splitlines()
    for name, equals, version in [line.partition("==")]
    if equals
}


def test_the_dockerfiles_pass_the_linter() -> None:
    hadolint = Path(sys.executable).with_name("hadolint")
    done = subprocess.run([hadolint, "--failure-threshold=style", *DOCKERFILES], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("file", DOCKERFILES, ids=lambda file: file.name)
def test_an_image_runs_as_a_user_from_a_pinned_base_and_is_checked(file: Path) -> None:
    told = instructions(file)
    assert [rest for name, rest in told if name == "USER"] == ["1000:1000"]
    assert [name for name, _ in told].count("HEALTHCHECK") == 1
    base = next(rest for name, rest in told if name == "ARG")
    version = re.fullmatch(r"PYTHON=python:(3\.\d+)\.\d+-slim-bookworm", base)
    assert version
    homes = re.findall(r"/lib/(python[\d.]+)/", file.read_text())
    assert set(homes) <= {f"python{version[1]}"}
    stages = [rest.split(" AS ") for name, rest in told if name == "FROM"]
    assert {stage[0] for stage in stages} == {"${PYTHON}"}
    assert not re.search(r"amd64|x86", " ".join(rest for _, rest in told)), "an image for one processor alone"


def test_images_of_compose_have_a_version() -> None:
    foreign = [s["image"] for s in yaml.safe_load(COMPOSE.read_text())["services"].values() if "build" not in s]
    assert foreign
    assert all(re.fullmatch(r"[\w/.-]+:\d+\.\d+", image) for image in foreign)


@pytest.mark.native_delta
@pytest.mark.spark_on_s3
def test_the_checksums_are_those_of_the_jars_that_the_tests_run_with() -> None:
    here = {
        Path(jar).name: hashlib.sha256(Path(jar).read_bytes()).hexdigest()
        for jar in jars_for("native_delta") + jars_for("spark_on_s3")
    }
    assert {path.rsplit("/", 1)[1]: digest for path, digest in JARS.items()} == here


@pytest.mark.native_delta
@pytest.mark.spark_on_s3
def test_the_jars_are_fetched_by_their_maven_paths_and_a_wrong_one_stops_the_build(tmp_path: Path) -> None:
    """The instruction itself, from a mirror that is a folder."""
    (fetch,) = (rest for _, rest in instructions(DOCKER / "spark.Dockerfile") if "$MAVEN" in rest)
    here = {Path(jar).name: Path(jar) for jar in jars_for("native_delta") + jars_for("spark_on_s3")}
    mirror = tmp_path / "mirror"
    for path in JARS:
        (mirror / path).parent.mkdir(parents=True)
        (mirror / path).symlink_to(here[path.rsplit("/", 1)[1]])

    def build(name: str) -> subprocess.CompletedProcess[str]:
        folder = tmp_path / name
        folder.mkdir()
        shutil.copy(DOCKER / "jars.sha256", folder)
        command = ["bash", "-o", "pipefail", "-c", fetch.replace("/jars", str(folder / "jars"))]
        environment = os.environ | {"MAVEN": mirror.as_uri()}
        return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)

    done = build("right")
    assert done.returncode == 0, done.stderr
    assert {jar.name for jar in (tmp_path / "right/jars").iterdir()} == set(here)
    (mirror / path).unlink()
    (mirror / path).write_text("another JAR")
    done = build("wrong")
    assert done.returncode != 0
    assert f"{path}: FAILED" in done.stdout
    assert not (tmp_path / "wrong/jars").exists()


def test_the_jars_fit_spark_and_its_hadoop() -> None:
    for path in JARS:
        *_, artefact, version, name = path.split("/")
        assert name == f"{artefact}-{version}.jar"
    spark, delta = PINNED["pyspark"], PINNED["delta-spark"]
    assert spark == pyspark.__version__
    of_delta = f"delta-spark_{spark.rsplit('.', 1)[0]}_2.13"
    assert f"io/delta/{of_delta}/{delta}/{of_delta}-{delta}.jar" in JARS
    (hadoop,) = (Path(pyspark.__path__[0]) / "jars").glob("hadoop-client-api-*.jar")
    version = hadoop.stem.removeprefix("hadoop-client-api-")
    assert f"org/apache/hadoop/hadoop-aws/{version}/hadoop-aws-{version}.jar" in JARS
    assert any("analyticsaccelerator-s3" in path for path in JARS)


def test_the_pinned_packages_are_what_the_project_asks_for() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    for requirement in map(Requirement, project["dependencies"]):
        assert requirement.specifier.contains(PINNED[canonicalize_name(requirement.name)]), requirement
    (asked,) = re.findall(r"pip install '(faiss-gpu[^']*)'", (ROOT / "docs/configuration.md").read_text())
    gpu = Requirement(asked)
    (given,) = (rest for name, rest in instructions(DOCKER / "ray.Dockerfile") if rest.startswith("FAISS_GPU="))
    name, version = given.removeprefix("FAISS_GPU=").split("==")
    assert name == gpu.name
    assert gpu.specifier.contains(version)


def test_the_entrypoint_starts_executors_drivers_and_commands(tmp_path: Path) -> None:
    programs = tmp_path / "spark home/bin"
    programs.mkdir(parents=True)
    for name in ("java", "spark-submit"):
        (programs / name).write_text('#!/bin/sh\nprintf "%s\\n" "$@"\n')
        (programs / name).chmod(0o755)
    given = {"DRIVER_URL": "spark://driver", "EXECUTOR_ID": "3", "EXECUTOR_CORES": "4", "APPLICATION_ID": "spark-1"}
    given |= {"EXECUTOR_MEMORY": "12g", "EXECUTOR_POD_IP": "10.0.0.3", "RESOURCE_PROFILE_ID": "0"}
    given |= {"EXECUTOR_POD_NAME": "pod", "DRIVER_BIND_ADDRESS": "10.0.0.2", "HOME": str(programs.parent)}
    given |= {f"JAVA_OPT_{n}": f"-Dn={n} of it" for n in range(11)}
    environment = {"PATH": f"{programs}:{os.environ['PATH']}"} | {f"SPARK_{k}": v for k, v in given.items()}

    def run(*arguments: str) -> list[str]:
        done = subprocess.run(
            [DOCKER / "spark-entrypoint.sh", *arguments], env=environment, capture_output=True, text=True, check=True
        )
        return done.stdout.splitlines()

    java = run("executor")
    assert java[:13] == [*(f"-Dn={n} of it" for n in range(11)), "-Xms12g", "-Xmx12g"]
    assert f"{programs.parent}/jars/*" in java[14].split(":")
    assert java[15] == "org.apache.spark.scheduler.cluster.k8s.KubernetesExecutorBackend"
    assert java[16:] == [
        *("--driver-url", "spark://driver", "--executor-id", "3", "--cores", "4", "--app-id", "spark-1"),
        *("--hostname", "10.0.0.3", "--resourceProfileId", "0", "--podName", "pod"),
    ]
    submit = ["--deploy-mode", "client", "--conf", "spark.driver.bindAddress=10.0.0.2", "--class", "X", "a b"]
    assert run("driver", "--class", "X", "a b") == submit
    assert run("printf", "%s", "a b") == ["a b"]
