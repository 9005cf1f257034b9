from __future__ import annotations

import csv
import math
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from overlap.devices.gaudi.validation.cases import CHIPS, make_cases
from overlap.devices.gaudi.validation.rows import COLUMNS, Inexpressible, Row, read_rows
from overlap.errors import ConfigError

ROW = dict.fromkeys(COLUMNS, "") | {
    "id": "A-1",
    "source": "somebody",
    "chip": "Gaudi2",
    "op_or_workload": "GEMM",
    "dtype": "bf16",
    "params_json": '{"M":1024,"K":2048,"N":4096}',
    "metric": "latency",
    "value": "50",
    "unit": "us",
    "use": "val:mme",
}


def write(path: Path, *rows: dict[str, str], columns: tuple[str, ...] = COLUMNS) -> Path:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, columns, extrasaction="ignore")
        writer.writeheader()
        writer.writerows(rows)
    return path


def test_what_is_shipped() -> None:
    rows = read_rows()
    assert len(rows) == 538
    assert Counter(row.chip for row in rows) == {
        "Gaudi2": 419,
        "Gaudi2/3 (not stated)": 60,
        "Gaudi3": 58,
        "not stated": 1,
    }
    assert all(row.use.startswith(("cal:", "val:")) and row.source and row.url for row in rows)
    assert {row.chip for row in rows} == set(CHIPS)


def test_shipped_rows_have_no_prose_of_others() -> None:
    assert "notes" not in COLUMNS
    assert all(len(row.op) <= 120 for row in read_rows())


def test_columns_in_any_order_and_more_of_them(tmp_path: Path) -> None:
    columns = ("notes", *reversed(COLUMNS))
    row = read_rows(write(tmp_path / "x.csv", ROW | {"notes": "anything, at all"}, columns=columns))[0]
    assert (row.id, row.value, row.count("M"), row.calibration) == ("A-1", 50.0, 1024, False)


@pytest.mark.parametrize("column", COLUMNS)
def test_a_missing_column_is_named(column: str, tmp_path: Path) -> None:
    path = write(tmp_path / "x.csv", ROW, columns=tuple(name for name in COLUMNS if name != column))
    with pytest.raises(ConfigError, match=f"'{column}'"):
        read_rows(path)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"value": "fast"}, ("A-1", "column value", "'fast'")),
        ({"value": ""}, ("A-1", "column value")),
        ({"value": "nan"}, ("A-1", "column value")),
        ({"value": "1e999"}, ("A-1", "column value")),
        ({"params_json": '{"M":1024'}, ("A-1", "column params_json", "no JSON")),
        ({"params_json": "[1]"}, ("A-1", "column params_json", "JSON object")),
        ({"params_json": '{"M":' + "9" * 5000 + "}"}, ("A-1", "column params_json")),
        ({"params_json": "[" * 100_000}, ("A-1", "column params_json")),
        ({"id": ""}, ("column id",)),
    ],
)
def test_a_damaged_cell_is_named(changes: dict[str, str], words: tuple[str, ...], tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as error:
        read_rows(write(tmp_path / "x.csv", ROW | changes))
    for word in words:
        assert word in str(error.value)


@pytest.mark.parametrize("value", ["0", "-3", "1e-320"])
def test_a_value_that_gives_no_time_is_named(value: str, tmp_path: Path) -> None:
    rate = {"value": value, "unit": "TFLOPS", "metric": "throughput"}
    with pytest.raises(ConfigError, match=r"row A-1, column value"):
        make_cases(read_rows(write(tmp_path / "x.csv", ROW | rate)), "gaudi2")


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "lacks the column 'id'"),
        (b"\xff\xfe\x00", "not UTF-8"),
        (b"id,source\n", "lacks the column"),
        ((",".join(COLUMNS) + "\n").encode(), "has no rows"),
        ((",".join(COLUMNS) + "\nA-1,x\n").encode(), "row A-1 has more or fewer cells"),
        ((",".join(COLUMNS) + "\n" + "x," * 40 + "\n").encode(), "more or fewer cells"),
        ((",".join(COLUMNS) + '\n"A-1"x,y\n').encode(), "is no CSV"),
        ((",".join(COLUMNS) + "\n" + "x" * 200_000 + "\n").encode(), "is no CSV"),
    ],
)
def test_a_file_that_is_none_is_refused(content: bytes, words: str, tmp_path: Path) -> None:
    (tmp_path / "x.csv").write_bytes(content)
    with pytest.raises(ConfigError, match=words):
        read_rows(tmp_path / "x.csv")


def test_a_file_that_is_not_there_or_a_folder(tmp_path: Path) -> None:
    for path in (tmp_path / "none.csv", tmp_path):
        with pytest.raises(ConfigError, match="cannot read"):
            read_rows(path)


def test_ids_must_differ(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="A-1 stands there twice"):
        read_rows(write(tmp_path / "x.csv", ROW, ROW))


def test_sizes_in_place_of_a_number_are_read(tmp_path: Path) -> None:
    row = ROW | {"value": "128x512", "metric": "geometry", "unit": "elements"}
    cases = make_cases(read_rows(write(tmp_path / "x.csv", row)), "gaudi2")
    assert (cases.found, list(cases.refused.values())) == ((), [("A-1",)])


@pytest.mark.parametrize("value", [0, -1, 1.5, True, "8", None, [8], math.nan, math.inf, 10**13])
def test_a_parameter_that_counts_nothing_is_not_recorded(value: object) -> None:
    row = Row("A", "", "", "", "Gaudi2", "", "bf16", {"batch": value}, "latency", 1.0, "s", "", "val:mme")
    assert row.count("batch") is None
    with pytest.raises(Inexpressible, match="batch is not recorded"):
        row.need("batch")


ANYTHING = st.none() | st.booleans() | st.integers(-5, 10**14) | st.floats() | st.text(max_size=5) | st.lists(st.none())
SHIPPED = read_rows()


@given(st.sampled_from(SHIPPED), st.data())
def test_whatever_a_row_says_it_is_a_case_or_a_reason(row: Row, data: st.DataObject) -> None:
    names = sorted(row.params) or ["batch"]
    changed = dict(row.params) | {data.draw(st.sampled_from(names)): data.draw(ANYTHING)}
    op = data.draw(st.sampled_from([row.op, *(other.op for other in SHIPPED[:: len(SHIPPED) // 20])]))
    unit = data.draw(st.sampled_from([row.unit, "ms", "tokens/s", "TFLOPS", "x", "", "%"]))
    fields = {name: getattr(row, name) for name in Row.__dataclass_fields__} | {"params": changed, "op": op}
    cases = make_cases([Row(**(fields | {"unit": unit, "chip": "Gaudi2"}))], "gaudi2")
    assert len(cases.found) + sum(map(len, cases.refused.values())) == 1
