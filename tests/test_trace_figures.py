"""Figures of a trace: what is drawn is what the frames say, sorted, legible, and safe against any name."""

from __future__ import annotations

import json
from collections.abc import Callable

import plotly.graph_objects as go
import polars as pl
import pytest

from overlap.analysis.buckets import busy_over_time, length_bins
from overlap.analysis.diff import diff
from overlap.analysis.figures.diff_bars import diff_bars
from overlap.analysis.figures.engines_over_time import engines_over_time
from overlap.analysis.figures.gap_hist import gap_hist
from overlap.analysis.figures.lane_load import MOST_LANES, lane_load
from overlap.analysis.figures.pair_heat import pair_heat
from overlap.analysis.figures.phase_bars import phase_bars
from overlap.analysis.figures.roofline_plot import roofline_plot
from overlap.analysis.figures.style import ENGINE_COLOURS, LONGEST_HOVER, plain, short, unit_of
from overlap.traces.schema import EVENTS, empty, filled
from tests.synthetic_trace import EVIL, LONG, device, ops_of, trace

MOST_POINTS = 3000


def lanes_of(count: int) -> pl.DataFrame:
    rows = [("TPC", f"[HD0] TPC {i}", 100 + i, 0.5) for i in range(count)]
    return pl.DataFrame(rows, schema=["engine", "lane", "busy_ns", "share"], orient="row")


def pairs_of(count: int) -> pl.DataFrame:
    rows = [("MME", f"m{i}", "TPC", f"t{j}{EVIL}", 1 + i * j) for i in range(count) for j in range(count)]
    return pl.DataFrame(rows, schema=["engine_a", "kind_a", "engine_b", "kind_b", "overlap_ns"], orient="row")


def phases_of(count: int) -> pl.DataFrame:
    rows = [(f"phase {i}{EVIL}", "TPC", i * 1000, 500) for i in range(count)]
    return pl.DataFrame(rows, schema=["attention_phase", "engine", "exposed_ns", "hidden_ns"], orient="row")


def points_of(count: int) -> pl.DataFrame:
    rows = [(f"op {i}{EVIL}", "MME", 1.0 + i, 1e12, 10 + i) for i in range(count)]
    schema = ["name", "engine", "flops_per_byte", "flops_per_s", "duration_ns"]
    return pl.DataFrame(rows, schema=schema, orient="row", schema_overrides={"duration_ns": pl.Int64})


def changes_of(count: int) -> pl.DataFrame:
    ops = pl.DataFrame(
        [(f"op{EVIL}" + "ab"[i % 2] * i, "TPC", 10 + i, 10 + i) for i in range(count)],
        schema={"name": pl.String, "engine": pl.String, "duration_ns": pl.Int64, "exposed_ns": pl.Int64},
        orient="row",
    )
    return diff(ops, ops.with_columns(pl.col("exposed_ns") + pl.int_range(pl.len())))


def busy_of(count: int) -> pl.DataFrame:
    rows = [{"engine": engine, "start_ns": i, "end_ns": i + 90} for i, engine in enumerate(ENGINE_COLOURS)]
    table = filled(pl.DataFrame(rows, schema_overrides=EVENTS)) if count else empty()
    return busy_over_time(table, (0, 100 * count))


FIGURES: dict[str, Callable[[int], go.Figure]] = {
    "engines over time": lambda count: engines_over_time(busy_of(count)),
    "lane load": lambda count: lane_load(lanes_of(count)),
    "phases": lambda count: phase_bars(phases_of(count)),
    "pairs": lambda count: pair_heat(pairs_of(min(count, 40))),
    "diff": lambda count: diff_bars(changes_of(min(count, 200))),
    "gaps": lambda count: gap_hist(length_bins(pl.Series([1 + i**3 for i in range(count)], dtype=pl.Int64))),
    "roofline": lambda count: roofline_plot(points_of(count), {"MME": 4e14}, 2e12),
}


@pytest.mark.parametrize("figure", FIGURES.values(), ids=FIGURES)
@pytest.mark.parametrize("count", [0, 1, 2, 4000])
def test_any_number_of_rows_is_drawn_with_few_points(figure: Callable[[int], go.Figure], count: int) -> None:
    drawn = figure(count)
    points = sum(len(one.x) * (len(one.y) if one.type == "heatmap" else 1) for one in drawn.data if one.x is not None)
    points += sum(len(row) for one in drawn.data if one.type == "heatmap" for row in one.z)
    assert points <= MOST_POINTS
    assert json.loads(drawn.to_json())["data"] or count == 0


