"""A shop for reports: hostile titles, pictures, vectors, a collision, quarantine, a release and news since."""

import io
import json
import re
from dataclasses import dataclass
from functools import cached_property
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pyarrow as pa
from handmade import IMAGE_DIM, TEXT_DIM, Codes, become_run, digest, identified, vector
from PIL import Image
from pyspark.sql import SparkSession
from released_shop import OPEN, A, ReleasedShop

from pipeline.config.models import Config
from pipeline.lake.commit import append
from pipeline.lake.run import Run
from pipeline.lake.storage import Lake
from pipeline.on_spark.publish import publish
from schemas.tables import ITEMS, QUARANTINE, VECTORS

HOSTILE = [
    "<script>alert(1)</script>",
    "</script><img src=x onerror=alert(2)>",
    "<a href=\"javascript:alert(3)\">click</a> <b onmouseover='alert(4)'>b</b>",
    "\"quotes\" and 'apostrophes' \\ ]]> <!-- --> \u2028 {{ 7 * 7 }} {% raw %}",
    "مرحبا بالعالم \u202eright to left",
    "emoji 🦄🔥👩‍👩‍👧‍👦 " + "wide " * 20,
    "x" * 5000,
]
ODD_ID = "i<img src=x onerror=alert(5)>\"'&"
SVG = b'<svg xmlns="http://www.w3.org/2000/svg" onload="alert(6)"><script>alert(7)</script></svg>'
ENCODERS = {"text": "e" * 16, "image": "f" * 16}  # of the tokenizers of a ReleasedShop
OF_ITEM: dict[str, Any] = {"deleted": False, "extracted_at": 0}


def jpeg(color: str, size: int = 120) -> bytes:
    target = io.BytesIO()
    Image.new("RGB", (size, size), color).save(target, "JPEG")
    return target.getvalue()


def torn_jpeg() -> bytes:
    target = io.BytesIO()
    Image.effect_noise((200, 200), 80).save(target, "JPEG")
    return target.getvalue()[:6000]


@dataclass(frozen=True)
class Written:
    """A report as the command left it."""

    folder: Path
    said: str

    @cached_property
    def page(self) -> str:
        return (self.folder / "index.html").read_text()

    @cached_property
    def data(self) -> dict[str, Any]:
        return json.loads((self.folder / "report.json").read_text())

    @cached_property
    def pictures(self) -> list[str]:
        return json.loads(re.findall('id="pictures">(.*?)</script>', self.page)[0])


