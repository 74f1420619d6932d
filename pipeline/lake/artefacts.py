"""Artefacts of the lake, trained tokenizers and rankers: ``LAKE/tokenizers/FINGERPRINT``, ``LAKE/rankers/…``."""

import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

from pyarrow import fs

from pipeline.errors import ConfigError, JobError, first_line
from pipeline.lake.storage import Lake
from schemas.semantic_id import Layout
from tokenizer.base.config import TokenizerConfig

METRICS = "metrics.json"
WHOLE = "config.json"  # written last
OF_RUN = "trained-by-"  # and a run id: a file whose name alone counts, since a copy's files have other times
Kind = Literal["tokenizers", "rankers"]

_FINGERPRINT = re.compile(r"[0-9a-f]{16}")
_TRAINED_BY = {"tokenizers": "train-tokenizer", "rankers": "train-ranker"}


def store(lake: Lake, kind: Kind, folder: Path, fingerprint: str) -> None:
    """Copy a finished artefact into the lake, whose lock this process holds; it is the newest one from now on."""
    assert lake.writer is not None
    lake.write_json(f"{kind}/{fingerprint}/{OF_RUN}{lake.writer.run_id}.json", {})
    lake.upload(folder, f"{kind}/{fingerprint}")


@contextmanager
def local_folder(lake: Lake, kind: Kind, fingerprint: str) -> Iterator[Path]:
    """The artefact as a folder on this machine; if the lake is an object store, a copy that goes with the block.

    Raises:
        ConfigError: it is no fingerprint, or the lake has no such artefact; those that it has are named.
    """
    _require(lake, kind, fingerprint)
    if isinstance(lake.filesystem, fs.LocalFileSystem):
        yield Path(lake.path(f"{kind}/{fingerprint}"))
        return
    with tempfile.TemporaryDirectory(prefix="hisam-") as folder:
        yield lake.download(f"{kind}/{fingerprint}", Path(folder) / fingerprint)


def _require(lake: Lake, kind: Kind, fingerprint: str) -> None:
    known = fingerprints(lake, kind)
    if not _FINGERPRINT.fullmatch(fingerprint) or fingerprint not in known:
        there = f"there are {', '.join(known)}" if known else f"run {_TRAINED_BY[kind]} first"
        raise ConfigError(f"{lake.uri}/{kind} has no {fingerprint!r}; {there}")


def fingerprints(lake: Lake, kind: Kind) -> list[str]:
    """The artefacts of the lake, in the order in which they were trained."""
    files: dict[str, dict[str, fs.FileInfo]] = {}
    for info in lake.entries(kind, below=True):
        files.setdefault(info.path.split("/")[-2], {})[info.base_name] = info
    whole = {name: held for name, held in files.items() if WHOLE in held}

    def trained(name: str) -> tuple[str, int, str]:
        by = max((file for file in whole[name] if file.startswith(OF_RUN)), default="")
        return by, whole[name][WHOLE].mtime_ns, name

    return sorted(whole, key=trained)


def newest(lake: Lake, kind: Kind) -> str:
    """The artefact that was trained last.

    Raises:
        JobError: there is none yet.
    """
    found = fingerprints(lake, kind)
    if not found:
        raise JobError(f"there is nothing in {lake.uri}/{kind}: run {_TRAINED_BY[kind]} first")
    return found[-1]


def tokenizer_layout(lake: Lake, fingerprint: str) -> Layout:
    """The layout of a tokenizer's IDs, without its weights.

    Raises:
        ConfigError: the lake has no such tokenizer.
        JobError: its description is broken, or that of another tokenizer.
    """
    return _described(lake, fingerprint)[0]


def tokenizer_encoders(lake: Lake, fingerprint: str) -> dict[str, str]:
    """By modality the encoder whose vectors a tokenizer was trained on; raises as :func:`tokenizer_layout`."""
    return _described(lake, fingerprint)[1]


def tokenizer_metrics(lake: Lake, fingerprint: str) -> dict[str, Any]:
    """What a tokenizer was measured by when it was trained; empty where that was not kept.

    Raises:
        ConfigError: the lake has no such tokenizer.
        JobError: the file is broken.
    """
    _require(lake, "tokenizers", fingerprint)
    folder = f"tokenizers/{fingerprint}"
    metrics: dict[str, Any] = lake.read_json(f"{folder}/{METRICS}") if METRICS in lake.names(folder) else {}
    return metrics


def _described(lake: Lake, fingerprint: str) -> tuple[Layout, dict[str, str]]:
    _require(lake, "tokenizers", fingerprint)
    file = f"tokenizers/{fingerprint}/config.json"
    described = lake.read_json(file)
    try:
        holds, layout = described["fingerprint"], TokenizerConfig.model_validate(described["config"]).layout()
        encoders = {modality: str(described["encoders"][modality]) for modality in ("text", "image")}
    except (ValueError, KeyError, TypeError) as error:
        why = first_line(error)
        raise JobError(
            f"{lake.uri}/{file} does not describe a tokenizer ({why}): restore the folder or train again"
        ) from error
    refuse_another(lake, "tokenizers", fingerprint, holds)
    return layout, encoders


def refuse_another(lake: Lake, kind: Kind, fingerprint: str, holds: str) -> None:
    """Refuse a folder that does not hold the artefact it is named after.

    Raises:
        JobError: naming both.
    """
    if holds != fingerprint:
        raise JobError(f"{lake.uri}/{kind}/{fingerprint} holds {holds}: restore what belongs there, or train again")
