"""A Ray cluster of several nodes on this machine: each a raylet with its workers, at a loopback address of its own."""

import json
import os
import secrets
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path

import psutil
from kills import Fault

REPOSITORY = Path(__file__).parent.parent.parent
RAY = [sys.executable, "-m", "ray.scripts.scripts"]


class RayNodes:
    """A head without a core, whose node drivers join, and a node of so many cores for each of ``cores``.

    ``environment`` is what a driver must see to join: the cluster's token, if it asks for one, is in it. A ``fault``
    befalls the workers; its victim ``node`` is the machine of the one that makes the call. With ``dashboard`` the
    cluster takes jobs that are submitted to that URL.
    """

    def __init__(
        self,
        folder: Path,
        cores: list[int],
        *,
        token: bool = True,
        fault: Fault | None = None,
        dashboard: bool = False,
    ) -> None:
        folder.mkdir(parents=True)
        self._folder, self.struck = folder, folder / "struck"
        self._nodes: dict[str, subprocess.Popen[bytes]] = {}
        self._sockets = tempfile.mkdtemp(prefix="ray-")  # their paths must be short
        (folder / "token").write_text(secrets.token_hex(32))
        self.environment = os.environ | {
            "PYTHONPATH": str(REPOSITORY),
            "RAY_AUTH_MODE": "token" if token else "disabled",
            "RAY_AUTH_TOKEN_PATH": str(folder / "token"),
        }
        self._of_nodes = self.environment | (
            {
                "FAULT": json.dumps(asdict(fault) | {"mark": str(self.struck)}),
                "PYTHONPATH": os.pathsep.join([str(REPOSITORY / "tests/faults/every_process"), str(REPOSITORY)]),
            }
            if fault
            else {}
        )
        with socket.create_server(("127.0.0.1", 0)) as free, socket.create_server(("127.0.0.1", 0)) as other:
            port, shown = free.getsockname()[1], other.getsockname()[1]
        self.address, self.dashboard = f"127.0.0.1:{port}", f"http://127.0.0.1:{shown}"
        where = [f"--port={port}", f"--include-dashboard={str(dashboard).lower()}", f"--dashboard-port={shown}"]
        self._start("127.0.0.1", 0, "--head", *where)
        for number, count in enumerate(cores):
            self.add(f"127.0.0.{number + 2}", count)

    def add(self, ip: str, cores: int) -> None:
        """One more node."""
        self._start(ip, cores, f"--address={self.address}")

    def _start(self, ip: str, cores: int, *where: str) -> None:
        line = [*RAY, "start", "--block", *where, f"--node-ip-address={ip}", f"--num-cpus={cores}", "--num-gpus=0"]
        line += ["--dashboard-agent-listen-port=0", "--disable-usage-stats"]
        line += [f"--object-store-memory={200 * 2**20}", f"--temp-dir={self._sockets}"]
        said = self._folder / f"{ip}.log"
        with said.open("wb") as log:
            self._nodes[ip] = subprocess.Popen(line, stdout=log, stderr=log, env=self._of_nodes)
        while "Ray runtime started" not in said.read_text():
            assert self._nodes[ip].poll() is None, said.read_text()
            time.sleep(0.2)

    def lose(self, ip: str) -> None:
        """Kill a node's raylet and all that runs under it, as when the machine is gone."""
        node = psutil.Process(self._nodes[ip].pid)
        processes = [node, *node.children(recursive=True)]
        for process in processes:
            with suppress(psutil.NoSuchProcess):
                process.kill()
        self._nodes.pop(ip).wait()
        psutil.wait_procs(processes, timeout=60)

    def stop(self) -> None:
        """The end of all nodes, the head's last."""
        for ip in reversed(list(self._nodes)):
            if self._nodes[ip].poll() is None:
                self.lose(ip)
        shutil.rmtree(self._sockets)
