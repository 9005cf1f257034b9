from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import Any

import pytest

from overlap.devices.gaudi.validation.calls import AllReduce, Forward, Gemm, RowParallel
from overlap.devices.gaudi.validation.cases import Case, make_cases
from overlap.devices.gaudi.validation.models import find_model
from overlap.devices.gaudi.validation.predictor import Stack
from overlap.devices.gaudi.validation.readers.forwards import growing
from overlap.devices.gaudi.validation.readers.prefills import counted_flops
from overlap.devices.gaudi.validation.rows import Row, read_rows
from overlap.workload import Bucket

ROWS = {row.id: row for row in read_rows()}
GAUDI2, GAUDI3 = make_cases(ROWS.values(), "gaudi2"), make_cases(ROWS.values(), "gaudi3")
FOUND = {case.row.id: case for case in GAUDI2.found}


def row(**changes: Any) -> Row:
    """A row of the engine's table of steps, or another."""
    return replace(ROWS["DECODE-0067"], **changes)


def one(given: Row) -> Case:
    (case,) = make_cases([given], "gaudi2").found
    return case


def reason(given: Row, chip: str = "gaudi2") -> str:
    (why,) = make_cases([given], chip).refused
    return why


def forward(case: Case, number: int = 0) -> Forward:
    call = case.terms[number].call
    assert isinstance(call, Forward)
    return call


@pytest.mark.parametrize("cases", [GAUDI2, GAUDI3], ids=lambda cases: cases.chip)
def test_every_row_ends_in_one_place(cases: Any) -> None:
    ids = [case.row.id for case in cases.found] + [name for names in cases.refused.values() for name in names]
    assert sorted(ids) == sorted(ROWS)


def test_how_many_of_each_kind() -> None:
    kinds = Counter((case.kind, case.row.use.partition(":")[0]) for case in GAUDI2.found)
    assert kinds == {
        ("gemm", "cal"): 13,
        ("gemm", "val"): 9,
        ("gemm_thin", "cal"): 5,
        ("forward_unfused", "val"): 36,
        ("forward_fused", "val"): 6,
        ("forward_direct", "val"): 16,
        ("generation", "val"): 84,
        ("decode", "cal"): 6,
        ("decode", "val"): 60,
        ("layer", "val"): 1,
        ("all_reduce", "cal"): 3,
        ("all_reduce", "val"): 1,
        ("row_parallel", "val"): 60,
        ("nominal", "cal"): 2,
        ("nominal", "val"): 1,
    }
    assert Counter(case.kind for case in GAUDI3.found) == {"gemm": 1, "row_parallel": 60}


def test_a_gemm_and_its_rate() -> None:
    case = FOUND["GEMM-0196"]
    assert case.terms[0].call == Gemm("bf16", 8192, 8192, 8192)
    assert case.published == pytest.approx(2 * 8192**3 / 423.9e12 * 1e9)
    assert case.measure.value_of(case.published) == pytest.approx(423.9)
    assert FOUND["GEMM-0198"].terms[0].call == Gemm("fp8", 16384, 1280, 8192)


def test_a_thin_gemm_by_its_bytes() -> None:
    down = FOUND["GEMM-0245"]
    assert down.terms[0].call == Gemm("bf16", 1, round(27e6 / 2 / 8960), 8960)
    assert (down.kind, down.published) == ("gemm_thin", 15e3)
    head = FOUND["GEMM-0238"]
    assert head.published == pytest.approx(331e6 / 2.28e12 * 1e9)


def test_generation_without_a_cache_is_a_forward_per_token() -> None:
    case = FOUND["PREFILL-0053"]
    assert forward(case).bucket == Bucket("prefill", 16, 2048, 0)
    assert (forward(case).tensor_parallel, case.terms[0].count, len(case.terms)) == (2, 1024, 1)
    assert forward(case).stack == Stack("plain", "exact", "hpu_graph", logits="all")
    assert case.published == pytest.approx(1577.272635902e9)


def test_generation_with_a_static_cache() -> None:
    case = FOUND["DECODE-0240"]
    assert forward(case).bucket == Bucket("prefill", 32, 1024, 0)
    assert forward(case, 1).bucket == Bucket("decode", 32, 1, 1023)
    assert [term.count for term in case.terms] == [1, 511]


