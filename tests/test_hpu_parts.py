"""The parts of the `hpu` device that need no process: settings, words, rules, segments, the bridge's table."""

from __future__ import annotations

import ast
import re
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from overlap.devices.hpu import bridge
from overlap.devices.hpu.doctor import advice, facts
from overlap.devices.hpu.environment import child_environment, recorded
from overlap.devices.hpu.errors import in_words
from overlap.devices.hpu.presence import Card, find_card
from overlap.devices.hpu.probes import PROBES, Probe, usable
from overlap.devices.hpu.rules import BIAS_LIMIT_BYTES, require_feasible
from overlap.devices.hpu.segments import Roots, Ways, segments, straight
from overlap.devices.hpu.settings import MODES, HpuConfig
from overlap.devices.hpu.traced import Functional, trace
from overlap.devices.interpret import interpret
from overlap.errors import ConfigError, DeviceBusyError, DeviceError, MemoryLimitError, OpFailedError
from overlap.kernels import inputs as window_inputs
from overlap.kernels.capture import capture
from overlap.program import Program
from overlap.split import Split
from overlap.workload import Bucket, ModelShape, Workload
from tests.fakes import small_workload
from tests.strategies import splits_of, workloads

ROOT = Path(__file__).resolve().parents[1]
SLICES = Split(fused_sdpa=True, query_tile=8, kv_tile=8, masked_blocks="skip")


