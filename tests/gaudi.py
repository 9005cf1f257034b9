"""Small programs for tests of the Gaudi model, and short ways to compile and run them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch

from overlap.capture import Recorder, op, region
from overlap.devices.config import DeviceConfig
from overlap.devices.gaudi.constants import load_constants
from overlap.devices.gaudi.kernels import Costs
from overlap.devices.gaudi.machine import Machine
from overlap.devices.gaudi.model import GaudiDevice
from overlap.devices.gaudi.plan import Plan, compile_program
from overlap.devices.gaudi.settings import GaudiConfig
from overlap.program import Program
from overlap.workload import Bucket, ModelShape, Workload

CHIPS = ("gaudi2", "gaudi3")
BF16, FP32 = torch.bfloat16, torch.float32
# Wide enough to be cut into slices, and captured in milliseconds since nothing is computed.
MODEL = ModelShape("mid", 1024, 8, 2, 128, 2816, 4)

# What stands for the tensors of a program while it is recorded: name and shape → input.
Input = Callable[..., torch.Tensor]


def workload(layers: int = 2, cards: int = 1, **bucket: Any) -> Workload:
    """A workload of `MODEL`."""
    return Workload(MODEL, Bucket(**{"query": 2048, **bucket}), cards, layers)


def machine(chip: str = "gaudi2", values: Mapping[str, Any] | None = None) -> Machine:
    """A chip with other constants."""
    return Machine.of(load_constants(chip).replaced(values or {}))


def device(chip: str = "gaudi2", **switches: Any) -> GaudiDevice:
    """A device with switches."""
    return GaudiDevice(DeviceConfig(kind=chip, gaudi=GaudiConfig(**switches)))


def compiled(
    program: Program,
    chip: str = "gaudi2",
    asked: Sequence[int] | None = None,
    values: Mapping[str, Any] | None = None,
    serial: bool = False,
    **switches: Any,
) -> Plan:
    """A program compiled in the order that is asked for, with other constants and switches."""
    taken = range(len(program.ops)) if asked is None else asked
    return compile_program(program, taken, Costs(machine(chip, values)), GaudiConfig(**switches), serial)


def spans(plan: Plan) -> dict[str, list[tuple[int, int]]]:
    """(start, end) of every node, by the name that it has in a trace."""
    run = plan.run()
    found: dict[str, list[tuple[int, int]]] = {}
    for node, start, end in zip(plan.nodes, run.start_ns, run.end_ns, strict=True):
        name = plan.program.ops[plan.units[node.unit].op].name + node.part
        found.setdefault(name, []).append((start, end))
    return found


def hbm_bytes(plan: Plan, name: str) -> float:
    """Bytes that all nodes of an op move through HBM."""
    ops = plan.program.ops
    return sum(node.hbm * node.alone_ns for node in plan.nodes if ops[plan.units[node.unit].op].name == name)


def bundled(plan: Plan) -> list[tuple[list[str], int, bool]]:
    """(names, slices, is an attention seed) of every bundle of more than one unit."""
    names = [plan.program.ops[unit.op].name for unit in plan.units]
    return [(names[one.first : one.end], one.slices, one.attention) for one in plan.bundles if one.end - one.first > 1]


def recorded(code: Callable[[Input], Mapping[str, torch.Tensor]]) -> Program:
    """The program of `code`, which makes its inputs with the function that it is given."""
    with Recorder() as recorder:
        outputs = code(lambda name, *shape, dtype=BF16: recorder.input(name, shape, dtype))
        return recorder.finish(dict(outputs), "by hand")


def attention_program(heads: int = 32, tokens: int = 2048, head_dim: int = 128, pieces: bool = False) -> Program:
    """QK^T → softmax → PV; the softmax is one op, or one op per step."""

    def code(given: Input) -> dict[str, torch.Tensor]:
        query, key, value = (given(name, heads, tokens, head_dim) for name in ("query", "key", "value"))
        with op("qk"):
            scores = torch.bmm(query, key.transpose(1, 2))
        if pieces:
            with op("largest"):
                largest = scores.amax(-1, keepdim=True)
            with op("exp"):
                weights = (scores - largest).exp()
            with op("sum"):
                total = weights.sum(-1, keepdim=True)
            with op("divide"):
                weights = weights / total
        else:
            with op("softmax"):
                weights = (scores * 0.1).softmax(-1)
        with op("pv"):
            return {"result": torch.bmm(weights, value)}

    return recorded(code)


def mlp_program(rows: int = 4096, width: int = 4096, inner: int = 4096, copies: int = 1) -> Program:
    """GEMM → activation → GEMM, several times on inputs of their own."""

    def code(given: Input) -> dict[str, torch.Tensor]:
        up, down = given("up", width, inner), given("down", inner, width)
        made = {}
        for number in range(copies):
            x = given(f"x{number}", rows, width)
            with region(f"c{number}" if copies > 1 else ""):
                with op("first"):
                    y = x @ up
                with op("gelu"):
                    y = torch.nn.functional.gelu(y, approximate="tanh")
                with op("second"):
                    made[f"y{number}"] = y @ down
        return made

    return recorded(code)


def engine_program(*engines: str, graphs: Sequence[int] = (), size: int = 2048) -> Program:
    """Independent ops on the engines that are named, in that order, named after them and their place."""

    def code(given: Input) -> dict[str, torch.Tensor]:
        made = {}
        for number, engine in enumerate(engines):
            x = given(f"x{number}", size, size)
            with region(graph=graphs[number] if graphs else 0), op(f"{engine}{number}"):
                made[f"y{number}"] = x @ x if engine == "mme" else x.exp() if engine == "tpc" else x.t().clone()
        return made

    return recorded(code)
