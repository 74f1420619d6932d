"""What lies in ``docker/``, read: instructions of Dockerfiles, steps of the compose file, commands of everything."""

import json
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[2]
DOCKER = ROOT / "docker"
DOCKERFILES = sorted(DOCKER.glob("*.Dockerfile"))
MANIFESTS = sorted((DOCKER / "kubernetes").glob("*.yaml"))
COMPOSE = DOCKER / "compose.yaml"


def instructions(dockerfile: Path) -> list[tuple[str, str]]:
    """The instructions of a Dockerfile in order, each with its arguments on one line."""
    lines = [line for line in dockerfile.read_text().splitlines() if not line.lstrip().startswith("#")]
    whole = "\n".join(lines).replace("\\\n", " ")
    return [(name, rest.strip()) for name, _, rest in (line.partition(" ") for line in whole.splitlines() if line)]


def copied(dockerfile: Path) -> list[str]:
    """What a Dockerfile copies out of the repository."""
    sources = [rest.split()[:-1] for name, rest in instructions(dockerfile) if name == "COPY" and "--from=" not in rest]
    return [source for group in sources for source in group]


def manifests(file: Path) -> list[dict[str, Any]]:
    """The documents of a manifest."""
    return list(yaml.safe_load_all(file.read_text()))


def compose_steps(profile: str) -> dict[str, dict[str, Any]]:
    """The services of a profile in an order in which each comes after what it waits for."""
    services = {k: v for k, v in yaml.safe_load(COMPOSE.read_text())["services"].items() if profile in v["profiles"]}
    ordered: dict[str, dict[str, Any]] = {}
    while services:
        ready = [name for name, step in services.items() if not set(step.get("depends_on", ())) & set(services)]
        assert ready, f"{sorted(services)} wait for each other"
        ordered |= {name: services.pop(name) for name in ready}
    return ordered


def script(step: dict[str, Any]) -> str:
    """What a step's shell runs, with compose's doubled dollars undone."""
    (text,) = step["command"]
    return text.replace("$$", "$")


def strings(value: Any) -> Iterator[str]:
    """Every string in a document, a list of arguments as one command."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        if value.get("mainApplicationFile", "").endswith("/hisam.py"):
            yield shlex.join(["hisam", *value["arguments"]])
        for inner in value.values():
            yield from strings(inner)
    elif isinstance(value, list):
        if value[:1] == ["hisam"]:
            yield shlex.join(value)
        for inner in value:
            yield from strings(inner)


def shell_texts(file: Path) -> Iterator[str]:
    """Whatever a file hands to a shell or runs as it stands."""
    if file.suffix == ".yaml":
        for document in manifests(file):
            yield from strings(document)
    elif file.suffix == ".Dockerfile":
        for name, rest in instructions(file):
            in_json = name in ("CMD", "ENTRYPOINT", "HEALTHCHECK")
            yield shlex.join(json.loads(rest[rest.index("[") :])) if in_json else rest
    elif file.suffix == ".md":
        yield from (line for line in file.read_text().splitlines() if line.startswith("    "))
    else:
        yield from (line for line in file.read_text().splitlines() if not line.startswith("#"))


def commands(text: str) -> Iterator[list[str]]:
    """The arguments of every ``hisam`` in a shell's text; of ``${X:+words}`` the words are given."""
    for line in re.sub(r"\$\{\w+:\+(.*?)\}", r"\1", text.replace("$$", "$")).splitlines():
        for found in re.finditer(r"(?<![\w/.:-])hisam (?=[a-z-])", line):
            words = list(shlex.shlex(line[found.end() :], posix=True, punctuation_chars="();<>|&"))
            ends = [i for i, word in enumerate(words) if set(word) <= set("();<>|&")]
            yield words[: ends[0]] if ends else words
