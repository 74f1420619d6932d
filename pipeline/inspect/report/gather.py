"""Every section's data, and the pictures, of one lake: the same ones whenever nothing has changed."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from pyspark.sql import SparkSession

from pipeline.config.models import Config
from pipeline.inspect.report.cards import Cards
from pipeline.inspect.report.changes import changes, release_row
from pipeline.inspect.report.codebooks import catalogue_sample, codebooks, texts_of, with_words
from pipeline.inspect.report.collisions import collisions
from pipeline.inspect.report.costs import costs
from pipeline.inspect.report.gates import gates
from pipeline.inspect.report.levels import first_codes, levels
from pipeline.inspect.report.quality import quality
from pipeline.inspect.report.quarantine import quarantine, with_cards
from pipeline.inspect.report.ranker import ranker
from pipeline.inspect.report.space import space
from pipeline.inspect.report.subject import Subject, subject
from pipeline.inspect.report.verdict import nothing, verdict
from pipeline.lake.run_records import RunRecords
from pipeline.lake.storage import Lake
from pipeline.release.pointer import tokenizer_of_nights
from schemas.tables import ITEMS


@dataclass(frozen=True)
class Findings:
    """``data`` is what ``report.json`` holds; a card's ``picture`` counts in ``pictures``, JPEGs as base64."""

    data: dict[str, Any]
    pictures: list[str]


def gather(spark: SparkSession, lake: Lake, config: Config, tokenizer: str | None = None) -> Findings:
    """What a report says of the IDs under ``tokenizer``, by default that which a night would use.

    Spark joins and counts over all items; pictures are read from the files that hold a sampled item.

    Raises:
        ConfigError: the lake has no such tokenizer.
    """
    cards, records = Cards(), RunRecords(lake)
    tokenizer = tokenizer or tokenizer_of_nights(lake)
    data: dict[str, Any] = {
        "lake": lake.uri,
        "tokenizer": tokenizer,
        "quarantine": quarantine(spark, lake, config, cards),
        "costs": costs(records),
    }
    if tokenizer is not None:
        with subject(spark, lake, config, tokenizer) as about:
            if about is not None:
                data |= _of_ids(about, data, cards, records)
                return Findings(data, cards.pictures)
    return Findings(data | {"verdict": nothing(lake.exists(ITEMS), data)}, cards.pictures)


def _of_ids(about: Subject, data: dict[str, Any], cards: Cards, records: RunRecords) -> dict[str, Any]:
    with ThreadPoolExecutor(1) as aside:  # small lakes keep Spark waiting for its driver more than they keep it busy
        figures = aside.submit(gates, about)
        used = levels(about)
        found: dict[str, Any] = {
            "release": release_row(about),
            "items": {"live": about.live_items, "with_ids": about.totals.items},
            "changes": changes(about, cards),
            "collisions": collisions(about, cards),
            "codebooks": codebooks(about, first_codes(used), cards),
            "space": space(about, cards),
        }
        with_cards(data["quarantine"], about, cards)
        catalogue = catalogue_sample(about, cards)
        cards.fetch(about)
        found["gates"] = figures.result()
    with_words(found["codebooks"], texts_of(catalogue, cards), cards)
    found["levels"] = [{name: value for name, value in level.items() if name != "counts"} for level in used]
    found["quality"] = quality(about.lake, about.tokenizer)
    found["ranker"] = ranker(about.lake, records, about.tokenizer)
    return found | {"verdict": verdict(about, data | found)}
