"""IDs of every live item under another tokenizer, from stored vectors alone, and what moving to them would mean."""

import logging

from pipeline.errors import JobError
from pipeline.lake.live import live_items
from pipeline.lake.run import Run
from pipeline.lake.storage import Lake
from pipeline.on_ray.tokenize import fill, load_tokenizer
from pipeline.release.migration import migration
from pipeline.release.releases import released
from schemas.tables import EMBEDDINGS

logger = logging.getLogger(__name__)


def backfill(run: Run, tokenizer: str) -> None:
    """Append the missing rows of ``semantic_ids`` under ``tokenizer``, whichever encoders are configured.

    The tokenizer knows the encoders whose vectors it was trained on, so no encoder is looked for, fetched or loaded.
    The release stays as it is, and a run that was killed goes on from its last commit. ``run.metrics`` gets the
    ``migration`` from the released tokenizer, if that is another one.

    Raises:
        ConfigError: the lake has no such tokenizer.
        JobError: it is damaged, or no live item has vectors of its encoders.
    """
    lake = run.lake
    encoder = load_tokenizer(lake, tokenizer).encoder
    fill(run, tokenizer, encoder)
    unencoded = run.counts["unencoded"]
    if unencoded and unencoded == run.counts["rows_in"]:
        raise JobError(
            f"tokenizer {tokenizer} was trained on vectors of encoders {encoder}, and no live item has any "
            f"({_encoders(lake)}): configure those encoders and run encode"
        )
    if unencoded:
        logger.warning(
            "%d live items have no vectors of encoders %s and got no ID: configure those and run encode, then backfill",
            unencoded,
            encoder,
        )
    release = released(lake)
    if release and release.tokenizer != tokenizer and live_items(lake).num_rows:
        with run.phase("compare"):
            run.metrics["migration"] = migration(lake, release.tokenizer, tokenizer)


def _encoders(lake: Lake) -> str:
    found = sorted(set(lake.read(EMBEDDINGS, ["encoder"])["encoder"].to_pylist()))
    return f"there are vectors of encoders {', '.join(found)}" if found else "there are no vectors at all"
