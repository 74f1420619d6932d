"""The Hierarchical Memory-Anchor Transformer: :class:`HMAT`, and :func:`load` for a trained one from its folder."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ranker.artefact import load
    from ranker.hmat.model import HMAT

__all__ = ["HMAT", "load"]


def __getattr__(name: str) -> Any:
    """Imported when they are asked for: a configuration is read without torch."""
    if name == "HMAT":
        from ranker.hmat.model import HMAT

        return HMAT
    if name == "load":
        from ranker.artefact import load

        return load
    raise AttributeError(name)
