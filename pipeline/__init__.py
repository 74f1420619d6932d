"""The steps of the pipeline as plain functions, and what readers of a lake need: :class:`Lake`, :func:`load_config`."""

from pipeline.config.file import load_config
from pipeline.lake.storage import Lake

__all__ = ["Lake", "load_config"]
