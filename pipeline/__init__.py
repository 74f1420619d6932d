"""The steps of the pipeline as plain functions, and what readers of a lake need: :class:`Lake`, :func:`load_config`.

These two are imported when they are asked for: a worker of Spark or Ray that wants one module starts without them.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pipeline.config.file import load_config
    from pipeline.lake.storage import Lake

__all__ = ["Lake", "load_config"]


def __getattr__(name: str) -> Any:
    if name == "Lake":
        from pipeline.lake.storage import Lake

        return Lake
    if name == "load_config":
        from pipeline.config.file import load_config

        return load_config
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
