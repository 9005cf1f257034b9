from __future__ import annotations

import csv
import json
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from overlap.analysis.figures.predicted import predicted_against_published
from overlap.devices.gaudi.validation.rows import COLUMNS, read_rows
from tests.conftest import Answer
from tests.roofline import Roofline

Cli = Callable[..., Answer]


@pytest.fixture(autouse=True)
def predictor(monkeypatch: pytest.MonkeyPatch) -> None:
    """The roofline instead of the device model, which takes longer."""
    module = ModuleType("overlap.devices.gaudi.predict")
    module.ModelPredictor = lambda chip, constants, settings: Roofline()  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "overlap.devices.gaudi.predict", module)


def validate(cli: Cli, *arguments: str, chip: str = "gaudi2") -> Answer:
    return cli("validate", f"device={chip}", "hydra.run.dir=out", *arguments)


def written() -> dict[str, Any]:
    found = json.loads(Path("out/validation.json").read_text(encoding="utf-8"))
    assert isinstance(found, dict)
    return found


def test_files_and_tables(cli: Cli) -> None:
    answer = validate(cli)
    assert (answer.code, answer.err) == (0, "")
    for word in ("simulated by roofline 7", "prefill_unfused", "MAPE", "rows are left out", "files in"):
        assert word in answer.out
    found = written()
    assert (found["schema"], found["evidence"], found["device"]) == ("overlap.validation/1", "simulated", "gaudi2")
    assert found["model"] == {"name": "roofline", "version": "7", "switched": {}}
    for group in found["groups"].values():
        assert {"mape", "bias", "n", "calibration_n"} <= set(group)
    assert found["groups"]["gemm_thin"]["mape"] is None
    ids = [row["id"] for row in found["rows"]] + [
        one for why in found["not_expressible"].values() for one in why["ids"]
    ]
    assert sorted(ids) == sorted(row.id for row in read_rows())
    assert found["directions"]["n"] == len(found["directions"]["comparisons"])
    page = Path("out/validation.html").read_text(encoding="utf-8")
    for word in ("badge simulated", "roofline 7", "plotly", "PREFILL-0001", "Left out"):
        assert word in page


def test_errors_in_the_file_are_those_of_its_rows(cli: Cli) -> None:
    validate(cli)
    found = written()
    for name, group in found["groups"].items():
        errors = [row["error"] for row in found["rows"] if name in row["groups"] and row["use"].startswith("val:")]
        assert len(errors) == group["n"]
        if errors:
            assert group["mape"] == pytest.approx(sum(map(abs, errors)) / len(errors))
            assert group["bias"] == pytest.approx(sum(errors) / len(errors))
    for row in found["rows"]:
        if row["predicted_ns"] is not None:
            assert row["error"] == pytest.approx(row["predicted_ns"] / row["published_ns"] - 1)


def test_the_other_chip(cli: Cli) -> None:
    assert validate(cli, chip="gaudi3").code == 0
    assert set(written()["groups"]) == {"gemm_gaudi3", "row_parallel_gaudi3"}


def test_rows_of_a_file(cli: Cli, tmp_path: Path) -> None:
    row = dict.fromkeys(COLUMNS, "x") | {"chip": "Gaudi2", "dtype": "bf16", "use": "val:mme", "metric": "latency"}
    row |= {"value": "5", "unit": "us", "params_json": '{"M":1000,"N":1000,"K":1000}'}
    with (tmp_path / "my rows.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, COLUMNS)
        writer.writeheader()
        writer.writerow(row)
    assert validate(cli, "rows=my rows.csv").code == 0
    found = written()
    assert (found["source"], [one["id"] for one in found["rows"]]) == ("my rows.csv", ["x"])
    assert found["groups"]["gemm"]["mape"] == pytest.approx(0.2)


def test_a_file_in_which_nothing_can_be_predicted(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "x.csv").write_text(",".join(COLUMNS) + "\n" + ",".join(["a"] * 7 + ["", "m", "1", "u", "", "context"]))
    answer = validate(cli, "rows=x.csv")
    assert (answer.code, answer.err) == (0, "")
    assert (written()["groups"], written()["rows"]) == ({}, [])


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("device=host",), ("device 'host' has nothing to validate", "device=gaudi2")),
        (("device=auto",), ("device=gaudi2 or device=gaudi3",)),
        (("device=gaudi2", "rows=none.csv"), ("cannot read none.csv",)),
        (("device=gaudi2", "rows=."), ("cannot read",)),
        (("device=gaudi2", "rows=bad.csv"), ("row a, column value, is 'fast'",)),
        (("device=gaudi2", "worst=-1"), ("worst is -1",)),
    ],
)
def test_mistakes_are_answered_in_one_line(cli: Cli, tmp_path: Path, arguments: tuple[str, ...], words: Any) -> None:
    (tmp_path / "bad.csv").write_text(",".join(COLUMNS) + "\n" + ",".join(["a"] * 7 + ["", "m", "fast", "u", "", "x"]))
    answer = cli("validate", "hydra.run.dir=out", *arguments)
    assert (answer.code, len(answer.lines)) == (2, 1)
    assert "Traceback" not in answer.err + answer.out
    for word in words:
        assert word in answer.err


def test_the_figure_tells_groups_and_calibration_apart() -> None:
    import polars as pl

    rows = pl.DataFrame(
        {
            "id": ["a", "b<i>", "c"],
            "group": ["gemm", "gemm", "decode"],
            "workload": ["x", "y", "z"],
            "published": [1.0, 10.0, 100.0],
            "predicted": [1.1, 9.0, 120.0],
            "calibration": [False, True, False],
        }
    )
    figure = predicted_against_published(rows, "ms")
    marks = {trace.name: trace.marker.symbol for trace in figure.data if trace.mode == "markers"}
    assert marks == {"gemm": "circle", "gemm, calibration": "circle-open", "decode": "circle"}
    assert figure.data[0].marker.color == figure.data[1].marker.color != figure.data[2].marker.color
    line = figure.data[-1]
    assert line.x == line.y
    assert figure.layout.xaxis.type == figure.layout.yaxis.type == "log"
    assert figure.data[1].customdata[0][0] == "b&lt;i&gt;"
    assert predicted_against_published(rows.clear(), "ms").data == ()
