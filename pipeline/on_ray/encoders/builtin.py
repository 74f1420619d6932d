"""The ``builtin`` encoders: descriptors that need no download, no weights and no fitting.

They make a first run mean something and keep tests offline; a real catalogue names a pretrained model.

* ``TextDescriptor``: hashed word and character n-grams (Weinberger et al. 2009) under a sparse random
  projection (Li, Hastie & Church 2006), so that a dot product approximates the overlap of two texts' words.
* ``ImageDescriptor``: MPEG-7-like colour layout, Hellinger-mapped HSV histograms and histograms of oriented
  gradients (Dalal & Triggs 2005), each block centred and normalised by itself, under the same projection.

Every row is computed by itself, so a vector depends on neither batch size nor order, to the last bit.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from functools import cached_property, lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

Vectors = NDArray[np.float32]

_SEED = 20260211


def _fingerprint(name: str, parameters: Mapping[str, object]) -> str:
    described = json.dumps({"encoder": name, "seed": _SEED, **parameters}, sort_keys=True)
    return f"{name}-{hashlib.sha256(described.encode()).hexdigest()[:16]}"


@lru_cache
def _random_projection(inputs: int, outputs: int, density: float) -> Any:
    """A fixed ``(inputs, outputs)`` sparse matrix that keeps dot products in expectation."""
    from scipy import sparse
    from sklearn.random_projection import SparseRandomProjection

    projection = SparseRandomProjection(outputs, density=density, random_state=_SEED)
    projection.fit(sparse.csr_matrix((1, inputs), dtype=np.float32))
    return projection.components_.T.tocsr().astype(np.float32)


def _unit(x_F: Vectors) -> Vectors:
    norm = np.linalg.norm(x_F)
    return x_F / norm if norm > 0 else x_F


def _unit_rows(x_ND: Vectors) -> Vectors:
    """Rows scaled to length one; a row of zeros, which has no direction, becomes the first axis."""
    x_ND = np.ascontiguousarray(x_ND)  # else the order of a row's sum, and its last bit, follow N
    norms_N1 = np.linalg.norm(x_ND, axis=1, keepdims=True)
    unit_ND = (x_ND / np.where(norms_N1 > 0, norms_N1, 1)).astype(np.float32)
    unit_ND[norms_N1[:, 0] == 0, 0] = 1
    return unit_ND


class TextDescriptor:
    """Texts to ``(N, 384)`` float32 rows of length one: hashed words, word pairs and character n-grams.

    English stop words are dropped, unless a text has no others. Counts are damped to ``1 + log(count)``. The first
    words count twice, since an item's title comes before its description. White space alone gets a fixed vector.
    """

    version = 1
    dim = 384
    features = 2**16
    word_ngrams = (1, 2)
    character_ngrams = (3, 5)
    character_weight = 1.0  # of the character block, against 1 for the word block
    lead_words = 10  # content words at the front that count again, as much as the whole text
    density = 1 / 48  # eight output dimensions a feature

    @property
    def fingerprint(self) -> str:
        """Name and hash of everything that decides a vector; nothing is loaded to compute it."""
        names = (
            *("version", "dim", "features", "word_ngrams", "character_ngrams", "character_weight"),
            *("lead_words", "density"),
        )
        return _fingerprint("builtin-text", {name: getattr(self, name) for name in names})

    def __call__(self, texts: Sequence[str]) -> Vectors:
        """``(N, dim)`` float32, one row of length one a text."""
        if not texts:
            return np.zeros((0, self.dim), np.float32)
        whole = [self._content(text) for text in texts]
        lead = [" ".join(content.split()[: self.lead_words]) for content in whole]
        projection = _random_projection(self.features, self.dim, self.density)
        return _unit_rows(((self._features(whole) + self._features(lead)) @ projection).toarray())

    def _features(self, texts: list[str]) -> Any:
        return self._counts(self._words, texts) + self.character_weight * self._counts(self._characters, texts)

    def _content(self, text: str) -> str:
        words = self._tokenize(text.lower())
        kept = [word for word in words if word not in self._stop_words]
        return " ".join(kept) or text

    def _counts(self, vectorizer: Any, texts: list[str]) -> Any:
        """Damped feature counts, each row of length one: a CSR matrix of shape ``(N, features)``."""
        from sklearn.preprocessing import normalize

        counts = vectorizer.transform(texts)
        counts.data = 1 + np.log(counts.data)
        return normalize(counts, copy=False)

    @cached_property
    def _words(self) -> Any:
        return self._vectorizer(analyzer="word", ngram_range=self.word_ngrams)

    @cached_property
    def _characters(self) -> Any:
        return self._vectorizer(analyzer="char_wb", ngram_range=self.character_ngrams)

    def _vectorizer(self, **analysis: Any) -> Any:
        from sklearn.feature_extraction.text import HashingVectorizer

        # The projection has signs; the hash's own would let colliding counts cancel before the logarithm.
        return HashingVectorizer(
            n_features=self.features, norm=None, alternate_sign=False, dtype=np.float32, **analysis
        )

    @cached_property
    def _tokenize(self) -> Any:
        return self._words.build_tokenizer()

    @cached_property
    def _stop_words(self) -> frozenset[str]:
        from sklearn.feature_extraction.text import ENGLISH_STOP_WORDS

        return ENGLISH_STOP_WORDS


class ImageDescriptor:
    """Pictures to ``(N, 256)`` float32 rows of length one: colour layout, colour histograms, oriented gradients.

    A picture of any mode and size is taken as RGB and resized to ``side`` × ``side``. Each block is centred and
    scaled to its weight, so that none drowns the others and unrelated pictures are not all alike.
    """

    version = 1
    dim = 256
    side = 64  # pixels
    layout_grid = 8  # cells a side of the colour layout
    layout_decay = 0.5  # how fast higher frequencies fade
    layout_mean = 0.3  # weight of the mean colour, which the histograms tell too
    hue_bins, saturation_bins, value_bins = 12, 3, 4
    usual_grey = 0.5  # share of near-grey pixels in a usual picture
    orientations = 9
    cell = 8  # pixels a side of a gradient cell
    weights = (0.8, 1.0, 1.1)  # colour layout, colour histograms, oriented gradients
    density = 1 / 8  # thirty-two output dimensions a feature

    @property
    def fingerprint(self) -> str:
        """Name and hash of everything that decides a vector; nothing is loaded to compute it."""
        names = (
            *("version", "dim", "side", "layout_grid", "layout_decay", "layout_mean", "hue_bins"),
            *("saturation_bins", "value_bins", "usual_grey", "orientations", "cell", "weights", "density"),
        )
        return _fingerprint("builtin-image", {name: getattr(self, name) for name in names})

    def __call__(self, images: Sequence[Image.Image]) -> Vectors:
        """``(N, dim)`` float32, one row of length one a picture."""
        if not images:
            return np.zeros((0, self.dim), np.float32)
        features_NF = np.stack([self._features(image) for image in images])
        projection = _random_projection(features_NF.shape[1], self.dim, self.density)
        # Sparse times dense sums each row in the same order whatever N is, which BLAS does not promise.
        return _unit_rows((projection.T @ features_NF.T).T)

    def _features(self, image: Image.Image) -> Vectors:
        small = image.convert("RGB").resize((self.side, self.side), Image.Resampling.BOX)
        blocks = (self._layout(small), self._histograms(small), self._gradients(small))
        features = [weight * _unit(block) for weight, block in zip(self.weights, blocks, strict=True)]
        return np.concatenate(features).astype(np.float32)

    def _layout(self, image: Image.Image) -> Vectors:
        """Signed square roots of the frequencies of a coarse YCbCr grid.

        The root keeps the strongest frequency from deciding alone; fading the higher ones forgives small shifts.
        """
        from scipy.fft import dctn

        n = self.layout_grid
        grid = np.asarray(image.resize((n, n), Image.Resampling.BOX).convert("YCbCr"), np.float32)
        frequencies = dctn(grid / 127.5 - 1, axes=(0, 1), norm="ortho")
        row, column = np.mgrid[:n, :n]
        weight = 1 / (1 + self.layout_decay * (row + column))
        weight[0, 0] = self.layout_mean
        return (np.sign(frequencies) * np.sqrt(np.abs(frequencies)) * weight[..., None]).ravel()

    def _histograms(self, image: Image.Image) -> Vectors:
        """Hellinger-mapped HSV histograms of the middle and of the surround, less what is usual.

        Near-grey pixels, whose hue is noise, have bins without hue.
        """
        hue, saturation, value = (
            channel * bins // 256
            for channel, bins in zip(
                np.moveaxis(np.asarray(image.convert("HSV"), np.int64), -1, 0),
                (self.hue_bins, self.saturation_bins, self.value_bins),
                strict=True,
            )
        )
        tints = self.hue_bins * (self.saturation_bins - 1)
        tint = np.where(saturation == 0, 0, 1 + hue * (self.saturation_bins - 1) + saturation - 1)
        bins = tint * self.value_bins + value
        shares = np.array([self.usual_grey] + [(1 - self.usual_grey) / tints] * tints)
        usual = np.sqrt(np.repeat(shares, self.value_bins) / self.value_bins)  # of length one
        edge = slice(self.side // 4, -(self.side // 4))
        middle = np.zeros(bins.shape, bool)
        middle[edge, edge] = True
        roots = [
            np.sqrt(np.bincount(bins[region], minlength=len(usual)) / region.sum()) for region in (middle, ~middle)
        ]
        return np.concatenate([root - (root @ usual) * usual for root in roots])

    def _gradients(self, image: Image.Image) -> Vectors:
        """Histograms of oriented gradients, less each cell's mean over orientations."""
        from skimage.feature import hog

        cells = hog(
            np.asarray(image.convert("L"), np.float32) / 255,
            orientations=self.orientations,
            pixels_per_cell=(self.cell, self.cell),
            cells_per_block=(2, 2),
            feature_vector=False,
        )
        return (cells - cells.mean(axis=-1, keepdims=True)).ravel()
