"""`overlap report`: the page of a tuned config says what the config says, in words that need no tool."""

from __future__ import annotations

import math
import os
import re
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import msgspec
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from overlap.analysis.figures.time_bars import time_bars
from overlap.commands.report_bucket import MARK, caption
from overlap.commands.report_head import summary
from overlap.commands.report_page import page
from overlap.commands.report_words import bucket_in_words, parts_of, shares, split_in_short
from overlap.serve.tuned import Busy, Entry, Spread, Tuned
from overlap.serve.tuned_file import save, save_json
from overlap.split import canonical
from overlap.workload import Bucket, Workload
from tests.strategies import splits_of
from tests.tuned_configs import LLAMA, entry, spread, table64, tuned, tuned_configs, verified

SPLIT = entry(Bucket("prefill", 1, 2048, 0))


def text_of(found: Tuned, folder: Path = Path()) -> str:
    return page(found, folder / "tuned.yaml", folder)


@pytest.mark.parametrize(
    ("bucket", "words"),
    [
        (Bucket("prefill", 1, 2048, 0), "a prompt of 2,048 tokens"),
        (Bucket("prefill", 4, 512, 1024), "4 prompts of 512 tokens each, behind 1,024 that are cached"),
        (Bucket("decode", 1, 1, 128), "the next token of a sequence with 128 tokens"),
        (Bucket("decode", 8, 1, 4096), "the next token of 8 sequences with 4,096 tokens each"),
    ],
)
def test_buckets_in_words(bucket: Bucket, words: str) -> None:
    assert bucket_in_words(bucket) == words


@pytest.mark.parametrize(
    "busy",
    [
        Busy(mme=0.8, tpc=0.3, both=0.2, idle=0.1),
        Busy(mme=0.5, tpc=0.2, both=0.0, idle=0.1),
        Busy(mme=1.0, tpc=1.0, both=1.0, idle=0.0),
        Busy(mme=0.0, tpc=0.0, both=0.0, idle=1.0),
        Busy(mme=0.9, tpc=0.3, both=0.2, idle=0.5),
    ],
)
def test_parts_add_up_to_the_window(busy: Busy) -> None:
    found = shares(busy)
    assert math.isclose(sum(found.values()), 1.0)
    assert min(found.values()) >= 0
    assert math.isclose(found["MME"] + found["MME+TPC"], busy.mme)


@given(tuned_configs())
def test_parts_add_up_to_the_time_whatever_a_file_says(found: Tuned) -> None:
    for one in found.entries:
        rows, _ = parts_of(one)
        for run, time in (("before", one.baseline_latency_us), ("now", one.latency_us), ("as it is", one.latency_us)):
            parts = rows.filter(pl.col("run") == run)["time_ns"].to_list()
            assert not parts or math.isclose(sum(parts), time.median * 1e3)
            assert min(parts, default=0.0) >= 0


@given(st.data())
def test_every_axis_of_a_split_has_a_few_words(data: st.DataObject) -> None:
    workload = Workload(LLAMA, Bucket("prefill", 2, 2048, 1024), 1, 2)
    split = canonical(data.draw(splits_of(workload)), workload)
    words = split_in_short(split, "program")
    assert "=" not in words
    assert (words == "as the model is written") == (not split.changed())


def rectangles(svg: str) -> list[tuple[float, float]]:
    """x and width of every part."""
    return [(float(x), float(w)) for x, w in re.findall(r'<rect x="([\d.]+)" y="[\d.]+" width="([\d.]+)"', svg)]


def test_bars_are_as_long_as_their_times() -> None:
    one = msgspec.structs.replace(
        SPLIT,
        latency_us=Spread(median=500.0, low=490.0, high=510.0),
        baseline_latency_us=Spread(median=1000.0, low=990.0, high=1020.0),
        baseline_busy=Busy(mme=0.7, tpc=0.3, both=0.0, idle=0.0),
        busy=Busy(mme=0.9, tpc=0.6, both=0.5, idle=0.0),
    )
    found = rectangles(time_bars(*parts_of(one)))
    before, now = found[:5], found[5:]
    length = sum(width for _, width in before)
    assert sum(width for _, width in now) == pytest.approx(length / 2, abs=0.5)
    assert before[0][1] == pytest.approx(0.7 * length, abs=0.3)
    assert [width for _, width in now[:3]] == pytest.approx([0.2 * length, 0.25 * length, 0.05 * length], abs=0.3)
    for part, after in pairwise(before):
        assert after[0] == pytest.approx(part[0] + part[1], abs=0.3), "parts touch"


