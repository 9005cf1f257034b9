"""What may run beside what: modes, recipes, signals, queues and slices; each test is a fact of the vendor's compiler.

Facts are those of `../shared/reference/gaudi_hw_sw_facts.md` §3, told in the tests' own words.
"""

from __future__ import annotations

import pytest
import torch

from overlap.analysis.partition import Partition, partition
from overlap.capture import op, region
from overlap.devices.gaudi.plan import Plan
from overlap.devices.gaudi.report import events
from overlap.kernels.capture import capture
from overlap.kernels.collective import all_reduce
from overlap.program import Program
from overlap.split import Split
from tests.gaudi import (
    CHIPS,
    Input,
    attention_program,
    compiled,
    engine_program,
    mlp_program,
    recorded,
    spans,
    workload,
)


def parts(plan: Plan) -> Partition:
    """Which engines were busy together, and for how long."""
    return partition(events(plan, plan.run()))


def time_ns(program: Program, chip: str = "gaudi2", **switches: object) -> int:
    """Simulated time."""
    return compiled(program, chip, **switches).run().time_ns  # type: ignore[arg-type]


WINDOW = capture(workload(), Split(chunks=2, masked_blocks="skip"))

# -- eager, serial, and the queues -----------------------------------------------------------------------------------


@pytest.mark.parametrize("chip", CHIPS)
@pytest.mark.parametrize("program", [WINDOW, mlp_program(copies=2), engine_program("mme", "tpc", "dma")])
def test_eager_mode_never_overlaps(chip: str, program: Program) -> None:
    """Every call is a recipe of its own, so nothing is beside anything, copies included."""
    eager = parts(compiled(program, chip, mode="eager"))
    assert eager.both_ns == 0
    assert not [engines for engines in eager.parts_ns if "+" in engines and eager.parts_ns[engines]]
    assert parts(compiled(program, chip)).both_ns > 0


@pytest.mark.parametrize("chip", CHIPS)
def test_disabled_parallelism_is_the_sum_of_all_work(chip: str) -> None:
    """No two nodes at once, and the time is that of all nodes alone, with signals and launches."""
    plan = compiled(WINDOW, chip, parallel=False)
    found, run = parts(plan), plan.run()
    assert found.both_ns == 0
    busy = sum(end - start for start, end in zip(run.start_ns, run.end_ns, strict=True))
    assert busy == pytest.approx(sum(node.alone_ns for node in plan.nodes), abs=len(plan.nodes))
    assert found.window_ns - found.idle_ns == busy
    assert time_ns(WINDOW, chip) < run.time_ns


@pytest.mark.parametrize("chip", CHIPS)
def test_serial_runs_do_not_overlap_either(chip: str) -> None:
    plan = compiled(WINDOW, chip, serial=True)
    assert parts(plan).both_ns == 0
    assert plan.run().time_ns > time_ns(WINDOW, chip)


def test_queues_block_in_order() -> None:
    """A vector op that needs nothing waits behind one that waits for the GEMM; moved before it, it runs beside it."""

    def code(given: Input) -> dict[str, torch.Tensor]:
        x, y = given("x", 2048, 2048), given("y", 2048, 2048)
        with op("product"):
            product = x @ x
        with op("reader"):
            read = product.sin()
        with op("free"):
            return {"read": read, "free": y.exp()}

    program = recorded(code)
    switches = {"bundles": False, "allow_unknown": True}
    blocked = spans(compiled(program, "gaudi3", **switches))
    assert blocked["free"][0][0] >= blocked["reader"][0][1] > blocked["product"][-1][1]
    moved = spans(compiled(program, "gaudi3", [2, 0, 1], **switches))
    assert moved["free"][0][0] == moved["product"][0][0]


def test_the_compiler_may_keep_the_order_of_creation() -> None:
    """`order=given` takes hints; `order=compiler` emits ops as they were created, whatever was asked for."""
    program = engine_program("tpc", "mme", "tpc")
    for order, names in (("given", ["tpc2", "mme1", "tpc0"]), ("compiler", ["tpc0", "mme1", "tpc2"])):
        plan = compiled(program, "gaudi2", [2, 1, 0], order=order)
        assert [program.ops[unit.op].name for unit in plan.units] == names


# -- recipes ---------------------------------------------------------------------------------------------------------


def layers_of(plan: Plan, layer: int) -> list[tuple[int, int]]:
    """(start, end) of the nodes of a layer."""
    run, ops = plan.run(), plan.program.ops
    return [
        (run.start_ns[node.index], run.end_ns[node.index])
        for node in plan.nodes
        if ops[plan.units[node.unit].op].layer == layer
    ]