# -- settings and environment ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"mode": "graph"}, "device.hpu.mode is 'graph' .one of compile, lazy, lazy_graphs, eager"),
        ({"softmax_mode": "slow"}, "device.hpu.softmax_mode"),
        ({"obey": "yes"}, "device.hpu.obey"),
        ({"sample_ms": 0}, "must be positive"),
        ({"sample_ms": float("inf")}, "must be positive and finite"),
        ({"sdpa_block": 0}, "device.hpu.sdpa_block is 0"),
        ({"environment": {"PT_HPU_SDPA_BR_FACTOR": "512"}}, "device.hpu.sdpa_block=512, which sets both"),
    ],
)
def test_settings_that_the_bridge_would_misunderstand_are_refused(settings: dict[str, object], says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        HpuConfig(**settings)  # type: ignore[arg-type]


@pytest.mark.parametrize(("mode", "lazy"), list(zip(MODES, ("0", "1", "1", "0"), strict=True)))
def test_the_mode_decides_whether_the_bridge_is_lazy_whatever_the_shell_says(mode: str, lazy: str) -> None:
    found = child_environment(HpuConfig(mode=mode), {"PT_HPU_LAZY_MODE": "1" if lazy == "0" else "0", "PATH": "/bin"})
    assert (found["PT_HPU_LAZY_MODE"], found["PATH"]) == (lazy, "/bin")
    assert found["PT_HPU_METRICS_GC_DETAILS"] == "1"


def test_the_profiler_is_never_switched_off() -> None:
    config = HpuConfig()
    assert child_environment(config, {"HABANA_PROFILE": "0"})["HABANA_PROFILE"] == "profile_api_light"
    assert child_environment(config, {"HABANA_PROFILE": "profile_api"})["HABANA_PROFILE"] == "profile_api"


def test_every_setting_that_changes_a_time_is_told() -> None:
    assert HpuConfig().switched() == {}
    found = HpuConfig(mode="lazy", softmax_mode="fast", hints=False, compile_options={"inference": True}).switched()
    assert found == {"softmax_mode": "fast", "hints": "False", "compile_options": "{'inference': True}"}


def test_what_would_bypass_a_rule_is_refused() -> None:
    with pytest.raises(
        ConfigError, match=r"PT_HPU_SDPA_BR_FACTOR is set in this shell .unset it; device.hpu.sdpa_block=7"
    ):
        child_environment(HpuConfig(), {"PT_HPU_SDPA_BR_FACTOR": "7"})
    with pytest.raises(ConfigError, match="cannot be seen without the profiler"):
        child_environment(HpuConfig(environment={"HABANA_PROFILE": "0"}), {})
    name = "PT_HPUGRAPH_DISABLE_TENSOR_CACHE"
    assert child_environment(HpuConfig(), {name: "true"})[name] == "1"


def test_block_sizes_are_set_together_and_recorded() -> None:
    found = recorded(child_environment(HpuConfig(sdpa_block=2048), {"HOME": "/root"}))
    assert (found["PT_HPU_SDPA_BR_FACTOR"], found["PT_HPU_SDPA_BC_FACTOR"]) == ("2048", "2048")
    assert "HOME" not in found


@pytest.mark.parametrize(("value", "spelled"), [(True, "1"), ("TRUE", "1"), ("off", "0"), (4, "4"), ("a,b", "a,b")])
def test_values_are_spelled_as_the_bridge_reads_them(value: object, spelled: str) -> None:
    config = HpuConfig(environment={"PT_HPU_WEIGHT_SHARING": value})  # type: ignore[dict-item]
    assert child_environment(config, {})["PT_HPU_WEIGHT_SHARING"] == spelled


@pytest.mark.parametrize("name", ["PT_HPU_LAZY_MODE", "PT_HPU_METRICS_GC_DETAILS"])
def test_what_the_harness_needs_cannot_be_unset(name: str) -> None:
    unwanted = "1" if name == "PT_HPU_LAZY_MODE" else "0"
    with pytest.raises(ConfigError, match=f"device.hpu.environment sets {name} to {unwanted}"):
        child_environment(HpuConfig(environment={name: unwanted}), {})


# -- words -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "kind", "says"),
    [
        ("Allocation failed for size::4294967296 (4096)MB", MemoryLimitError, "asked for 4294967296 bytes"),
        ("Graph compile failed. synStatus=1: out of memory", MemoryLimitError, "needs about 5,000 of 7,000 bytes"),
        ("Device acquire failed: device is busy", DeviceBusyError, "in use by another process"),
        ("Incompatible driver version 1.10", DeviceError, "do not fit"),
        ("Device acquire failed. No devices found.", DeviceBusyError, "probably in use"),
        ("No device", DeviceError, "no card can be used"),
        ("synStatus 26 [Generic failure]. Node compile failed.", OpFailedError, "Node compile failed"),
        ("[graph_compiler.cpp:1234] Failed to allocate 999 bytes", MemoryLimitError, "asked for 999 bytes"),
        ("shape mismatch", OpFailedError, "op x: shape mismatch"),
        ("", OpFailedError, "op x: RuntimeError"),
    ],
)
def test_what_the_bridge_says_becomes_one_of_our_errors(text: str, kind: type[Exception], says: str) -> None:
    found = in_words(RuntimeError(text), "op x", 5000, 7000)
    assert type(found) is kind
    assert says in found.message


def test_our_own_errors_stay_as_they_are() -> None:
    error = ConfigError("a", "b")
    assert in_words(error, "op x") is error


# -- what is here ------------------------------------------------------------------------------------------------------


