"""The four ways in which the bridge runs a program; each gives a function that runs all of it once.

compile      every segment through `torch.compile`, its order as strict hints where that works
lazy         ops are accumulated and end in a graph at `mark_step`, one per segment
lazy_graphs  every segment captured once as an HPU graph and replayed
eager        op by op; no engine runs beside another
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import torch

from overlap.devices.hpu.bridge import Bridge
from overlap.devices.hpu.errors import in_words
from overlap.devices.hpu.fused import replaced_calls, replaced_kernel
from overlap.devices.hpu.segments import Roots, Segment, Straight, Ways, segments, straight
from overlap.devices.hpu.settings import COMPILE, EAGER, LAZY, LAZY_GRAPHS, HpuConfig
from overlap.errors import MemoryLimitError
from overlap.program import Program

log = logging.getLogger(__name__)
Tensors = tuple[torch.Tensor, ...]


@dataclass
class Ready:
    """A program that can be run. `notes` says how the order was passed on, and what the release lacks."""

    program: Program
    roots: Roots
    parts: list[tuple[Segment, Callable[..., Tensors]]]
    after: Callable[[], None]
    notes: list[str] = field(default_factory=list)
    # How often the Python code of captured segments ran: on a replay it does not.
    bodies: list[int] = field(default_factory=lambda: [0])

    def run(self) -> None:
        """Launch everything once; nothing is waited for."""
        for segment, part in self.parts:
            # Kept until the step has been marked: lazy mode computes only what somebody still holds.
            self.roots.put(segment, part(*self.roots.taken(segment)))
            self.after()

    def outputs(self) -> dict[str, torch.Tensor]:
        """Clones of the outputs of the last run."""
        found = self.roots.outputs()
        self.after()
        return found


def ready(
    bridge: Bridge, config: HpuConfig, program: Program, order: Sequence[int], inputs: Mapping[str, torch.Tensor]
) -> Ready:
    """`program` in `order` on `inputs`, which are on the card; nothing has run yet, but for what compiling needs."""
    ways = Ways(replaced_calls(bridge, config), replaced_kernel(bridge, config))
    step = bridge.step(config.lazy)
    made = Ready(program, Roots(program, inputs), [], step)
    if config.lazy and config.control_edges:
        edge = bridge.control_edge()
        made.notes.append("order by emission" if edge is None else "order by emission and control edges")
        ways = replace(ways, edge=edge)
    elif config.mode == EAGER:
        made.notes.append("order by launch")
    build = {COMPILE: _compiled, LAZY: _plain, EAGER: _plain, LAZY_GRAPHS: _captured}[config.mode]
    for segment in segments(program, order):
        part = build(bridge, config, segment, straight(program, segment, ways), made)
        made.parts.append((segment, part))
        # Later segments are traced on what earlier ones give.
        if config.mode == COMPILE:
            made.roots.put(segment, part(*made.roots.taken(segment)))
    return made


def _plain(bridge: Bridge, config: HpuConfig, segment: Segment, run: Straight, made: Ready) -> Straight:
    return run


def _compiled(
    bridge: Bridge, config: HpuConfig, segment: Segment, run: Straight, made: Ready
) -> Callable[..., Tensors]:
    """Hinted if possible; what refuses hints runs without, and says so."""
    # Late: it takes a second to import, which modes that compile nothing need not wait for.
    from overlap.devices.hpu.traced import Functional, trace

    taken = made.roots.taken(segment)
    body, store = trace(run, taken, segment.written)
    wrapper = bridge.hints() if config.hints else None
    refusal = bridge.refusal or ("no hints in this release" if config.hints else "no hints wanted")
    if wrapper is not None and not bridge.refusal:
        try:
            hinted = bridge.compiled(Functional(body, store, wrapper, segment.graph), config.compile_options)
            hinted(*taken)
        except Exception as error:
            # Any error: which one a release raises for hints that it does not know is written nowhere.
            if isinstance(in_words(error, ""), MemoryLimitError):
                raise
            log.info("hints refused: %s", error)
            refusal = f"hints refused ({type(error).__name__})"
        else:
            _note(made, "order by strict hints")
            return hinted
    plain = bridge.compiled(Functional(body, store, None, segment.graph), config.compile_options)
    plain(*taken)
    # What works without hints was refused because of them; it would be so again.
    bridge.refusal = refusal
    _note(made, f"{refusal}, order by emission")
    return plain


def _note(made: Ready, note: str) -> None:
    if note not in made.notes:
        made.notes.append(note)


class _Body(torch.nn.Module):
    """A segment as a module that counts how often its Python code runs."""

    def __init__(self, run: Straight, bodies: list[int]) -> None:
        super().__init__()
        self._run, self._bodies = run, bodies

    def forward(self, *taken: torch.Tensor) -> Tensors:
        self._bodies[0] += 1
        return self._run(*taken)


def _captured(
    bridge: Bridge, config: HpuConfig, segment: Segment, run: Straight, made: Ready
) -> Callable[..., Tensors]:
    """One wrapper per segment, called with tensors only: scalars would be hashed by value."""
    return bridge.graphed(_Body(run, made.bodies))
