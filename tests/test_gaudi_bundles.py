"""Which units the compiler cuts into slices together, on each chip, and what keeps it from doing so."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from overlap.capture import op, region
from overlap.devices.gaudi.kernels import Costs
from overlap.devices.gaudi.plan import Plan
from overlap.kernels.capture import capture
from overlap.program import Engine, Program
from overlap.split import Split
from tests.gaudi import CHIPS, Input, attention_program, bundled, compiled, machine, mlp_program, recorded, workload
from tests.strategies import splits_of, workloads

WINDOW = capture(workload(), Split())


def names(plan: Plan) -> list[list[str]]:
    """What is bundled, by the last word of the names."""
    return [[name.rpartition(".")[2] for name in members] for members, _, _ in bundled(plan)]


def chain(*engines: str, rows: int = 4096, width: int = 4096, second_reader: bool = False) -> Program:
    """Ops that each read what the one before made, named after their engine and place."""

    def code(given: Input) -> dict[str, torch.Tensor]:
        x, weight = given("x", rows, width), given("weight", width, width)
        made = {}
        for number, engine in enumerate(engines):
            with op(f"{engine}{number}"):
                x = x @ weight if engine == "mme" else x.exp()
            if second_reader and number == 0:
                made["kept"] = x
        return {"y": x, **made}

    return recorded(code)


# -- attention -------------------------------------------------------------------------------------------------------


def test_gaudi3_takes_attention_as_one_bundle_of_slices() -> None:
    (members, slices, attention), *others = bundled(compiled(attention_program(), "gaudi3"))
    assert (members, attention, others) == (["qk", "softmax", "pv"], True, [])
    assert 4 <= slices <= 128


@pytest.mark.parametrize(
    ("program", "switches"),
    [
        (attention_program(), {"fuser": False}),
        (attention_program(pieces=True), {}),
        (attention_program(), {"attention_seeds": False}),
        (attention_program(), {"values": {"compiler.attention_seeds": False}}),
        (attention_program(), {"bundles": False}),
        (attention_program(), {"mode": "eager"}),
    ],
    ids=["unfused", "pieces", "switch", "constant", "no bundles", "eager"],
)
def test_what_defeats_the_attention_seed(program: Program, switches: dict[str, object]) -> None:
    """Several vector nodes between the two GEMMs: it must be exactly one."""
    plan = compiled(program, "gaudi3", **switches)  # type: ignore[arg-type]
    assert not [one for one in plan.bundles if one.attention]
    assert not [one for one in names(plan) if "qk" in one and "pv" in one]


def test_without_the_seed_attention_takes_longer() -> None:
    seeded = compiled(attention_program(), "gaudi3").run().time_ns
    assert seeded < compiled(attention_program(), "gaudi3", attention_seeds=False).run().time_ns
    assert seeded < compiled(attention_program(), "gaudi3", fuser=False).run().time_ns
    assert seeded < compiled(attention_program(), "gaudi3", bundles=False).run().time_ns


@pytest.mark.parametrize(("wide", "result"), [(512, 16), (16, 128)])
def test_the_seed_wants_something_large_in_between(wide: int, result: int) -> None:
    """Scores over 64 keys that are smaller than the queries, or than what comes of them: nothing is won."""

    def code(given: Input) -> dict[str, torch.Tensor]:
        query, key, value = given("query", 32, 2048, wide), given("key", 32, 64, wide), given("value", 32, 64, result)
        with op("qk"):
            scores = torch.bmm(query, key.transpose(1, 2))
        with op("softmax"):
            scores = scores.softmax(-1)
        with op("pv"):
            return {"y": torch.bmm(scores, value)}

    assert not [one for one in compiled(recorded(code), "gaudi3").bundles if one.attention]


def test_gaudi2_has_the_softmax_produce_for_the_second_gemm() -> None:
    """Not consume the first: a vector node that feeds a later MME node is kept for that."""
    assert names(compiled(attention_program(), "gaudi2")) == [["softmax", "pv"]]
    first = compiled(attention_program(), "gaudi2", values={"compiler.consumers_first": True})
    assert names(first)[0][:2] == ["qk", "softmax"]


# -- producers and consumers -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("chip", "engines", "bundle"),
    [
        ("gaudi2", "mt", ["mme0", "tpc1"]),
        ("gaudi3", "mt", ["mme0", "tpc1"]),
        # One consumer on Gaudi2, a run of them on Gaudi3.
        ("gaudi2", "mttt", ["mme0", "tpc1"]),
        ("gaudi3", "mttt", ["mme0", "tpc1", "tpc2", "tpc3"]),
        ("gaudi2", "ttm", ["tpc0", "tpc1", "mme2"]),
        ("gaudi3", "ttm", ["tpc0", "tpc1", "mme2"]),
        ("gaudi2", "mtm", ["tpc1", "mme2"]),
        ("gaudi3", "mtm", ["mme0", "tpc1"]),
    ],
)
def test_vector_units_around_a_gemm(chip: str, engines: str, bundle: list[str]) -> None:
    program = chain(*({"m": "mme", "t": "tpc"}[one] for one in engines))
    assert names(compiled(program, chip, attention_seeds=False)) == [bundle]


@pytest.mark.parametrize("chip", CHIPS)
def test_how_many_may_join_is_a_constant(chip: str) -> None:
    two_after = compiled(chain("mme", "tpc", "tpc", "tpc"), chip, values={"compiler.max_consumers": 2})
    assert names(two_after) == [["mme0", "tpc1", "tpc2"]]
    none_before = compiled(chain("tpc", "tpc", "mme"), chip, values={"compiler.max_producers": 1})
    assert names(none_before) == [["tpc1", "mme2"]]
    # A run of five has more producers than Gaudi2 takes: the last three join.
    five = names(compiled(chain(*["tpc"] * 5, "mme"), chip))
    assert five == [[f"tpc{i}" for i in range(2 if chip == "gaudi2" else 0, 5)] + ["mme5"]]


@pytest.mark.parametrize("chip", CHIPS)
def test_a_result_with_a_second_reader_is_not_sliced_away(chip: str) -> None:
    def code(given: Input) -> dict[str, torch.Tensor]:
        x = given("x", 4096, 4096)
        with op("norm"):
            y = x.exp()
        with op("gemm"):
            z = y @ x
        with op("other"):
            return {"y": y.sqrt(), "z": z}

    assert not [one for one in names(compiled(recorded(code), chip)) if "norm" in one]


@pytest.mark.parametrize("chip", CHIPS)
def test_only_the_operand_whose_rows_are_sliced_makes_a_producer(chip: str) -> None:
    """B is read whole by every slice: who makes it must end first."""

    def code(given: Input) -> dict[str, torch.Tensor]:
        with op("weights"):
            weight = given("weight", 4096, 4096).exp()
        with op("gemm"):
            return {"y": given("x", 4096, 4096) @ weight}

    assert names(compiled(recorded(code), chip)) == []


def linear(bias: bool) -> Program:
    """A norm and three projections, with biases or without."""

    def code(given: Input) -> dict[str, torch.Tensor]:
        x, made = given("x", 8192, 4096), {}
        with op("norm"):
            x = torch.nn.functional.rms_norm(x, (4096,))
        for name in "qkv":
            weight, shift = given(f"{name}_weight", 2048, 4096), given(f"{name}_bias", 2048) if bias else None
            with op(name):
                made[name] = torch.nn.functional.linear(x, weight, shift)
        return made

    return recorded(code)


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("chip", CHIPS)
def test_gemms_that_share_their_first_operand_are_one_bundle(chip: str, bias: bool) -> None:
    """Up to three, with the norm before them, whose result they read; a bias (Qwen) changes nothing."""
    assert names(compiled(linear(bias), chip)) == [["norm", "q", "k", "v"]]
    assert names(compiled(linear(bias), chip, values={"compiler.max_sharing": 1})) == []


def test_work_in_between_keeps_units_apart() -> None:
    """An order that puts another chunk's work between two neighbours pins it there, as hints do."""
    program = mlp_program(copies=2)
    together = names(compiled(program, "gaudi2"))
    assert together == [["gelu", "second"]] * 2
    assert names(compiled(program, "gaudi2", [0, 3, 1, 4, 2, 5])) == []