def test_an_open_interval_ends_at_the_edge() -> None:
    one = msgspec.structs.replace(SPLIT, latency_us=replace_high(SPLIT.latency_us))
    svg = time_bars(*parts_of(one))
    assert "inf" not in svg
    assert "nan" not in svg
    assert "open" in text_of(tuned([one]))


def test_an_interval_without_width_has_no_line() -> None:
    flat = Spread(median=100.0, low=100.0, high=100.0)
    svg = time_bars(*parts_of(msgspec.structs.replace(SPLIT, latency_us=flat, baseline_latency_us=flat)))
    assert "<path" not in svg
    assert "interval" not in svg


def replace_high(spread: Spread) -> Spread:
    return msgspec.structs.replace(spread, high=math.inf)


@given(tuned_configs())
def test_any_config_has_a_page(found: Tuned) -> None:
    text = text_of(found)
    assert text.count("<svg") == len(found.entries)
    assert text.count("<section") == text.count("</section>")
    assert "nan" not in re.sub(r"<style>.*?</style>|[^<>]*tuned\.yaml[^<>]*", "", text, flags=re.DOTALL).lower().split()
    assert found.device.evidence in text


def test_the_numbers_of_a_bucket_are_there() -> None:
    one = msgspec.structs.replace(SPLIT, speedup_vs_stack=spread(0.63), peak_bytes=3 * 2**20, baseline_peak_bytes=512)
    cells = re.findall(
        r'<tr><td>([^<]+)</td><td class="n">(.*?)</td><td class="n">(.*?)</td></tr>', text_of(tuned([one]))
    )
    found = {name: (before, now) for name, before, now in cells}
    assert found == {
        "time": ("150 µs<small>[148 µs, 152 µs]</small>", "100 µs<small>[99.0 µs, 101 µs]</small>"),
        "speed-up": ("–", "1.50×<small>[1.48×, 1.52×]</small>"),
        "speed-up over the stack": ("–", "0.63×<small>[0.62×, 0.64×]</small>"),
        "matrix engine (MME) busy": ("50.0%", "50.0%"),
        "vector engine (TPC) busy": ("25.0%", "50.0%"),
        "both at once": ("0.0%", "25.0%"),
        "nothing busy": ("25.0%", "25.0%"),
        "memory beside the inputs": ("0.5 KiB", "3 MiB"),
        "error against fp32": ("1.0e-03", "2.0e-03"),
        "above the least possible time, 50.0 µs": ("–", "100.0%"),
    }


def test_the_top_claims_only_what_the_numbers_say() -> None:
    alone = msgspec.structs.replace(SPLIT, busy=SPLIT.baseline_busy)
    other = msgspec.structs.replace(SPLIT, bucket=Bucket("prefill", 2, 2048, 0))
    assert "both engines work at once" in summary(tuned([SPLIT]))[1]
    assert "both engines" not in summary(tuned([alone]))[1]
    assert "at no time do both work at once" in caption(alone)
    assert "In 1, both engines work at once" in summary(tuned([alone, other]))[1]
    assert summary(tuned([alone, other]))[0] == "1.50×"


def test_the_gain_over_the_stack_stands_at_the_top() -> None:
    slower = msgspec.structs.replace(SPLIT, speedup_vs_stack=spread(0.63))
    text = text_of(tuned([slower]))
    assert "<h2>Over the stack</h2><p>0.63× as fast" in text
    assert text.index("Over the stack</h2>") < text.index("<svg")
    assert "Over the stack</h2>" not in text_of(tuned([SPLIT]))


