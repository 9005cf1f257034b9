"""`HpuDevice`: a Gaudi card behind a process of its own; see `overlap.devices.base.Device`.

What is timed and profiled is measured on the card. What only ranks candidates (times of ops before anything ran, the
time of an order that was never run) comes from the model of the same chip, and decides nothing: whatever is kept has
been raced on the card.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import polars as pl
import torch

from overlap import __version__
from overlap.devices.base import DeviceInfo, Gate, StackRun, require_memory
from overlap.devices.config import DeviceConfig
from overlap.devices.gaudi.constants import CHIPS
from overlap.devices.gaudi.model import GaudiDevice
from overlap.devices.hpu.child import Child
from overlap.devices.hpu.environment import child_environment, recorded
from overlap.devices.hpu.order import obeyed
from overlap.devices.hpu.rules import require_feasible
from overlap.devices.hpu.settings import REQUIRE, HpuConfig
from overlap.devices.hpu.shares import shared_times
from overlap.devices.hpu.wire import load, save
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
        self._inputs: dict[int, Mapping[str, torch.Tensor]] = {}
        self._sent: tuple[int, int] = (0, 0)

    def _describe(self, about: Mapping[str, Any], fraction: float) -> DeviceInfo:
        software = {
            "overlap": __version__,
            "torch": about["torch"],
            "habana-torch-plugin": about["release"],
            "mode": self.config.mode,
            "ranked by": f"the model of {self._chip}",
        }
        name = f"{about['name']} ({self.config.mode}, software {about['release']})"
        return DeviceInfo(
            kind="hpu",
            name=name,
            evidence="measured",
            memory_bytes=int(about["memory_bytes"] * fraction),
            software=software | recorded(self._environment),
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

    def next_number(self) -> int:
        """A number that no program has had."""
        self._numbers += 1
        return self._numbers

    def time_stack(self, stack: StackRun, repeats: int) -> list[int]:
        """Times of the stack's program: fused attention, a graph per layer, in the same mode."""
        if self._stack is None:
            program = stack.program()
            self._stack = self.prepare(program, range(len(program.ops)), stack.tensors())
        return self._stack.time(repeats)

    def op_times(self, program: Program, repeats: int, *, known: Collection[str] = ()) -> dict[str, int]:
        """Times of kernels out of one profile of the whole program; see `shares`."""
        runnable = HpuRunnable(self, program, range(len(program.ops)), stand_ins(program))
        try:
            return shared_times(runnable.profile(), program, self.expected_times(program))
        finally:
            runnable.forget()

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


class HpuRunnable:
    """A program on the card; see `overlap.devices.base.Runnable`. Prepared anew if its process had to be ended."""

    def __init__(
        self, device: HpuDevice, program: Program, order: Sequence[int], inputs: Mapping[str, torch.Tensor]
    ) -> None:
        self._device, self._inputs = device, inputs
        self.program, self.order = program, list(order)
        self._number, self._generation = 0, 0
        self._failure: OpFailedError | None = None
        self._notes: list[str] = []

    def ensure(self) -> None:
        """Be there on the card; what hung or crashed once is not tried again."""
        if self._failure is not None:
            raise self._failure
        self._device.send_inputs(self._inputs)
        if self._number and self._generation == self._device.child.generation:
            return
        number = self._device.next_number()
        self._notes = self._ask("prepare", number, self.program, self.order)
        self._number, self._generation = number, self._device.child.generation

    def _ask(self, request: str, *arguments: object) -> Any:
        try:
            return self._device.child.ask(request, *arguments)
        except OpFailedError as error:
            self._failure = error
            raise

    def _on_card(self, request: str, *arguments: object) -> Any:
        self.ensure()
        return self._ask(request, self._number, *arguments)

    def time(self, repeats: int) -> list[int]:
        """Device time of a run in ns; each sample is the mean of as many runs as make it long enough."""
        times: list[int] = self._on_card("time", repeats)
        return times

    def profile(self) -> pl.DataFrame:
        """The event table of one run.

        Raises:
            DeviceError: the trace has no lanes of the device.
        """
        path = self._device.child.folder / f"{self._number}.pt.trace.json"
        self._on_card("profile", path)
        try:
            events = read_trace(path).events
        finally:
            path.unlink(missing_ok=True)
        if events.filter(pl.col("engine").is_in(["MME", "TPC"])).is_empty():
            raise DeviceError(
                "the profile holds no lanes of the device",
                "HABANA_PROFILE must not be 0 and the shim not disabled (HABANA_SHIM_DISABLE); see overlap doctor",
            )
        first = int(events["start_ns"].min() or 0)  # type: ignore[arg-type]
        return events.with_columns(
            pl.col("start_ns") - first,
            pl.col("end_ns") - first,
            pl.when(pl.col("tail_ns") < 0).then(pl.col("tail_ns")).otherwise(pl.col("tail_ns") - first),
        )

    def outputs(self) -> dict[str, torch.Tensor]:
        """Run once on poisoned inputs; copies of the outputs on this side."""
        path: Path = self._device.child.folder / "outputs.pt"
        self._on_card("outputs", path)
        try:
            return {name: tensor.clone() for name, tensor in load(path).items()}
        finally:
            path.unlink(missing_ok=True)

    @property
    def peak_bytes(self) -> int:
        """Most bytes beside the inputs that the card's allocator has seen, workspace included."""
        return int(self._on_card("peak_bytes"))

    def gates(self) -> dict[str, Gate]:
        """Counters of the bridge, and what a trace says of the order."""
        gates: dict[str, Gate] = self._on_card("gates")
        required = self._device.config.obey == REQUIRE
        try:
            found = obeyed(self.profile(), self.program, self.order)
        except DeviceError as error:
            text = f"cannot tell: {error.message}"
            return gates | {"matrix nodes": Gate(not required, text), "order": Gate(not required, text)}
        nodes = f"{found.found} found of {found.asked} asked for"
        return gates | {
            "matrix nodes": Gate(not (required and found.merged), nodes),
            "order": Gate(not (required and found.kept is False), found.text),
        }

    def uncertainty(self) -> None:
        """The card measures."""
        return None

    def forget(self) -> None:
        """Free it on the card."""
        if self._number and self._generation == self._device.child.generation:
            self._device.child.ask("forget", self._number)
            self._number = 0


def stand_ins(program: Program) -> dict[str, torch.Tensor]:
    """Inputs with some values, for a program whose own are not at hand."""
    found = {}
    for spec in program.roots:
        if spec.name:
            made = torch.zeros(spec.shape, dtype=spec.dtype)
            found[spec.name] = made.normal_() if spec.dtype.is_floating_point else made
    return found
