"""What the process with the card does on request: prepare, time, profile, compute."""

from __future__ import annotations

import gc
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from overlap.devices.base import Gate
from overlap.devices.hpu.bridge import Bridge
from overlap.devices.hpu.counters import Counts
from overlap.devices.hpu.errors import in_words
from overlap.devices.hpu.modes import Ready, ready
from overlap.devices.hpu.settings import LAZY_GRAPHS, HpuConfig
from overlap.devices.hpu.timing import Tally, runs_per_sample, sample_ns
from overlap.devices.hpu.wire import load, save
from overlap.devices.interpret import POISON
from overlap.errors import DeviceError
from overlap.program import Engine, Program

if TYPE_CHECKING:
    from overlap.devices.hpu.probes import Probe

# Runs before a program is timed: the first compiles, the second fills caches of recipes.
WARM_UPS = 2
PACKAGE = "habana-torch-plugin"
UNCOUNTED = "not counted by this release"


@dataclass
class Prepared:
    """A program on the card. `compiled` counts recipes made while it was prepared; `fell` what ran on the CPU since.

    Either is None where the release does not count.
    """

    ready: Ready
    runs: int
    compiled: int | None
    fell: list[str] | None
    peak_bytes: int
    workspace_bytes: int
    tally: Tally = field(default_factory=Tally)
    bad: list[str] = field(default_factory=list)


