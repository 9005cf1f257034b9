"""A program on the card, seen from this side."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import polars as pl
import torch

from overlap.devices.base import Gate
from overlap.devices.hpu.child import Child
from overlap.devices.hpu.order import obeyed
from overlap.devices.hpu.settings import REQUIRE, HpuConfig
from overlap.devices.hpu.wire import load
from overlap.errors import DeviceError, MemoryLimitError, OpFailedError
from overlap.program import Program


class Owner(Protocol):
    """What a program on the card needs of its device."""

    config: HpuConfig
    child: Child

    def send_inputs(self, inputs: Mapping[str, torch.Tensor]) -> None:
        """Have `inputs` on the card."""

    def profiled(self, run: Callable[[Path], object]) -> pl.DataFrame:
        """The event table of what `run` profiles."""

    def next_number(self) -> int:
        """A number that no program has had."""

    def add(self, number: int) -> None:
        """Note that a program is on the card."""

    def has_others(self) -> bool:
        """Whether any program is on the card."""

    def drop(self, generation: int, number: int) -> None:
        """Note that nobody needs a program any more."""

    def clear_dropped(self) -> None:
        """Have the card forget what was dropped."""


class HpuRunnable:
    """A program on the card; see `overlap.devices.base.Runnable`. Prepared anew if its process had to be ended."""

    def __init__(
        self, device: Owner, program: Program, order: Sequence[int], inputs: Mapping[str, torch.Tensor]
    ) -> None:
        self._device, self._inputs = device, inputs
        self.program = program
        self.order: Sequence[int] = list(order)
        self._number, self._generation = 0, 0
        self._failure: DeviceError | None = None

    def ensure(self) -> None:
        """Be there on the card; what hung, crashed or did not fit once is not tried again."""
        if self._failure is not None:
            raise self._failure
        self._device.clear_dropped()
        self._device.send_inputs(self._inputs)
        if self._number and self._generation == self._device.child.generation:
            return
        number = self._device.next_number()
        try:
            self._device.child.ask("prepare", number, self.program, self.order)
        except MemoryLimitError as error:
            if not self._device.has_others():
                self._failure = error
                raise
            # Alone on the card it may fit; the others come back when they are asked for.
            self._device.child.kill()
            self._device.send_inputs(self._inputs)
            self._ask("prepare", number, self.program, self.order)
        except OpFailedError as error:
            self._failure = error
            raise
        self._number, self._generation = number, self._device.child.generation
        self._device.add(number)

    def _ask(self, request: str, *arguments: object) -> Any:
        try:
            return self._device.child.ask(request, *arguments)
        except (OpFailedError, MemoryLimitError) as error:
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
        events = self._device.profiled(lambda path: self._on_card("profile", path))
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
        """Counters of the bridge, and what a trace says of the order.

        Raises:
            DeviceError: the trace has no lanes of the device.
        """
        gates: dict[str, Gate] = self._on_card("gates")
        required = self._device.config.obey == REQUIRE
        found = obeyed(self.profile(), self.program, self.order)
        nodes = f"{found.found} found of {found.asked} asked for"
        return gates | {
            "matrix nodes": Gate(not (required and found.merged), nodes),
            "order": Gate(not (required and found.kept is False), found.text),
        }

    def uncertainty(self) -> None:
        """The card measures."""
        return None

    def __del__(self) -> None:
        """Let the card have its memory back, at the next request."""
        if self._number:
            self._device.drop(self._generation, self._number)
