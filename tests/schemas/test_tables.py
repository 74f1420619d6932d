from pathlib import Path

import pyarrow as pa
import pytest

from schemas.reasons import Reason
from schemas.tables import EMBEDDINGS, QUARANTINE, RELEASES, TABLES


def row(**changes: object) -> dict[str, object]:
    return {
        "content_hash": "a",
        "encoder": "e",
        "text_sha": None,
        "image_sha": None,
        "image_source": None,
        "text_embedding": [0.5],
        "image_embedding": None,
    } | changes


def test_rows_of_the_declared_form_have_no_fault() -> None:
    rows = pa.Table.from_pylist([row(), row(content_hash="b")], schema=EMBEDDINGS.schema)
    assert EMBEDDINGS.check(rows) == []
    assert EMBEDDINGS.conform(rows.select(reversed(rows.schema.names))).schema == EMBEDDINGS.schema


def test_every_fault_is_named_at_once() -> None:
    rows = pa.table({"content_hash": ["a", None], "encoder": [1, 2], "extra": [0, 0]})
    faults = EMBEDDINGS.check(rows)
    for part in (
        "column 'text_sha' is missing",
        "column 'extra' is not declared",
        "column 'encoder' is int64, declared string",
        "column 'content_hash' has 1 nulls",
    ):
        assert any(part in fault for fault in faults), (part, faults)
    with pytest.raises(ValueError, match=r"text_sha.*is missing"):
        EMBEDDINGS.conform(rows)


def test_a_repeated_key_is_a_fault() -> None:
    rows = pa.Table.from_pylist([row(), row(text_embedding=[0.1])], schema=EMBEDDINGS.schema)
    assert "1 keys appear more than once, such as {'content_hash': 'a', 'encoder': 'e'}" in EMBEDDINGS.check(rows)[0]


def test_fixed_size_and_large_lists_pass_as_lists() -> None:
    rows = pa.Table.from_pylist([row()], schema=EMBEDDINGS.schema)
    at = rows.schema.get_field_index("text_embedding")
    for kind in (pa.list_(pa.float32(), 1), pa.large_list(pa.float32())):
        assert EMBEDDINGS.check(rows.set_column(at, "text_embedding", pa.array([[0.5]], kind))) == []
    assert EMBEDDINGS.check(rows.set_column(at, "text_embedding", pa.array([[0.5]], pa.list_(pa.float64())))) != []


def test_declarations_are_whole() -> None:
    for name, table in TABLES.items():
        assert table.name == name
        assert set(table.key) | set(table.partition) <= set(table.schema.names)
        assert all(not table.schema.field(column).nullable for column in table.key)
    assert RELEASES.schema.field("time").type == pa.timestamp("us", tz="UTC")


def test_quarantine_holds_declared_reasons_alone() -> None:
    rows = {name: ["x", "y"] for name in ("item_id", "detail", "source", "run_id")}
    rows |= {
        "reason": [Reason.EMPTY.value, "strange"],
        "seen_at": pa.array([0, 0], QUARANTINE.schema.field("seen_at").type),
    }
    assert QUARANTINE.check(pa.table(rows)) == ["quarantine: column 'reason' has values that are not declared: strange"]


def test_the_reasons_are_documented_as_declared() -> None:
    page = (Path(__file__).parents[2] / "docs" / "reliability.md").read_text()
    rows = [
        line.strip("| ").split(" | ") for line in page.splitlines() if line.startswith("| `") and line.count("|") == 4
    ]
    assert rows == [[f"`{reason}`", reason.meaning, reason.remedy] for reason in Reason]
