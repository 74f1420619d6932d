"""How well a tokenizer's parts keep known factors apart, and what else a generated catalogue lets one measure.

N items, D width of a part, S slots.
"""

import warnings

import numpy as np
from numpy.typing import NDArray
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import mutual_info_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import Tensor

from benchmarks.known_factors import Catalogue
from tokenizer.base.embeddings import MODALITIES, Embeddings
from tokenizer.base.tokenizer import Tokenizer
from tokenizer.quality.consensus import encode, pairs
from tokenizer.quality.metrics import fidelity, survey

PROBE_ITEMS = 6_000
OTHERS = {"shared": ("shared", "text", "image"), "text": ("shared", "text"), "image": ("shared", "image")}


def measure(model: Tokenizer, train: Catalogue, held_out: Catalogue) -> dict[str, float]:
    """All figures of one tokenizer: those of ``held_out`` items, use of codes and collisions of ``train``. Catalogues
    whose factors nobody knows have none, and get no figure about them.

    ``PART:FACTOR`` is a linear probe's accuracy for a factor from a part's code vectors, ``chance:FACTOR`` the share of
    the factor's largest class, ``first:FACTOR`` the share of its entropy that the first code tells.
    """
    items = held_out.embeddings.normalised()
    codes_NS, train_NS = encode(model, items), encode(model, train.embeddings)
    alike = fidelity(model, items, len(items))
    figures = {f"rebuilt:{m}": cosine for m, cosine in alike["reconstruction"].items()}
    figures |= {f"overlap:{m}": alike["neighbour_overlap"][m] for m in MODALITIES}
    if held_out.factors:
        figures |= _probes(model, train, train_NS[:PROBE_ITEMS], held_out, codes_NS)
    for factor, labels_N in held_out.factors.items():
        figures[f"first:{factor}"] = explained(labels_N, codes_NS[:, 0].numpy())
        figures[f"chance:{factor}"] = float(np.bincount(labels_N).max() / len(labels_N))
    kept = pairs(model, items, items.has_both_N.nonzero()[:, 0]).kept()
    figures |= {f"kept:{alone}": shares[0] for alone, shares in kept.items()}
    size, use = model.layout.codebook_size, survey(model, [train.embeddings])
    figures["used"] = min(level["used_share"] for level in use["levels"])
    figures["perplexity"] = min(level["perplexity"] for level in use["levels"]) / size
    figures |= {f"perplexity:{level['slot']}": level["perplexity"] / size for level in use["levels"]}
    figures["collisions"] = use["collisions"]["rate"]
    return figures


def explained(factor_N: NDArray[np.int64], code_N: NDArray[np.int64]) -> float:
    """The share of the factor's entropy that a code tells, less what a shuffled code tells: 0 to 1."""
    floor = mutual_info_score(factor_N, np.random.default_rng(0).permutation(code_N))
    entropy = mutual_info_score(factor_N, factor_N)
    return float((mutual_info_score(factor_N, code_N) - floor) / (entropy - floor))


def _probes(
    model: Tokenizer, train: Catalogue, train_NS: Tensor, held_out: Catalogue, codes_NS: Tensor
) -> dict[str, float]:
    figures = {}
    fitted, tested = model.parts(train_NS), model.parts(codes_NS)
    for part, factors in OTHERS.items():
        a_ND, b_ND = (getattr(parts, f"{part}_ND").numpy() for parts in (fitted, tested))
        a_N, b_N = (_has(c.embeddings, part)[: len(x)] for c, x in ((train, a_ND), (held_out, b_ND)))
        for factor in factors if a_ND.any() else ():
            known_N, asked_N = train.factors[factor][: len(a_ND)][a_N], held_out.factors[factor][b_N]
            probe = make_pipeline(StandardScaler(), LogisticRegression(C=0.3, max_iter=60))
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", ConvergenceWarning)
                figures[f"{part}:{factor}"] = float(probe.fit(a_ND[a_N], known_N).score(b_ND[b_N], asked_N))
    return figures


def _has(items: Embeddings, part: str) -> NDArray[np.bool_]:
    there_N: NDArray[np.bool_] = (items.present(part) if part in MODALITIES else items.has_text_N | True).numpy()
    return there_N