@pytest.mark.parametrize("chip", CHIPS)
@pytest.mark.parametrize("mode", ["hpu_graph", "compile", "lazy"])
def test_recipes_per_layer_keep_layers_apart(chip: str, mode: str) -> None:
    """With a recipe per layer no op of the next one starts before all ended; in one recipe chunks run ahead."""
    apart = capture(workload(), Split(chunks=2, lag=2, masked_blocks="skip", layers_per_graph=1))
    plan = compiled(apart, chip, mode=mode)
    last_end = max(end for _, end in layers_of(plan, 0))
    fence = 1500
    assert min(start for start, _ in layers_of(plan, 1)) >= last_end + fence
    together = compiled(capture(workload(), Split(chunks=2, lag=2, masked_blocks="skip")), chip, mode=mode)
    assert min(start for start, _ in layers_of(together, 1)) < max(end for _, end in layers_of(together, 0))


def test_fences_are_a_switch_and_their_length_a_constant() -> None:
    """Two GEMMs' and two vector ops' recipes: apart, apart by longer, or side by side."""
    program = engine_program("mme", "tpc", graphs=[0, 1])
    gap = lambda found: found["tpc1"][0][0] - found["mme0"][-1][1]  # noqa: E731
    assert gap(spans(compiled(program))) == 1500
    launched_late = spans(compiled(program, values={"host.fence_ns": 4000}))
    assert gap(launched_late) == 4000
    assert gap(spans(compiled(program, fence=False))) < 0
    assert parts(compiled(program)).both_ns == 0 < parts(compiled(program, fence=False)).both_ns


def sharded(next_layer: bool) -> Program:
    """A row-parallel layer whose sum is read late; in between there may be work that does not need it."""

    def code(given: Input) -> dict[str, torch.Tensor]:
        x, y = given("x", 4096, 4096), given("y", 4096, 4096)
        with op("partial"):
            partial = x @ x
        with op("all_reduce"):
            all_reduce(partial, 8)
        made = {}
        if next_layer:
            with op("beside"):
                made["beside"] = y @ y
        with op("reader"):
            made["read"] = partial.exp()
        return made

    return recorded(code)


@pytest.mark.parametrize("chip", CHIPS)
def test_collectives_run_beside_compute_and_their_readers_wait(chip: str) -> None:
    plan = compiled(sharded(True), chip)
    found = spans(plan)
    (begin, end), beside, reader = found["all_reduce"][0], found["beside"][0], found["reader"][0]
    assert begin >= found["partial"][-1][1]
    assert beside[0] < end
    assert reader[0] >= end
    assert parts(plan).busy_ns("NIC") == end - begin
    assert [unit.recipe for unit in plan.units] == [0, 0, 1, 1], "a recipe ends with its collective"
    assert spans(compiled(sharded(False), chip))["reader"][0][0] >= end


# -- chains in flight ------------------------------------------------------------------------------------------------


def most_in_flight(plan: Plan, first: str, last: str) -> int:
    """Chains that were begun and not ended at once, as the queues saw them."""
    names = [plan.program.ops[plan.units[node.unit].op].name + node.part for node in plan.nodes]
    going = most = 0
    for name in names:
        going += (name == first) - (name == last)
        most = max(most, going)
    return most


def test_a_few_chains_take_turns() -> None:
    """Three by default, one where it is asked for: then MME and TPC take turns and nothing overlaps."""
    program = attention_program()
    by_chains = {count: compiled(program, "gaudi3", chains=count) for count in (0, 1, 2, 3)}
    flights = {count: most_in_flight(plan, "qk", "pv") for count, plan in by_chains.items()}
    assert flights == {0: 3, 1: 1, 2: 2, 3: 3}
    times = {count: plan.run().time_ns for count, plan in by_chains.items()}
    assert times[1] > times[2] > times[3] == times[0]
    assert parts(by_chains[1]).both_ns == 0 < parts(by_chains[2]).both_ns
    assert most_in_flight(compiled(program, "gaudi3", values={"compiler.chains": 2}), "qk", "pv") == 2


def test_blocks_of_a_fused_attention_are_chains_too() -> None:
    program = capture(workload(1), Split(fused_sdpa=True, masked_blocks="skip"))
    for chip in CHIPS:
        one, three = (compiled(program, chip, chains=count) for count in (1, 3))
        name = "layer0.chunk0.attn.fused"
        assert most_in_flight(one, f"{name}.qk", f"{name}.pv") == 1
        assert most_in_flight(three, f"{name}.qk", f"{name}.pv") == 3
        assert three.run().time_ns < one.run().time_ns


def test_regions_do_not_matter_to_the_model() -> None:
    """It sees ops, tensors and edges: names and places change nothing."""

    def code(given: Input) -> dict[str, torch.Tensor]:
        x = given("x", 4096, 4096)
        with region("attention", layer=7, chunk=3, phase="decode"):
            with op("qk"):
                x = x @ x
            with op("softmax"):
                return {"y": x.exp()}

    def plain(given: Input) -> dict[str, torch.Tensor]:
        x = given("x", 4096, 4096)
        with op("a"):
            x = x @ x
        with op("b"):
            return {"y": x.exp()}

    for chip in CHIPS:
        runs = [compiled(recorded(one), chip).run() for one in (code, plain)]
        assert runs[0] == runs[1]
