"""What the host adds in each mode: launches per recipe or call, breaks of the graph, new shapes."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from overlap.capture import op, region
from overlap.devices.gaudi.modes import stream_ns
from overlap.devices.gaudi.plan import Plan
from overlap.devices.gaudi.settings import MODES, GaudiConfig
from overlap.devices.gaudi.units import cpu_ops
from overlap.errors import ConfigError, WorkloadError
from overlap.kernels.capture import capture
from overlap.kernels.collective import all_reduce
from overlap.program import Program
from overlap.split import Split
from tests.gaudi import CHIPS, Input, compiled, engine_program, hbm_bytes, recorded, spans, workload

US = 1000.0


def tiny(graphs: int) -> Program:
    """One op of two calls per graph, so short that only the host shows."""

    def code(given: Input) -> dict[str, torch.Tensor]:
        made = {}
        for number in range(graphs):
            with region(graph=number), op(f"op{number}"):
                made[f"y{number}"] = given(f"x{number}", 64).exp().sqrt()
        return made

    return recorded(code)


# -- launches --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("mode", "first", "second"),
    [
        # One launch per call; recipes per recipe and two calls each; regions; replays.
        ("eager", 20.9, 41.8),
        ("lazy", 35 + 2 * 10, 2 * (35 + 2 * 10)),
        ("compile", 25, 50),
        ("hpu_graph", 19, 38),
    ],
)
def test_when_the_host_has_launched_each_recipe(mode: str, first: float, second: float) -> None:
    launched = list(compiled(tiny(3), mode=mode).launched_ns.values())
    assert launched[:2] == pytest.approx([first * US, second * US])
    assert len(launched) == {"eager": 6}.get(mode, 3), "eager mode makes every call a recipe"


@pytest.mark.parametrize(
    ("mode", "constant"),
    [
        ("eager", "eager_op_us"),
        ("lazy", "lazy_recipe_us"),
        ("lazy", "lazy_op_us"),
        ("compile", "compile_recipe_us"),
        ("hpu_graph", "graph_recipe_us"),
    ],
)
def test_short_recipes_take_what_their_launches_take(mode: str, constant: str) -> None:
    """The host is the slower one, so a dearer launch shows in the end; the constants of other modes do not."""
    base = compiled(tiny(20), mode=mode).run().time_ns
    assert compiled(tiny(20), mode=mode, values={f"host.{constant}": 200}).run().time_ns > base
    others = {"eager_op_us", "lazy_recipe_us", "lazy_op_us", "compile_recipe_us", "graph_recipe_us"} - {constant}
    changed = {f"host.{name}": 200 for name in others if not name.startswith("lazy") or mode != "lazy"}
    assert compiled(tiny(20), mode=mode, values=changed).run().time_ns == base


def test_long_recipes_hide_their_launches() -> None:
    """The host runs ahead of the device."""
    program = engine_program("mme", "mme", "mme", graphs=[0, 1, 2], size=8192)
    gaps = []
    for recipe_us in (5, 500):
        found = spans(compiled(program, values={"host.graph_recipe_us": recipe_us}))
        gaps.append(found["mme1"][0][0] - found["mme0"][-1][1])
    assert gaps == [1500, 1500]


@pytest.mark.parametrize("chip", CHIPS)
def test_modes_rank_as_they_should_in_decode(chip: str) -> None:
    """Small ops in a recipe per layer: replays beat regions beat lazy recipes beat op by op."""
    program = capture(workload(phase="decode", batch=8, query=1, context=1024), Split(layers_per_graph=1))
    times = [compiled(program, chip, mode=mode).run().time_ns for mode in ("hpu_graph", "compile", "lazy", "eager")]
    assert times == sorted(times)
    assert len(set(times)) == 4


def test_collectives_are_launches_of_their_own() -> None:
    def code(given: Input) -> dict[str, torch.Tensor]:
        made = {}
        for number in range(2):
            x = given(f"x{number}", 64, 64)
            with op(f"partial{number}"):
                made[f"y{number}"] = x @ x
            with op(f"all_reduce{number}"):
                all_reduce(made[f"y{number}"], 8)
        return made

    program = recorded(code)
    replayed, lazy = compiled(program), compiled(program, mode="compile")
    assert list(replayed.launched_ns.values()) == pytest.approx([19 * US, (19 + 19 + 19) * US])
    assert list(lazy.launched_ns.values()) == pytest.approx([25 * US, (25 + 100 + 25) * US])


def test_modes_and_switches_that_do_not_exist_are_refused() -> None:
    for config, words in (
        ({"mode": "eagre"}, "one of hpu_graph, compile, lazy, eager"),
        ({"order": "best"}, "one of given, compiler"),
        ({"chains": -1}, "1 or more"),
    ):
        with pytest.raises(ConfigError, match=words):
            GaudiConfig(**config)  # type: ignore[arg-type]


# -- what has no kernel ----------------------------------------------------------------------------------------------


def broken() -> Program:
    """GEMM → something odd → GEMM."""

    def code(given: Input) -> dict[str, torch.Tensor]:
        x = given("x", 2048, 2048)
        with op("before"):
            y = x @ x
        with op("odd"):
            y = y.cumsum(0)
        with op("after"):
            return {"y": y @ x}

    return recorded(code)


def recipes(plan: Plan) -> dict[str, int]:
    """Recipe of each op."""
    return {plan.program.ops[unit.op].name: unit.recipe for unit in plan.units}


@pytest.mark.parametrize("chip", CHIPS)
def test_an_op_of_the_cpu_breaks_the_graph_and_costs_the_way_there_and_back(chip: str) -> None:
    whole, split = compiled(broken(), chip), compiled(broken(), chip, cpu_ops=["cumsum"])
    assert recipes(whole) == {"before": 0, "odd": 0, "after": 0}
    assert recipes(split) == {"before": 0, "odd": 1, "after": 2}
    assert spans(split).keys() == {"before", "odd.cpu", "after"}
    start, end = spans(split)["odd.cpu"][0]
    rate = {"gaudi2": 25, "gaudi3": 50}[chip]
    assert end - start == pytest.approx(100 * US + 2 * 2048 * 2048 * 2 / rate, abs=2)
    assert spans(split)["after"][0][0] >= end + 1500
    assert split.run().time_ns > whole.run().time_ns
    dearer = compiled(broken(), chip, cpu_ops=["cumsum"], values={"host.fallback_us": 200})
    assert dearer.run().time_ns - split.run().time_ns == pytest.approx(100 * US, abs=2)


def test_only_ops_that_hold_the_call_are_the_cpus() -> None:
    program = broken()
    assert cpu_ops(program, GaudiConfig()) == set()
    assert cpu_ops(program, GaudiConfig(cpu_ops=["cumsum"])) == {1}
    assert cpu_ops(program, GaudiConfig(cpu_ops=["mm"])) == {0, 2}
    assert cpu_ops(program, GaudiConfig(cpu_ops=["nonzero"])) == set()


# -- the fuser -------------------------------------------------------------------------------------------------------


def test_without_the_fuser_every_call_is_a_node_that_waits_for_the_one_before() -> None:
    """And what passes between them goes through memory."""

    def code(given: Input) -> dict[str, torch.Tensor]:
        with op("chain"):
            return {"y": (given("x", 4096, 4096) * 2).exp().sqrt()}

    for chip in CHIPS:
        fused, apart = compiled(recorded(code), chip), compiled(recorded(code), chip, fuser=False)
        assert list(spans(fused)) == ["chain"]
        found = spans(apart)
        assert list(found) == ["chain.mul", "chain.exp", "chain.sqrt"]
        assert found["chain.mul"][0][1] < found["chain.exp"][0][0] < found["chain.sqrt"][0][0]
        assert apart.run().time_ns > fused.run().time_ns
    assert hbm_bytes(apart, "chain") == pytest.approx(hbm_bytes(fused, "chain")), "32 MiB fit the cache twice over"
    on_sram = [hbm_bytes(compiled(recorded(code), "gaudi2", fuser=switch), "chain") for switch in (True, False)]
    assert on_sram[1] == pytest.approx(3 * on_sram[0])


def test_eager_mode_fuses_nothing() -> None:
    names = spans(compiled(capture(workload(1), Split()), mode="eager"))
    assert {"layer0.chunk0.qkv.rope_q.mul", "layer0.chunk0.mlp.silu_mul.silu"} <= names.keys()


# -- new shapes ------------------------------------------------------------------------------------------------------


def test_a_bucket_compiles_once() -> None:
    """Seven lengths: a recipe for each, or two buckets; padding costs time, compiling costs seconds."""
    lengths = [100, 120, 128, 130, 200, 256, 7]
    runs: list[int] = []

    def run_ns(tokens: int) -> float:
        runs.append(tokens)
        return 10.0 * tokens

    padded, compiled_twice = stream_ns(lengths, [256, 128], run_ns, 1.0)
    assert (compiled_twice, runs) == (2, [128, 128, 128, 256, 256, 256, 128])
    assert padded == 2e9 + 10 * sum(runs)
    runs.clear()
    exact, compiled_each = stream_ns(lengths, [], run_ns, 1.0)
    assert (compiled_each, runs) == (7, lengths)
    assert exact == 7e9 + 10 * sum(lengths)
    assert exact > padded
    assert stream_ns(lengths, [], run_ns, 0.0)[0] < stream_ns(lengths, [256, 128], run_ns, 0.0)[0]


def test_a_known_shape_is_compiled_never_again() -> None:
    assert stream_ns([5] * 100, [], lambda tokens: 1.0, 2.0) == (2e9 + 100, 1)
    assert stream_ns([], [8], lambda tokens: 1.0, 2.0) == (0.0, 0)


def test_a_length_beyond_all_buckets_is_refused() -> None:
    with pytest.raises(WorkloadError, match="129 tokens, the largest bucket has 128"):
        stream_ns([1, 129], [64, 128], float, 1.0)


@given(st.lists(st.integers(1, 500)), st.sets(st.integers(1, 500)))
def test_buckets_never_compile_more(lengths: list[int], sizes: set[int]) -> None:
    buckets = [*sizes, 500]
    assert stream_ns(lengths, buckets, float, 1.0)[1] <= min(len(buckets), stream_ns(lengths, [], float, 1.0)[1])


def test_all_modes_are_tried_here() -> None:
    assert set(MODES) == {"eager", "lazy", "compile", "hpu_graph"}
