"""A newcomer's first commands on sources of unlike kinds: init writes a configuration, check shows what comes of it."""

import csv
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image
from pyspark.sql import SparkSession
from typer.testing import CliRunner

from jobs.cli import app
from pipeline.config.file import load_config
from pipeline.config.models import Config
from pipeline.demo.generator import generate
from pipeline.errors import ConfigError
from pipeline.lake.storage import Lake

pytestmark = [pytest.mark.spark, pytest.mark.usefixtures("spark")]

COLOURS = ["red", "green", "blue", "orange", "purple", "brown", "grey", "pink"]
THINGS = ["Lampe", "Tisch", "Stuhl", "Regal", "Teppich"]
WOODS = ["Eiche", "Buche", "Esche", "Kiefer", "Ahorn", "Nussbaum", "Birke"]
ROOMS = [
    "Küche",
    "Diele",
    "Werkstatt",
    "Terrasse",
    "Halle",
    "Garage",
    "Stube",
    "Kammer",
    "Bibliothek",
    "Laube",
    "Keller",
]
STYLES = ["schlicht", "verspielt", "bäuerlich", "modern", "nordisch", "barock", "kantig", "rund", "leicht", "schwer"]


def hisam(*arguments: str | Path) -> str:
    done = CliRunner().invoke(app, [*map(str, arguments)], catch_exceptions=False)
    assert done.exit_code == 0
    return done.stdout


def begun(folder: Path, source: str, *options: str | Path) -> tuple[Config, dict[str, Any]]:
    """What init guesses of a source, and what check says of the guess."""
    file = folder / "hisam.yaml"
    said = hisam("init", folder / source, "--to", file, *options)
    assert f"wrote {file}" in said
    before = sorted(folder.rglob("*"))
    found = json.loads(hisam("check", "-c", file, "--json"))
    assert sorted(folder.rglob("*")) == before  # no lake, nothing
    return load_config(file), found


def picture(colour: str) -> bytes:
    target = io.BytesIO()
    Image.new("RGB", (40, 30), colour).save(target, "JPEG")
    return target.getvalue()


