from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from overlap.devices.gaudi.validation.cases import Cases, make_cases
from overlap.devices.gaudi.validation.directions import SWITCHES, Direction
from overlap.devices.gaudi.validation.evaluate import Validation, evaluate
from overlap.devices.gaudi.validation.groups import GROUPS, meaning
from overlap.devices.gaudi.validation.rows import Row, read_rows
from tests.roofline import Roofline

ROWS = {row.id: row for row in read_rows()}


def gemm(name: str, use: str, value: float, unit: str = "us", chip: str = "Gaudi2") -> Row:
    params = {"M": 1000, "K": 1000, "N": 1000}
    return Row(name, "somebody", "", name, chip, "GEMM", "bf16", params, "latency", value, unit, "", use)


def judged(*rows: Row, chip: str = "gaudi2", predictor: Roofline | None = None) -> Validation:
    return evaluate(make_cases(rows, chip), predictor or Roofline())


# 2e9 flops at 400e3 per ns and 2e6 bytes at 2000 per ns.
TIME_US = (5000 + 1000) / 1e3


def test_errors_are_of_time_and_signed() -> None:
    slow, fast, rate = gemm("a", "val:mme", TIME_US / 2), gemm("b", "val:mme", TIME_US * 2), gemm("c", "val:mme", 1.0)
    rate = replace(rate, metric="throughput", value=2e9 / (TIME_US * 4e-6) / 1e12, unit="TFLOPS")
    found = judged(slow, fast, rate)
    assert [one.error for one in found.outcomes] == pytest.approx([1.0, -0.5, -0.75])
    assert [one.value for one in found.outcomes] == pytest.approx([TIME_US, TIME_US, 2e9 / (TIME_US * 1e-6) / 1e12])
    group = found.groups["gemm"]
    assert (group.n, group.mape, group.bias) == (3, pytest.approx(0.75), pytest.approx(-0.25 / 3))


def test_calibration_rows_are_shown_and_never_counted() -> None:
    rows = [gemm("v", "val:mme", TIME_US / 1.1), gemm("c1", "cal:mme", TIME_US / 9), gemm("c2", "cal:mme", TIME_US / 3)]
    group = judged(*rows).groups["gemm"]
    assert (group.n, group.mape, group.bias) == (1, pytest.approx(0.1), pytest.approx(0.1))
    assert (group.calibration_n, group.calibration_mape) == (2, pytest.approx(5.0))
    only = judged(*rows[1:]).groups["gemm"]
    assert (only.n, only.mape, only.bias, only.calibration_n) == (0, None, None, 2)
    assert {one.case.row.id for one in judged(*rows).outcomes} == {"v", "c1", "c2"}


def test_changing_a_calibration_row_changes_no_sum() -> None:
    rows = list(ROWS.values())
    wild = [replace(row, value=row.value * 7) if row.calibration and row.value > 0 else row for row in rows]
    before, after = judged(*rows), judged(*wild)
    for name, group in before.groups.items():
        assert (group.n, group.mape, group.bias) == (
            after.groups[name].n,
            after.groups[name].mape,
            after.groups[name].bias,
        )


def test_groups_of_the_other_chip_have_names_of_their_own() -> None:
    row = gemm("a", "val:mme", 6.0, chip="Gaudi3")
    found = judged(row, chip="gaudi3")
    assert set(found.groups) == {"gemm_gaudi3"}
    assert meaning("gemm_gaudi3") == meaning("gemm")
    assert judged(row).groups == {}


def test_groups_of_the_shipped_rows() -> None:
    found = judged(*ROWS.values())
    sizes = {name: (group.n, group.calibration_n) for name, group in found.groups.items()}
    assert sizes == {
        "gemm": (9, 13),
        "gemm_thin": (0, 5),
        "prefill_unfused": (36, 0),
        "prefill_fused": (6, 0),
        "prefill_direct": (16, 0),
        "decode_b1_7b": (37, 4),
        "decode": (135, 6),
        "long_prompt": (9, 0),
        "layer": (1, 0),
        "all_reduce": (1, 3),
        "row_parallel": (60, 0),
    }
    assert list(sizes) == list(GROUPS)
    members = {name: {one.case.row.id for one in found.outcomes if name in one.groups} for name in sizes}
    assert members["decode_b1_7b"] < members["decode"]
    assert {one.case.kind for one in found.outcomes if not one.groups} == {"nominal"}


def test_equal_questions_are_asked_once() -> None:
    predictor = Roofline()
    judged(*(gemm(f"a{n}", "val:mme", 6.0) for n in range(50)), predictor=predictor)
    assert predictor.calls == 1