def test_a_table_stays_small_and_needs_nothing_from_elsewhere() -> None:
    text = text_of(table64())
    assert len(text) < 1_000_000
    assert "<script" not in text
    assert not re.search(r'(?:src|href)="https?:', text)
    assert text.count('<a href="#bucket') == 64
    for number in range(64):
        assert f'id="bucket{number}"' in text


def test_names_are_escaped() -> None:
    found = tuned([SPLIT])
    nasty = '<script>alert("x")</script>'
    device = msgspec.structs.replace(found.device, name=nasty, software={"overlap": nasty})
    found = msgspec.structs.replace(found, device=device, model=replace(found.model, name=nasty))
    text = text_of(found)
    assert "<script" not in text
    assert "&lt;script&gt;" in text


def kept(one: Entry, verdict: str, **changes: Any) -> Tuned:
    return tuned([msgspec.structs.replace(one, verified=verified(verdict=verdict, **changes))])


def test_the_verdict_on_the_model_stands_first() -> None:
    says = {
        "gain": "the whole model is faster",
        "block only": "the gain of these layers does not show in the whole model",
        "no gain": "no gain",
        "wrong": "do not use this: because of x",
    }
    for verdict, words in says.items():
        text = text_of(kept(SPLIT, verdict, reason="because of x"))
        assert words in text
        assert text.index(words) < text.index("<svg")
    assert "Nobody has compared whole models yet" in text_of(tuned([SPLIT]))


def test_a_gain_that_the_model_does_not_show_is_not_the_headline() -> None:
    text = text_of(kept(SPLIT, "block only", model_speedup=spread(0.97)))
    assert '<div class="big none"><b>0.97×</b>' in text
    assert "<h2>The layers alone</h2><p>1.50×" in text
    assert '<div class="big"><b>1.10×</b>' in text_of(kept(SPLIT, "gain"))
    wrong = text_of(kept(SPLIT, "wrong"))
    assert '<div class="big none"><b>–</b>' in wrong
    assert "Not the same results, so not to be used: 1." in wrong


def test_a_verdict_says_where_and_on_what_it_was_found() -> None:
    verdict = verified(device="a CPU", model="random weights", tokens_equal=False, first_difference=29, tie=True)
    found = tuned([msgspec.structs.replace(SPLIT, verified=verdict)], kind="gaudi2")
    text = text_of(found)
    assert "Measured on a CPU: random weights; transformers 5.0; 2026-01-02." in text
    assert "run in one shape on a CPU." in text
    assert "those from number 30 on differ, where the untouched model itself was undecided" in text
    top = text[: text.index("<svg")]
    assert '<b>1.10×</b><span class="badge measured">' in top
    assert '1.50×<span class="badge simulated">' in top


def test_brackets_of_simulated_times_are_no_confidence() -> None:
    assert "95 %" in text_of(tuned([SPLIT]))
    assert "95 %" not in text_of(tuned([SPLIT], kind="gaudi2"))


def test_what_was_left_alone_says_so() -> None:
    table = table64()
    through = [one for one in table.entries if one.pass_through]
    assert through
    found = table.with_entries(through)
    assert summary(found)[0] == "1.00×"
    text = text_of(found)
    assert "No way of splitting was faster for sure" in text
    assert text.count("<th>as it is</th>") == len(through)
    assert summary(table.with_entries([]))[1] == "No shape has been tuned."
    assert "No shape has been tuned." in text_of(table.with_entries([]))


def test_simulated_is_never_shown_as_measured() -> None:
    text = text_of(table64())
    assert "No clock has seen them" in text
    assert '<span class="badge simulated">simulated</span>' in text
    assert "badge measured" not in text


# -- the command -------------------------------------------------------------------------------------------------------