def german_shop(folder: Path, items: int) -> None:
    """A CSV of semicolons with German headers, pictures in a folder, and a log."""
    (folder / "bilder").mkdir()
    for colour in COLOURS:
        (folder / "bilder" / f"{colour}.jpg").write_bytes(picture(colour))
    rows = []
    for n in range(items):
        thing, colour = THINGS[n % 5], COLOURS[n // 5 % 8]
        words = f"{WOODS[n % 7]}, {STYLES[n // 3 % 10]}; für {ROOMS[n // 2 % 11]} und {ROOMS[n * n % 11]}"
        about = f"{thing} aus {words}.\nGemacht für lange Abende, schöne Räume und große Gäste."
        rows.append([f"A-{n:05}", f"{thing} {colour} {n}", "Möbelhaus", about, f"{colour}.jpg", f"{n},99"])
    rows[3][4] = "nirgends.jpg"
    with (folder / "artikel.csv").open("w", encoding="utf-8-sig", newline="") as file:
        writer = csv.writer(file, delimiter=";")
        writer.writerow(["Artikelnummer", "Bezeichnung", "Marke", "Beschreibung", "Bild", "Preis"])
        writer.writerows(rows)
    log = [f"kunde{n % 9},A-{n % items:05},{1735689600 + n},{n % 5 + 1}" for n in range(300)]
    (folder / "log.csv").write_text("\n".join(["customer,artikel,at,stars", *log]) + "\n")


def test_a_csv_of_semicolons_with_german_headers(tmp_path: Path) -> None:
    german_shop(tmp_path, 40)
    config, found = begun(tmp_path, "artikel.csv", "--interactions", tmp_path / "log.csv")
    catalog, log = config.catalog, config.interactions
    assert catalog.source.options == {"sep": ";", "header": True}
    assert (catalog.id, catalog.text) == ("Artikelnummer", "{Bezeichnung}. {Beschreibung}")
    assert catalog.image is not None
    assert (catalog.image.column, catalog.image.root) == ("Bild", str(tmp_path / "bilder"))
    assert log is not None
    assert (log.user, log.item, log.time.column, log.time.unit) == ("customer", "artikel", "at", "s")
    assert log.label == "try_cast(stars AS double) > 3"
    assert config.tokenizer.codebook_size == 8
    assert found["status"] == {"new": 40}
    assert (found["rows"], found["texts"], found["pictures"], found["vectors"]) == (40, 40, 39, 0)
    (fault,) = found["faults"]
    assert (fault["reason"], fault["items"], fault["example"]["item_id"]) == ("missing_image", 1, "A-00003")
    assert found["items"][0]["text"].startswith("Lampe red 0. Lampe aus Eiche, schlicht; für Küche und Küche. Gemacht")
    assert not found["refused"]

    shown = hisam("check", "-c", tmp_path / "hisam.yaml", "--rows", 10)
    assert "10 rows: 10 become items" in shown
    assert "texts 10, pictures 9, vectors 0" in shown
    assert "missing_image" in shown
    assert "the first night is: hisam nightly" in shown
    written = (tmp_path / "hisam.yaml").read_bytes()
    with pytest.raises(ConfigError, match=r"hisam.yaml is there already and stays as it is: name another file"):
        hisam("init", tmp_path / "artikel.csv", "--to", tmp_path / "hisam.yaml")
    assert (tmp_path / "hisam.yaml").read_bytes() == written


def test_json_lines_with_fields_in_fields(tmp_path: Path) -> None:
    rows = [
        {
            "asin": f"B{n:04}",
            "title": f"Thing number {n}",
            "categories": ["Home", f"Kind {n % 3}"],
            "details": {"brand": f"Brand {n % 4}", "weight": n},
            "images": [f"https://img.example.org/{n}.jpg"],
            "average_rating": 4.5,
        }
        for n in range(30)
    ]
    rows[4] |= {"title": None, "categories": None, "details": None}
    (tmp_path / "meta.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows) + "no JSON\n")
    config, found = begun(tmp_path, "meta.jsonl")
    assert (config.catalog.id, config.catalog.text) == ("asin", "{title}. {categories}. {details.brand}")
    assert config.catalog.image is None
    written = (tmp_path / "hisam.yaml").read_text()
    assert "# image: {column: images, fetch: {hosts: [img.example.org]}}" in written
    assert "# interactions: the log" in written
    assert config.tokenizer.image_levels == 0
    assert found["status"] == {"new": 29, "rejected": 2}
    assert {fault["reason"]: fault["items"] for fault in found["faults"]} == {"bad_row": 1, "empty": 1}


def test_parquet_with_pictures_and_vectors_in_it(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    rows = [
        {
            "video_id": n,
            "cover": b"broken" if n == 5 else picture(COLOURS[n % 8]),
            "caption_embedding": [0.0] * 16 if n == 7 else rng.normal(size=16).tolist(),
        }
        for n in range(30)
    ]
    (tmp_path / "parts").mkdir()
    for part in range(2):
        pq.write_table(pa.Table.from_pylist(rows[part::2]), tmp_path / "parts" / f"{part}.parquet")
    config, found = begun(tmp_path, "parts")
    assert (config.catalog.id, config.catalog.text) == ("video_id", None)
    assert config.catalog.image is not None
    assert (config.catalog.image.column, config.catalog.image.root) == ("cover", None)
    text = config.encoders.vector_columns["text"]
    assert (text.column, text.dim, text.version) == ("caption_embedding", 16, "1")
    assert found["status"] == {"new": 30}
    assert (found["texts"], found["pictures"], found["vectors"]) == (0, 29, 29)
    faults = {fault["reason"]: fault["example"]["item_id"] for fault in found["faults"]}
    assert faults == {"bad_vector": "7", "image_decode": "5"}
    assert "text 16" in hisam("check", "-c", tmp_path / "hisam.yaml")


def test_a_first_night_without_an_item_ends_in_words(tmp_path: Path) -> None:
    (tmp_path / "items.csv").write_text("id,title\n")
    section = {"source": {"path": "items.csv", "format": "csv", "options": {"header": True}}, "id": "id"}
    config = {"lake": "lake", "catalog": section | {"text": "{title}"}}
    (tmp_path / "hisam.yaml").write_text(json.dumps(config))
    assert "there is no vector to train a tokenizer on yet" in hisam("nightly", "-c", tmp_path / "hisam.yaml")


def test_what_cannot_be_guessed_is_said_in_the_file(tmp_path: Path) -> None:
    (tmp_path / "odd.csv").write_text("a,b\n1,2\n1,2\n")
    (tmp_path / "log.csv").write_text("x,y\n1,2\n3,4\n")
    hisam("init", tmp_path / "odd.csv", "--interactions", tmp_path / "log.csv", "--to", tmp_path / "hisam.yaml")
    written = (tmp_path / "hisam.yaml").read_text()
    for said in ("# id: no column", "# text: no column of words", "# interactions: not whole", "#   # user: write"):
        assert said in written
    with pytest.raises(ConfigError, match=r"catalog.id: Field required"):
        load_config(tmp_path / "hisam.yaml")


@pytest.mark.slow
@pytest.mark.ray
def test_init_check_nightly(spark: SparkSession, ray: None, tmp_path: Path) -> None:
    generate(tmp_path, items=300, users=40, seed=0)
    config, found = begun(tmp_path, "items.csv", "--interactions", tmp_path / "interactions.csv")
    said = hisam("nightly", "-c", tmp_path / "hisam.yaml")
    assert "train-tokenizer: done" in said
    assert "released tokenizer" in said
    assert Lake.open(config.lake).released_ids().to_table(["item_id"]).num_rows == found["status"]["new"]
    assert "train-tokenizer" not in hisam("nightly", "-c", tmp_path / "hisam.yaml")
    hisam("sequences", "-c", tmp_path / "hisam.yaml")
