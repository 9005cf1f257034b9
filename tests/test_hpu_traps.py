"""Every trap of the bridge's API, on a double that has it: each test fails where the guard against it is taken out."""

from __future__ import annotations

import pytest

from overlap.errors import DeviceError, MemoryLimitError, OpFailedError
from overlap.split import Split
from tests.fakes import small_workload
from tests.hpu import EXACT, SPLIT, Double, Subject


@pytest.fixture(scope="module")
def subject() -> Subject:
    return Subject()


# -- graphs ----------------------------------------------------------------------------------------------------------


def test_outputs_of_a_replay_do_not_change_those_of_the_one_before(double: Double) -> None:
    code = """
    from overlap.devices.hpu.modes import ready
    from overlap.kernels.capture import capture
    from overlap.split import Split
    from tests.hpu import Subject

    subject = Subject()
    program = capture(subject.workload, Split())
    made = ready(bridge, config, program, range(len(program.ops)), subject.inputs)
    made.run()
    first = made.outputs()
    kept = {name: tensor.clone() for name, tensor in first.items()}
    subject.inputs["hidden"].mul_(2)
    made.run()
    second = made.outputs()
    assert all(torch.equal(first[name], kept[name]) for name in first)
    assert not torch.equal(first["hidden"], second["hidden"])
    print(made.bodies[0])
    """
    assert double.run(code, mode="lazy_graphs") == "1", "the second run was a replay"


def test_a_graph_that_is_captured_anew_on_every_call_is_not_timed(double: Double) -> None:
    code = """
    from overlap.devices.hpu.modes import _Body
    from overlap.devices.hpu.timing import Tally, sample_ns
    from overlap.errors import OpFailedError

    bodies, calls = [0], [0]
    graphed = bridge.graphed(_Body(lambda x, number: (x + 1,), bodies))

    def run():
        calls[0] += 1
        graphed(torch.ones(4), calls[0])  # a number of Python is part of a graph's key

    try:
        print(sample_ns(bridge, run, 2, bodies, Tally()))
    except OpFailedError as error:
        print(error.message)
    """
    assert "2 calls ran without their graph" in double.run(code, mode="lazy_graphs")


def test_graphs_that_are_silently_not_captured_are_not_timed(double: Double, subject: Subject) -> None:
    double.card("few_graphs")
    runnable = subject.prepare(double.open(mode="lazy_graphs"))
    with pytest.raises(OpFailedError, match="without their graph"):
        runnable.time(1)


def test_without_graphs_in_this_mode_it_says_so(double: Double) -> None:
    code = """
    from overlap.errors import DeviceError
    try:
        bridge.graphed(torch.nn.Identity())
    except DeviceError as error:
        print(error)
    """
    assert "no HPU graphs in this mode (device.hpu.mode=compile" in double.run(code, mode="compile")


def test_more_programs_than_dynamo_keeps_per_code_object_are_compiled(double: Double) -> None:
    code = """
    class Twice(torch.nn.Module):
        def __init__(self, factor):
            super().__init__()
            self.factor = factor

        def forward(self, x):
            return x * self.factor

    runs = [bridge.compiled(Twice(number), {}) for number in range(12)]
    print([int(run(torch.ones(()))) for run in runs] == list(range(12)))
    """
    assert double.run(code, mode="compile") == "True"


@pytest.mark.parametrize(("value", "cached"), [("true", False), ("on", False), ("1", False), ("false", True)])
def test_booleans_mean_what_they_say(double: Double, value: str, cached: bool) -> None:
    code = """
    from habana_frameworks.torch.card import CARD
    bridge.graphed(torch.nn.Identity())
    print(CARD.tensor_cache)
    """
    environment = {"PT_HPUGRAPH_DISABLE_TENSOR_CACHE": value}
    assert double.run(code, mode="lazy_graphs", environment=environment) == str(cached)


def test_without_the_variable_graphs_hold_no_tensors_either(double: Double) -> None:
    code = """
    import os
    from habana_frameworks.torch.card import CARD
    del os.environ["PT_HPUGRAPH_DISABLE_TENSOR_CACHE"]
    bridge.graphed(torch.nn.Identity())
    print(CARD.tensor_cache)
    """
    assert double.run(code, mode="lazy_graphs") == "False"


# -- what happens while the clock runs ---------------------------------------------------------------------------------


def test_a_graph_that_is_compiled_in_the_timed_region_is_no_sample(double: Double, subject: Subject) -> None:
    double.card("recompile")
    runnable = subject.prepare(double.open())
    with pytest.raises(OpFailedError, match="graphs were compiled while the clock ran"):
        runnable.time(1)


