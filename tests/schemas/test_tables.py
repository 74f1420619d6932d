import pyarrow as pa
import pytest

from schemas.reasons import Reason
from schemas.tables import QUARANTINE, RELEASES, TABLES, VECTORS


def row(**changes: object) -> dict[str, object]:
    return {"encoder": "e", "sha": "a", "vector": [0.5], "fault": None} | changes


def test_rows_of_the_declared_form_have_no_fault() -> None:
    rows = pa.Table.from_pylist([row(), row(sha="b", vector=None, fault="it raised")], schema=VECTORS.schema)
    assert VECTORS.check(rows) == []
    assert VECTORS.conform(rows.select(reversed(rows.schema.names))).schema == VECTORS.schema


def test_every_fault_is_named_at_once() -> None:
    rows = pa.table({"sha": ["a", None], "encoder": [1, 2], "extra": [0, 0], "vector": [[0.5], [0.5]]})
    faults = VECTORS.check(rows)
    for part in (
        "column 'fault' is missing",
        "column 'extra' is not declared",
        "column 'encoder' is int64, declared string",
        "column 'sha' has 1 nulls",
    ):
        assert any(part in fault for fault in faults), (part, faults)
    with pytest.raises(ValueError, match=r"fault.*is missing"):
        VECTORS.conform(rows)


def test_a_repeated_key_is_a_fault() -> None:
    rows = pa.Table.from_pylist([row(), row(vector=[0.1])], schema=VECTORS.schema)
    assert "1 keys appear more than once, such as {'encoder': 'e', 'sha': 'a'}" in VECTORS.check(rows)[0]


def test_fixed_size_and_large_lists_pass_as_lists() -> None:
    rows = pa.Table.from_pylist([row()], schema=VECTORS.schema)
    at = rows.schema.get_field_index("vector")
    for kind in (pa.list_(pa.float32(), 1), pa.large_list(pa.float32())):
        assert VECTORS.check(rows.set_column(at, "vector", pa.array([[0.5]], kind))) == []
    assert VECTORS.check(rows.set_column(at, "vector", pa.array([[0.5]], pa.list_(pa.float64())))) != []


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