@pytest.mark.parametrize("chip", CHIPS)
def test_recipes_are_not_bundled_across(chip: str) -> None:
    def code(given: Input, graphs: tuple[int, int]) -> dict[str, torch.Tensor]:
        x = given("x", 4096, 4096)
        with region(graph=graphs[0]), op("gemm"):
            y = x @ x
        with region(graph=graphs[1]), op("exp"):
            return {"y": y.exp()}

    assert names(compiled(recorded(lambda given: code(given, (0, 0))), chip)) == [["gemm", "exp"]]
    assert names(compiled(recorded(lambda given: code(given, (0, 1))), chip)) == []


# -- slices ----------------------------------------------------------------------------------------------------------


def test_slices_grow_until_two_fit_the_die() -> None:
    """256 MiB of scores: 4 slices are too large, 16 fit Gaudi2's SRAM twice; with a larger die 4 are enough."""
    found = {
        die: bundled(compiled(attention_program(), "gaudi2", values={"memory.die_mib": die}))[0][1]
        for die in (24, 48, 1024)
    }
    assert found == {24: 32, 48: 16, 1024: 4}
    more = compiled(attention_program(), "gaudi2", values={"compiler.min_slices": 8, "memory.die_mib": 1024})
    assert bundled(more)[0][1] == 8


