"""The state of a training as one safetensors file: tensors by name, beside them as JSON how far it has come."""

import json
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from tokenizer.base.embeddings import TokenizerError

PROGRESS = "progress"


def pack(tensors: dict[str, Tensor], progress: dict[str, Any]) -> bytes:
    """A safetensors file of ``tensors`` with ``progress`` in its header."""
    whole = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    packed: bytes = save(whole, metadata={PROGRESS: json.dumps(progress)})
    return packed


def unpack(packed: bytes) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The tensors, on the CPU, and the progress that :func:`pack` was given.

    Raises:
        TokenizerError: it is no such file.
    """
    try:
        tensors = load(packed)
        length = int.from_bytes(packed[:8], "little")
        progress = json.loads(json.loads(packed[8 : 8 + length])["__metadata__"][PROGRESS])
    except (SafetensorError, ValueError, KeyError) as error:
        raise TokenizerError(f"the checkpoint cannot be read ({error}); remove it to begin anew") from error
    return tensors, progress


def nested(tensors: dict[str, Tensor], group: str) -> dict[str, Tensor]:
    """The tensors of one group, without its name."""
    return {name.removeprefix(f"{group}/"): t for name, t in tensors.items() if name.startswith(f"{group}/")}


def optimiser_tensors(optimiser: torch.optim.Optimizer) -> dict[str, Tensor]:
    """Moments, each of its parameter's shape, and step counts, named ``PARAMETER/KIND``."""
    state = optimiser.state_dict()["state"]
    return {f"{i}/{kind}": torch.as_tensor(value) for i, kinds in state.items() for kind, value in kinds.items()}


def restore_optimiser(optimiser: torch.optim.Optimizer, tensors: dict[str, Tensor]) -> None:
    """The inverse of :func:`optimiser_tensors`; rates and decay stay the optimiser's own."""
    state: dict[int, dict[str, Tensor | int]] = {}
    for name, tensor in tensors.items():
        index, kind = name.split("/")
        counts = tensor.dtype == torch.int64  # steps, to SparseAdam a plain number, whose powers have more digits
        state.setdefault(int(index), {})[kind] = int(tensor) if counts else tensor
    optimiser.load_state_dict({"state": state, "param_groups": optimiser.state_dict()["param_groups"]})
