"""Which model a configuration names."""

import torch
from torch import nn

from ranker.config import RankerConfig
from ranker.flat import FlatTransformer
from ranker.model import HMAT
from schemas.semantic_id import Layout

ARCHITECTURES: dict[str, type[HMAT] | type[FlatTransformer]] = {"hmat": HMAT, "flat": FlatTransformer}


def build(config: RankerConfig, layout: Layout) -> nn.Module:
    """A new model, its weights a function of ``config.seed`` alone."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        return ARCHITECTURES[config.arch](config, layout)
