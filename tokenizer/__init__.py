"""The Disentangled Semantic Tokenizer: :func:`fit` one on embeddings, :func:`load` one from its folder.

:class:`DisentangledSemanticTokenizer` is :class:`tokenizer.dst.model.DST` by its full name.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tokenizer.base.artefact import load
    from tokenizer.dst.model import DST as DisentangledSemanticTokenizer  # noqa: N811  # a class
    from tokenizer.training.fitting import fit

__all__ = ["DisentangledSemanticTokenizer", "fit", "load"]


def __getattr__(name: str) -> Any:
    """Imported when they are asked for: a configuration is read without torch."""
    if name == "DisentangledSemanticTokenizer":
        from tokenizer.dst.model import DST

        return DST
    if name == "fit":
        from tokenizer.training.fitting import fit

        return fit
    if name == "load":
        from tokenizer.base.artefact import load

        return load
    raise AttributeError(name)
