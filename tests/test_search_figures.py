"""Figures of a sweep and of a table: what is drawn is what the frames say, and the frames are what the result says."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import plotly.graph_objects as go
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from overlap.analysis.figures.coordinates import MOST, SPREAD, coordinates
from overlap.analysis.figures.heatmap import heatmap
from overlap.analysis.figures.pareto import MIB, pareto
from overlap.analysis.figures.waterfall import waterfall
from overlap.analysis.report import page
from overlap.commands.recipe_rows import recipe_rows
from overlap.commands.sweep_frames import axes_frame, candidate_frame, cap_bytes, step_frame
from overlap.commands.sweep_report import report_data
from overlap.commands.tables import sweep_tables
from overlap.search.candidate import BASELINE, Candidate
from overlap.search.screen import Screened
from overlap.search.sweep import SweepResult
from overlap.split import Split
from tests.fakes import FakeDevice
from tests.sweeps import SEARCH, sweep
from tests.synthetic_trace import EVIL

BUCKETS = ["phase", "batch", "query", "context", "speedup", "low", "high", "kept"]


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> SweepResult:
    """A sweep that kept a split."""
    return sweep(tmp_path_factory.mktemp("kept"), FakeDevice(), replace(SEARCH, memory_cap_gib=1.5))


@pytest.fixture(scope="module")
def passed(tmp_path_factory: pytest.TempPathFactory) -> SweepResult:
    """A sweep in which nothing was faster."""
    return sweep(tmp_path_factory.mktemp("passed"), FakeDevice(lambda _: 1_000_000))


def buckets(*rows: tuple[object, ...]) -> pl.DataFrame:
    return pl.DataFrame(list(rows), schema=BUCKETS, orient="row", infer_schema_length=None)


def drawn(figure: go.Figure) -> dict[str, Any]:
    """The figure as the page has it; fails on what JSON cannot hold."""
    found: dict[str, Any] = json.loads(figure.to_json())
    return found


def named(figure: go.Figure) -> dict[str, Any]:
    return {one.name: one for one in figure.data}


# -- heat map --------------------------------------------------------------------------------------------------------

PAIR = (("prefill", 8, 1024, 0, 1.5, 1.4, 1.6, "chunks=4"), ("prefill", 1, 2048, 0, 1.0, 1.0, 1.0, "baseline"))


def test_squares_are_the_logarithms_of_the_speedups_at_their_places() -> None:
    figure = heatmap(buckets(*PAIR))
    squares = figure.data[0]
    assert [list(line) for line in squares.z] == [[None, 0.0], [math.log(1.5), None]]
    assert [list(line) for line in squares.text] == [["", "1.00×"], ["1.50×", ""]]
    assert figure.layout.yaxis.ticktext == ("1", "8")
    assert figure.layout.xaxis.ticktext == ("1,024", "2,048")
    assert "1.400 to 1.600" in squares.customdata[1][0]
    assert "chunks=4" in squares.customdata[1][0]


def test_colours_are_centred_at_no_change() -> None:
    colours = heatmap(buckets(*PAIR)).layout.coloraxis
    assert colours.cmin == -colours.cmax == -math.log(1.5)
    assert [tick for tick, text in zip(colours.colorbar.tickvals, colours.colorbar.ticktext, strict=True)][1] == 0.0
    # Noise alone never has the strongest colour.
    assert heatmap(buckets(("decode", 1, 1, 64, 1.001, 1.0, 1.002, "x"))).layout.coloraxis.cmax > math.log(1.05)


def test_a_diamond_marks_where_the_baseline_stays() -> None:
    figure = heatmap(buckets(*PAIR))
    marks = named(figure)["the baseline stays"]
    assert [(round(x), round(y)) for x, y in zip(marks.x, marks.y, strict=True)] == [(1, 0)]
    assert len(heatmap(buckets(PAIR[0])).data) == 1


def test_every_phase_has_a_panel_and_the_diamond_stands_in_the_legend_once() -> None:
    decode = ("decode", 32, 1, 2048, 1.0, 1.0, 1.0, "baseline")
    figure = heatmap(buckets(*PAIR, decode, (*decode[:3], 4096, *decode[4:])))
    assert [one.type for one in figure.data] == ["heatmap", "scatter", "heatmap", "scatter"]
    assert [one.showlegend for one in figure.data if one.type == "scatter"] == [True, False]
    assert figure.layout.xaxis2.ticktext == ("2,048", "4,096")
    assert [one.text for one in figure.layout.annotations] == ["prefill", "decode"]


def test_contexts_of_a_prefill_are_columns_of_their_own() -> None:
    figure = heatmap(buckets(*PAIR, ("prefill", 8, 1024, 4096, 1.2, 1.1, 1.3, "x")))
    assert figure.layout.xaxis.ticktext == ("1,024<br>+0", "1,024<br>+4,096", "2,048<br>+0")
    assert [list(line) for line in figure.data[0].text] == [["", "", "1.00×"], ["1.50×", "1.20×", ""]]


def test_contexts_go_down_where_there_is_one_batch() -> None:
    figure = heatmap(buckets(PAIR[0], ("prefill", 8, 1024, 4096, 1.2, 1.1, 1.3, "x")))
    assert figure.layout.xaxis.ticktext == ("1,024",)
    assert (figure.layout.yaxis.title.text, figure.layout.yaxis.ticktext) == ("context tokens", ("0", "4,096"))
    assert [list(line) for line in figure.data[0].text] == [["1.50×"], ["1.20×"]]


@pytest.mark.parametrize("ends", [(None, None), (0.0, math.inf), (math.nan, 2.0)])
def test_an_interval_without_ends_is_said_to_be_none(ends: tuple[float | None, float | None]) -> None:
    figure = heatmap(buckets(("prefill", 1, 64, 0, 1.2, *ends, EVIL)))
    assert "no interval" in figure.data[0].customdata[0][0]
    assert EVIL not in json.dumps(drawn(figure))


@given(st.sets(st.tuples(st.sampled_from([1, 2, 4, 8]), st.integers(1, 40)), min_size=1, max_size=80))
def test_no_bucket_is_lost(found: set[tuple[int, int]]) -> None:
    figure = heatmap(buckets(*(("prefill", b, 64 * q, 0, 1.0 + q / 100, 1.0, 2.0, "x") for b, q in found)))
    values = sorted(value for line in figure.data[0].z for value in line if value is not None)
    assert values == pytest.approx(sorted(math.log(1.0 + q / 100) for _, q in found))


def test_no_buckets_are_no_error() -> None:
    assert not heatmap(buckets(PAIR[0]).clear()).data


# -- Pareto ----------------------------------------------------------------------------------------------------------


def points(*rows: tuple[str, str, float, int, bool]) -> pl.DataFrame:
    frame = pl.DataFrame(list(rows), schema=["name", "stage", "time_ms", "peak_bytes", "on_front"], orient="row")
    return frame.with_columns(note=pl.lit(EVIL))


THREE = points(
    ("a", "kept", 1.0, 30 * MIB, True), ("b", "screen", 2.0, 10 * MIB, True), ("c", "baseline", 3.0, 40 * MIB, False)
)


def test_points_stand_at_their_time_and_memory() -> None:
    found = named(pareto(THREE))
    assert (found["kept"].x, found["kept"].y) == ((30.0,), (1.0,))
    assert (found["baseline"].x, found["baseline"].y) == ((40.0,), (3.0,))
    assert found["kept"].customdata[0][0] == "a"
    assert EVIL not in json.dumps(drawn(pareto(THREE)))


def test_the_front_is_a_step_line_to_the_hungriest_candidate() -> None:
    line = named(pareto(THREE))["front: fastest for its memory"]
    assert (line.x, line.y, line.line.shape) == ((10.0, 30.0, 40.0), (2.0, 1.0, 1.0), "hv")
    none = pareto(THREE.with_columns(on_front=pl.lit(False)))
    assert "front: fastest for its memory" not in named(none)


def test_a_cap_is_a_line() -> None:
    assert not pareto(THREE).layout.shapes
    figure = pareto(THREE, 20 * MIB)
    assert figure.layout.shapes[0].x0 == 20.0
    assert figure.layout.annotations[0].text == "cap 20 MiB"


def test_one_candidate_and_equal_ones_are_drawn() -> None:
    assert len(pareto(THREE.head(1)).data) == 2
    same = points(*(("abc"[i], "screen", 1.0, MIB, i == 0) for i in range(3)))
    assert named(pareto(same))["predicted only"].y == (1.0, 1.0, 1.0)
    assert not pareto(THREE.clear()).data


def test_intervals_are_drawn_where_they_have_a_width() -> None:
    ends = THREE.with_columns(low_ms=pl.col("time_ms") - 0.25, high_ms=pl.col("time_ms") + 0.5)
    bars = named(pareto(ends))["kept"].error_y
    assert (list(bars.array), list(bars.arrayminus), bars.visible) == ([0.5], [0.25], True)
    flat = THREE.with_columns(low_ms=pl.col("time_ms"), high_ms=pl.col("time_ms"))
    assert named(pareto(flat))["kept"].error_y.visible is False


# -- parallel coordinates --------------------------------------------------------------------------------------------


def test_axes_that_vary_are_drawn_and_time_comes_last() -> None:
    frame = pl.DataFrame(
        {"chunks": [4, 1, 2], "lag": [0, 0, 0], "fused": [True, False, True], "order": ["b", "a", "b"]}
    ).with_columns(time_ms=pl.Series([3.0, 1.0, 2.0]))
    figure = coordinates(frame)
    axes = {one.label: one for one in figure.data[0].dimensions}
    assert list(axes) == ["chunks", "fused", "order", "time, ms"]
    # The slowest first, so that the fastest line lies on top.
    assert axes["time, ms"]["values"] == (3.0, 2.0, 1.0)
    assert [round(value) for value in axes["chunks"]["values"]] == [2, 1, 0]
    assert axes["chunks"].ticktext == ("1", "2", "4")
    assert axes["fused"].ticktext == ("no", "yes")
    assert figure.data[0].line.color == (3.0, 2.0, 1.0)


@given(st.lists(st.sampled_from([1, 2, 4, 8]), min_size=1, max_size=60))
def test_lines_stay_within_reach_of_their_ticks(values: list[int]) -> None:
    frame = pl.DataFrame({"chunks": values, "time_ms": [float(i % 7) for i in range(len(values))]})
    axes = coordinates(frame).data[0].dimensions
    if len(axes) == 1:
        assert len(set(values)) == 1
        return
    order = sorted(range(len(values)), key=lambda i: i % 7)[::-1]
    for place, row in zip(axes[0]["values"], order, strict=True):
        assert abs(place - axes[0].ticktext.index(str(values[row]))) <= SPREAD / 2 + 1e-9


def test_only_the_fastest_are_drawn_and_that_is_said() -> None:
    frame = pl.DataFrame({"chunks": [i % 3 for i in range(3000)], "time_ms": [float(3000 - i) for i in range(3000)]})
    figure = coordinates(frame)
    times = figure.data[0].dimensions[-1]["values"]
    assert sorted(times) == [float(i + 1) for i in range(MOST)]
    assert figure.layout.annotations[0].text == "the fastest 500 of 3,000 candidates"
    assert figure.layout.annotations[0].text != coordinates(frame.head(3)).layout.annotations[0].text


@pytest.mark.parametrize("count", [0, 1, 2])
def test_few_and_equal_candidates_are_drawn(count: int) -> None:
    figure = coordinates(pl.DataFrame({"chunks": [1, 1], "time_ms": [2.0, 2.0]}).head(count))
    assert len(figure.data[0].dimensions) == 1
    assert figure.data[0].line.cmin < figure.data[0].line.cmax
    drawn(figure)


# -- waterfall -------------------------------------------------------------------------------------------------------


def test_bars_hang_where_the_one_before_ends() -> None:
    rows = [("baseline", 10.0, "baseline"), ("work", -4.0, "factor"), ("tiling", 1.0, "factor"), ("kept", 7.0, "kept")]
    rows += [("gap to the bound", -2.0, "gap"), ("bound", 5.0, "bound")]
    figure = waterfall(pl.DataFrame(rows, schema=["step", "time_ms", "kind"], orient="row"), "measured")
    bars = figure.data[0]
    assert list(zip(bars.base, bars.y, strict=True)) == [(0, 10), (6, 4), (6, 1), (0, 7), (5, 2), (0, 5)]
    assert bars.text == ("10 ms", "−4 ms", "+1 ms", "7 ms", "−2 ms", "5 ms")
    assert bars.marker.color[1] != bars.marker.color[2]
    assert "measured" in figure.layout.title.text
    assert figure.layout.yaxis.range[0] == 0


def test_steps_lead_from_the_baseline_to_the_bound(kept: SweepResult) -> None:
    frame = step_frame(kept)
    assert frame["kind"].to_list()[0] == "baseline"
    assert [name.split()[0] for name in frame.filter(kind="factor")["step"].to_list()] == [
        "work", "tiling", "overlap", "order",
    ]  # fmt: skip
    times = dict(zip(frame["kind"].to_list(), frame["time_ms"].to_list(), strict=True))
    assert times["kept"] == kept.kept.latency.median / 1e6
    assert times["bound"] == kept.kept.bound.time_ns / 1e6
    assert times["kept"] + times["gap"] == pytest.approx(times["bound"])
    changes = frame.filter(pl.col("kind").is_in(["factor", "residual"]))["time_ms"].sum()
    assert times["baseline"] + changes == pytest.approx(times["kept"], rel=0.005)


@pytest.mark.parametrize(("off", "told"), [(1.004, False), (0.996, False), (1.006, True), (0.99, True)])
def test_what_factors_do_not_explain_is_a_step_of_its_own(kept: SweepResult, off: float, told: bool) -> None:
    gain = kept.baseline.latency.median / kept.kept.latency.median
    factors = {"tiling": 1.0, "work": gain / off, "order": 1.0, "overlap": 1.0, "total": gain}
    frame = step_frame(replace(kept, attribution=factors))
    assert ("residual" in frame["kind"].to_list()) is told
    if told:
        # The factors end at `off` times the kept variant's time.
        end_ms = kept.kept.latency.median / 1e6
        assert frame.filter(kind="residual")["time_ms"].item() == pytest.approx(end_ms * (1 - off))


def test_without_factors_all_of_the_gain_is_not_attributed(kept: SweepResult) -> None:
    frame = step_frame(replace(kept, attribution={}))
    assert frame["kind"].to_list() == ["baseline", "residual", "kept", "gap", "bound"]
    assert "is not known: a run of the factors failed" in page(report_data(replace(kept, attribution={}), "x"))


def test_where_the_baseline_stays_only_the_gap_is_left(passed: SweepResult) -> None:
    assert step_frame(passed)["kind"].to_list() == ["baseline", "gap", "bound"]
    assert "Nothing was kept" in page(report_data(passed, "x"))


# -- frames of a sweep -----------------------------------------------------------------------------------------------


def test_nothing_beats_the_front_and_everything_else_is_beaten(kept: SweepResult) -> None:
    rows = candidate_frame(kept).select("name", "time_ms", "peak_bytes", "on_front").rows()
    front = [row for row in rows if row[3]]
    assert front
    for name, time_ms, peak, on_front in rows:
        beaten = any(t <= time_ms and p <= peak and n != name for n, t, p, _ in front)
        assert on_front is not beaten


def test_candidates_with_wrong_results_are_not_on_the_front(kept: SweepResult) -> None:
    best = candidate_frame(kept).filter("on_front").sort("time_ms")["name"][0]
    checked = [replace(one, failure="wrong") if one.candidate.key == best else one for one in kept.checked]
    frame = candidate_frame(replace(kept, checked=checked))
    assert frame.filter(name=best)["on_front"].item() is False
    assert frame.filter(name=best)["note"].item().startswith("wrong")


def test_predictions_are_not_on_a_measured_front(kept: SweepResult) -> None:
    frame = candidate_frame(replace(kept, device=replace(kept.device, evidence="measured")))
    assert not frame.filter(~pl.col("timed"))["on_front"].any()
    assert frame.filter("timed")["on_front"].any()


def test_the_space_has_a_row_per_candidate_that_can_run(kept: SweepResult) -> None:
    frame = axes_frame(kept)
    able = [one for one in kept.screened if not one.failure]
    assert frame["time_ms"].to_list() == [one.predicted_ns / 1e6 for one in able]
    assert frame["chunks"].to_list() == [one.candidate.split.chunks for one in able]
    assert frame["order"].to_list() == [one.candidate.order for one in able]


def test_the_cap_is_that_of_the_sweep(kept: SweepResult, passed: SweepResult) -> None:
    assert cap_bytes(kept) == 3 * 2**29
    assert cap_bytes(passed) is None
    assert cap_bytes(replace(kept, records=[])) is None


# -- recipes ---------------------------------------------------------------------------------------------------------

NEVER = Candidate(Split(chunks=64), "list")


def with_recipes(result: SweepResult) -> SweepResult:
    prediction = next(one for one in result.screened if one.candidate == result.verdict.kept).predicted_ns
    recipes: Mapping[str, Screened] = {
        "broken": Screened(NEVER, 0, 0, f"no room {EVIL}"),
        "slow": Screened(NEVER, 3 * prediction),
        "unsplit": Screened(BASELINE, 5 * prediction),
        "mine": Screened(result.verdict.kept, prediction),
    }
    return replace(result, recipes=recipes)


def test_recipes_are_compared_by_the_best_evidence_there_is(kept: SweepResult) -> None:
    result = with_recipes(kept)
    rows = {one.name: one for one in recipe_rows(result)}
    assert list(rows) == ["mine", "slow", "unsplit", "broken"]
    assert [one.name for one in rows.values() if one.best] == ["mine"]
    assert (rows["mine"].kept_over, rows["mine"].basis) == (1.0, "is kept")
    assert (rows["slow"].kept_over, rows["slow"].basis) == (3.0, "predicted")
    assert rows["unsplit"].kept_over == pytest.approx(kept.baseline.latency.median / kept.kept.latency.median)
    assert rows["unsplit"].basis == "final"
    assert (rows["broken"].kept_over, rows["broken"].failure) == (None, f"no room {EVIL}")
    assert rows["slow"].split == "chunks=64 | list"


def test_recipes_are_on_the_page_and_in_the_terminal(kept: SweepResult, capsys: pytest.CaptureFixture[str]) -> None:
    from rich.console import Console

    result = with_recipes(kept)
    text = page(report_data(result, "x"))
    assert text.count("<b>(best)</b>") == 1
    assert "cannot run: no room" in text
    assert EVIL not in text
    Console(width=160).print(*sweep_tables(result), sep="\n")
    printed = capsys.readouterr().out
    assert "recipes of the field, simulated" in printed
    assert "mine (best)" in printed
    assert "3.000x" in printed
    assert "Recipes of the field" not in page(report_data(replace(kept, recipes={}), "x"))


def test_recipes_are_marked_among_the_candidates(kept: SweepResult) -> None:
    other = next(one for one in kept.screened if one.candidate not in (BASELINE, kept.verdict.kept))
    frame = candidate_frame(replace(kept, recipes={"two": other}))
    assert frame.filter(stage="recipe")["name"].to_list() == [other.candidate.key]
    assert frame.filter(stage="recipe")["note"].item().endswith("recipe two")


# -- the page --------------------------------------------------------------------------------------------------------


def test_every_section_says_how_to_read_it(kept: SweepResult, tmp_path: Path) -> None:
    text = page(report_data(with_recipes(kept), "x"))
    for title in (
        "What each engine did",
        "Where the time went",
        "From the baseline to the bound",
        "The gain",
        "Recipes of the field",
        "Time and memory",
        "The space",
    ):
        assert f'<h2>{title}</h2><p class="muted">' in text, title
    # plotly.js is some 5 MB and there once; figures add little.
    assert text.count("plotly.js v") == 1
    assert len(text) < 6_000_000
