from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from overlap.search.bench import stack_split
from overlap.serve.export.make import Wishes, make_bundle
from overlap.serve.export.routes import level0, overridable, route
from overlap.serve.export.server import LAZY, NAIVE, NAIVE_FAST, SLICES, ServerSettings, mode_of
from overlap.serve.export.times import stack_us, times
from overlap.serve.tuned import Attribution
from overlap.serve.vllm.plans import plan_of
from overlap.split import Split, canonical
from overlap.workload import Bucket, Workload
from tests.export_tables import FUSED, LLAMA, TILED, buckets, config, entry, near_stack, other
from tests.strategies import splits_of

PROMPT = Workload(LLAMA, Bucket("prefill", 1, 4096, 2048))
DECODE = Workload(LLAMA, Bucket("decode", 4, 1, 2048))
WINDOW3 = Workload(LLAMA, PROMPT.bucket, 1, 3)
ONE = {"layers_per_graph": 1}
SLICED = replace(FUSED, query_tile=1024, kv_tile=1024)


@pytest.mark.parametrize(
    ("split", "workload", "mode", "level", "words"),
    [
        (replace(FUSED, **ONE), PROMPT, "compile", 0, ""),
        (FUSED, PROMPT, "compile", 0, ""),
        (Split(**ONE), PROMPT, "compile", 0, ""),
        (Split(softmax="fast"), PROMPT, "compile", 0, ""),
        (SLICED, PROMPT, "compile", 0, ""),
        (replace(SLICED, query_tile=2048, kv_tile=2048), PROMPT, "lazy", 0, ""),
        (Split(), DECODE, "compile", 0, ""),
        (Split(**ONE), DECODE, "lazy", 0, ""),
        (Split(query_tile=256, masked_blocks="skip"), PROMPT, "compile", 1, "query_tile=256, masked_blocks=skip"),
        (Split(head_groups=2), PROMPT, "compile", 1, "head_groups=2"),
        (Split(kv_tile=512, normalise="after"), PROMPT, "compile", 1, "kv_tile=512, normalise=after"),
        (replace(FUSED, query_tile=512), PROMPT, "compile", 1, "query_tile=512"),
        (replace(FUSED, head_groups=4), PROMPT, "compile", 1, "head_groups=4"),
        # Fused, and slices that are not those of the stack: another size, or tiles of their own.
        (replace(FUSED, query_tile=512, kv_tile=512), PROMPT, "compile", None, "vLLM's own settings only"),
        (replace(FUSED, query_tile=1024, kv_tile=2048), PROMPT, "compile", None, "vLLM's own settings only"),
        (Split(fused_sdpa=True), PROMPT, "compile", None, "its mask is the stack's choice"),
        (Split(chunks=2), PROMPT, "compile", None, "another model class"),
        (Split(chunks=2, chunk_axis="batch"), DECODE, "lazy", None, "another model class"),
        (Split(projections="split"), PROMPT, "lazy", None, "other weights"),
        (Split(head_groups=2), DECODE, "lazy", None, "of a prefill only"),
        (Split(normalise="after", layers_per_graph=2), WINDOW3, "lazy", 1, "normalise"),
        (
            Split(normalise="after", layers_per_graph=2),
            Workload(LLAMA, PROMPT.bucket, 1, 3),
            "compile",
            None,
            "one layer",
        ),
    ],
    ids=str,
)
def test_routes(split: Split, workload: Workload, mode: str, level: int | None, words: str) -> None:
    found = route(split, workload, mode, 128)
    assert found.level == level
    assert words in " ".join(found.reasons)
    assert bool(found.reasons) == (level != 0)


@given(st.data(), buckets(), st.sampled_from(["compile", "lazy"]), st.integers(1, 3))
@settings(max_examples=200)
def test_every_split_has_one_route(data: st.DataObject, bucket: Bucket, mode: str, window: int) -> None:
    workload = Workload(LLAMA, bucket, 1, window)
    split = canonical(data.draw(st.one_of(splits_of(workload), near_stack(workload))), workload)
    found = route(split, workload, mode, 128)
    if found.level == 0:
        assert found.settings is not None
        assert found.settings.runs(workload) == split
    else:
        assert found.reasons
        assert level0(split, workload, 128) is None or found.level is None
    # What the plug-in says it runs, it is told, and nothing else.
    if bucket.phase == "prefill" and not split.changed().keys() & {"chunks", "projections"}:
        told = plan_of(entry(bucket, split, pass_through=False))
        assert overridable(split, workload) == (not told.reason)