def test_one_late_compilation_costs_one_sample_and_is_told(double: Double, subject: Subject) -> None:
    double.card("recompile_once")
    runnable = subject.prepare(double.open())
    assert len(runnable.time(2)) == 2
    assert runnable.gates()["recompiles"].value == "none in 2 timed samples, 1 taken again"


def test_compilations_outside_of_the_timed_region_are_none_of_its_business(double: Double, subject: Subject) -> None:
    runnable = subject.prepare(double.open())
    runnable.time(1)
    runnable.outputs()  # copies of its own, so a graph of its own
    gate = runnable.gates()["recompiles"]
    assert (gate.passed, gate.value) == (True, "none in 1 timed samples")


def test_an_op_on_the_cpu_fails_the_program_and_is_named(double: Double, subject: Subject) -> None:
    double.card("fallback")
    runnable = subject.prepare(double.open())
    with pytest.raises(OpFailedError, match=r"ops ran on the CPU: aten::_softmax \(\d+\)"):
        runnable.time(1)


def test_an_op_on_the_cpu_before_the_clock_runs_fails_its_own_program_only(double: Double, subject: Subject) -> None:
    double.card("fallback_once")
    device = double.open()
    first, second = subject.prepare(device), subject.prepare(device, SPLIT)
    gates = [runnable.gates()["cpu_fallback"] for runnable in (first, second)]
    assert [gate.passed for gate in gates] == [False, True]
    assert gates[0].value.startswith("aten::_softmax")


@pytest.mark.parametrize("trait", ["", "metrics_moved"])
def test_statistics_are_read_by_name(double: Double, trait: str) -> None:
    double.card(trait)
    code = """
    from habana_frameworks.torch.card import CARD
    from overlap.devices.hpu.counters import Counts
    CARD.compilations, CARD.fallbacks = 5, {"aten::a": 2, "aten::b": 1}
    found = Counts.now(bridge)
    print(found.compilations, found.fallbacks, found.fell_since(Counts(5, 1, {"aten::a": 2})))
    """
    assert double.run(code) == "5 3 ['aten::b (1)']"


@pytest.mark.parametrize("trait", ["no_metrics", "no_events", "no_extended"])
def test_a_release_without_something_is_measured_all_the_same(double: Double, subject: Subject, trait: str) -> None:
    double.card(trait)
    runnable = subject.prepare(double.open(sample_ms=0.5))
    (time_ns,) = runnable.time(1)
    gates = runnable.gates()
    assert time_ns > 0
    assert all(gate.passed for gate in gates.values())
    assert ("not counted" in gates["recompiles"].value) == (trait == "no_metrics")
    assert ("workspace" in gates["memory"].value) == (trait != "no_extended")


# -- order -----------------------------------------------------------------------------------------------------------


def test_an_order_is_hinted_and_kept(double: Double, subject: Subject) -> None:
    double.card("reorder")
    gates = subject.prepare(double.open(mode="compile"), SPLIT).gates()
    assert gates["order passed on"].value == "order by strict hints"
    assert gates["order"].value == "kept"
    assert gates["matrix nodes"].value == "24 found of 24 asked for"


def test_hints_that_are_refused_are_left_out_and_told(double: Double, subject: Subject) -> None:
    double.card("refuse_hints", "reorder")
    runnable = subject.prepare(double.open(mode="compile"), SPLIT)
    assert subject.worst_error(runnable.outputs()) < EXACT
    gates = runnable.gates()
    assert "hints refused (BackendCompilerFailed), order by emission" in gates["order passed on"].value
    assert gates["order"].passed
    assert gates["order"].value.startswith("changed: ")


@pytest.mark.parametrize("mode", ["compile", "lazy"])
def test_an_order_is_looked_at_graph_by_graph(double: Double, subject: Subject, mode: str) -> None:
    double.card("ignore_hints")
    gates = subject.prepare(double.open(mode=mode), Split(layers_per_graph=1)).gates()
    assert gates["order"].value.startswith("changed: ")
    assert gates["matrix nodes"].value == "12 found of 12 asked for"


