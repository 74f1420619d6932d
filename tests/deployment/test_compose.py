"""The compose file against its schema, and its steps in order under both profiles."""

import subprocess
import sys
from pathlib import Path

import pytest
from deployed import COMPOSE, ROOT, commands, compose_steps, script

STEPS = ["demo", "extract", "encode", "encode", "train-tokenizer", "train-tokenizer", "tokenize", "tokenize"]
STEPS += ["publish", "sequences", "train-ranker", "evaluate"]


def test_it_follows_the_schema_of_compose() -> None:
    check = Path(sys.executable).with_name("check-jsonschema")
    command = [check, "--builtin-schema", "vendor.compose-spec", COMPOSE]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("profile", ["cpu", "gpu"])
def test_every_job_comes_in_its_turn(profile: str) -> None:
    steps = compose_steps(profile)
    found = [words for step in steps.values() if "entrypoint" in step for words in commands(script(step))]
    assert [words[0] for words in found] == STEPS
    for step in steps.values():
        on_gpu = "devices" in step.get("deploy", {}).get("resources", {}).get("reservations", {})
        assert on_gpu == ("ray" in step["image"] and profile == "gpu")
        if "build" in step:
            assert (ROOT / step["build"]["dockerfile"]).is_file()
        if "ray" in step["image"]:
            assert all(
                "--planned" in words or words[0] in ("train-ranker", "evaluate") for words in commands(script(step))
            )


@pytest.mark.parametrize("profile", ["cpu", "gpu"])
def test_a_step_waits_for_one_before_it_and_only_what_is_of_the_other_profile_may_be_missing(profile: str) -> None:
    steps = compose_steps(profile)
    for name, step in steps.items():
        waits = step.get("depends_on", {})
        assert (set(waits) & set(steps)) or name == "storage"
        assert all(wait.get("required", True) is False for other, wait in waits.items() if other not in steps)
