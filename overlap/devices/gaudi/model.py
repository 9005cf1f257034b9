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
from overlap.devices.gaudi.chains import attention_of, make_chains
from overlap.devices.gaudi.constants import Constants, load_constants
from overlap.devices.gaudi.kernels import Costs
from overlap.devices.gaudi.machine import MODEL, VERSION, Machine
from overlap.devices.gaudi.plan import Plan, compile_program
from overlap.devices.gaudi.report import UNKNOWN_SHARE, events, unknown_times
from overlap.devices.gaudi.sensitivity import quotient_interval, uncertainty
from overlap.devices.gaudi.settings import GaudiConfig
from overlap.devices.gaudi.simulate import Run
from overlap.devices.interpret import interpret
from overlap.errors import DeviceError
from overlap.program import Kernel, Program, RootSpec
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

    def op_times(self, program: Program, repeats: int, *, known: Collection[str] = ()) -> dict[str, int]:
        """Least time of every kernel: its engine's arithmetic, and what it reads that must come from memory."""
        read_bytes: dict[int, int] = {}
        for op in program.ops:
            for at in op.reads:
                ref = op.refs[at]
                read_bytes[ref.root] = read_bytes.get(ref.root, 0) + ref.bytes
        found: dict[str, int] = {}
        for op in program.ops:
            if op.kernel.key not in known and op.kernel.key not in found:
                refs = [op.refs[at] for at in op.reads]
                cold = sum(ref.bytes for ref in refs if self._is_cold(program.roots[ref.root], read_bytes[ref.root]))
                found[op.kernel.key] = self._least_ns(op.kernel, cold)
        return found

    def _is_cold(self, root: RootSpec, read_bytes: int) -> bool:
        """Whether no read of an input finds it on the die: SRAM keeps nothing, a cache only what was read before."""
        memory = self.costs.machine.memory
        read_again = read_bytes > root.bytes and root.bytes <= memory.die_bytes
        return bool(root.name) and not (memory.die_is_cache and read_again)

    def time_stack(self, stack: StackRun, repeats: int) -> list[int]:
        """Times of the stack's program: fused attention, a recipe per layer."""
        program = stack.program()
        return [self.predict_ns(program, range(len(program.ops)))] * repeats

    def speedup_interval(self, before: Runnable, after: Runnable) -> Interval | None:
        """Speed-up of one runnable over another, over the constants that nobody knows exactly."""
        assert isinstance(before, GaudiRunnable)
        assert isinstance(after, GaudiRunnable)
        first, second = before, after
        return quotient_interval(lambda costs: first.time_with(costs) / second.time_with(costs), self.constants)

    def close(self) -> None:
        """Nothing to release."""

    def _least_ns(self, kernel: Kernel, cold_bytes: int) -> int:
        memory = self.costs.machine.memory
        # A copy may be nothing at all, or the DMA's, which keeps the queue that it is counted in free.
        if kernel.kind == "copy":
            return 1
        streamed = cold_bytes / memory.hbm_gb_per_s
        if kernel.kind == "fused_attention":
            # Its share of the MME; the TPC's has no op of its own.
            chains = make_chains(self.costs.machine, attention_of(kernel), self.costs.machine.compiler.chains)
            return max(1, round(max(streamed, sum(chain.qk_ns + chain.pv_ns for chain in chains))))
        return max(1, round(max(self.costs.least_ns(kernel), streamed)))


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
        return uncertainty(self.time_with, self._device.constants)

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
        cuts_ops=True,
        fused_stack=True,
    )
