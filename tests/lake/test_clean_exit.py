"""Scripts that read a table end with status 0, again and again: the examples of the documentation."""

import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pytest
from handmade import writable

from pipeline.lake.commit import append
from schemas.semantic_id import item_hash
from schemas.tables import RELEASED_IDS

pytestmark = pytest.mark.slow

RUNS = 20
# Gives a thread that frees Python objects late the time to meet the end of the interpreter.
LATE = "\nimport sys\nsys.setswitchinterval(0.5)\nsum(range(3_000_000))\n"


@pytest.fixture(scope="module")
def lake(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Some released IDs in several files, and a configuration beside them."""
    folder = tmp_path_factory.mktemp("shop")
    made = writable(folder / "lake")
    codes = {"shared": [1], "text": None, "image": None, "sid": "s1", "has_text": True, "has_image": False}
    for part in range(4):
        rows = [
            {
                "item_id": f"{part}-{n}",
                "item_hash": item_hash(f"{part}-{n}"),
                "content": "c",
                "tokenizer": "t",
                "release": 1,
            }
            | codes
            for n in range(5000)
        ]
        append(made, RELEASED_IDS, pa.Table.from_pylist(rows, schema=RELEASED_IDS.schema))
    config = f"lake: {folder / 'lake'}\ncatalog: {{source: {{path: x, format: csv}}, id: id, text: '{{t}}'}}\n"
    (folder / "hisam.yaml").write_text(config)
    return folder


def snippets() -> list[str]:
    page = (Path(__file__).parents[2] / "docs/api.md").read_text()
    section = page.split("## Read the release\n")[1].split("\n## ")[0]
    return [block.split("```")[0] for block in section.split("```python\n")[1:]]


@pytest.mark.parametrize("number", range(2))
@pytest.mark.parametrize("late", ["", LATE], ids=["as it is", "late"])
def test_the_examples_of_reading_end_cleanly(lake: Path, number: int, late: str) -> None:
    examples = snippets()
    assert len(examples) == 2
    code = f"PATH = {str(lake / 'lake' / RELEASED_IDS.name)!r}\n{examples[number]}{late}"
    runs = [
        subprocess.run([sys.executable, "-c", code], cwd=lake, capture_output=True, check=False) for _ in range(RUNS)
    ]
    assert [run.returncode for run in runs] == [0] * RUNS, runs[0].stderr
