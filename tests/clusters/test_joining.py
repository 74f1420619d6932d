"""Joining a cluster: whether there is one, whether it wants a token and which, and whether it has a core yet."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from ray_nodes import RayNodes

pytestmark = [pytest.mark.ray, pytest.mark.slow]

SHARES = """
import sys
from pipeline.config.models import RaySettings
from pipeline.on_ray.pools import at_first
from pipeline.on_ray.session import ray_session, share_of_node

with ray_session(RaySettings(address=sys.argv[1])):
    import ray
    spread = ray.remote(num_cpus=1, scheduling_strategy="SPREAD")
    share = spread(lambda: (ray.get_runtime_context().get_node_id(), share_of_node(4)))
    cores = {node["NodeID"]: int(node["Resources"].get("CPU", 0)) for node in ray.nodes()}
    shares = {(cores[node], threads) for node, threads in ray.get([share.remote() for _ in range(40)])}
    print(at_first(4), sorted(shares), flush=True)
"""
JOIN = """
import logging, sys
from jobs.entry import start
from pipeline.config.models import RaySettings
from pipeline.on_ray.session import ray_session

def join():
    import ray
    with ray_session(RaySettings(address=sys.argv[1], stall_seconds=float(sys.argv[2]))):
        print("joined", int(ray.cluster_resources().get("CPU", 0)), flush=True)

start(join)
"""


@pytest.fixture(scope="module")
def nodes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RayNodes]:
    cluster = RayNodes(tmp_path_factory.mktemp("nodes") / "cluster", [])
    yield cluster
    cluster.stop()


def joining(cluster: RayNodes, address: str, seconds: int = 10, **variables: str | None) -> subprocess.Popen[str]:
    """A driver of its own; a variable of ``None`` is not there."""
    environment = cluster.environment | {"RAY_gcs_server_port_wait_time_s": "1"} | variables
    line = [sys.executable, "-c", JOIN, address, str(seconds)]
    there = {name: value for name, value in environment.items() if value is not None}
    return subprocess.Popen(line, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=there)


def test_a_token_that_is_missing_or_wrong_is_told_from_a_cluster_that_is_not_there(
    nodes: RayNodes, tmp_path: Path
) -> None:
    (tmp_path / "wrong").write_text("0" * 64)
    home, path = {"HOME": str(tmp_path)}, "RAY_AUTH_TOKEN_PATH"
    drivers = {
        "asks for a token, and RAY_AUTH_MODE is not token": joining(nodes, nodes.address, RAY_AUTH_MODE=None),
        "there is none: set": joining(nodes, nodes.address, **home, **{path: None}),
        f"refuses the token of {path}": joining(nodes, nodes.address, **{path: str(tmp_path / "wrong")}),
        "no cluster at 127.0.0.1:1: ": joining(nodes, "127.0.0.1:1"),
        "has not come to 2 free cores in 10 s": joining(nodes, nodes.address),
    }
    for wanted, driver in drivers.items():
        _, said = driver.communicate(timeout=120)
        assert driver.returncode == 1, said
        (line,) = [line for line in said.splitlines() if line.startswith("hisam: ")]
        assert wanted in line
        assert ("RAY_AUTH_TOKEN" in line) == ("token" in wanted or "there is none" in wanted)
        assert "0" * 64 not in said


def test_a_cluster_that_is_started_where_no_home_can_be_written_wants_a_token(nodes: RayNodes, tmp_path: Path) -> None:
    (tmp_path / "home").write_text("no folder")
    unset = dict.fromkeys(("RAY_AUTH_MODE", "RAY_AUTH_TOKEN_PATH"))
    driver = joining(nodes, "local", HOME=str(tmp_path / "home"), **unset)
    _, said = driver.communicate(timeout=120)
    assert driver.returncode == 1, said
    assert said.splitlines()[-1].startswith("hisam: Ray cannot start: ")
    assert said.rstrip().endswith("let HOME be one that can be written, or set RAY_AUTH_TOKEN")


def test_a_job_waits_for_the_first_node_of_a_cluster_that_has_none(nodes: RayNodes) -> None:
    driver = joining(nodes, nodes.address, 120)
    assert driver.stderr is not None
    assert any("has no 2 cores yet: waiting for nodes" in line for line in driver.stderr)
    other = joining(nodes, nodes.address, 120)
    assert other.stderr is not None
    assert any("waiting for nodes" in line for line in other.stderr)
    other.terminate()
    assert other.communicate(timeout=60)[1].splitlines()[-1].startswith("hisam: interrupted")
    assert other.returncode == 130
    nodes.add("127.0.0.9", 3)
    said, _ = driver.communicate(timeout=120)
    assert (said.split(), driver.returncode) == (["joined", "3"], 0)


def test_a_worker_takes_its_share_of_the_cores_of_its_own_node(tmp_path: Path) -> None:
    cluster = RayNodes(tmp_path / "nodes", [1, 3])
    try:
        line, environment = [sys.executable, "-c", SHARES, cluster.address], cluster.environment
        said = subprocess.run(line, env=environment, check=True, capture_output=True, text=True, timeout=120).stdout
    finally:
        cluster.stop()
    cores = len(os.sched_getaffinity(0))
    shares = [(1, cores), (3, max(1, cores // 3))]
    assert said.strip() == f"1 {shares}"