class Service:
    """Owns the card, the inputs and all prepared programs."""

    def __init__(self, config: HpuConfig) -> None:
        self._config = config
        with self._explained("opening the card"):
            self._bridge = Bridge()
            if not self._bridge.available():
                raise DeviceError("no Gaudi card can be used", "overlap doctor says what is missing")
            self._require_mode()
            # The first tensor acquires the card.
            self._bridge.to_device(torch.zeros(1))
            self._bridge.synchronize()
        self._inputs: dict[str, torch.Tensor] = {}
        self._prepared: dict[int, Prepared] = {}

    def _require_mode(self) -> None:
        """The bridge reads its mode once, when it is imported; what is measured in another one is worth nothing."""
        lazy = self._bridge.lazy()
        if lazy is not None and lazy != self._config.lazy:
            raise DeviceError(
                f"the bridge is {'' if lazy else 'not '}lazy, against device.hpu.mode={self._config.mode}",
                "something imports habana_frameworks when Python starts; overlap doctor",
            )

    def describe(self) -> dict[str, Any]:
        """What the card and its software are."""
        try:
            release = metadata.metadata(PACKAGE)["Version"]
        except metadata.PackageNotFoundError:
            release = "unknown"
        chip = self._bridge.chip()
        return {
            "chip": chip,
            "name": self._bridge.name() or chip or "Gaudi",
            "cards": self._bridge.count(),
            "release": release,
            "torch": str(torch.__version__),
            "memory_bytes": self._bridge.memory().get("limit", 0),
        }

    def inputs(self, path: Path) -> None:
        """Take inputs from a file to the card."""
        with self._explained("copying the inputs to the card"):
            # Programs that are prepared hold the ones they were prepared with.
            self._inputs = {}
            self._inputs = {name: self._bridge.to_device(tensor) for name, tensor in load(path).items()}
            self._bridge.synchronize()

    def prepare(self, number: int, program: Program, order: Sequence[int]) -> None:
        """Bind and warm up a program under `number`."""
        bridge = self._bridge
        own = program.peak_bytes(order)
        with self._explained(program.label, program.input_bytes() + own), torch.no_grad():
            before, used = Counts.now(bridge), bridge.memory()
            bridge.reset_peak()
            made = ready(bridge, self._config, program, order, self._inputs)
            for _ in range(WARM_UPS):
                made.run()
            bridge.synchronize()
            runs = runs_per_sample(bridge, made.run, self._config.sample_ms)
            warm, memory = Counts.now(bridge), bridge.memory()
        self._prepared[number] = Prepared(
            ready=made,
            runs=runs,
            compiled=None if warm.compilations is None else warm.compiled_since(before),
            fell=None if warm.fallbacks is None else warm.fell_since(before),
            peak_bytes=_peak_bytes(used, memory, own),
            workspace_bytes=memory.get("last_workspace", -1),
        )

    def time(self, number: int, repeats: int) -> list[int]:
        """Samples in ns."""
        one = self._prepared[number]
        with self._running(one):
            return [
                sample_ns(self._bridge, one.ready.run, one.runs, one.ready.bodies, one.tally) for _ in range(repeats)
            ]

    def outputs(self, number: int, path: Path) -> None:
        """Run once with what is to be written poisoned before; the outputs into a file."""
        one = self._prepared[number]
        program = one.ready.program
        with self._running(one):
            for op in program.ops:
                for position in op.writes:
                    ref = op.refs[position]
                    if program.roots[ref.root].name:
                        ref.resolve(one.ready.roots.named(ref.root)).fill_(POISON)
            # In a graph of their own, so that the one that is checked is the one that is timed.
            one.ready.after()
            self._bridge.synchronize()
            one.ready.run()
            found = {name: tensor.cpu() for name, tensor in one.ready.outputs().items()}
        one.bad = [name for name, tensor in found.items() if not bool(torch.isfinite(tensor).all())]
        save(found, path)

    def profile(self, number: int, path: Path) -> None:
        """Run once under the profiler; its trace into a file."""
        one = self._prepared[number]
        with self._running(one):
            self._bridge.profile(one.ready.run, path)

    def probe(self, name: str) -> Probe:
        """Try one call of the bridge."""
        from overlap.devices.hpu.probes import run_probe

        return run_probe(name, self._bridge, self._config)

    def peak_bytes(self, number: int) -> int:
        """Most bytes beside the inputs while it was prepared and warmed up, workspace included."""
        return self._prepared[number].peak_bytes

    def gates(self, number: int) -> dict[str, Gate]:
        """What must hold for a program, but for what only a trace can tell."""
        one = self._prepared[number]
        if not one.tally.samples:
            self.time(number, 1)
        limit = self._bridge.memory().get("limit", 0)
        need = one.ready.program.input_bytes() + one.peak_bytes
        workspace = f", workspace {one.workspace_bytes / 2**20:.0f} MiB" if one.workspace_bytes >= 0 else ""
        fell = UNCOUNTED if one.fell is None else ", ".join(dict.fromkeys(one.fell)) or "none"
        again = UNCOUNTED if one.compiled is None else str(one.tally)
        gates = {
            "memory": Gate(not limit or need <= limit, f"{need / 2**20:.0f} of {limit / 2**20:.0f} MiB{workspace}"),
            "cpu_fallback": Gate(not one.fell, fell),
            "recompiles": Gate(one.tally.samples > 0, again),
            "recipes": Gate(True, _recipes(one)),
            "finite": Gate(not one.bad, f"not finite: {', '.join(one.bad)}" if one.bad else "all outputs"),
            "order passed on": Gate(True, "; ".join(one.ready.notes) or "as written"),
        }
        if self._config.mode == LAZY_GRAPHS:
            graphs, captured = len(one.ready.parts), one.ready.bodies[0]
            gates["cached graphs"] = Gate(captured == graphs, f"{captured} captured of {graphs}")
        if any(op.engine is Engine.NIC for op in one.ready.program.ops):
            gates["collectives"] = Gate(True, "left out: one process has no peers")
        return gates

    def forget(self, number: int) -> None:
        """Free a program."""
        self._clear_graphs(number)
        self._prepared.pop(number, None)
        # Wrapped modules and what wraps them hold each other, and memory of the card.
        gc.collect()

    def _clear_graphs(self, number: int) -> None:
        for _, part in self._prepared[number].ready.parts if number in self._prepared else ():
            self._bridge.clear_graphs(part)

    @contextmanager
    def _running(self, one: Prepared) -> Iterator[None]:
        need = one.ready.program.input_bytes() + one.peak_bytes
        with self._explained(one.ready.program.label, need), torch.no_grad():
            one.ready.after()
            before = Counts.now(self._bridge)
            try:
                yield
            finally:
                if one.fell is not None:
                    one.fell += Counts.now(self._bridge).fell_since(before)

    @contextmanager
    def _explained(self, what: str, need_bytes: int = 0) -> Iterator[None]:
        """Errors of the bridge in words."""
        try:
            yield
        except RuntimeError as error:
            limit = 0
            # The card may be past answering.
            with suppress(Exception):
                limit = self._bridge.memory().get("limit", 0)
            raise in_words(error, what, need_bytes, limit) from error


def _recipes(one: Prepared) -> str:
    if one.compiled is None:
        return UNCOUNTED
    graphs = len(one.ready.parts)
    return f"{one.compiled} compiled for {graphs} graph{'' if graphs == 1 else 's'}"


def _peak_bytes(before: Mapping[str, int], after: Mapping[str, int], own: int) -> int:
    """Most bytes that a program needs beside its inputs: what the allocator saw, else `own`, the program's count.

    The workspace belongs to the process and only grows, so where it is told apart the last recipe's own counts.
    """
    if "max_in_use" not in after:
        return own
    seen = after["max_in_use"] - before["in_use"]
    if "last_workspace" not in after:
        return max(0, seen)
    return max(0, seen - (after["workspace"] - before["workspace"])) + after["last_workspace"]
