"""A standalone Spark cluster of separate processes, and jobs that are submitted to it as docs/operations.md says."""

import os
import shutil
import socket
import subprocess
import sys
import sysconfig
import tarfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil
import pyspark

from pipeline.on_spark.java import find_java

ROOT = Path(__file__).parents[2]
BIN = Path(pyspark.__path__[0]) / "bin"
PACKAGES = ("schemas", "tokenizer", "ranker", "pipeline", "jobs")
EXECUTOR = "org.apache.spark.executor.CoarseGrainedExecutorBackend"


@dataclass(frozen=True)
class Environment:
    """The project's wheel in a virtual environment, and that environment packed for executors."""

    python: Path
    archive: Path
    launcher: Path


def pack(folder: Path) -> Environment:
    """What ``venv-pack`` would make; what the wheel depends on stays where it is installed, being gigabytes."""
    source, wheels, venv = folder / "source", folder / "wheels", folder / "venv"
    for package in PACKAGES:
        shutil.copytree(ROOT / package, source / package, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]
    subprocess.run([*pip, "wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", wheels, source], check=True)
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", venv], check=True)
    site = venv / "lib" / f"python{sys.version_info.major}.{sys.version_info.minor}" / "site-packages"
    subprocess.run([*pip, "install", "--no-deps", "--no-index", "--target", site, *wheels.iterdir()], check=True)
    (site / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")
    archive = folder / "environment.tar.gz"
    with tarfile.open(archive, "w:gz") as packed:
        packed.add(venv, ".")
    launcher = folder / "hisam.py"
    launcher.write_text("from jobs.cli import main\nmain()\n")
    return Environment(venv / "bin" / "python", archive, launcher)


class SparkCluster:
    """A master and two workers, each of one core; ``submit`` runs ``hisam`` on it."""

    def __init__(self, url: str, environment: Environment, folder: Path) -> None:
        self.url, self._environment, self._folder = url, environment, folder

    def submit(self, *arguments: str, jars: list[str], killing: bool = False) -> str:
        """Run ``hisam`` with ``arguments`` to its end, ``killing`` an executor on the way; what it wrote."""
        command: list[str | Path] = [
            BIN / "spark-submit",
            "--master",
            self.url,
            *(["--jars", ",".join(jars)] if jars else []),
        ]
        command += ["--archives", f"{self._environment.archive}#environment"]
        for setting in (
            "spark.pyspark.python=./environment/bin/python",
            f"spark.pyspark.driver.python={self._environment.python}",
            "spark.executor.memory=700m",
            "spark.sql.shuffle.partitions=4",
            "spark.ui.enabled=false",
            "spark.driver.extraJavaOptions=-XX:TieredStopAtLevel=1",  # what lives for seconds need not be compiled well
            "spark.executor.extraJavaOptions=-XX:TieredStopAtLevel=1",
        ):
            command += ["--conf", setting]
        output = self._folder / "submitted"
        variables = clean_variables(self._folder)
        with output.open("wb") as stream:
            process = subprocess.Popen(
                [*command, self._environment.launcher, *arguments],
                stdout=stream,
                stderr=stream,
                env=variables,
                cwd=self._folder,
            )
            try:
                if killing:
                    self._kill_an_executor(process)
                    killed = time.monotonic()
                status = process.wait(timeout=400)
                if killing:
                    sys.stdout.write(f"\nan executor was lost {time.monotonic() - killed:.0f} s before the job's end\n")
            finally:
                process.kill()
        said = output.read_text()
        assert status == 0, said
        return said

    def _kill_an_executor(self, job: "subprocess.Popen[bytes]") -> None:
        """Kill one of the executors as soon as it has a Python worker that reads the source."""
        while job.poll() is None:
            for executor in psutil.process_iter(["cmdline", "cwd"]):
                mine = str(executor.info["cwd"]).startswith(str(self._folder / "work"))
                if mine and EXECUTOR in (executor.info["cmdline"] or []) and _runs_python(executor):
                    executor.kill()
                    return
            time.sleep(0.1)


def _runs_python(executor: psutil.Process) -> bool:
    try:
        return any("pyspark.daemon" in child.cmdline() for child in executor.children())
    except psutil.Error:  # one of them has just ended
        return False


def clean_variables(folder: Path) -> dict[str, str]:
    """The environment without what would find this checkout, or another Spark."""
    gone = ("PYTHONPATH", "PYSPARK_PYTHON", "PYSPARK_DRIVER_PYTHON", "PYSPARK_GATEWAY_PORT", "SPARK_HOME")
    kept = {name: value for name, value in os.environ.items() if name not in gone}
    kept |= {"JAVA_HOME": str(find_java()), "SPARK_LOCAL_IP": "127.0.0.1", "SPARK_LOCAL_DIRS": str(folder / "local")}
    return kept | {"SPARK_WORKER_DIR": str(folder / "work")}


@contextmanager
def spark_cluster(folder: Path) -> Iterator[SparkCluster]:
    """A cluster that ends with the block."""
    environment = pack(folder)
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    url = f"spark://127.0.0.1:{port}"
    deploy = "org.apache.spark.deploy"
    master = [f"{deploy}.master.Master", "--host", "127.0.0.1", "--port", str(port), "--webui-port", "0"]
    worker = [
        f"{deploy}.worker.Worker",
        "--host",
        "127.0.0.1",
        "--cores",
        "1",
        "--memory",
        "1g",
        "--webui-port",
        "0",
        url,
    ]
    processes = []
    try:
        for number, program in enumerate((master, worker, worker)):
            log = (folder / f"process-{number}").open("wb")
            variables = clean_variables(folder) | {"SPARK_DAEMON_MEMORY": "256m"}
            command = [BIN / "spark-class", *program]
            processes.append(subprocess.Popen(command, stdout=log, stderr=log, env=variables, cwd=folder))
        yield SparkCluster(url, environment, folder)
    finally:
        for process in processes:
            family = psutil.Process(process.pid).children(recursive=True) if process.poll() is None else []
            for member in [*family, process]:
                member.kill()
            process.wait()