class ReportShop(ReleasedShop):
    """40 items, ``p0`` to ``p39``, and one of an odd id. Item n has text n % 7 of the hostile ones and its number."""

    def __init__(self, spark: SparkSession, folder: Path) -> None:
        super().__init__(spark, folder, max_delete_fraction=1, max_row_drift=10, max_without_image_growth=1)
        self.folder = folder
        self.config = self._with_source(folder)
        self.texts = {f"p{n}": f"{HOSTILE[n % len(HOSTILE)]} number {n} thing{n % 3}" for n in range(40)}
        self.texts[ODD_ID] = "an odd id"
        self.codes: dict[str, Codes] = {
            item: (n % 4, n % 3, n % 5, n % 2 if n % 6 else None) for n, item in enumerate(self.texts)
        }
        self.codes["p1"] = self.codes["p2"]  # other content, the same codes
        self.extract(dict.fromkeys(f"i{n}" for n in range(20)))
        self.night(self.texts)
        with Run("publish", self.config) as run:
            publish(spark, run, A)

    def news(self) -> None:
        """Three items come, two go, two change their text and their codes, one its text alone; nothing is published."""
        come = {f"new{n}": f"brand new {n}" for n in range(3)}
        changed = {item: f"edited {item}" for item in ("p3", "p4", "p5")}
        self.codes |= {item: (3, 2, n, 0) for n, item in enumerate(come)}
        self.codes |= dict.fromkeys(("p3", "p4"), (1, 0, 7, 1))
        for item in ("p6", "p7"):
            del self.texts[item], self.codes[item]
        self.texts |= come | changed
        self.extract(dict.fromkeys(("p6", "p7")))
        self.night(come | changed)

    def night(self, texts: dict[str, str]) -> None:
        """What extract, encode and tokenize would leave; every item whose image code is not ``None`` has a picture."""
        run_id = become_run(self.lake)
        items, vectors = [], []
        for item, text in texts.items():
            shas = self.shas(item, text)
            image = jpeg(("red", "green", "blue", "orange")[len(items) % 4]) if shas["image_sha"] else None
            image = b"no picture" if item == "p8" else image
            items.append({"item_id": item, "run_id": run_id, "text": text, "image": image, **shas, **OF_ITEM})
            for modality, width in (("text", TEXT_DIM), ("image", IMAGE_DIM)):
                if sha := shas[f"{modality}_sha"]:
                    encoder = ENCODERS[modality]
                    vectors.append({"encoder": encoder, "sha": sha, "vector": vector(sha, encoder, width)})
        append(self.lake, ITEMS, pa.Table.from_pylist(items, schema=ITEMS.schema))
        append(self.lake, VECTORS, pa.Table.from_pylist(vectors, schema=VECTORS.schema))
        identified(self.lake, A, {item: self.codes[item] for item in texts}, texts, name=self._content_of(texts))

    def shas(self, item: str, text: str) -> dict[str, str | None]:
        pictured = self.codes[item][3] is not None
        return {"text_sha": digest(text), "image_sha": digest(f"picture of {item}") if pictured else None}

    def _content_of(self, texts: dict[str, str]) -> Any:
        named = {
            text: digest("|".join(sha or "" for sha in self.shas(item, text).values()))[:32]
            for item, text in texts.items()
        }
        return named.__getitem__

    def quarantine(self) -> None:
        """A torn picture that opens in part, a vector drawing that does not, and a row of markup that is no item."""
        run_id = become_run(self.lake)
        faults = [("p9", "image_decode"), ("p10", "image_decode"), ("<b>lost</b>", "bad_text")]
        told = {"detail": "<script>alert(8)</script>", "source": "x", "run_id": run_id, "seen_at": 0}
        rows = [{"item_id": item, "reason": reason, **told} for item, reason in faults]
        append(self.lake, QUARANTINE, pa.Table.from_pylist(rows, schema=QUARANTINE.schema))

    def _with_source(self, folder: Path) -> Config:
        (folder / "images").mkdir()
        (folder / "images" / "torn.jpg").write_bytes(torn_jpeg())
        (folder / "images" / "drawing.svg").write_bytes(SVG)
        (folder / "items.csv").write_text("id,t,image\np9,torn,torn.jpg\np10,drawn,drawing.svg\n")
        source = {"path": str(folder / "items.csv"), "format": "csv", "options": {"header": True}}
        image = {"column": "image", "root": str(folder / "images")}
        return Config.model_validate(
            {
                "lake": self.lake.uri,
                "catalog": {"source": source, "id": "id", "text": "{t}", "image": image},
                "gates": OPEN | {"max_delete_fraction": 1, "max_row_drift": 10, "max_without_image_growth": 1},
            }
        )

    def opened(self) -> Lake:
        """The lake as a reader has it."""
        return Lake.open(self.lake.uri)


class Parsed(HTMLParser):
    """The elements of a page with their attributes, and the text of its scripts and styles."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.inline: list[tuple[str, str | None, str]] = []
        self._open = False
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        self._open = tag in ("script", "style")
        if self._open:
            self.inline.append((tag, dict(attrs).get("type"), ""))

    def handle_endtag(self, tag: str) -> None:
        self._open = False

    def handle_data(self, data: str) -> None:
        if self._open:
            tag, kind, text = self.inline[-1]
            self.inline[-1] = tag, kind, text + data
