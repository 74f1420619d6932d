"""Guesses from names and first values alone, without an engine."""

import gzip
from pathlib import Path

import numpy as np
import pytest
import yaml

from pipeline.errors import ConfigError
from pipeline.inspect.guess.catalogue import guess_catalogue
from pipeline.inspect.guess.columns import Profile
from pipeline.inspect.guess.files import guess_reading
from pipeline.inspect.guess.log import guess_log
from pipeline.inspect.guess.settings import Guesses, codebook_size, written
from pipeline.inspect.guess.vectors import guess_vectors

GERMAN = 'Artikelnummer;Bezeichnung;Preis\nA-100;"Lampe; rot";12,50\nA-101;"Tisch\naus Holz";99,00\n'


@pytest.mark.parametrize(
    ("name", "data", "kind", "options"),
    [
        ("a.csv", b"id,title\n1,A lamp\n2,A chair\n", "csv", {"header": True}),
        ("a.csv", GERMAN.encode("utf-8-sig"), "csv", {"sep": ";", "header": True}),
        ("a.csv.gz", gzip.compress(GERMAN.encode()), "csv", {"sep": ";", "header": True}),
        (
            "a.csv",
            "id;Größe\n1;groß\n".encode("latin-1"),
            "csv",
            {"encoding": "ISO-8859-1", "sep": ";", "header": True},
        ),
        ("a.csv", "id;Größe\n1;groß\n".encode("utf-16"), "csv", {"encoding": "UTF-16", "sep": ";", "header": True}),
        ("a.tsv", b"id\ttitle\n1\tA lamp, red\n", "csv", {"sep": "\t", "header": True}),
        ("movies.dat", b"1::Toy Story (1995)::Comedy\n2::Jumanji (1995)::Drama|Fantasy\n", "csv", {"sep": "::"}),
        ("a.csv", b"B0017,Lamp\nB0018,Chair\nB0019,Table\n", "csv", {}),
        ("a.jsonl", b'{"id": 1}\n{"id": 2}\n', "json", {}),
        ("a.json", b'[{"id": 1}, {"id": 2}]', "json", {}),
        ("a.json", b'[\n  {"id": 1},\n  {"id": 2}\n]', "json", {"multiLine": True}),
        ("export", b'{"id": 1}\n{"id": 2}\n', "json", {}),
        ("export", b"PAR1...", "parquet", {}),
    ],
)
def test_a_file_is_read_as_what_it_is(
    tmp_path: Path, name: str, data: bytes, kind: str, options: dict[str, object]
) -> None:
    (tmp_path / name).write_bytes(data)
    reading = guess_reading(str(tmp_path / name))
    assert (reading.format, reading.options) == (kind, options)
    assert (reading.columns is None) == (kind != "csv" or "header" in options)
    (tmp_path / "_SUCCESS").touch()
    assert guess_reading(str(tmp_path)) == reading  # a folder is judged by its first file


def test_what_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="there is no file or folder"):
        guess_reading(str(tmp_path / "none.csv"))
    (tmp_path / "_hidden.csv").write_text("id\n1\n")
    with pytest.raises(ConfigError, match="Spark skips names that begin with _"):
        guess_reading(str(tmp_path))


def column(name: str, *values: object, kind: str = "string") -> Profile:
    return Profile(name, kind, values)


def test_fields_of_columns_are_quoted_part_by_part() -> None:
    kind = Profile("event.type", "string", ["click", "view", "click"], ("event", "type"))
    assert guess_log([kind], [], None).label == "event.type IN ('click')"
    assert Profile("a b.c", "string", [], ("a b", "c")).expression == "`a b`.c"
    assert column("a.b").expression == "`a.b`"


def test_hosts_are_those_of_urls_without_users() -> None:
    values = [
        "https://cdn.x/a.jpg",
        "n/a",
        "https://u:needle@cdn.y:8443/b.jpg",
        "http://[x/c.jpg",
        "https://cdn.x/d.jpg",
    ]
    picture = guess_catalogue([column("image_url", *values)], "s3://b/x").picture
    assert picture is not None
    assert picture.hosts == ["cdn.x", "cdn.y:8443"]


def test_an_endless_quote_and_a_web_address_are_no_crash(tmp_path: Path) -> None:
    (tmp_path / "a.tsv").write_text('id\ttitle\n1\t"' + "a lamp\n2\tb" * 30_000)
    assert guess_reading(str(tmp_path / "a.tsv")).format == "csv"


def test_vectors_of_topics_and_coverage_are_texts() -> None:
    for name in ("topic_vector", "coverage_vec", "framework_embedding"):
        assert guess_vectors([column(name, *([0.5] * 8 for _ in range(3)), kind="array<float>")]).keys() == {"text"}


def test_the_id_tells_every_row_apart_and_the_title_comes_first() -> None:
    long = "It is made of oak, stands on four legs and has been made by hand in a small village for a hundred years."
    found = guess_catalogue(
        [
            column("categoryId", "1", "2", "1"),
            column("Beschreibung", long, None, long + " "),
            column("Marke", "Ikea", "Bosch", "Miele"),
            column("EAN-Code", "4006381333931", "4006381333932", "4006381333933"),
            column("inStock", "yes", "no", "yes"),
            column("Bezeichnung", "Tisch", "Bohrer", "Herd"),
            column("seit", "2024-01-01", "2024-01-02", "2024-01-03"),
            column("Artikelnummer", "a1", "a2", "a3"),
            column("www", "https://x.org/1", "https://x.org/2", "https://x.org/3"),
            column("tags", ["wood", "oak"], ["steel"], ["iron"], kind="array<string>"),
        ],
        "s3://somewhere/items.csv",
    )
    assert found.id == "Artikelnummer"
    assert found.text == ["Bezeichnung", "Marke", "tags", "Beschreibung"]
    assert found.picture is None
    assert guess_catalogue([column("a", "x", "x")], "s3://x").id is None


