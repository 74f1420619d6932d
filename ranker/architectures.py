"""Which model a configuration names."""

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from ranker.baselines.din import DIN
from ranker.baselines.flat import FlatTransformer
from ranker.baselines.hstu import HSTU
from ranker.baselines.sasrec import SASRec
from ranker.baselines.whole_items import WholeItems
from ranker.config import RankerConfig
from ranker.factors import ItemFactors
from ranker.hmat.model import HMAT
from ranker.optimisers import sparse_tables
from schemas.semantic_id import Layout

BASELINES: dict[str, type[FlatTransformer | WholeItems]] = {
    "flat": FlatTransformer,
    "sasrec": SASRec,
    "hstu": HSTU,
    "din": DIN,
}


def build(
    config: RankerConfig,
    layout: Layout,
    decoded_CV: Tensor | None = None,
    factors: ItemFactors | None = None,
    hash_I: Tensor | None = None,
) -> nn.Module:
    """A new model, its weights a function of ``config.seed`` alone.

    Args:
        config: the model.
        layout: slots and codebook size of the codes that it reads.
        decoded_CV: if ``config.decoded``, the vectors that the codes stand for, float32, a row a code: those of slot 0,
            the absent one last, then those of slot 1, and so on.
        factors: if ``config.collaborative``, of the items, made with these decoded vectors.
        hash_I: if ``config.item_id``, int64 and ascending, of the items that have a vector of their own.

    Raises:
        ValueError: ``decoded_CV`` is missing, not asked for, or has not a row a code; or ``factors`` or ``hash_I`` are
            missing, or not asked for.
    """
    rows = layout.slots * (layout.codebook_size + 1)
    if bool(config.decoded) != (decoded_CV is not None) or (decoded_CV is not None and len(decoded_CV) != rows):
        given = "none" if decoded_CV is None else f"{len(decoded_CV)} rows"
        raise ValueError(f"ranker.decoded wants vectors of {rows * bool(config.decoded)} codes, not {given}")
    if (config.collaborative is None) != (factors is None):
        raise ValueError("ranker.collaborative and factors of items go together: one is given without the other")
    if (config.item_id is None) != (hash_I is None):
        raise ValueError("ranker.item_id and a vocabulary of items go together: one is given without the other")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        if config.arch == "hmat":
            model: HMAT | FlatTransformer | WholeItems = HMAT(config, layout, decoded_CV, factors)
        else:
            model = BASELINES[config.arch](config, layout, decoded_CV)
    if hash_I is not None:
        model.items.know(hash_I)
    _keep_from_all_reduce(model)
    return model


def _keep_from_all_reduce(model: nn.Module) -> None:
    """Where workers train it together, each has the same buffers, and :mod:`ranker.optimisers` sums sparse gradients:
    DistributedDataParallel would send both whole at every step."""
    tables = {id(table) for table in sparse_tables(model)}
    kept = [name for name, parameter in model.named_parameters() if id(parameter) in tables]
    kept += [name for name, _ in model.named_buffers()]
    DistributedDataParallel._set_params_and_buffers_to_ignore_for_model(model, kept)
