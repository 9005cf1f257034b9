"""`GaudiDevice`: answers the device protocol from the model. No tensor is computed, no clock is read."""

from __future__ import annotations

import logging
from collections.abc import Collection, Mapping, Sequence
from functools import cached_property

import polars as pl
import torch

from overlap import __version__
from overlap.devices.base import DeviceInfo, Gate, Runnable, StackRun, Uncertainty, require_memory
from overlap.devices.config import DeviceConfig
from overlap.devices.gaudi.capacity import require_capacity
from overlap.devices.gaudi.constants import Constants, load_constants
from overlap.devices.gaudi.cuts import find_cuts
from overlap.devices.gaudi.kernels import Costs
from overlap.devices.gaudi.least import fused_ns, least_times
from overlap.devices.gaudi.machine import MODEL, VERSION, Machine
from overlap.devices.gaudi.modes import least_launches
from overlap.devices.gaudi.plan import Plan, compile_program
from overlap.devices.gaudi.report import UNKNOWN_SHARE, events, unknown_times
from overlap.devices.gaudi.sensitivity import Variation, Varied, quotient_interval, uncertainty, variations, vary
from overlap.devices.gaudi.settings import GaudiConfig
from overlap.devices.gaudi.simulate import Run, rates_of
from overlap.devices.gaudi.units import renamed
from overlap.devices.interpret import interpret
from overlap.errors import DeviceError
from overlap.program import Program
from overlap.queues import Cuts, QueueRules
from overlap.similar import did_you_mean
from overlap.stats import Interval
from overlap.workload import Workload

log = logging.getLogger("overlap")
# Nodes of a program whose uncertainty is still asked for: some 60 simulations, a few seconds.
MOST_NODES = 5000


class GaudiDevice:
    """One simulated card; see `overlap.devices.base.Device`."""

    def __init__(self, config: DeviceConfig) -> None:
        self.settings: GaudiConfig = config.gaudi
        self.constants: Constants = load_constants(config.kind).replaced(config.gaudi.constants)
        self.costs = Costs(Machine.of(self.constants))
        self.info = _describe(config, self.costs.machine)

    def require(self, workload: Workload) -> None:
        """Refuse a model that the cards cannot hold; says how many could."""
        require_capacity(workload, self.info.memory_bytes, self.info.kind)

    def prepare(
        self,
        program: Program,
        order: Sequence[int],
        inputs: Mapping[str, torch.Tensor],
        *,
        serial: bool = False,
    ) -> GaudiRunnable:
        """Compile `program` in `order` for the model; `inputs` are only used to check what it computes."""
        require_memory(program, self.info, order)
        runnable = GaudiRunnable(self, program, order, inputs, serial)
        runnable.check_costs()
        return runnable

    def predict_ns(self, program: Program, order: Sequence[int]) -> int:
        """Time of `program` in `order`."""
        return compile_program(program, order, self.costs, self.settings).run().time_ns

    def expected_times(self, program: Program) -> list[int]:
        """Ns of every op: what its nodes take alone, compiled in program order."""
        plan = compile_program(program, range(len(program.ops)), self.costs, self.settings)
        found = [0.0] * len(program.ops)
        for node in plan.nodes:
            found[plan.units[node.unit].op] += node.alone_ns
        for number, op in enumerate(program.ops):
            if op.kernel.kind == "fused_attention":
                # Its engines work side by side.
                found[number] = fused_ns(op, self.costs, self.settings)
        return [round(ns) for ns in found]

    @property
    def queue_rules(self) -> QueueRules:
        """Signals, and the fence behind every collective, which ends a recipe."""
        rates = rates_of(self.costs, self.settings)
        recipe_ns, collective_ns = least_launches(self.costs.machine.host, self.settings.mode)
        return QueueRules(
            to_mme_ns=round(rates.sync_to_mme),
            to_other_ns=round(rates.sync_to_other),
            same_ns=round(rates.sync_same),
            fenced=rates.fenced,
            fence_ns=round(rates.fence),
            collectives_fence=rates.fenced,
            recipe_launch_ns=round(recipe_ns),
            collective_launch_ns=round(collective_ns),
            fences_hold_network=False,
        )

    def op_times(self, program: Program, repeats: int, *, known: Collection[str] = ()) -> dict[str, int]:
        """Least time of every kernel."""
        found: dict[str, int] = {}
        for op, ns in zip(program.ops, self.least_times(program), strict=True):
            if op.kernel.key not in known:
                found[op.kernel.key] = min(ns, found.get(op.kernel.key, ns))
        return found

    def least_times(self, program: Program) -> list[int]:
        """What every op takes in the best case."""
        return least_times(program, self.costs, self.settings)

    def names(self, program: Program) -> frozenset[int]:
        """Copies that a compiler does by renaming."""
        return frozenset(renamed(program))

    def cuts(self, program: Program) -> Cuts:
        """Edges inside of what may become a bundle, and behind MME units that signal per part."""
        return find_cuts(program, self.costs, self.settings)

    def time_stack(self, stack: StackRun, repeats: int) -> list[int]:
        """Times of the stack's program: fused attention, a recipe per layer."""
        program = stack.program()
        return [self.predict_ns(program, range(len(program.ops)))] * repeats

    def speedup_interval(self, before: Runnable, after: Runnable) -> Interval | None:
        """Speed-up of one runnable over another, over the constants that nobody knows exactly."""
        assert isinstance(before, GaudiRunnable)
        assert isinstance(after, GaudiRunnable)
        return quotient_interval(before.varied, after.varied)

    @cached_property
    def variations(self) -> list[Variation]:
        """Machines that differ from this one in one uncertain constant."""
        return variations(self.constants)

    def close(self) -> None:
        """Nothing to release."""


