"""The DST without one of its parts: what the configuration can leave out, and what only a benchmark would."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor

from tokenizer.dst.branch import Branch
from tokenizer.dst.objective import DSTObjective

RANDOM_START = "dst, random start"
SETTINGS: dict[str, dict[str, Any]] = {
    "dst": {},
    "dst, 64 codes": {"codebook_size": 64},
    "rq_kmeans": {"method": "rq_kmeans", "beam": 5},  # as faiss searches by default
    "rq_vae": {"method": "rq_vae", "beam": 5},
    "without alignment": {"align_weight": 0.0, "agreement_weight": 0.0},
    "without geometry": {"geometry_weight": 0.0},
    "without MI minimisation": {"information_weight": 0.0, "decorrelation_weight": 0.0},
    "without vCLUB": {"information_weight": 0.0},
    "without cross-modal decoding": {"cross_weight": 0.0, "self_weight": 2.0},
    "without withholding": {},
    "without teaching across": {},
    "without expected features": {},
    RANDOM_START: {"linear_start": False},
}
METHODS = ("dst", "rq_kmeans", "rq_vae")
ABLATIONS = tuple(name for name in SETTINGS if name.startswith("without"))


@contextmanager
def ablated(variant: str) -> Iterator[dict[str, Any]]:
    """The settings of a variant; within the block the parts that no setting leaves out are left out, too."""
    if variant == "without withholding":
        with patch.object(DSTObjective, "alone", _whole_again):
            yield SETTINGS[variant]
    elif variant == "without teaching across":
        with patch.object(DSTObjective, "teachers", _own_vectors):
            yield SETTINGS[variant]
    elif variant == "without expected features":
        with patch.object(Branch, "left_over", _all_features):
            yield SETTINGS[variant]
    else:
        yield SETTINGS[variant]


def _whole_again(self: DSTObjective, whole_BD: Tensor, z: dict[str, Tensor], both_B: Tensor) -> tuple[Tensor, Tensor]:
    """Every view of an item shows all of it."""
    return whole_BD[both_B], whole_BD[both_B]


def _own_vectors(self: DSTObjective, whole_BD: Tensor, text_PD: Tensor, image_PD: Tensor) -> Tensor:
    """Codes move towards the vectors that chose them, as in any residual quantiser."""
    return torch.cat([whole_BD, text_PD, image_PD])


def _all_features(self: Branch, h_BD: Tensor, shared_BL: Tensor) -> Tensor:
    """A modality's own codes quantise its features whole."""
    return h_BD
