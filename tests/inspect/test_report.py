"""What a report says of a small lake, against its tables read in plain Python, and that its page is inert."""

import base64
import hashlib
import io
import json
import re
import shutil
from collections import Counter
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
import yaml
from handmade import config_of
from no_spark import asks_for_spark, no_spark
from PIL import Image
from pyspark.sql import SparkSession
from report_shop import HOSTILE, ODD_ID, Parsed, ReportShop, Written
from typer.testing import CliRunner

import jobs.report
from jobs.cli import app
from pipeline.config.file import load_config
from pipeline.config.models import Config
from pipeline.errors import GateRefused, JobError
from pipeline.inspect.report.cards import PICTURE_BYTES, SHOWN
from pipeline.inspect.report.charts import plain
from pipeline.inspect.report.codebooks import PICTURES, SPLITS, WIDTHS
from pipeline.inspect.report.collisions import GROUPS, ITEMS
from pipeline.inspect.report.gather import Findings
from pipeline.inspect.report.page import page
from pipeline.inspect.report.space import MAPPED, NEAREST, QUERIES
from pipeline.lake.run import Run
from pipeline.lake.storage import Lake
from schemas.reasons import Reason
from schemas.semantic_id import MODALITIES
from schemas.tables import TABLES

pytestmark = pytest.mark.spark

RUNNING = {"application/json": False, None: True}  # by the type of a script


@pytest.fixture(scope="module")
def shop(spark: SparkSession, tmp_path_factory: pytest.TempPathFactory) -> ReportShop:
    """With news since its release."""
    shop = ReportShop(spark, tmp_path_factory.mktemp("report shop"))
    shop.news()
    shop.quarantine()
    return shop


@pytest.fixture(scope="module")
def found(shop: ReportShop) -> Written:
    before = {name: shop.lake.version(table) for name, table in TABLES.items()}
    said = report(shop)
    assert {name: shop.lake.version(table) for name, table in TABLES.items()} == before
    (folder,) = Path(shop.lake.uri, "reports").iterdir()
    return Written(folder, said)


def report(shop: ReportShop, *arguments: str) -> str:
    """What the command says."""
    file = shop.folder / "hisam.yaml"
    file.write_text(yaml.safe_dump(shop.config.model_dump(mode="json", exclude_none=True)))
    done = CliRunner().invoke(app, ["report", "-c", str(file), *arguments], catch_exceptions=False)
    assert done.exit_code == 0
    return done.output


def cards(data: Any) -> list[dict[str, Any]]:
    """Every card of the findings."""
    if isinstance(data, dict):
        own = [data] if "picture" in data and "content" in data else []
        return own + [card for value in data.values() for card in cards(value)]
    return [card for value in data for card in cards(value)] if isinstance(data, list) else []


def test_news_are_counted_and_shown_with_what_they_were(found: Written, shop: ReportShop) -> None:
    data = found.data
    assert data["verdict"]["state"] == "release"
    assert {kind["kind"]: kind["items"] for kind in data["changes"]["kinds"]} == {
        "added": 3,
        "removed": 2,
        "codes": 2,
        "content": 1,
    }
    shown = {kind["kind"]: kind["examples"] for kind in data["changes"]["kinds"]}
    assert sorted(each["item_id"] for each in shown["removed"]) == ["p6", "p7"]
    (edited,) = shown["content"]
    assert edited["new"]["card"]["text"] == "edited p5"
    assert edited["old"]["card"]["text"].startswith("emoji 🦄")
    assert edited["old"]["sid"] == edited["new"]["sid"]
    assert data["items"] == {"live": 42, "with_ids": 42}
    assert data["gates"]["figures"]["new_items"] == 3
    uses = Counter(codes[0] for codes in shop.codes.values())
    first = data["levels"][0]
    assert (first["slot"], first["used"], first["items"]) == ("shared_0", len(uses), 42)
    assert [point["items"] for point in first["curve"]] == sorted(uses.values(), reverse=True)
    assert first["curve"][0]["items"] / 42 == first["share"]


def test_the_tree_counts_the_items_of_each_prefix(found: Written, shop: ReportShop) -> None:
    nodes = found.data["codebooks"]["nodes"]
    prefixes = Counter(f"s{codes[0]}" for codes in shop.codes.values())
    deeper = Counter(f"s{codes[0]}-{codes[1]}" for codes in shop.codes.values())
    splits = Counter(f"s{codes[0]}.t{codes[2]}" for codes in shop.codes.values())
    assert {node["name"]: node["items"] for node in nodes} == prefixes
    for node in nodes:
        assert all(child["items"] == deeper[child["name"]] for child in node["nodes"])
        assert {child["siblings"] for child in node["nodes"]} == {sum(n.startswith(f"{node['name']}-") for n in deeper)}
        texts = [child for child in node["splits"] if child["part"] == "text"]
        assert all(child["items"] == splits[child["name"]] for child in texts)
        ranked = sorted((splits[n] for n in splits if n.startswith(f"{node['name']}.")), reverse=True)
        assert [child["items"] for child in texts] == ranked[:3]
        assert all(card["item_id"] in shop.codes for card in node["cards"])
    words = {word for node in nodes for child in node["nodes"] for word in child["words"]}
    assert words & {"thing", "number", "edited", "brand"} or not words


