"""The manifests against the schemas of Kubernetes and of the Spark operator, and what jobs rely on in them."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import kubernetes_validate
import pyspark
import pytest
import ray
from deployed import MANIFESTS, manifests
from kubeflow_spark_api.models import SparkV1beta2SparkApplication

OF_OPERATORS = ("SparkApplication", "RayJob")
DOCUMENTS = [pytest.param(m, id=f"{f.name}-{m['kind']}") for f in MANIFESTS for m in manifests(f)]
GPU = "nvidia.com/gpu"
BATCH = {"CronJob": 2, "Job": 2}


def of_kind(kind: str) -> dict[str, Any]:
    (found,) = (m for file in MANIFESTS for m in manifests(file) if m["kind"] == kind)
    return found


def named(document: dict[str, Any]) -> dict[str, Any]:
    """With the name that the cluster would give it."""
    meta = document["metadata"]
    return document | {"metadata": meta | {"name": meta.get("name", f"{meta.get('generateName')}x")}}


def pods(document: Any) -> Iterator[dict[str, Any]]:
    """Every pod's spec in it."""
    if isinstance(document, dict):
        if "containers" in document:
            yield document
        for inner in document.values():
            yield from pods(inner)
    elif isinstance(document, list):
        for inner in document:
            yield from pods(inner)


def containers(pod: dict[str, Any]) -> list[dict[str, Any]]:
    return [*pod.get("initContainers", ()), *pod["containers"]]


@pytest.mark.parametrize("document", DOCUMENTS)
def test_it_follows_the_schema_of_kubernetes(document: dict[str, Any]) -> None:
    version = kubernetes_validate.latest_version()
    if document["kind"] not in OF_OPERATORS:
        kubernetes_validate.validate(named(document), version, strict=True)
    for pod in pods(document):
        alone = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "pod"}, "spec": pod}
        kubernetes_validate.validate(alone, version, strict=True)


def test_the_spark_application_follows_its_schema() -> None:
    application = of_kind("SparkApplication")
    known = SparkV1beta2SparkApplication.from_dict(named(application)).to_dict()
    assert known["spec"] == application["spec"], "a key that the operator does not know is dropped"
    assert application["spec"]["sparkVersion"] == pyspark.__version__
    mounted = {volume["name"] for volume in application["spec"]["volumes"]}
    for role in ("driver", "executor"):
        assert {mount["name"] for mount in application["spec"][role]["volumeMounts"]} == mounted


def test_the_ray_job_says_what_kuberay_needs() -> None:
    job = of_kind("RayJob")
    assert job["apiVersion"] == "ray.io/v1"
    assert job["spec"]["shutdownAfterJobFinishes"] is True
    cluster = job["spec"]["rayClusterSpec"]
    assert cluster["rayVersion"] == ray.__version__
    (group,) = cluster["workerGroupSpecs"]
    assert set(group) == {"groupName", "replicas", "minReplicas", "maxReplicas", "rayStartParams", "template"}
    assert set(cluster["headGroupSpec"]) == {"rayStartParams", "template"}
    assert all(isinstance(value, str) for value in cluster["headGroupSpec"]["rayStartParams"].values())


def test_a_gpu_is_asked_for_by_what_runs_on_one_and_its_nodes_are_tolerated() -> None:
    found = 0
    for file in MANIFESTS:
        for pod in (pod for document in manifests(file) for pod in pods(document)):
            asking = [c for c in containers(pod) if GPU in c["resources"]["limits"]]
            assert all("ray-gpu" in c["image"] for c in asking)
            if asking:
                found += 1
                assert any(t["key"] == GPU and t["operator"] == "Exists" for t in pod["tolerations"])
                assert pod["nodeSelector"] == {f"{GPU}.present": "true"}
    assert found == 4


@pytest.mark.parametrize("file", MANIFESTS, ids=lambda file: file.name)
def test_secrets_are_named_and_never_written_and_nothing_runs_as_root(file: Path) -> None:
    for document in manifests(file):
        assert document["kind"] != "Secret"
        for pod in pods(document):
            assert pod["securityContext"]["runAsNonRoot"] is True
            for container in containers(pod):
                assert container["envFrom"] == [{"secretRef": {"name": "hisam-store"}}]
                assert not any("SECRET" in entry["name"] and "value" in entry for entry in container["env"])
                assert container["securityContext"]["allowPrivilegeEscalation"] is False
                mounts = {mount["mountPath"]: mount["name"] for mount in container["volumeMounts"]}
                volumes = {volume["name"]: volume for volume in pod["volumes"]}
                assert set(mounts.values()) <= set(volumes)
                assert volumes[mounts["/etc/hisam"]]["configMap"]["name"] == "hisam"


def test_a_refused_gate_is_not_tried_again_and_nights_keep_apart() -> None:
    specs = {kind: [m["spec"] for f in MANIFESTS for m in manifests(f) if m["kind"] == kind] for kind in BATCH}
    assert {kind: len(found) for kind, found in specs.items()} == BATCH
    assert all(schedule["concurrencyPolicy"] == "Forbid" for schedule in specs["CronJob"])
    for job in (*(schedule["jobTemplate"]["spec"] for schedule in specs["CronJob"]), *specs["Job"]):
        assert {"action": "FailJob", "onExitCodes": {"operator": "In", "values": [2, 3]}} in job["podFailurePolicy"][
            "rules"
        ]
        assert job["template"]["spec"]["restartPolicy"] == "Never"