@pytest.mark.parametrize("window", [1, 2, 3])
@pytest.mark.parametrize(
    "bucket",
    [Bucket(), Bucket("prefill", 1, 2048, 2048), Bucket("prefill", 4, 128, 0), Bucket("decode", 4, 1, 2048)],
    ids=str,
)
def test_the_default_is_the_stack_of_a_sweep(bucket: Bucket, window: int) -> None:
    workload = Workload(LLAMA, bucket, 1, window)
    assert ServerSettings().runs(workload) == stack_split(workload)


def test_what_settings_run() -> None:
    plain = ServerSettings(NAIVE)
    assert plain.runs(PROMPT) == Split(**ONE)
    assert ServerSettings(NAIVE_FAST, layers=2).runs(PROMPT) == Split(softmax="fast")
    assert plain.runs(DECODE) == Split(**ONE)
    sliced = ServerSettings(SLICES, 1024, 4096, 2)
    assert sliced.runs(PROMPT) == SLICED
    assert sliced.runs(Workload(LLAMA, Bucket("prefill", 1, 1024, 2048))) == FUSED
    assert sliced.runs(Workload(LLAMA, Bucket("prefill", 1, 4096, 0))) == FUSED
    assert sliced.runs(Workload(LLAMA, Bucket("prefill", 2, 4096, 2048))) == FUSED
    # Chunks of unequal length are cut from the end, and no split says so.
    assert sliced.runs(Workload(LLAMA, Bucket("prefill", 1, 4000, 2048))) is None
    # One chunk of queries, and the prefix in slices.
    short = ServerSettings(SLICES, 1024, 1024, 2).runs(Workload(LLAMA, Bucket("prefill", 1, 512, 4096)))
    assert short == replace(FUSED, kv_tile=1024)


def test_modes() -> None:
    found = {mode: mode_of({"mode": mode}) for mode in ("compile", "eager", "lazy", "lazy_graphs", "hpu_graph")}
    assert [mode for mode, of in found.items() if of == LAZY] == ["lazy", "lazy_graphs", "hpu_graph"]
    assert mode_of({}) == "compile"


def test_times_of_an_entry() -> None:
    bucket = PROMPT.bucket
    tiled, grouped = Split(query_tile=256), Split(head_groups=2)
    told = entry(
        bucket,
        tiled,
        100.0,
        120.0,
        180.0,
        order="list",
        attribution=Attribution(work=1.0, tiling=1.0, order=1.1, overlap=1.3),
        alternatives=[other(grouped, 105.0, "list"), other(grouped, 111.0)],
    )
    found = times(config([told]), told)
    assert stack_us(told) == pytest.approx(120.0)
    assert found[replace(FUSED, **ONE)].time_us == pytest.approx(120.0)
    assert found[Split()].time_us == 180.0
    assert found[tiled].time_us == pytest.approx(110.0)
    assert found[tiled].is_kept
    assert "part of what both engines" in found[tiled].note
    # In program order where there is such a time.
    assert (found[grouped].time_us, found[grouped].note) == (111.0, "")
    alone = entry(bucket, tiled, 100.0, None, 180.0)
    assert stack_us(alone) is None
    assert replace(FUSED, **ONE) not in times(config([alone]), alone)


# -- what is exported at all -----------------------------------------------------------------------------------------

SOURCE = ("t.yaml", "0" * 64, "2026-01-01")


@pytest.mark.parametrize("change", ["host", "float32"])
def test_no_level_that_the_plug_in_would_refuse(change: str) -> None:
    """A server would stop at its first layer; the same config as tuned on a card in bfloat16 has one."""
    found = [entry(Bucket("prefill", 1, 2048, 0), TILED)]
    assert make_bundle(config(found), SOURCE, Wishes()).plan.level(1) is not None
    device = {"kind": "host", "name": "host"} if change == "host" else {}
    model = replace(LLAMA, dtype="float32") if change == "float32" else LLAMA
    made = make_bundle(config(found, model, **device), SOURCE, Wishes())
    assert made.plan.level(1) is None
    assert made.tuned is None
    assert any("no level 1: the plug-in takes no such config" in one for one in made.plan.warnings)


def test_a_cache_counts_even_where_no_line_says_its_bucket() -> None:
    made = make_bundle(config([entry(Bucket("prefill", 1, 1, 2048), Split())]), SOURCE, Wishes())
    assert made.plan.limits.max_model_len == 2049