def test_what_the_model_refuses_is_left_out_with_its_reason() -> None:
    found = judged(*ROWS.values(), predictor=Roofline(limit=40e9))
    why = "refused by the device model: too large for the roofline"
    assert "PREFILL-0001" in found.refused[why]
    assert "prefill_fused" not in found.groups
    everywhere = [one.case.row.id for one in found.outcomes] + [name for ids in found.refused.values() for name in ids]
    assert sorted(everywhere) == sorted(ROWS)


def test_intervals_span_all_predictors() -> None:
    cases = make_cases([gemm("a", "val:mme", 6.0)], "gaudi2")
    (one,) = evaluate(cases, Roofline(), [Roofline(scale=0.5), Roofline(scale=1.5)]).outcomes
    assert (one.low, one.predicted, one.high) == pytest.approx((3000, 6000, 9000))
    (alone,) = evaluate(cases, Roofline()).outcomes
    assert (alone.low, alone.high) == (None, None)


def test_impossible_times_of_a_predictor_are_its_defect() -> None:
    with pytest.raises(ValueError, match="row a: predicted 0"):
        judged(gemm("a", "val:mme", 6.0), predictor=Roofline(scale=0.0))


def test_no_rows_no_groups() -> None:
    found = evaluate(Cases("gaudi2", ()), Roofline())
    assert (found.groups, found.directions, found.refused) == ({}, (), {})


def test_comparisons_of_the_shipped_rows() -> None:
    found = judged(*ROWS.values()).directions
    pairs = {one.switch: [other.ids for other in found if other.switch == one.switch] for one in found}
    assert len(pairs.pop("chunks")) == 60
    assert pairs == {
        "HPU graphs": [("LAUNCH-0019",)],
        "fast softmax": [("ATTN-0030", "ATTN-0031"), ("ATTN-0034", "ATTN-0035"), ("ATTN-0044", "ATTN-0045")],
        "fused attention": [("ATTN-0014", "ATTN-0015"), ("ATTN-0024", "ATTN-0025")],
        "cache buckets": [("DECODE-0148", "DECODE-0149")],
        "device loop": [
            ("LAUNCH-0028", "LAUNCH-0029"),
            ("LAUNCH-0030", "LAUNCH-0031"),
            ("LAUNCH-0032", "LAUNCH-0033"),
            ("LAUNCH-0034", "LAUNCH-0035"),
        ],
    }
    assert {one.switch for one in found} == {"chunks", "HPU graphs", *(switch.name for switch in SWITCHES)}


def test_ratios_say_how_much_a_switch_helps() -> None:
    found = {one.ids: one for one in judged(*ROWS.values()).directions}
    loop = found["LAUNCH-0028", "LAUNCH-0029"]
    assert loop.published == pytest.approx(418 / 377)
    assert (loop.predicted > 1, loop.agrees) == (True, True)
    chunks = found[("COMM-0004",)]
    assert chunks.published == pytest.approx(0.308)
    assert (chunks.predicted < 1, chunks.agrees) == (True, True)
    graphs = found[("LAUNCH-0019",)]
    assert graphs.published == pytest.approx(1 / 0.33)
    assert graphs.assumed == ("model", "lengths")
    assert found["ATTN-0014", "ATTN-0015"].calibration


@pytest.mark.parametrize(
    ("published", "predicted", "agrees"),
    [
        (1.2, 1.01, True),
        (1.2, 1.0, False),
        (1.2, 0.9, False),
        (0.8, 0.99, True),
        (0.8, 1.3, False),
        (1.001, 1.02, True),
        (1.001, 0.98, True),
        (1.001, 1.05, False),
    ],
)
def test_when_a_direction_agrees(published: float, predicted: float, agrees: bool) -> None:
    assert Direction("switch", ("a",), "", published, predicted, False).agrees == agrees


def test_pairs_need_everything_else_equal() -> None:
    one, other = ROWS["LAUNCH-0028"], ROWS["LAUNCH-0029"]
    assert len(judged(one, other).directions) == 1
    assert judged(one).directions == ()
    assert judged(one, replace(other, params={"model": "Qwen2.5-7B", "batch": 1})).directions == ()
    assert judged(one, replace(other, section="elsewhere")).directions == ()


def test_predictions_do_not_depend_on_the_order_of_rows() -> None:
    rows = list(ROWS.values())
    forward, backward = judged(*rows), judged(*reversed(rows))
    assert {one.case.row.id: one.predicted for one in forward.outcomes} == {
        one.case.row.id: one.predicted for one in backward.outcomes
    }
    assert forward.groups.keys() == backward.groups.keys()


def test_a_larger_file_of_the_same_sources() -> None:
    shared = Path(__file__).resolve().parent.parent.parent / "shared" / "data" / "published_measurements.csv"
    if not shared.exists():
        pytest.skip("no such file here")
    rows = read_rows(shared)
    found = judged(*rows)
    assert len(found.outcomes) + sum(map(len, found.refused.values())) == len(rows)
    assert json.dumps({name: group.mape for name, group in found.groups.items()})
