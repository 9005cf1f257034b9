"""`HpuDevice`: a Gaudi card behind a process of its own; see `overlap.devices.base.Device`.

What is timed and profiled is measured on the card. What only ranks candidates (times of ops before anything ran, the
time of an order that was never run) comes from the model of the same chip, and decides nothing: whatever is kept has
been raced on the card.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import polars as pl
import torch

from overlap import __version__
from overlap.devices.base import DeviceInfo, StackRun, require_memory
from overlap.devices.config import DeviceConfig
from overlap.devices.gaudi.constants import CHIPS
from overlap.devices.gaudi.model import GaudiDevice
from overlap.devices.hpu.child import Child
from overlap.devices.hpu.environment import child_environment, recorded
from overlap.devices.hpu.hardware import HardwareProfile
from overlap.devices.hpu.rules import require_feasible
from overlap.devices.hpu.runnable import HpuRunnable
from overlap.devices.hpu.settings import HpuConfig
from overlap.devices.hpu.shares import shared_times
from overlap.devices.hpu.wire import save
from overlap.errors import DeviceError, OpFailedError
from overlap.program import Program
from overlap.queues import Cuts, QueueRules
from overlap.traces.read import read_trace
from overlap.workload import Workload

# The chip whose model ranks candidates where the bridge does not say which one it is.
ASSUMED = "gaudi2"
SERIAL = "a card cannot run one queue at a time"


class HpuDevice:
    """A card, reached through `Child`."""

    def __init__(self, config: DeviceConfig) -> None:
        self.config: HpuConfig = config.hpu
        self._environment = child_environment(self.config)
        self.child = Child(self.config, self._environment, config.timeout_s)
        try:
            self._hardware = self._hardware_profile()
            self.child.start()
        except BaseException:
            self.child.close()
            raise
        about = self.child.about
        self._chip = about["chip"] if about["chip"] in CHIPS else ASSUMED
        self._model = GaudiDevice(replace(config, kind=self._chip))
        self.info = self._describe(about, config.memory_fraction)
        self._stack: HpuRunnable | None = None
        self._numbers = 0
        # Programs by generation and number: on the card, and those of them that nobody needs any more.
        self._there: set[tuple[int, int]] = set()
        self._dropped: list[tuple[int, int]] = []
        self._inputs: dict[int, Mapping[str, torch.Tensor]] = {}
        self._sent: tuple[int, int] = (0, 0)

    def _hardware_profile(self) -> HardwareProfile | None:
        """Set up before the process starts, which reads what is set up."""
        if not self.config.hardware_profile:
            return None
        found = HardwareProfile(self.child.folder / "hardware", self._environment)
        self.child.environment.update(found.environment)
        self._environment["HABANA_PROFILE"] = found.environment["HABANA_PROFILE"]
        return found

    def _describe(self, about: Mapping[str, Any], fraction: float) -> DeviceInfo:
        software = {
            "overlap": __version__,
            "torch": about["torch"],
            "habana-torch-plugin": about["release"],
            "mode": self.config.mode,
            "ranked by": f"the model of {self._chip}",
        }
        switched = {f"hpu.{name}": value for name, value in self.config.switched().items()}
        name = f"{about['name']} ({self.config.mode}, software {about['release']})"
        return DeviceInfo(
            kind="hpu",
            name=name,
            evidence="measured",
            # A release that does not tell has what the chip has.
            memory_bytes=int(about["memory_bytes"] * fraction) or self._model.info.memory_bytes,
            # All of it decides what is measured, so a sweep of other settings is another sweep.
            software=software | switched | recorded(self._environment),
            fused_stack=True,
            single_ops=False,
            one_queue=False,
        )

    # -- running -----------------------------------------------------------------------------------------------------

    def require(self, workload: Workload) -> None:
        """A card runs a window of layers; whether the whole model fits on the cards, its model knows."""
        self._model.require(workload)

    def prepare(
        self,
        program: Program,
        order: Sequence[int],
        inputs: Mapping[str, torch.Tensor],
        *,
        serial: bool = False,
    ) -> HpuRunnable:
        """Compile and warm up `program` on the card.

        Raises:
            MemoryLimitError: it cannot fit.
            OpFailedError: the card's software cannot run it, or `serial` was asked for.
        """
        if serial:
            raise OpFailedError(SERIAL)
        require_memory(program, self.info, order)
        require_feasible(program, self.config)
        made = HpuRunnable(self, program, order, inputs)
        made.ensure()
        return made

    def send_inputs(self, inputs: Mapping[str, torch.Tensor]) -> None:
        """Have `inputs` on the card, copied once per process."""
        self.child.start()
        key = (self.child.generation, id(inputs))
        if self._sent == key:
            return
        # Held, so that no other mapping can come to have this one's id.
        self._inputs = {id(inputs): inputs}
        path = self.child.folder / "inputs.pt"
        save(inputs, path)
        try:
            self.child.ask("inputs", path)
        finally:
            path.unlink(missing_ok=True)
        self._sent = key

    def profiled(self, run: Callable[[Path], object]) -> pl.DataFrame:
        """The event table of what `run` profiles into the file it is given, or of the hardware profile beside it."""
        path = self.child.folder / "run.pt.trace.json"
        if self._hardware is not None:
            self._hardware.begin()
        run(path)
        try:
            found = self._hardware.newest() if self._hardware is not None else None
            events = (found or read_trace(path)).events
        finally:
            path.unlink(missing_ok=True)
        if events.filter(pl.col("engine").is_in(["MME", "TPC"])).is_empty():
            raise DeviceError(
                "the profile holds no lanes of the device",
                "HABANA_PROFILE must not be 0 and the shim not disabled (HABANA_SHIM_DISABLE); see overlap doctor",
            )
        return events

    def drop(self, generation: int, number: int) -> None:
        """Note that nobody needs a program any more. Asks nothing: this may happen in the middle of a request."""
        self._dropped.append((generation, number))

    def add(self, number: int) -> None:
        """Note that a program is on the card."""
        self._there.add((self.child.generation, number))

    def has_others(self) -> bool:
        """Whether any program is on the card."""
        return any(generation == self.child.generation for generation, _ in self._there)

    def clear_dropped(self) -> None:
        """Have the card forget what was dropped."""
        while self._dropped:
            generation, number = self._dropped.pop()
            self._there.discard((generation, number))
            if generation == self.child.generation:
                self.child.ask("forget", number)

    def next_number(self) -> int:
        """A number that no program has had."""
        self._numbers += 1
        return self._numbers

    def time_stack(self, stack: StackRun, repeats: int) -> list[int]:
        """Times of the stack's program: fused attention, a graph per layer, in the same mode."""
        program = stack.program()
        if self._stack is None or self._stack.program is not program:
            self._stack = self.prepare(program, range(len(program.ops)), stack.tensors())
        return self._stack.time(repeats)

    def op_times(self, program: Program, repeats: int, *, known: Collection[str] = ()) -> dict[str, int]:
        """Times of kernels out of one profile of the whole program; see `shares`."""
        require_feasible(program, self.config)
        runnable = HpuRunnable(self, program, range(len(program.ops)), stand_ins(program))
        return shared_times(runnable.profile(), program, self.expected_times(program))

    def speedup_interval(self, before: object, after: object) -> None:
        """The card measures."""
        return None

    def close(self) -> None:
        """End the process with the card."""
        self.child.close()
        self._model.close()

    # -- ranking, by the model of the chip ----------------------------------------------------------------------------

    def predict_ns(self, program: Program, order: Sequence[int]) -> int:
        """What the model of the chip says; only to rank."""
        return self._model.predict_ns(program, order)

    def expected_times(self, program: Program) -> list[int]:
        """Of ops, by the model; only to rank."""
        return self._model.expected_times(program)

    def least_times(self, program: Program) -> None:
        """A bound is made of measured times: `op_times`."""
        return None

    def names(self, program: Program) -> frozenset[int]:
        """Copies that the compiler does by renaming."""
        return self._model.names(program)

    def cuts(self, program: Program) -> Cuts:
        """Edges that the compiler may pipeline across."""
        return self._model.cuts(program)

    @property
    def queue_rules(self) -> QueueRules:
        """Signals and fences of the chip."""
        return self._model.queue_rules


def stand_ins(program: Program) -> dict[str, torch.Tensor]:
    """Inputs with some values, for a program whose own are not at hand."""
    found = {}
    for spec in program.roots:
        if spec.name:
            made = torch.zeros(spec.shape, dtype=spec.dtype)
            found[spec.name] = made.normal_() if spec.dtype.is_floating_point else made
    return found
