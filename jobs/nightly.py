"""extract → encode → tokenize → publish → report: one command, safe to run again; the first night trains, too."""

from functools import partial
from typing import TYPE_CHECKING

from jobs.encode import run_encode
from jobs.entry import DEFAULT_CONFIG, ConfigFile, Overrides, Tokenizer, read_config, tell
from jobs.extract import run_extract
from jobs.lines import say, then
from jobs.planning import one_cluster
from jobs.publish import run_publish
from jobs.report import reported
from jobs.tokenize import check_encoders, run_tokenize
from jobs.train_tokenizer import run_train_tokenizer

if TYPE_CHECKING:
    from pipeline.config.models import Config


def run_nightly(config: "Config", tokenizer: str | None = None) -> None:
    """All four jobs under one run id, one hold of the lake's lock, one Spark session and, if there is work, one Ray.

    The tokenizer is the released one, or the newest while none is released; one that cannot be used is refused before
    any work. Where the lake has none at all, one is trained. The report is made also where a gate refuses.
    """
    from pipeline.lake.run import Run
    from pipeline.on_ray.encoders.fingerprint import encoder_fingerprints
    from pipeline.on_spark.session import spark_for
    from pipeline.release.pointer import complete_move, tokenizer_of_nights
    from schemas.tables import VECTORS

    with Run("nightly", config, tokenizer=tokenizer) as night:
        complete_move(night)  # else the night would undo a publish or rollback that was killed halfway
        tokenizer = tokenizer or tokenizer_of_nights(night.lake)
        if tokenizer:
            check_encoders(night, tokenizer, encoder_fingerprints(config.encoders))
        with spark_for(night), one_cluster():
            run_extract(config, night.run_id)
            run_encode(config, night.run_id)
            if not tokenizer and not (night.lake.exists(VECTORS) and night.lake.rows(VECTORS)):
                say("nightly: there is no vector to train a tokenizer on yet")
                return
            tokenizer = tokenizer or run_train_tokenizer(config, night.run_id)
            run_tokenize(config, tokenizer, night.run_id)
            publish = partial(run_publish, config, tokenizer, run_id=night.run_id)
            reported(publish, config, tokenizer, night.run_id)
    tell(night)


def command(
    config: ConfigFile = DEFAULT_CONFIG,
    overrides: Overrides = None,
    tokenizer: Tokenizer = None,
) -> None:
    """Bring the released IDs up to date: extract, encode, tokenize, publish, and a report; the first night trains."""
    run_nightly(read_config(config, overrides), tokenizer)
    then("status", config)
