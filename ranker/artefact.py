"""A trained ranker as a folder: ``config.json``, ``model.safetensors``, ``metrics.json``.

``config.json`` holds the configuration, the layout and the fingerprint of the tokenizer whose codes the ranker reads,
and the ranker's own fingerprint: a hash of all of these and of the weights.
"""

import hashlib
import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from ranker.architectures import build
from ranker.config import RankerConfig
from ranker.factors import ItemFactors
from schemas.semantic_id import Layout

FORMAT = 1
CONFIG, WEIGHTS, METRICS = "config.json", "model.safetensors", "metrics.json"
DECODED = "items.decoded.decoded_CV"  # in the weights, if the ranker has any
VOCABULARY = "items.identity.hash_I"  # the same
COLLABORATIVE = "collaborative."  # what the names of the factors of items begin with there


class ArtefactError(ValueError):
    """A folder that is not a whole ranker, or not one of the tokenizer asked for."""


@dataclass(frozen=True)
class TrainedRanker:
    """A ranker's weights with all that is needed to use them."""

    config: RankerConfig
    layout: Layout
    tokenizer: str
    state: dict[str, Tensor]

    @property
    def fingerprint(self) -> str:
        """16 hexadecimal digits that change with the weights, the configuration, the layout or the tokenizer."""
        digest = hashlib.sha256(json.dumps(self._identity(), sort_keys=True).encode())
        for name, tensor in sorted(self.state.items()):
            digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
            digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)
        return digest.hexdigest()[:16]

    def model(self, device: torch.device | str = "cpu") -> nn.Module:
        """The model, ready to score.

        Raises:
            ArtefactError: the weights are not those of the configured architecture.
        """
        try:
            factors = ItemFactors.of(self.state, COLLABORATIVE)
            model = build(self.config, self.layout, self.state.get(DECODED), factors, self.state.get(VOCABULARY))
            model.load_state_dict(self.state)
        except (RuntimeError, ValueError) as error:
            raise ArtefactError(f"the weights do not fit arch {self.config.arch!r}: {error}") from error
        return model.to(device).eval()

    def save(self, folder: Path, metrics: dict[str, Any]) -> None:
        """Write the artefact; ``config.json`` comes last, so a folder that has one is whole."""
        folder.mkdir(parents=True, exist_ok=True)
        save_file({name: tensor.contiguous() for name, tensor in self.state.items()}, folder / WEIGHTS)
        (folder / METRICS).write_text(json.dumps(metrics, indent=2) + "\n")
        config = self._identity() | {"fingerprint": self.fingerprint}
        (folder / CONFIG).write_text(json.dumps(config, indent=2) + "\n")

    def _identity(self) -> dict[str, Any]:
        return {
            "format": FORMAT,
            "ranker": self.config.model_dump(mode="json"),
            "layout": asdict(self.layout),
            "tokenizer": self.tokenizer,
        }


def load(folder: str | Path, tokenizer: str | None = None) -> TrainedRanker:
    """Read and verify an artefact; with ``tokenizer``, only one made for that tokenizer.

    Raises:
        ArtefactError: a file is missing or unreadable, the weights are not those the fingerprint was made of, or
            the ranker was made for another tokenizer (both fingerprints are named).
    """
    folder = Path(folder)
    for name in (CONFIG, WEIGHTS):
        if not (folder / name).is_file():
            raise ArtefactError(f"{folder} is not a ranker: {name} is missing")
    try:
        stored = json.loads((folder / CONFIG).read_bytes())
        if stored["format"] != FORMAT:
            raise ValueError(f"{CONFIG} has format {stored['format']}, this version reads {FORMAT}")
        config, layout = RankerConfig(**stored["ranker"]), Layout(**stored["layout"])
        expected, made_for = stored["fingerprint"], stored["tokenizer"]
        state = load_file(folder / WEIGHTS)
    except (KeyError, TypeError, ValueError, SafetensorError) as error:
        raise ArtefactError(f"{folder} is not a ranker this version can read: {error}") from error
    trained = TrainedRanker(config, layout, made_for, state)
    if trained.fingerprint != expected:
        raise ArtefactError(
            f"{folder} is damaged: its content has fingerprint {trained.fingerprint}, {CONFIG} says {expected}"
        )
    if tokenizer is not None and tokenizer != made_for:
        raise ArtefactError(f"the ranker in {folder} reads tokenizer {made_for}, the data is of {tokenizer}")
    return trained