def test_pictures_are_told_by_bytes_names_and_places(tmp_path: Path) -> None:
    (tmp_path / "fotos").mkdir()
    (tmp_path / "fotos" / "1.jpg").touch()
    here = str(tmp_path / "items.csv")
    found = guess_catalogue([column("url", "https://x/a.jpg"), column("Bild", "1.jpg")], here).picture
    assert found is not None
    assert (found.column, found.kind, found.root) == ("Bild", "path", tmp_path / "fotos")
    lost = guess_catalogue([column("Bild", "2.jpg")], here).picture
    assert lost is not None
    assert lost.root is None
    assert (
        guess_catalogue([column("poster_url", "https://x/a")], here).picture
        == guess_catalogue([column("poster_url", "https://x/a"), column("page", "https://x/b")], here).picture
    )
    packed = guess_catalogue([column("data", b"\xff\xd8\xff\xe0....", kind="binary")], here).picture
    assert packed is not None
    assert packed.kind == "bytes"


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_vectors_are_told_by_their_width_and_their_bytes_by_what_they_would_be(dtype: str) -> None:
    rng = np.random.default_rng(0)
    x_ND = rng.normal(size=(20, 16))
    x_ND /= np.linalg.norm(x_ND, axis=1, keepdims=True)
    found = guess_vectors(
        [
            column("sizes", [1, 2], [3, 4], kind="array<bigint>"),
            column("uneven", [0.1] * 9, [0.1] * 8, kind="array<double>"),
            Profile("imageVector", "binary", [x.astype(dtype).tobytes() for x in x_ND]),
            Profile("embedding", "array<float>", [*x_ND.tolist(), None]),
        ]
    )
    assert {m: (v.column, v.width, v.dtype) for m, v in found.items()} == {
        "image": ("imageVector", 16, dtype),
        "text": ("embedding", 16, None),
    }


def test_a_log_is_told_by_the_ids_and_times_in_it() -> None:
    columns = [
        column("session", "s1", "s2", "s1"),
        column("kunde", "7", "8", "7"),
        column("what", "a1", "a2", "gone"),
        column("price", "1.5", "2.5", "3.5"),
        column("created", "1735689600000", "1735689601000", "1735689602000"),
        column("stars", "5", "2", "1"),
    ]
    log = guess_log(columns, ["a1", "a2"], "sku")
    assert (log.user, log.item, log.time, log.unit) == ("kunde", "what", "created", "ms")
    assert log.label == "try_cast(stars AS double) > 3"
    rated = [column("userId", "1", "2"), column("movieId", "1193", "1")]  # numbers of users are numbers of films, too
    assert guess_log(rated, ["1", "2"], "movie").item == "movieId"
    blind = guess_log(columns[3:4], ["a1"], "sku")
    assert (blind.user, blind.item, blind.time, blind.label) == (None, None, None, None)


@pytest.mark.parametrize(
    ("label", "values", "said"),
    [
        ("is_click", ("0", "1"), "try_cast(is_click AS double) = 1"),
        ("clicked", ("true", "false"), "clicked = true"),
        ("watch time", ("1", "3", "90"), "try_cast(`watch time` AS double) > 3"),
        ("behavior", ("view", "buy", "cart"), "behavior IN ('buy', 'cart')"),
        ("rating", ("5", "5"), None),
    ],
)
def test_what_counts_as_liked_is_an_expression(label: str, values: tuple[str, ...], said: str | None) -> None:
    assert guess_log([column(label, *values)], [], None).label == said


def test_codebooks_grow_with_the_catalogue() -> None:
    sizes = {items: codebook_size(items) for items in (0, 40, 240, 2_000, 10_000, 10_000_000)}
    assert sizes == {0: 8, 40: 8, 240: 32, 2_000: 64, 10_000: 256, 10_000_000: 256}


def test_names_with_line_breaks_break_no_line_of_the_file(tmp_path: Path) -> None:
    columns = [
        column("sku\nlake: x", "a1", "a2", "a3"),
        column("title\nlake: y", "A lamp", "A chair", "A table"),
        column("url\nlake: z", "https://x/a.jpg", "https://x/b.jpg", "https://x/c.jpg"),
    ]
    (tmp_path / "a.csv").write_text("id\n1\n")
    found = guess_catalogue(columns, str(tmp_path / "a.csv"))
    guesses = Guesses(str(tmp_path / "a.csv"), guess_reading(str(tmp_path / "a.csv")), found, 9_000, 2)
    said = yaml.safe_load(written(guesses, tmp_path / "hisam.yaml"))
    assert (said["lake"], said["catalog"]["id"]) == ("./lake", "sku\nlake: x")
    assert said["catalog"]["source"] == {"path": "a.csv", "format": "csv", "options": {"header": True}}
    assert said["tokenizer"]["codebook_size"] == 256
