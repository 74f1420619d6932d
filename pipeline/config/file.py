"""Read a configuration file: YAML, ``key.path=value`` overrides, paths made absolute, every fault told at once."""

import difflib
import hashlib
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, get_args

import yaml
from pydantic import BaseModel, Tag, ValidationError

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


def lasting_settings(config: Config) -> str:
    """:func:`config_hash` without the source's path, which may name the day."""
    source = config.catalog.source.model_copy(update={"path": ""})
    return config_hash(config.model_copy(update={"catalog": config.catalog.model_copy(update={"source": source})}))


def describe(error: ValidationError, model: type[BaseModel]) -> Iterator[str]:
    """One line a fault: its path, what is wrong, and what would be allowed."""
    for fault in error.errors():
        keys, section = _place(model, fault["loc"])
        path = ".".join(keys)
        if section is not None and fault["type"] == "extra_forbidden":
            yield f"{path}: unknown key; {_hint(model, fault['loc'])}"
        else:
            allowed = _range(section, keys[-1])
            secret = {"storage_options", "conf"} & set(keys)  # may hold what must not be in a log
            given = "" if fault["type"] == "missing" or secret else f" (given: {fault['input']!r}{allowed})"
            yield f"{path}: {fault['msg'].removeprefix('Value error, ')}{given}"


def _hint(model: type[BaseModel], loc: Sequence[int | str]) -> str:
    """What an unknown key may be: one of its section, or one of a section beside it."""
    keys, section = _place(model, loc)
    known = list(section.model_fields) if section else []
    if near := difflib.get_close_matches(keys[-1], known, n=1):
        return f"did you mean {near[0]}?"
    above, parent = _place(model, loc[:-1])
    with_it = [
        name
        for name, field in (parent.model_fields.items() if parent else ())
        if any(keys[-1] in kind.model_fields for kind in sections(field.annotation).values())
    ]
    if with_it and above[-1] not in with_it:  # else it is one of another kind of the section itself
        return f"it is a key of {'.'.join([*above[:-1], with_it[0]])}"
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


def _place(model: type[BaseModel], loc: Sequence[int | str]) -> tuple[list[str], type[BaseModel] | None]:
    """The keys that lead to a fault, as a file spells them, and the section that the last of them stands in.

    Where a section may be of several kinds, pydantic names the kind among the keys. Inside a plain list or dictionary
    there is no section.
    """
    keys: list[str] = []
    section: type[BaseModel] | None = None
    kinds = {model.__name__: model}
    for step in map(str, loc):
        if len(kinds) > 1 and step in kinds:
            kinds = {step: kinds[step]}
            continue
        keys.append(step)
        section = next(iter(kinds.values()), None)
        field = section.model_fields.get(step) if section else None
        kinds = sections(field.annotation) if field else {}
    return keys, section


def sections(annotation: Any) -> dict[str, type[BaseModel]]:
    """The sections that a field may hold, by what pydantic calls them: a tag that they have, or their name."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return {annotation.__name__: annotation}
    tags = [note.tag for note in get_args(annotation) if isinstance(note, Tag)]
    found = {name: model for inner in get_args(annotation) for name, model in sections(inner).items()}
    return dict(zip(tags, found.values(), strict=True)) if tags else found


def _range(section: type[BaseModel] | None, key: str) -> str:
    field = section.model_fields.get(key) if section else None
    if field is None:
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
    for name, encoder in config.encoders.models.items():
        folder = base / Path(encoder.model).expanduser()
        if encoder.model != "builtin" and folder.is_dir():
            found[name] = encoder.model_copy(update={"model": str(folder.resolve())})
    return config.encoders.model_copy(update=found)
