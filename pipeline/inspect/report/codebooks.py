"""The codebooks as a tree: what items have a shared prefix in common, and how text and image codes split them.

A node is a shared prefix (``s12``, ``s12-7``) or, below a first shared code, a text or an image code (``s12.t3``).
Shown are the largest nodes; each has a sample of its items, whose texts say its typical words.
"""

from collections.abc import Iterable, Sequence
from typing import Any

from pyspark.sql import Column, DataFrame, Row
from pyspark.sql import functions as F
from pyspark.sql.window import Window

from pipeline.inspect.report.cards import Cards
from pipeline.inspect.report.subject import Subject, sampled
from pipeline.inspect.typical_words import telling, word_use
from schemas.semantic_id import MODALITIES

WIDTHS = (20, 4, 2)  # nodes shown below a node: of the first shared level, of the second, of the third
SPLITS = 3  # codes of text and of image that are shown below a first shared code
PICTURES = (6, 4, 3)  # of a node's items, by its level
SPLIT_PICTURES = 3
SAMPLE = 40  # items whose words speak for a node
CATALOGUE = 1000  # items whose words speak for the catalogue

Node = dict[str, Any]


def codebooks(about: Subject, first: dict[int, int], cards: Cards) -> Node:
    """The ``nodes`` of the first level, each with its own ``nodes`` and ``splits``; :func:`with_words` completes them.

    Args:
        about: the subject.
        first: items by first shared code, the most frequent first.
        cards: of the items that are shown.
    """
    top = [_node(f"s{code}", "shared", items, 1) for code, items in list(first.items())[: WIDTHS[0]]]
    tree = {"items": about.totals.items, "codes": len(first), "nodes": top, "splits": []}
    shown = {node["name"]: node for node in top}
    for child in _children(about, sorted(shown)):
        parent = shown.get(child["parent"])
        if parent is None or parent["part"] != "shared":
            continue  # below a node that is not shown
        node = _node(child["name"], child["part"], child["n"], parent["level"] + 1)
        node["siblings"] = child["siblings"]
        parent["nodes" if child["part"] == "shared" else "splits"].append(node)
        shown[child["name"]] = node
    _sample(about, shown, cards)
    return tree


def with_words(tree: Node, catalogue: Sequence[str], cards: Cards) -> None:
    """Give every node its typical ``words``, once ``cards`` have the texts of its sample."""
    everywhere = word_use(catalogue)
    for node in walk(tree["nodes"]):
        texts = [text for key in node.pop("sample") if (text := cards.texts[key])]
        node["words"] = telling(texts, everywhere, len(catalogue))


def walk(nodes: Iterable[Node]) -> Iterable[Node]:
    """All nodes below and at some."""
    for node in nodes:
        yield node
        yield from walk(node["nodes"])
        yield from walk(node["splits"])


def _node(name: str, part: str, items: int, level: int) -> Node:
    return {
        "name": name,
        "part": part,
        "level": level,
        "items": items,
        "words": [],
        "cards": [],
        "sample": [],
        "siblings": 0,
        "nodes": [],
        "splits": [],
    }


def _children(about: Subject, first: list[str]) -> list[Row]:
    """``parent``, ``part``, ``name`` and ``n`` items of the largest nodes below each node, which has so many of a part
    (``siblings``): deeper prefixes, and splits below the first code. Parents come before their children.

    As many rows as shown first codes have second ones, at most, times what is shown below a node.
    """
    levels = range(2, min(len(WIDTHS), about.layout.shared_levels) + 1)
    children = [F.struct(F.lit("shared").alias("part"), F.lit(n).alias("level"), *_pair(n)) for n in levels]
    children += _split(about)
    if not children:
        return []
    rows = about.rows.where(_prefix(1).isin(first))
    each = rows.select(F.explode(F.array(*children)).alias("child")).where("child.name IS NOT NULL")
    counted = each.groupBy("child.level", "child.parent", "child.part", "child.name").agg(F.count("*").alias("n"))
    family = Window.partitionBy("parent", "part")
    rank = F.row_number().over(family.orderBy(F.desc("n"), "name"))
    ranked = counted.select("*", rank.alias("rank"), F.count("*").over(family).alias("siblings"))
    most = F.when(F.col("part") != "shared", SPLITS)
    for level in levels:
        most = most.when(F.col("level") == level, WIDTHS[level - 1])
    return ranked.where(F.col("rank") <= most).orderBy("level", "parent", "part", "rank").collect()


def _prefix(level: int) -> Column:
    return F.concat(F.lit("s"), F.array_join(F.slice("shared", 1, level), "-"))


def _pair(level: int) -> tuple[Column, Column]:
    return _prefix(level - 1).alias("parent"), _prefix(level).alias("name")


def _split(about: Subject) -> list[Column]:
    """The first own codes of text and image below the first shared code; null where the item has none."""
    levels = dict(zip(MODALITIES, about.layout.levels[1:], strict=True))
    names = {
        part: F.concat(_prefix(1), F.lit(f".{part[0]}"), F.get(part, F.lit(0)).cast("string")) for part in MODALITIES
    }
    return [
        F.struct(
            F.lit(part).alias("part"), F.lit(2).alias("level"), _prefix(1).alias("parent"), names[part].alias("name")
        )
        for part in MODALITIES
        if levels[part]
    ]


def _sample(about: Subject, shown: dict[str, Node], cards: Cards) -> None:
    """Give every node a sample of its items, and cards of the first of them."""
    names = [_prefix(level) for level in range(1, min(len(WIDTHS), about.layout.shared_levels) + 1)]
    names += [each["name"] for each in _split(about)]
    each = about.rows.select("item_id", "content", sampled().alias("order"), F.explode(F.array(*names)).alias("node"))
    samples = first_of(each.where(F.col("node").isin(sorted(shown))), "node", SAMPLE)
    for name, node in shown.items():
        rows = samples.get(name, [])
        pictures = PICTURES[node["level"] - 1] if node["part"] == "shared" else SPLIT_PICTURES
        node["cards"] = [cards.card(row) for row in rows[:pictures]]
        node["sample"] = [cards.want_text(row) for row in rows]


def first_of(rows: DataFrame, group: str, most: int) -> dict[str, list[dict[str, Any]]]:
    """By group ``item_id`` and ``content`` of the first rows by ``order``."""
    grouped = rows.groupBy(group).agg(F.min_by(F.struct("item_id", "content"), "order", most).alias("rows"))
    return {row[group]: [each.asDict() for each in row["rows"]] for row in grouped.collect()}


def catalogue_sample(about: Subject, cards: Cards) -> list[tuple[str, str]]:
    """Items whose words speak for the catalogue: where ``cards`` will have their texts."""
    rows = about.rows.orderBy(sampled()).limit(CATALOGUE).select("item_id", "content").collect()
    return [cards.want_text(row.asDict()) for row in rows]


def texts_of(keys: Iterable[tuple[str, str]], cards: Cards) -> list[str]:
    """The texts that there are."""
    return [text for key in keys if (text := cards.texts[key])]