class GaudiRunnable:
    """A compiled program; see `overlap.devices.base.Runnable`."""

    def __init__(
        self,
        device: GaudiDevice,
        program: Program,
        order: Sequence[int],
        inputs: Mapping[str, torch.Tensor],
        serial: bool,
    ) -> None:
        self._device = device
        self._inputs = inputs
        self._serial = serial
        self.program = program
        self.order: Sequence[int] = tuple(order)

    @cached_property
    def plan(self) -> Plan:
        """What the compiler makes of it."""
        return compile_program(self.program, self.order, self._device.costs, self._device.settings, self._serial)

    @cached_property
    def run(self) -> Run:
        """The simulated run; every run is this one."""
        return self.plan.run()

    def time(self, repeats: int) -> list[int]:
        """The simulated time, `repeats` times."""
        return [self.run.time_ns] * repeats

    def profile(self) -> pl.DataFrame:
        """The event table of the simulated run."""
        return events(self.plan, self.run)

    def outputs(self) -> dict[str, torch.Tensor]:
        """What the program computes, on this machine's CPU; the model itself knows no values.

        Raises:
            DeviceError: it was prepared without inputs.
        """
        missing = sorted(self.program.inputs.keys() - self._inputs.keys())
        if missing:
            raise DeviceError(f"input {missing[0]} of {self.program.label} is missing", "prepare it with tensors")
        return interpret(self.program, self.order, self._inputs)

    @property
    def peak_bytes(self) -> int:
        """Most bytes alive at once beside the inputs, ops one after the other."""
        return self.program.peak_bytes(self.order)

    def gates(self) -> dict[str, Gate]:
        """Memory."""
        need = self.program.input_bytes() + self.peak_bytes
        limit = self._device.info.memory_bytes
        return {"memory": Gate(need <= limit, f"{need / 2**20:.0f} of {limit / 2**20:.0f} MiB")}

    def uncertainty(self) -> Uncertainty | None:
        """How far the time moves with the constants that nobody knows exactly; None where that would take long."""
        if len(self.plan.nodes) > MOST_NODES:
            return None
        return uncertainty(self.varied, self._device.variations)

    @cached_property
    def varied(self) -> Varied:
        """The time over all that nobody knows exactly."""
        return vary(self.time_with, self._device.costs, self._device.variations)

    def time_with(self, costs: Costs) -> float:
        """The time on a machine with other constants, ns."""
        settings = self._device.settings
        return compile_program(self.program, self.order, costs, settings, self._serial).run().time_ns

    def _check_names(self) -> None:
        """Refuse names of `cpu_ops` that no call of the program has."""
        calls = sorted({call.name for op in self.program.ops for call in op.kernel.work})
        for name in self._device.settings.cpu_ops:
            if name not in calls:
                raise DeviceError(f"device.gaudi.cpu_ops: no call is named {name!r}", did_you_mean(name, calls))

    def check_costs(self) -> None:
        """Name what has no known cost, and refuse a program much of whose time is made up.

        Raises:
            DeviceError: calls that `ops.yaml` does not list take more than 1 % of the time, and that is not allowed.
        """
        self._check_names()
        costs = self._device.costs
        without = {op.kernel.key: costs.unknown_calls(op.kernel) for op in self.program.ops}
        times = unknown_times(self.plan, without)
        if not times:
            return
        share = sum(times.values()) / max(1, self.run.time_ns)
        said = (
            f"the model has no cost for {', '.join(times)}: at {costs.machine.tpc.unknown_cycles:g} cycles per vector "
        )
        said += f"it takes {sum(times.values()) / 1e3:.1f} us, {share:.1%} of the time"
        if share > UNKNOWN_SHARE and not self._device.settings.allow_unknown:
            hint = "add it to ops.yaml, name it in device.gaudi.cpu_ops, or set device.gaudi.allow_unknown=true"
            raise DeviceError(said, hint)
        log.warning("%s: %s", self.program.label, said)


def _describe(config: DeviceConfig, machine: Machine) -> DeviceInfo:
    """Name, model and version, and everything that was switched."""
    switched = config.gaudi.switched()
    said = "".join(f", {name}={value}" for name, value in switched.items())
    chip = config.kind.replace("gaudi", "Gaudi")
    return DeviceInfo(
        kind=config.kind,
        name=f"{chip} (simulated by {MODEL} {VERSION}{said})",
        evidence="simulated",
        memory_bytes=machine.memory.hbm_bytes - machine.memory.workspace_bytes,
        software={
            "overlap": __version__,
            "model": f"{MODEL} {VERSION}",
            "mode": config.gaudi.mode,
            "torch": str(torch.__version__),
            **{f"gaudi.{name}": value for name, value in switched.items()},
        },
        computes=False,
        fused_stack=True,
    )
