"""Read a configuration file: YAML, ``key.path=value`` overrides, paths made absolute, every fault told at once."""

import difflib
import hashlib
import json
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ValidationError

from pipeline.config.models import Config
from pipeline.errors import ConfigError


def load_config(file: str | Path, overrides: Sequence[str] = ()) -> Config:
    """The configuration in ``file`` with ``overrides`` (``tokenizer.epochs=5``) laid over it.

    Raises:
        ConfigError: the file is missing or is no YAML, or any key or value is wrong; every fault has a line.
    """
    file = Path(file)
    if not file.is_file():
        raise ConfigError(f"there is no configuration file {file}: name one with --config")
    try:
        raw = yaml.safe_load(file.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"{file} is not YAML: {error}") from error
    if not isinstance(raw, dict):
        raise ConfigError(f"{file} must hold sections such as lake and catalog")
    for override in overrides:
        _override(raw, override)
    try:
        config = Config.model_validate(raw)
    except ValidationError as error:
        faults = "\n".join(f"  {line}" for line in describe(error, Config))
        count = error.error_count()
        raise ConfigError(f"{file}: {count} fault{'s' if count > 1 else ''}\n{faults}") from error
    return _absolute(config, file.resolve().parent)


def config_hash(config: Config) -> str:
    """A short hash of every setting, for run records."""
    canonical = json.dumps(config.model_dump(mode="json"), sort_keys=True)
    return hashlib.sha256(canonical.encode()).hexdigest()[:16]


def describe(error: ValidationError, model: type[BaseModel]) -> Iterator[str]:
    """One line a fault: its path, what is wrong, and what would be allowed."""
    for fault in error.errors():
        path = ".".join(map(str, fault["loc"]))
        if fault["type"] == "extra_forbidden":
            yield f"{path}: unknown key; {_hint(model, fault['loc'])}"
        else:
            allowed = _range(model, fault["loc"])
            secret = fault["loc"][-1] in ("storage_options", "conf")  # may hold what must not be in a log
            given = "" if fault["type"] == "missing" or secret else f" (given: {fault['input']!r}{allowed})"
            yield f"{path}: {fault['msg'].removeprefix('Value error, ')}{given}"


def _hint(model: type[BaseModel], path: Sequence[int | str]) -> str:
    *section, key = map(str, path)
    known = list(_model_at(model, section).model_fields)
    if near := difflib.get_close_matches(key, known, n=1):
        return f"did you mean {near[0]}?"
    for beside in _model_at(model, section[:-1]).model_fields if section else ():
        if key in _fields_at(model, [*section[:-1], beside]):
            return f"it is a key of {'.'.join([*section[:-1], beside])}"
    return f"known keys: {', '.join(known)}"


def _override(raw: dict[str, Any], override: str) -> None:
    path, equals, text = override.partition("=")
    if not equals or not path:
        raise ConfigError(f"--set {override}: the form is key.path=value")
    *parents, last = path.split(".")
    section = raw
    for name in parents:
        inner = section.setdefault(name, {})
        if not isinstance(inner, dict):
            raise ConfigError(f"--set {override}: {name} is a value, not a section")
        section = inner
    try:
        section[last] = yaml.safe_load(text)
    except yaml.YAMLError:  # a template such as {title}. {brand} is plain text
        section[last] = text


def _model_at(model: type[BaseModel], path: Sequence[int | str]) -> type[BaseModel]:
    for name in path:
        annotation = model.model_fields[str(name)].annotation
        choices = [annotation, *getattr(annotation, "__args__", ())]
        model = next(choice for choice in choices if isinstance(choice, type) and issubclass(choice, BaseModel))
    return model


def _fields_at(model: type[BaseModel], path: Sequence[str]) -> Collection[str]:
    try:
        return _model_at(model, path).model_fields
    except StopIteration:  # a value, not a section
        return ()


def _range(model: type[BaseModel], path: Sequence[int | str]) -> str:
    try:
        field = _model_at(model, path[:-1]).model_fields[str(path[-1])]
    except (KeyError, StopIteration):  # inside a plain list or dictionary: no range is declared there
        return ""
    signs = {"ge": "≥", "gt": ">", "le": "≤", "lt": "<"}
    bounds = [
        f"{sign} {getattr(rule, name)}"
        for name, sign in signs.items()
        for rule in field.metadata
        if getattr(rule, name, None) is not None
    ]
    return f", allowed: {' and '.join(bounds)}" if bounds else ""


def _absolute(config: Config, base: Path) -> Config:
    """``config`` with the paths of files on this machine made absolute."""

    def resolve(path: str) -> str:
        return path if "://" in path else str((base / Path(path).expanduser()).resolve())

    catalog = config.catalog
    source = catalog.source.model_copy(update={"path": resolve(catalog.source.path)})
    image = catalog.image
    if image is not None and image.root is not None:
        image = image.model_copy(update={"root": resolve(image.root)})
    interactions = config.interactions
    if interactions is not None:
        where = interactions.source.model_copy(update={"path": resolve(interactions.source.path)})
        interactions = interactions.model_copy(update={"source": where})
    return config.model_copy(
        update={
            "lake": resolve(config.lake),
            "catalog": catalog.model_copy(update={"source": source, "image": image}),
            "interactions": interactions,
            "encoders": _local_models(config, base),
        }
    )


def _local_models(config: Config, base: Path) -> Any:
    """A model that is a folder beside the configuration file becomes its absolute path."""
    found = {}
    for name in ("text", "image"):
        encoder = getattr(config.encoders, name)
        folder = base / Path(encoder.model).expanduser()
        if encoder.model != "builtin" and folder.is_dir():
            found[name] = encoder.model_copy(update={"model": str(folder.resolve())})
    return config.encoders.model_copy(update=found)