def test_collisions_neighbours_and_the_map_are_of_the_items(found: Written, shop: ReportShop) -> None:
    sizes = Counter(shop.codes.values())
    groups = found.data["collisions"]
    assert [group["items"] for group in groups] == sorted((n for n in sizes.values() if n > 1), reverse=True)[:12]
    for group in groups:
        items = [card["item_id"] for card in group["cards"]]
        assert len({shop.codes[item] for item in items}) == 1
    space = found.data["space"]
    assert space["items"] == len(space["map"]["points"]) == 42
    assert {point["card"]["item_id"]: point["code"] for point in space["map"]["points"]} == {
        item: codes[0] for item, codes in shop.codes.items()
    }
    for query in space["neighbours"]["queries"]:
        own = shop.codes[query["item"]["card"]["item_id"]]
        near = [shop.codes[each["card"]["item_id"]] for each in query["by_codes"]]
        leading = [2 if codes[:2] == own[:2] else 1 for codes in near]
        assert all(codes[0] == own[0] for codes in near)
        assert leading == sorted(leading, reverse=True)
    pairs = [(a, b) for a in shop.codes for b in shop.codes if a != b]
    same = sum(shop.codes[a][0] == shop.codes[b][0] for a, b in pairs) / len(pairs)
    assert space["neighbours"]["levels"][0]["chance"] == pytest.approx(same)


def test_pictures_are_small_jpegs_and_what_does_not_open_has_none(found: Written, shop: ReportShop) -> None:
    for picture in found.pictures:
        with Image.open(io.BytesIO(base64.b64decode(picture)), formats=["JPEG"]) as image:
            assert max(image.size) == 96
    by_item = {card["item_id"]: card for card in cards(found.data)}
    assert by_item["p8"]["picture"] is None  # torn in the lake
    assert by_item["p9"]["picture"] is not None
    assert by_item[ODD_ID]["text"] == "an odd id"
    reasons = {each["reason"]: each for each in found.data["quarantine"]["reasons"]}
    decode = {each["item_id"]: each for each in reasons["image_decode"]["examples"]}
    assert decode["p9"]["picture"] is not None  # torn, and opens in part
    assert decode["p10"]["picture"] is None  # a vector drawing
    assert reasons["image_decode"]["remedy"].startswith("Deliver the picture whole, as JPEG")
    assert reasons["bad_text"]["examples"][0]["card"] is None


def test_what_the_catalogue_says_is_inert_text(found: Written) -> None:
    text = found.page
    parsed = Parsed(text)
    policy = next(e["content"] for tag, e in parsed.elements if tag == "meta" and e.get("http-equiv"))
    assert policy is not None
    assert policy.startswith("default-src 'none'; img-src data:; style-src 'sha256-")
    assert "unsafe" not in policy
    for tag, kind, inline in parsed.inline:
        if tag == "style" or RUNNING[kind]:
            assert base64.b64encode(hashlib.sha256(inline.encode()).digest()).decode() in policy
        else:
            json.loads(inline)
    assert sum(tag == "script" for tag, _ in parsed.elements) == 5
    for tag, attributes in parsed.elements:
        assert tag not in ("iframe", "object", "embed", "link", "form", "base")
        assert not any(name.startswith("on") or name == "style" for name in attributes)
        assert not any((attributes.get(name) or "#").lower()[:1] != "#" for name in ("href", "src", "action"))
    body = re.sub("<(script|style).*?</\\1>", "", text, flags=re.S)
    assert "&lt;script&gt;alert(1)&lt;/script&gt; number" in body
    assert "<script>alert" not in body
    assert "<img src=x" not in text
    assert "<a href" not in re.sub('<a href="#[a-z]+">', "", body)
    assert HOSTILE[6] not in text  # 5,000 characters are cut


def test_the_command_writes_two_files_and_makes_no_lake(found: Written, shop: ReportShop, tmp_path: Path) -> None:
    assert "Ready to release: every gate holds" in found.said
    assert sorted(each.name for each in found.folder.iterdir()) == ["index.html", "report.json"]
    assert Path(shop.lake.uri, "runs", found.folder.name, "report.json").is_file()
    with pytest.raises(JobError, match="there is no lake"):
        report(shop, "--set", f"lake={tmp_path / 'typo'}")
    assert not (tmp_path / "typo").exists()
    Lake.create(str(tmp_path / "empty"))
    said = report(shop, "--set", f"lake={tmp_path / 'empty'}", "--to", str(tmp_path / "to"))
    assert "There are no IDs to release yet" in said
    assert "No job has left a record yet" in (tmp_path / "to" / "index.html").read_text()
    assert not (tmp_path / "empty" / "reports").exists()