def test_refused_hints_cost_no_program_that_was_compiled_before(double: Double) -> None:
    """Whatever Dynamo makes anew while the clock runs is seen, recipes in a cache or not."""
    code = """
    from overlap.devices.hpu.counters import Counts
    from overlap.devices.hpu.modes import ready
    from overlap.devices.hpu.timing import Tally, sample_ns
    from overlap.errors import OpFailedError
    from overlap.kernels.capture import capture
    from overlap.split import Split
    from tests.hpu import Subject

    subject = Subject()
    made = []
    for split in (Split(), Split(chunks=2)):
        program = capture(subject.workload, split)
        made.append(ready(bridge, config, program, range(len(program.ops)), subject.inputs))
        made[-1].run()
    assert bridge.refusal and made[1].notes == made[0].notes, made[1].notes
    tally = Tally()
    sample_ns(bridge, made[0].run, 1, [0], tally)
    assert tally.again == 0
    torch._dynamo.reset()
    sample_ns(bridge, made[0].run, 1, [0], tally)
    print(tally)
    """
    double.card("refuse_hints")
    assert double.run(code, mode="compile") == "none in 2 timed samples, 1 taken again"


def test_an_order_that_is_not_kept_can_fail_a_program(double: Double, subject: Subject) -> None:
    double.card("reorder")
    gates = subject.prepare(double.open(obey="require"), SPLIT).gates()
    assert not gates["order"].passed
    assert gates["matrix nodes"].passed


def test_merged_matrix_nodes_are_counted(double: Double, subject: Subject) -> None:
    double.card("merge")
    device = double.open(obey="require")
    gate = subject.prepare(device, SPLIT).gates()["matrix nodes"]
    assert (gate.passed, gate.value) == (False, "12 found of 24 asked for")


def test_without_lanes_of_the_device_there_is_no_profile(double: Double, subject: Subject) -> None:
    double.card("no_lanes")
    runnable = subject.prepare(double.open())
    for ask in (runnable.profile, runnable.gates):
        with pytest.raises(DeviceError, match="holds no lanes of the device"):
            ask()


def test_eager_mode_runs_op_by_op(double: Double, subject: Subject) -> None:
    double.card("op_by_op")
    runnable = subject.prepare(double.open(mode="eager", obey="require"), SPLIT)
    assert runnable.time(1)[0] > 0
    assert subject.worst_error(runnable.outputs()) < EXACT
    gates = runnable.gates()
    assert gates["order passed on"].value == "order by launch"
    # Every op is a recipe of its own there, and the names of their nodes are all the same.
    assert gates["order"].value.startswith("cannot tell")
    assert all(gate.passed for gate in gates.values())


# -- memory and the card itself ----------------------------------------------------------------------------------------


def test_out_of_memory_costs_one_program_and_names_the_bytes(double: Double, subject: Subject) -> None:
    double.card("oom", oom_ns=2600)
    device = double.open(mode="compile")
    with pytest.raises(MemoryLimitError, match=r"out of device memory, asked for 123456789 bytes; .* about \d+"):
        subject.prepare(device)
    assert subject.prepare(device, SPLIT).time(1)[0] > 0


@pytest.mark.parametrize(
    ("trait", "message"),
    [
        ("no_card", "no Gaudi card can be used.*overlap doctor"),
        ("busy", "in use by another process.*hl-smi"),
        ("driver", "driver and software do not fit.*1.10.0"),
        ("stubborn", "the bridge is not lazy, against device.hpu.mode=lazy"),
    ],
)
def test_a_card_that_cannot_be_used_is_refused_in_words(double: Double, trait: str, message: str) -> None:
    double.card(trait)
    with pytest.raises(DeviceError, match=message):
        double.open()


def test_what_fits_only_alone_gets_the_card_for_itself(double: Double, subject: Subject) -> None:
    """The first try fails beside another program, the second in a process of its own does not."""
    device = double.open()
    sound = subject.prepare(device)
    ask, failures = device.child.ask, [MemoryLimitError("full")]

    def full(name: str, *rest: object) -> object:
        if name == "prepare" and failures:
            raise failures.pop()
        return ask(name, *rest)

    device.child.ask = full  # type: ignore[method-assign]
    assert subject.prepare(device, SPLIT).time(1)[0] > 0
    assert device.child.generation == 2
    assert sound.time(1)[0] > 0


def test_poisoned_inputs_are_those_that_the_program_holds(double: Double, subject: Subject) -> None:
    """Outputs are right although other inputs were sent to the card in between."""
    device = double.open()
    first = subject.prepare(device)
    other = Subject(small_workload(query=32))
    second = other.prepare(device)
    assert subject.worst_error(first.outputs()) < EXACT
    assert other.worst_error(second.outputs()) < EXACT