def test_never_more_slices_than_allowed_or_than_there_are_parts() -> None:
    few = compiled(attention_program(), "gaudi3", values={"compiler.max_slices": 8})
    assert bundled(few)[0][1] == 8
    assert bundled(compiled(attention_program(), "gaudi3", values={"compiler.max_slices": 3})) == []
    assert bundled(compiled(chain("mme", "tpc", rows=4, width=256), "gaudi2")) == [], "one token's GEMM is not cut"


@pytest.mark.parametrize(("rows", "kept", "cut"), [(2304, 0.75, False), (3584, 0.875, True), (4096, 1.0, True)])
def test_gaudi3_turns_slices_down_that_leave_multipliers_idle(rows: int, kept: float, cut: bool) -> None:
    """A quarter of 2304 rows fills three quarters of its tiles; 85 % of what the whole GEMM fills is asked for."""
    program = chain("mme", "tpc", rows=rows, width=2048)
    strict = compiled(program, "gaudi3")
    loose = compiled(program, "gaudi3", values={"compiler.min_utilisation_ratio": 0.0})
    assert utilisation(loose, 4) / utilisation(loose, 1) == pytest.approx(kept)
    assert bool(bundled(strict)) == cut
    assert bundled(loose)
    assert not bundled(compiled(program, "gaudi3", values={"compiler.min_utilisation_ratio": kept + 0.01}))


@pytest.mark.parametrize("program", [WINDOW, attention_program(), mlp_program(copies=2)])
def test_no_slice_on_gaudi3_is_below_the_limit(program: Program) -> None:
    plan, costs = compiled(program, "gaudi3"), Costs(machine("gaudi3"))
    cut = [(one, unit) for one in plan.bundles if one.slices > 1 for unit in plan.units[one.first : one.end]]
    for one, unit in cut:
        if unit.engine is Engine.MME:
            whole, part = (costs.of(unit.kernel, unit.calls, unit.engine, n).utilisation for n in (1, one.slices))
            assert part >= 0.85 * whole
    assert cut


def utilisation(plan: Plan, slices: int) -> float:
    """Of the first unit."""
    unit = plan.units[0]
    return Costs(machine("gaudi3")).of(unit.kernel, unit.calls, unit.engine, slices).utilisation


@pytest.mark.parametrize("chip", CHIPS)
def test_each_slice_pays_the_fixed_cost_of_a_node(chip: str) -> None:
    """Parts that only signal are one node, and pay it once."""
    for program in (attention_program(), mlp_program()):
        plan = compiled(program, chip, values={"gemm.node_ns": 301})
        dear = compiled(program, chip, values={"gemm.node_ns": 1301})
        for one, other in zip(plan.nodes, dear.nodes, strict=True):
            # Parts that only signal are one node and pay once.
            alone = any(bundle.end - bundle.first == 1 and bundle.first == one.unit for bundle in plan.bundles)
            more = (1000 / one.slices if alone else 1000) if plan.units[one.unit].engine is Engine.MME else 0
            assert other.alone_ns - one.alone_ns == pytest.approx(more)


@settings(max_examples=25)
@given(st.data(), st.sampled_from(CHIPS), st.booleans(), st.booleans())
def test_every_unit_is_in_one_bundle_and_every_node_in_one_unit(
    data: st.DataObject, chip: str, fuser: bool, roi: bool
) -> None:
    """Bundles cover the units in order; slices keep the limits; nodes are as many as slices; engines are the unit's."""
    chosen = data.draw(workloads())
    plan = compiled(capture(chosen, data.draw(splits_of(chosen))), chip, fuser=fuser, roi_pipelining=roi)
    edges = [0, *(one.end for one in plan.bundles)]
    assert [one.first for one in plan.bundles] == edges[:-1]
    assert edges[-1] == len(plan.units)
    rules = machine(chip).compiler
    for one in plan.bundles:
        if one.end - one.first > 1:
            assert rules.min_slices <= one.slices <= rules.max_slices
        else:
            assert 1 <= one.slices <= rules.roi_depth
    for node in plan.nodes:
        assert all(other.index < node.index for other in node.waits), "in order, so that nothing can block for ever"