def test_the_page_lies_beside_the_config(cli: Any, tmp_path: Path) -> None:
    (tmp_path / "run" / "traces").mkdir(parents=True)
    save(tuned([msgspec.structs.replace(SPLIT, trace="traces/kept.pt.trace.json.gz")]), tmp_path / "run" / "tuned.yaml")
    (tmp_path / "run" / "traces" / "kept.pt.trace.json.gz").touch()
    answer = cli("report", "tuned=run/tuned.yaml")
    assert (answer.code, answer.out) == (0, "run/tuned.report.html: 1 bucket\n")
    text = (tmp_path / "run" / "tuned.report.html").read_text()
    assert text.startswith(f"<!doctype html>{MARK}")
    assert 'href="traces/kept.pt.trace.json.gz"' in text
    assert "report of the run" not in text, "there is none"
    # Again, and elsewhere: links follow.
    assert cli("report", "tuned=run/tuned.yaml").code == 0
    assert cli("report", "tuned=run/tuned.yaml", "into=page.html").code == 0
    assert 'href="run/traces/kept.pt.trace.json.gz"' in (tmp_path / "page.html").read_text()


def test_the_report_of_a_table_is_linked_and_odd_names_work(cli: Any, tmp_path: Path) -> None:
    folder = tmp_path / "100% #1"
    (folder / "buckets" / "x" / "traces").mkdir(parents=True)
    (folder / "buckets" / "x" / "traces" / "kept.json").touch()
    (folder / "report.html").write_text("a run's")
    save(tuned([msgspec.structs.replace(SPLIT, trace="buckets/x/traces/kept.json")]), folder / "tuned.yaml")
    assert cli("report", f"tuned={folder}/tuned.yaml", "into=page.html").code == 0
    text = (tmp_path / "page.html").read_text()
    assert 'href="100%25%20%231/buckets/x/traces/kept.json"' in text
    assert 'href="100%25%20%231/report.html"' in text


def test_names_that_no_file_can_have_are_no_tracebacks(cli: Any, tmp_path: Path) -> None:
    one = msgspec.structs.replace(SPLIT, trace="a" * 5000)
    save_json(tuned([one], replace(LLAMA, name="half")), tmp_path / "tuned.json")
    (tmp_path / "tuned.json").write_text((tmp_path / "tuned.json").read_text().replace('"half"', '"\\ud800"'))
    assert cli("report", "tuned=tuned.json").code == 0
    assert cli("report", "tuned=tuned.json", f"into={'a' * 5000}").code == 2


def test_a_page_is_there_whole_or_not_at_all(cli: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save(tuned([SPLIT]), tmp_path / "tuned.yaml")
    assert cli("report", "tuned=tuned.yaml").code == 0
    before = (tmp_path / "tuned.report.html").read_bytes()

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("overlap.files.os.replace", full)
    answer = cli("report", "tuned=tuned.yaml")
    assert (answer.code, len(answer.lines)) == (2, 1)
    assert (tmp_path / "tuned.report.html").read_bytes() == before
    assert {one.name for one in tmp_path.iterdir()} == {"tuned.yaml", "tuned.report.html"}


def test_help_lists_it(cli: Any) -> None:
    assert re.search(r"^\s*report\s", cli("--help").out, re.MULTILINE)


def test_nothing_of_others_is_overwritten(cli: Any, tmp_path: Path) -> None:
    save(tuned([SPLIT]), tmp_path / "tuned.yaml")
    (tmp_path / "report.html").write_text("<!doctype html><title>overlap: a run</title>")
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "pipe")
    for into, says in (
        ("report.html", "was not written by overlap report"),
        ("folder", "folder is a folder"),
        ("pipe", "was not"),
    ):
        answer = cli("report", "tuned=tuned.yaml", f"into={into}")
        assert answer.code == 2
        assert says in answer.lines[-1]
    assert "a run" in (tmp_path / "report.html").read_text()


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ((), "tuned is missing"),
        (("tuned=none.yaml",), "cannot read none.yaml"),
        (("tuned=bad.yaml",), "is not a tuned config"),
        (("tune=bad.yaml",), "report does not take 'tune=bad.yaml'"),
    ],
)
def test_mistakes_are_one_line(cli: Any, tmp_path: Path, arguments: tuple[str, ...], says: str) -> None:
    (tmp_path / "bad.yaml").write_text("- 1\n")
    answer = cli("report", *arguments)
    assert answer.code == 2
    assert len(answer.lines) == 1
    assert says in answer.lines[0]