def test_a_report_that_fails_fails_no_night(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    asked: list[str | None] = []

    def broken(config: Config, tokenizer: str | None, *, run_id: str) -> str:
        asked.append(tokenizer)
        raise RuntimeError("no room\nat all")

    monkeypatch.setattr(jobs.report, "run_report", broken)
    config = config_of(tmp_path)

    def raises(error: Exception) -> None:
        raise error

    assert jobs.report.reported(lambda: "done", config, "one", "run") == "done"
    with pytest.raises(GateRefused):
        jobs.report.reported(lambda: raises(GateRefused("a gate")), config, "refused", "run")
    with pytest.raises(JobError, match="broken night"):
        jobs.report.reported(lambda: raises(JobError("broken night")), config, "no IDs", "run")
    jobs.report.reported(lambda: None, config_of(tmp_path, report={"nightly": False}), "not wanted", "run")
    assert asked == ["one", "refused"]
    assert caplog.messages == ["report: there is none of this night: RuntimeError('no room\\nat all')"] * 2


def test_a_night_repeats_no_report(found: Written, shop: ReportShop) -> None:
    config = load_config(shop.folder / "hisam.yaml")

    def night(**changes: Any) -> str:
        with Run("nightly", config) as run:
            return jobs.report.run_report(config.model_copy(update=changes), run_id=run.run_id)

    source = config.catalog.source.model_copy(update={"path": "items-of-another-day.csv"})
    with no_spark():
        for changes in ({}, {"catalog": config.catalog.model_copy(update={"source": source})}):
            assert night(**changes) == str(found.folder / "index.html")
        assert jobs.report.run_report(config, nightly=True) == str(found.folder / "index.html")
    asks_for_spark(lambda: night(gates=config.gates.model_copy(update={"max_group": 1})))
    asks_for_spark(lambda: jobs.report.run_report(config))  # somebody wants one
    with Run("evaluate", config):
        pass
    asks_for_spark(night)
    place = night()
    assert Path(place) != found.folder / "index.html"
    with no_spark():
        assert night() == place
    with pytest.raises(GateRefused), Run("publish", config):
        raise GateRefused("what is released cannot be read")
    asks_for_spark(night)
    with Run("publish", config):
        pass
    with no_spark():
        assert night() == place
    shutil.rmtree(Path(place).parent)
    asks_for_spark(night)


def test_a_page_stays_small_whatever_the_catalogue_is(found: Written) -> None:
    """Everything that grows with the catalogue at its most, with the widest texts and ids that there can be."""
    data = json.loads(json.dumps(found.data))
    data["release"]["time"] = datetime(2026, 1, 1)
    wide = {"item_id": "\U0001f984" * 256, "content": "0" * 32, "text": "\U0001f984" * SHOWN, "picture": 0}

    def tree(level: int) -> dict[str, Any]:
        node = data["codebooks"]["nodes"][0] | {
            "cards": [wide] * (*PICTURES, 3)[level],
            "words": ["\U0001f984" * 99] * 5,
        }
        splits = [node | {"part": part, "nodes": [], "splits": []} for part in MODALITIES for _ in range(SPLITS)]
        below = [tree(level + 1) for _ in range(WIDTHS[level + 1])] if level + 1 < len(WIDTHS) else []
        return node | {"nodes": below, "splits": [] if level else splits}

    shown = {"sid": "s" + "-32766" * 12, "card": wide, "in_both": True}
    data["codebooks"]["nodes"] = [tree(0) for _ in range(WIDTHS[0])]
    data["space"]["map"]["points"] = [shown | {"x": -0.1234, "y": -0.1234, "code": n} for n in range(MAPPED)]
    query = {"item": shown, "by_vector": [shown] * NEAREST, "by_codes": [shown] * NEAREST}
    data["space"]["neighbours"]["queries"] = [query] * QUERIES
    data["collisions"] = [{"sid": shown["sid"], "items": 10**9, "cards": [wide] * ITEMS}] * GROUPS
    for kind in data["changes"]["kinds"]:
        kind["examples"] = [{"item_id": "", "old": shown, "new": shown}] * 8
    reason = data["quarantine"]["reasons"][0]
    example = reason["examples"][0] | {"detail": "\U0001f984" * 500, "card": wide, "picture": 0}
    data["quarantine"]["reasons"] = [reason | {"examples": [example] * 8}] * len(Reason)
    pictures = ["A" * 4000] * (PICTURE_BYTES // 4000)
    assert len(page(Findings(data, pictures)).encode()) < 15_000_000


def test_plotly_reads_no_markup() -> None:
    assert plain('<a href="javascript:1">$x^2$</a> &amp;') == (
        '&lt;a href="javascript:1"&gt;&#36;x^2&#36;&lt;/a&gt; &amp;amp;'
    )