def test_rates_of_the_bench_count_the_prompt_too() -> None:
    given = replace(ROWS["DECODE-0196"], metric="throughput", unit="tokens/s", value=291.668)
    assert one(given).published == pytest.approx(0.877711387e9, rel=1e-4)


def test_naver_prefill_and_its_flops() -> None:
    case = FOUND["PREFILL-0001"]
    assert forward(case).bucket == Bucket("prefill", 1, 1024, 0)
    assert forward(case).stack == Stack("fused", "fast", "lazy", logits="all")
    assert reason(replace(ROWS["PREFILL-0001"], chip="Gaudi1")).startswith("measured on Gaudi1")
    for name in ("0001", "0007", "0013", "0019", "0025", "0031"):
        time = ROWS[f"PREFILL-{name}"]
        rate = ROWS[f"PREFILL-{int(name) + 1:04}"]
        flops = counted_flops(find_model("Llama-3.1-70B"), time.need("seq"))
        assert flops / time.need("num_devices") / (time.value * 1e-3) / 1e12 == pytest.approx(rate.value, rel=5e-4)


def test_a_rate_stands_for_itself_where_its_time_is_missing() -> None:
    rate = ROWS["PREFILL-0002"]
    assert one(rate).published == pytest.approx(295e6, rel=1e-3)
    both = make_cases([ROWS["PREFILL-0001"], rate], "gaudi2")
    assert [case.row.id for case in both.found] == ["PREFILL-0001"]
    assert both.refused == {"the rate of a time that is a row of its own": ("PREFILL-0002",)}


@pytest.mark.parametrize(
    ("name", "read", "stack"),
    [
        ("DECODE-0067", 1024, Stack("fused", device_loop=True)),
        ("DECODE-0068", 256, Stack("plain", device_loop=True)),
        ("DECODE-0148", 1024, Stack("plain")),
        ("DECODE-0149", 256, Stack("plain")),
        ("DECODE-0132", 1024, Stack("plain")),
        ("DECODE-0112", 1024, Stack("fused", layers_per_recipe=1)),
        ("DECODE-0151", 1024, Stack("plain", layers_per_recipe=1)),
        ("LAUNCH-0028", 1024, Stack("plain")),
        ("LAUNCH-0029", 1024, Stack("plain", device_loop=True)),
        ("LAUNCH-0036", 1024, Stack("plain", device_loop=True)),
        ("OVERLAP-0088", 1024, Stack("plain")),
    ],
)
def test_steps_of_the_engine(name: str, read: int, stack: Stack) -> None:
    call = forward(FOUND[name])
    assert (call.bucket.key_tokens, call.stack) == (read, stack)
    assert (call.bucket.batch, FOUND[name].terms[0].count) == (ROWS[name].params["batch"], 1)


def test_steps_per_second_count_the_batch() -> None:
    assert FOUND["DECODE-0068"].published == pytest.approx(8 / 264 * 1e9)
    assert FOUND["DECODE-0130"].published == 1.64e6


def test_cards_may_stand_in_the_description() -> None:
    call = forward(FOUND["DECODE-0151"])
    assert (call.tensor_parallel, call.model.shape.layers) == (2, 80)


@pytest.mark.parametrize(("tokens", "context"), [(128, 896), (1024, 16), (2048, 16)])
def test_prefill_of_the_engine_reads_its_cache(tokens: int, context: int) -> None:
    call = forward(one(replace(ROWS["PREFILL-0217"], params={"model": "SmolLM2-360M", "seq": tokens})))
    assert (call.bucket, call.stack.logits) == (Bucket("prefill", 1, tokens, context), "all")


def test_a_layer_is_what_two_take_longer_than_one() -> None:
    case = FOUND["OVERLAP-0092"]
    layers = [(forward(case, n).model.shape.layers, case.terms[n].count) for n in range(len(case.terms))]
    assert layers == [(2, 1), (1, -1)]


