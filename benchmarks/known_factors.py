"""Generated catalogues whose factors are known: what both modalities tell, and what only one does.

N items; each embedding is a fixed random two-layer mixture of the vectors of the item's classes, plus noise.
"""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from tokenizer.base.embeddings import Embeddings

TEXT_DIM, IMAGE_DIM, MIXTURE = 384, 512, 128
Labels = NDArray[np.int64]
Matrix = NDArray[np.float64]


@dataclass(frozen=True)
class Grade:
    """How hard a generated catalogue is.

    ``shared`` coarse classes of ``fine`` subclasses each, ``own`` classes of either modality, ``noise`` as a share of
    the signal's spread, ``consensus`` the share of a modality's signal variance that the shared classes make (``None``:
    as it comes out of equally long class vectors), ``without_image`` the share of items that lack it, ``skew`` the
    exponent of the classes' Zipf law (0: equally frequent).
    """

    shared: int
    fine: int
    own: int
    noise: float
    consensus: float | None = None
    without_image: float = 0.0
    skew: float = 0.0


GRADES = {
    "easy": Grade(shared=16, fine=4, own=32, noise=0.15),
    "hard": Grade(shared=64, fine=8, own=128, noise=0.3),
    "weak": Grade(shared=64, fine=8, own=128, noise=0.3, consensus=0.2, without_image=0.3, skew=0.7),
}


@dataclass(frozen=True)
class Catalogue:
    """Embeddings and the classes behind them: ``factors`` has ``shared``, ``text`` and ``image``, each (N,) int64."""

    embeddings: Embeddings
    factors: dict[str, Labels]

    def select(self, rows: slice) -> "Catalogue":
        """Some of the items."""
        return Catalogue(self.embeddings.select(rows), {name: f_N[rows] for name, f_N in self.factors.items()})


def generate(grade: str, items: int, seed: int) -> Catalogue:
    """A catalogue of one of ``GRADES``; equal arguments give equal catalogues.

    The shared factor that is asked for later is the one of 64 classes: the subclass where there are 16 by 4 (easy), the
    coarse class where there are 64 by 8.
    """
    g, rng = GRADES[grade], np.random.default_rng(seed)
    coarse_N = _classes(rng, g.shared, items, g.skew)
    fine_N = coarse_N * g.fine + rng.integers(0, g.fine, items)
    own = {m: _classes(rng, g.own, items, g.skew) for m in ("text", "image")}
    shared_NH = np.concatenate(
        [rng.normal(size=(g.shared, 16))[coarse_N], 0.6 * rng.normal(size=(g.shared * g.fine, 16))[fine_N]], axis=1
    )
    vectors = []
    for m, width in (("text", TEXT_DIM), ("image", IMAGE_DIM)):
        own_NH = rng.normal(size=(g.own, 24))[own[m]]
        signal_NE = _mixture(rng, _balanced(shared_NH, own_NH, g.consensus), width)
        vectors.append(signal_NE + g.noise * signal_NE.std() * rng.normal(size=signal_NE.shape))
    has_image_N = rng.random(items) >= g.without_image
    text_ND, image_ND = (torch.from_numpy(v.astype(np.float32)) for v in vectors)
    embeddings = Embeddings(text_ND, image_ND, torch.ones(items, dtype=torch.bool), torch.from_numpy(has_image_N))
    return Catalogue(embeddings, {"shared": fine_N if g.shared * g.fine == 64 else coarse_N, **own})


def _classes(rng: np.random.Generator, count: int, items: int, skew: float) -> Labels:
    weights = np.arange(1, count + 1) ** -skew
    return rng.choice(count, size=items, p=weights / weights.sum())


def _balanced(shared_NH: Matrix, own_NH: Matrix, consensus: float | None) -> Matrix:
    """Both blocks side by side, scaled so that the shared one makes ``consensus`` of the variance."""
    if consensus is not None:
        total = [float(block.var(axis=0).sum()) for block in (shared_NH, own_NH)]
        shared_NH = shared_NH * (consensus * sum(total) / total[0]) ** 0.5
        own_NH = own_NH * ((1 - consensus) * sum(total) / total[1]) ** 0.5
    return np.concatenate([shared_NH, own_NH], axis=1)


def _mixture(rng: np.random.Generator, h_NH: Matrix, width: int) -> Matrix:
    inner = rng.normal(size=(h_NH.shape[1], MIXTURE)) / h_NH.shape[1] ** 0.5
    outer = rng.normal(size=(MIXTURE, width)) / MIXTURE**0.5
    mixed: Matrix = np.tanh(h_NH @ inner) @ outer
    return mixed