def test_cards_are_found_by_their_device_files(tmp_path: Path) -> None:
    for name in ("accel/accel0", "accel/accel1", "accel/accel_controlD0", "hl0", "hl_controlD0", "null"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    version = tmp_path / "version"
    version.write_text("1.24.1-abc\n")
    found = find_card(tmp_path, version)
    assert (found.nodes, found.driver) == (("accel0", "accel1", "hl0"), "1.24.1-abc")
    assert find_card(tmp_path / "none", tmp_path / "none") == Card(found.package, (), "")


def test_other_accelerators_are_no_gaudi(tmp_path: Path) -> None:
    for name, driver in (("accel0", "intel_vpu"), ("accel1", "habanalabs")):
        (tmp_path / "dev/accel").mkdir(parents=True, exist_ok=True)
        (tmp_path / "dev/accel" / name).touch()
        (tmp_path / "drivers" / driver).mkdir(parents=True)
        (tmp_path / "class" / name / "device").mkdir(parents=True)
        (tmp_path / "class" / name / "device/driver").symlink_to(tmp_path / "drivers" / driver)
    assert find_card(tmp_path / "dev", tmp_path / "none", tmp_path / "class").nodes == ("accel1",)


@pytest.mark.parametrize(
    ("card", "present", "words"),
    [
        (Card(True, ("accel0",), "1"), True, "1 card"),
        (Card(True, ("accel0", "accel1"), "1"), True, "2 cards"),
        (Card(False, ("accel0",), "1"), False, "no habana_frameworks"),
        (Card(False, (), ""), False, "no habana_frameworks and no card under /dev/accel"),
    ],
)
def test_a_card_needs_its_files_and_the_bridge(card: Card, present: bool, words: str) -> None:
    assert (card.present, card.in_words()) == (present, words)


def test_advice_names_the_variable_and_the_value() -> None:
    card = Card(True, ("accel0",), "1")
    assert advice(card, {}) == []
    found = advice(card, {"PT_HPU_ENABLE_SFG": "true", "HABANA_PROFILE": "0", "PT_HPU_LAZY_MODE": "1"})
    assert [line.partition(":")[0] for line in found] == [
        "set PT_HPU_ENABLE_SFG=1",
        "unset HABANA_PROFILE",
        "PT_HPU_LAZY_MODE of this shell is not used",
    ]
    assert "container" in advice(Card(False, ("accel0",), "1"), {})[0]
    assert "no card is visible" in advice(Card(True, (), ""), {})[0]


def test_facts_say_how_far_this_was_tried() -> None:
    found = facts(Card(True, ("accel0",), "1.24"), {"HABANA_VISIBLE_MODULES": "3", "PT_HPU_X": "1", "HOME": "/"})
    assert (found["HABANA_VISIBLE_MODULES"], found["PT_HPU_X"], found["driver"]) == ("3", "1", "1.24")
    assert "not yet run on hardware" in found["written for"]
    assert "HOME" not in found


def test_a_mode_is_usable_only_with_what_it_needs() -> None:
    fine = [Probe(name, True, "", "") for name in PROBES]
    assert usable("compile", fine)
    for name, right in (("torch.compile", False), ("strict hints", True), ("profiler", False), ("FusedSDPA", True)):
        broken = [Probe(one.name, one.name != name, "", "") for one in fine]
        assert usable("compile", broken) == right, name
    # A release that does not tell its mode is believed.
    assert usable("lazy", [Probe(one.name, None if one.name == "mode" else True, "", "") for one in fine])


# -- rules -------------------------------------------------------------------------------------------------------------


def huge(context: int, batch: int = 1) -> Program:
    """Fused attention with a bias over `context` keys; nothing of it is ever allocated."""
    model = ModelShape(name="wide", hidden=64, heads=4, kv_heads=2, head_dim=16, ffn=64, layers=2, dtype="bfloat16")
    return capture(Workload(model, Bucket("prefill", batch, 8192, context), 1, 1), Split(fused_sdpa=True))


@pytest.mark.parametrize(("context", "batch", "fits"), [(8192, 1, True), (122_880, 1, False), (57_344, 2, False)])
def test_a_bias_that_would_give_nan_is_refused(context: int, batch: int, fits: bool) -> None:
    program = huge(context, batch)
    if fits:
        require_feasible(program, HpuConfig())
        return
    with pytest.raises(OpFailedError, match=f"from {BIAS_LIMIT_BYTES:,} on the kernel gives NaN"):
        require_feasible(program, HpuConfig())


@pytest.mark.parametrize(("block", "fits"), [(None, True), (8, True), (4, True), (3, False), (32, False)])
def test_lengths_are_multiples_of_the_block(block: int | None, fits: bool) -> None:
    program = capture(small_workload(context=8), SLICES)
    if fits:
        require_feasible(program, HpuConfig(sdpa_block=block))
        return
    with pytest.raises(OpFailedError, match=f"no multiple of device.hpu.sdpa_block={block}"):
        require_feasible(program, HpuConfig(sdpa_block=block))


def test_slices_have_a_mask_per_query_of_a_group() -> None:
    shape = {"hidden": 64, "heads": 16, "kv_heads": 1, "head_dim": 16, "ffn": 64, "layers": 2, "dtype": "bfloat16"}
    workload = Workload(ModelShape(name="grouped", **shape), Bucket("prefill", 1, 8192, 8192), 1, 1)  # type: ignore[arg-type]
    tiled = Split(fused_sdpa=True, query_tile=8192, kv_tile=8192, masked_blocks="skip")
    with pytest.raises(OpFailedError, match=f"a bias of {2**31:,} bytes"):
        require_feasible(capture(workload, tiled), HpuConfig())


def test_plain_attention_has_no_such_rules() -> None:
    config, workload = HpuConfig(sdpa_block=7), small_workload()
    with pytest.raises(OpFailedError):
        require_feasible(capture(workload, Split(fused_sdpa=True, masked_blocks="skip")), config)
    require_feasible(capture(workload, Split()), config)


# -- segments ----------------------------------------------------------------------------------------------------------


def run_segments(program: Program, order: Sequence[int], inputs: dict[str, torch.Tensor], ways: Ways) -> dict:
    """All segments one after the other, as a card runs them."""
    roots = Roots(program, inputs)
    for segment in segments(program, order):
        roots.put(segment, straight(program, segment, ways)(*roots.taken(segment)))
    return roots.outputs()


@settings(max_examples=25)
@given(st.data())
def test_segments_compute_what_the_program_does_bit_for_bit(data: st.DataObject) -> None:
    workload = data.draw(workloads())
    split = data.draw(splits_of(workload))
    program = capture(workload, split)
    order = range(len(program.ops))
    right = interpret(program, order, window_inputs.make(workload, 0))
    found = run_segments(program, order, window_inputs.make(workload, 0), Ways())
    assert found.keys() == right.keys()
    assert all(torch.equal(found[name], right[name]) for name in right)


def test_a_graph_is_a_segment_and_gives_only_what_is_needed_later() -> None:
    workload = small_workload()
    program = capture(workload, Split(layers_per_graph=1))
    found = segments(program, range(len(program.ops)))
    assert [segment.graph for segment in found] == sorted({op.graph for op in program.ops})
    assert len(found) > 1
    inner = found[0]
    later = {root for segment in found[1:] for root in segment.takes}
    assert set(inner.gives) <= later | {ref.root for ref in program.outputs.values()}
    # K and V of the context are inputs that are written.
    names = {program.roots[inner.takes[at]].name for at, _ in inner.written}
    assert names == {"layer0.key_cache", "layer0.value_cache"}


@pytest.mark.parametrize("split", [Split(chunks=2, masked_blocks="skip"), Split(layers_per_graph=1), SLICES])
def test_a_traced_segment_mutates_nothing_inside_and_gives_the_same_bits(split: Split) -> None:
    workload = small_workload(context=8)
    program = capture(workload, split)
    order = range(len(program.ops))
    right = interpret(program, order, window_inputs.make(workload, 0))
    inputs = window_inputs.make(workload, 0)
    roots = Roots(program, inputs)
    with torch.no_grad():
        for segment in segments(program, order):
            taken = roots.taken(segment)
            body, store = trace(straight(program, segment, Ways()), taken, segment.written)
            mutating = [node for node in body.graph.nodes if getattr(node.target, "_schema", None) is not None]
            assert not [node for node in mutating if node.target._schema.is_mutable]
            roots.put(segment, Functional(body, store, None, segment.graph)(*taken))
    found = roots.outputs()
    assert all(torch.equal(found[name], right[name]) for name in right)


def test_edges_tie_every_op_to_the_one_before_on_its_engine() -> None:
    workload = small_workload()
    program = capture(workload, Split(chunks=2))
    tied: list[tuple[int, int]] = []

    def edge(before: torch.Tensor, after: torch.Tensor) -> torch.Tensor:
        tied.append((before.data_ptr(), after.data_ptr()))
        return after

    order = list(range(len(program.ops)))
    run_segments(program, order, window_inputs.make(workload, 0), Ways(edge=edge))
    first = {program.ops[index].engine for index in order}
    readers = [op for op in program.ops if any(at not in op.writes for at in op.reads)]
    assert len(readers) - len(first) <= len(tied) <= len(program.ops) - len(first)


def test_what_an_edge_gives_is_what_the_op_reads() -> None:
    """Otherwise nothing in the graph would depend on it."""
    workload = small_workload()
    program = capture(workload, Split())
    inputs = window_inputs.make(workload, 0)
    found = run_segments(program, range(len(program.ops)), inputs, Ways(edge=lambda _, after: after * float("nan")))
    assert found["hidden"].isnan().all()


# -- the bridge --------------------------------------------------------------------------------------------------------


def sources() -> list[Path]:
    """All code of ours."""
    return [path for room in ("overlap", "kernels", "traces", "analysis") for path in (ROOT / room).rglob("*.py")]


def imports(path: Path) -> set[str]:
    """First parts of all module names that a file imports."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module.partition(".")[0])
    return found


def test_only_one_file_knows_the_bridge() -> None:
    assert [path.name for path in sources() if "habana_frameworks" in imports(path)] == []
    # It is looked up by name, in one place; `torch.hpu` and `torch.ops.hpu` likewise.
    users = {
        path.name
        for path in sources()
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Attribute) and node.attr == "hpu" and ast.unparse(node).startswith("torch.")
    }
    assert users == {"bridge.py"}
    importers = {
        path.name for path in sources() if re.search(r"import_module\((?!command)", path.read_text(encoding="utf-8"))
    }
    assert "bridge.py" in importers


def test_the_table_of_calls_is_complete_and_holds_nothing_else() -> None:
    """Every name that is looked up in the bridge stands in the table, and every name of the table is looked up."""
    source = Path(bridge.__file__).read_text(encoding="utf-8")
    table = "\n".join(line for line in (bridge.__doc__ or "").splitlines() if line.startswith("|"))
    code = source.replace(bridge.__doc__ or "", "")
    looked_up = set(re.findall(r'getattr\([^"]+"(\w+)"', code)) | set(re.findall(r'_op\("(\w+)"\)', code))
    looked_up |= set(re.findall(r"self\._hpu\.(\w+)\(", code)) | set(re.findall(r'\{ROOT\}\.([\w.]+)"', code))
    looked_up -= {"hpu", "memory", "hpex.kernels", "hpex.normalization", "utils.experimental", "utils.internal"}
    looked_up -= {"hpu.metrics"}
    for name in looked_up:
        assert re.search(rf"\b{re.escape(name)}\b", table), f"{name} is called and not in the table"
    named = set(re.findall(r"\b(?:torch\.hpu|torch\.ops\.hpu|hpex\.\w+|utils\.\w+|core)\.(?:memory\.)?(\w+)", table))
    for name in named - {"synDeviceType"}:
        assert name in looked_up | {"apply"}, f"{name} is in the table and not called"


def test_every_row_of_the_table_says_since_when_and_what_else() -> None:
    lines = [line for line in (bridge.__doc__ or "").splitlines() if line.startswith("| `") or line.startswith("| its")]
    assert len(lines) > 15
    for line in lines:
        _, since, absent = (cell.strip() for cell in line.strip("|").split(" | "))
        assert re.match(r"(1\.\d\d|torch \d)", since), line
        assert absent
