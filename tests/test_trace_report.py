"""The report of a trace: everything it was given is on it, nothing else, and no name can break it."""

from __future__ import annotations

import re
from dataclasses import fields, replace
from html import unescape
from html.parser import HTMLParser
from pathlib import Path

import polars as pl
import pytest

from overlap.analysis.advice import Advised
from overlap.analysis.html import document, folded, marked, table_html
from overlap.analysis.numbers import counted, share_text, time_text
from overlap.analysis.partition import Partition, partition
from overlap.analysis.trace_report import MOST_DEVICES, TraceReportData, trace_page, write_trace_report
from overlap.analysis.trace_sections import DeviceData, device_sections
from overlap.errors import RunDirError
from tests.synthetic_trace import EVIL, bare, device, report, trace

SECTIONS = [
    "Where the time went",
    "What changed",
    "Engines over time",
    "What could be saved",
    "Ops",
    "Attention phases",
    "Layers",
    "What ran beside what",
    "Lanes",
    "Idle gaps",
    "Busy TPC by two definitions",
    "The vendor's figures",
    "Roofline",
    "How far to trust this",
    "How this was made",
]
VOID = {"meta", "br"}


class Balanced(HTMLParser):
    """Checks that tags close in order, and keeps scripts and outside addresses."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.scripts = 0
        self.addresses: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.scripts += tag == "script"
        self.addresses += [value or "" for name, value in attrs if name in ("src", "href")]
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


@pytest.fixture(scope="module")
def full() -> str:
    return trace_page(report())


def titles(page: str) -> list[str]:
    return [unescape(title) for title in re.findall("<section><h2>(.*?)</h2>", page)]


def test_every_part_has_its_section(full: str) -> None:
    assert titles(full) == SECTIONS
    assert '<span class="badge synthetic">synthetic</span>' in full
    assert "MME busy" in full


def test_parts_that_are_missing_have_none() -> None:
    assert titles(trace_page(bare())) == ["Where the time went", "How this was made"]


def test_empty_frames_count_as_missing() -> None:
    full = device("d", trace())
    empty = {
        one.name: value.clear()
        for one in fields(DeviceData)
        if isinstance(value := getattr(full, one.name), pl.DataFrame)
    }
    assert device_sections(replace(full, **empty, advised=None, roofline=None)) == []


def test_no_advice_is_said_not_left_out() -> None:
    part = partition(trace())
    sections = device_sections(DeviceData("d", part, advised=Advised((), ("A note.",), 10, 10)))
    assert "Nothing that is worth" in sections[0]
    assert "A note." in sections[0]


@pytest.mark.parametrize("ranks", [1, 3])
def test_the_page_is_whole_and_stands_alone(ranks: int) -> None:
    page = trace_page(report(ranks))
    parser = Balanced()
    parser.feed(page)
    assert parser.open == []
    assert parser.addresses == []
    # plotly.js once, and each figure's own; none from a name.
    assert parser.scripts == 1 + page.count('class="plotly-graph-div"') + page.count("window.PlotlyConfig")
    assert EVIL not in page
    assert "alert(1)" in page


def test_devices_are_compared_before_their_own_sections() -> None:
    page = trace_page(report(3))
    assert titles(page).count("Devices side by side") == 1
    assert page.count('<h2 class="device"') == 3
    assert page.index("Devices side by side") < page.index('<h2 class="device"')
    assert "3 devices" in page


def test_the_headline_is_that_of_all_devices() -> None:
    parts = [Partition(0, 100, {"MME+TPC": 50, "idle": 50}), Partition(0, 300, {"MME+TPC": 50, "MME": 250})]
    data = TraceReportData("t", "measured", [DeviceData(f"d{i}", part) for i, part in enumerate(parts)])
    page = trace_page(data)
    assert '<div class="big"><b>25.0 %</b>' in page
    assert "of 400 ns had both engines busy (all devices)" in page


def test_devices_need_names_of_their_own() -> None:
    one = DeviceData("d", Partition(0, 0, {}))
    for devices in ([], [one, one]):
        with pytest.raises(ValueError, match="names of their own"):
            trace_page(TraceReportData("t", "measured", devices))
    assert "0.0 %" in trace_page(TraceReportData("t", "measured", [one]))


def test_dropped_rows_are_counted(full: str) -> None:
    assert "15 of 1,234,567 rows are in no figure." in full
    assert "end without begin" in full


def test_writing(tmp_path: Path) -> None:
    write_trace_report(bare(), tmp_path / "page.html")
    assert (tmp_path / "page.html").read_text(encoding="utf-8").startswith("<!doctype html>")
    (tmp_path / "file").touch()
    with pytest.raises(RunDirError):
        write_trace_report(bare(), tmp_path / "file" / "page.html")


def test_cells_follow_the_names_of_their_columns() -> None:
    frame = pl.DataFrame(
        {"name": [EVIL], "busy_ns": [1_234_567], "share": [0.1234], "count": [12345], "ratio": [1.23456], "x": [None]},
        schema_overrides={"x": pl.Int64},
    )
    cells = [unescape(re.sub("<[^>]*>", "", cell)) for cell in re.findall("<td[^>]*>(.*?)</td>", table_html(frame))]
    assert cells == [EVIL, "1.23 ms", "12.3 %", "12,345", "1.235", "–"]
    assert '<span title="1,234,567 ns">' in table_html(frame)
    heads = re.findall("<th class=.n?t?.>(.*?)</th>", table_html(frame, {"busy_ns": "time", "absent": "?", "name": ""}))
    assert heads == ["time", ""]


def test_long_tables_say_what_they_leave_out() -> None:
    frame = pl.DataFrame({"n": list(range(30))})
    assert "5 more rows are not shown." in table_html(frame)
    assert table_html(frame, most=3).count("<td") == 3
    assert folded("x", 3) == "x"
    assert folded("x", 30).startswith("<details>")


def test_texts() -> None:
    assert [time_text(ns) for ns in (0, 999, 1000, 12_345, 123_456, -2_500_000, 9_999_000_000_000)] == [
        "0 ns", "999 ns", "1.00 µs", "12.3 µs", "123 µs", "-2.50 ms", "9,999 s",
    ]  # fmt: skip
    assert [share_text(share) for share in (0.0, 0.0001, 0.5, 1.0)] == ["0.0 %", "<0.1 %", "50.0 %", "100.0 %"]
    assert [counted(1, "op"), counted(2000, "op")] == ["1 op", "2,000 ops"]
    assert marked("a `b<` c") == 'a <span class="op">b&lt;</span> c'
    assert "<title>overlap: &lt;b&gt;</title>" in document("<b>", "")


def test_sentences_of_checks_are_never_cut() -> None:
    sentence = f"steps: {'no step with device work, ' * 6}and `{EVIL}`"
    page = trace_page(replace(report(), health=[("warning", sentence)]))
    assert "no step with device work, " * 6 in page
    assert EVIL not in page


def test_changes_carry_their_sign() -> None:
    frame = pl.DataFrame({"delta_ns": [1500, -1500, 0], "duration_ns": [1500, 1500, 0]})
    cells = re.findall(r"<td[^>]*>(?:<[^>]+>)?([^<]*)", table_html(frame))
    assert cells == ["+1.50 µs", "1.50 µs", "-1.50 µs", "1.50 µs", "0 ns", "0 ns"]


def test_a_page_of_very_many_devices_stays_small() -> None:
    one = bare().devices[0]
    page = trace_page(replace(report(), devices=[replace(one, name=f"rank {i}") for i in range(MOST_DEVICES + 3)]))
    assert page.count('<h2 class="device"') == MOST_DEVICES
    assert "3 more devices are left out" in page
    assert f'<td class="t">rank {MOST_DEVICES + 2}</td>' in page


def test_sections_that_would_say_nothing_are_left_out() -> None:
    nowhere = pl.DataFrame({"attention_phase": ["other"], "engine": ["TPC"], "exposed_ns": [5], "hidden_ns": [0]})
    no_layer = pl.DataFrame({"layer": [-1], "engine": ["TPC"], "exposed_ns": [5]})
    one_way = pl.DataFrame({"definition": ["until halt"], "busy_ns": [5]})
    said = replace(bare().devices[0], phases=nowhere, layers=no_layer, tpc=one_way)
    assert not device_sections(said)


def test_time_on_unknown_engines_is_in_the_headline() -> None:
    unknown = DeviceData("d", Partition(0, 10, {"OTHER": 10, "idle": 0}))
    assert "unknown engines" in trace_page(TraceReportData("t", "synthetic", [unknown]))
    assert "unknown engines, " not in trace_page(report())