@pytest.mark.parametrize("figure", FIGURES.values(), ids=FIGURES)
def test_no_name_reaches_plotly_as_markup(figure: Callable[[int], go.Figure]) -> None:
    assert "<script" not in json.dumps(json.loads(figure(20).to_json()))


def test_strips_show_every_engine_and_both() -> None:
    figure = engines_over_time(busy_of(1))
    assert [one.name for one in figure.data] == ["both", *ENGINE_COLOURS]
    assert len(figure.data[0].x) == len(figure.data[0].y) == 101
    assert sum(figure.data[1].y[:-1]) == pytest.approx(90)


def test_lanes_stand_in_the_order_of_their_numbers() -> None:
    figure = lane_load(lanes_of(12).sample(fraction=1.0, shuffle=True, seed=1))
    assert [point[0] for point in figure.data[0].customdata] == [f"[HD0] TPC {i}" for i in range(12)]
    many = lane_load(lanes_of(4000))
    assert len(many.data[0].x) == MOST_LANES
    assert many.layout.xaxis.ticktext == ("TPC (256 of 4,000)",)
    assert lane_load(lanes_of(48)).layout.xaxis.ticktext == ("TPC (48)",)


def test_phases_are_sorted_and_stacked() -> None:
    figure = phase_bars(phases_of(3))
    assert [one.name for one in figure.data] == ["exposed", "hidden"]
    assert list(figure.data[0].x) == [2.0, 1.0, 0.0]
    assert figure.layout.xaxis.title.text.startswith("µs")


def test_pairs_beyond_the_first_are_summed() -> None:
    pairs = pairs_of(5)
    figure = pair_heat(pairs, most=3)
    cells = [cell[2] for row in figure.data[0].customdata for cell in row]
    assert len(cells) == 16
    assert sum(cells) == pairs["overlap_ns"].sum()
    assert figure.layout.xaxis.ticktext[-1] == "all others"
    assert len(pair_heat(pairs, most=5).layout.xaxis.ticktext) == 5


def test_bars_of_a_diff_have_the_largest_change_first_and_a_colour_per_direction() -> None:
    before, after = ops_of(trace()), ops_of(trace(seed=1, softmax=0.5))
    figure = diff_bars(diff(before, after))
    sizes = [abs(value) for value in figure.data[0].x]
    assert sizes == sorted(sizes, reverse=True)
    colours = {value < 0: colour for value, colour in zip(figure.data[0].x, figure.data[0].marker.color, strict=True)}
    assert len(set(colours.values())) == len(colours)
    assert not diff_bars(diff(before, before)).data[0].x


@pytest.mark.parametrize(
    ("longest_ns", "unit"), [(0, "ms"), (999, "ns"), (26_200, "µs"), (-3_000_000, "ms"), (5_000_000_000, "s")]
)
def test_axes_have_the_unit_of_what_they_show(longest_ns: int, unit: str) -> None:
    assert unit_of(longest_ns).name == unit


def test_names_of_a_megabyte_do_not_fill_the_page() -> None:
    assert len(plain("x" * 1_000_000)) == LONGEST_HOVER


def test_names_are_cut_in_the_middle() -> None:
    assert short("softmax") == "softmax"
    cut = short(LONG, 30)
    assert len(cut.replace("&lt;", "<").replace("&gt;", ">")) == 30
    assert cut.startswith("void at::")
    assert cut.endswith("(int)")
    assert short("a<b>") == "a&lt;b&gt;"


def test_points_without_a_place_on_log_axes_are_left_out() -> None:
    points = points_of(3).with_columns(pl.Series("flops_per_byte", [0.0, float("inf"), 2.0]))
    figure = roofline_plot(points, {}, 0.0)
    assert [len(one.x) for one in figure.data] == [1]
    roof = roofline_plot(points, {"MME": 4e14}, 2e12).data[-1]
    assert (roof.x[1], roof.y[1]) == (200.0, 400.0)


def test_gaps_count_all_idle_time() -> None:
    gaps = device("d", trace()).gaps
    assert gaps is not None
    figure = gap_hist(length_bins(gaps["length_ns"]))
    unit = {"ns": 1, "µs": 1e3, "ms": 1e6}[figure.layout.yaxis.title.text.rsplit(" ", 1)[1]]
    assert sum(figure.data[0].y) * unit == pytest.approx(gaps["length_ns"].sum())