def test_sums_of_a_layer() -> None:
    case = FOUND["COMM-0138"]
    assert (case.terms[0].call, case.terms[0].count, case.published) == (AllReduce(32768, 4), 2, 39e3)
    assert FOUND["DECODE-0153"].terms[0].call == AllReduce(32768, 2)


def test_chunks_are_a_quotient() -> None:
    case = FOUND["COMM-0004"]
    assert case.terms[0].call == RowParallel(1024, 28672, 8192, 2, 16)
    assert case.over[0].call == RowParallel(1024, 28672, 8192, 2, 1)
    assert case.published == pytest.approx(1 / 0.308)
    assert [one.over for one in GAUDI3.found if one.row.id == "COMM-0004"] == [case.over]


def test_the_script_of_optimum_habana() -> None:
    plain, fused = FOUND["ATTN-0024"], FOUND["ATTN-0025"]
    assert [forward(plain, n).bucket for n in (0, 1)] == [Bucket("prefill", 4, 16, 0), Bucket("decode", 4, 1, 4111)]
    assert [forward(one).stack.attention for one in (plain, fused)] == ["plain", "fused"]
    assert plain.published == pytest.approx(4 * 4096 / 354.27 * 1e9)
    fast = FOUND["ATTN-0031"]
    assert [forward(fast, n).stack.softmax for n in (0, 1)] == ["fast", "exact"]
    assert "bf16" in fast.assumed
    assert forward(FOUND["ATTN-0044"]).model.shape.name == "llama-2-70b"


def test_a_cache_in_buckets_grows() -> None:
    case = one(replace(ROWS["DECODE-0504"], op="Llama-2-7b with KV bucketing"))
    reads = [forward(case, n).bucket.key_tokens for n in range(1, len(case.terms))]
    assert reads == [2304, 2816, 3328, 3840]
    assert sum(term.count for term in case.terms[1:]) == 2047


def test_growing_counts_every_step() -> None:
    model = find_model("Llama-2-7b")
    for first, last in ((5, 4), (5, 5), (5, 6), (1, 100)):
        terms = growing(model, 1, first, last, 1, Stack())
        assert sum(term.count for term in terms) == pytest.approx(max(0, last - first + 1))


@pytest.mark.parametrize(
    ("given", "why"),
    [
        (row(use="context"), "context"),
        (row(use=""), "context"),
        (row(chip="Gaudi1"), "measured on Gaudi1, of which there is no model"),
        (row(chip="Gaudi3"), "measured on Gaudi3: device=gaudi3 has it"),
        (row(dtype="fp8"), "a whole model in fp8"),
        (row(params={"model": "Qwen2.5-32B"}), "batch is not recorded"),
        (row(params={"batch": 1}), "the model is not recorded"),
        (row(params={"batch": 1, "model": "Mixtral-8x7B"}), "Mixtral models: a mixture of experts"),
        (row(unit="%"), "throughput in % is no time or rate of this workload"),
        (row(metric="busy_fraction"), "what one engine does inside a run"),
        (row(op="decode, data parallel x8"), "several copies beside each other"),
        (ROWS["LAUNCH-0017"], "the prompt of a time to first token is not recorded"),
        (ROWS["SERVE-0097"], "prompt length is not recorded"),
        (ROWS["SERVE-0205"], "a whole model in fp8"),
        (ROWS["SERVE-0087"], "requests under a scheduler"),
        (ROWS["BGEMM-0003"], "weights in MXFP4, decoded on the way"),
        (ROWS["OVERLAP-0031"], "layers of gated delta nets"),
        (ROWS["GEMM-0236"], "the sizes of a GEMM are not recorded"),
        (ROWS["GEMM-0233"], "a share of a rate inside a larger recipe"),
        (ROWS["ATTN-0011"], "attention on its own"),
        (ROWS["TPC-0025"], "a vector op on its own"),
        (ROWS["VENDOR-0002"], "a constant, no time of a workload"),
        (ROWS["DECODE-0152"], "part of a layer"),
    ],
)
def test_why_rows_are_left_out(given: Row, why: str) -> None:
    assert reason(given).startswith(why)


def test_reasons_are_words() -> None:
    for why, ids in (*GAUDI2.refused.items(), *GAUDI3.refused.items()):
        assert ids
        assert 5 < len(why) < 120
