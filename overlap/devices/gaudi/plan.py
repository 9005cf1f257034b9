"""Everything from a program to its simulated run, pass after pass."""

from __future__ import annotations

import gc
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from overlap.devices.gaudi.buffers import reuse_waits
from overlap.devices.gaudi.bundles import Bundle, Bundler
from overlap.devices.gaudi.kernels import Costs
from overlap.devices.gaudi.modes import launch_times
from overlap.devices.gaudi.node import Node
from overlap.devices.gaudi.nodes import Builder
from overlap.devices.gaudi.place import place
from overlap.devices.gaudi.settings import GaudiConfig
from overlap.devices.gaudi.simulate import Rates, Run, rates_of, simulate
from overlap.devices.gaudi.units import Unit, make_units
from overlap.program import Engine, Program, check_order


@dataclass(frozen=True)
class Plan:
    """A program compiled for the model."""

    program: Program
    units: list[Unit]
    bundles: list[Bundle]
    nodes: list[Node]
    launched_ns: dict[int, float]
    rates: Rates
    serial: bool

    def run(self) -> Run:
        """Simulate it."""
        return simulate(self.nodes, self.rates, self.launched_ns, self.serial)


@contextmanager
def _without_gc() -> Iterator[None]:
    """Keep the collector from walking the many small objects that are made here, all of which stay."""
    on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if on:
            gc.enable()


@_without_gc()
def compile_program(
    program: Program, order: Sequence[int], costs: Costs, config: GaudiConfig, serial: bool = False
) -> Plan:
    """Compile `program`; `order` is taken or left to the compiler as `config` says.

    Raises:
        ProgramError: `order` is not an order of the program.
    """
    check_order(program, order)
    machine = costs.machine
    taken = order if config.order == "given" else range(len(program.ops))
    units = make_units(program, taken, costs, config)
    bundles = Bundler(units, costs, config).run()
    kept = {root for root, spec in enumerate(program.roots) if spec.name}
    kept |= {ref.root for ref in program.outputs.values()}
    traffic = place(units, bundles, machine.memory, kept, _operand_reads(units, bundles, costs))
    extra: Sequence[Sequence[int]] = [()] * len(units)
    if config.reuse_buffers:
        sizes = [spec.bytes for spec in program.roots]
        extra = reuse_waits(units, kept, sizes, machine.compiler.kept_buffers)
    nodes = Builder(units, bundles, traffic, extra, costs, config).run()
    return Plan(
        program,
        units,
        bundles,
        nodes,
        launch_times(units, machine.host, config.mode),
        rates_of(costs, config),
        serial or not config.parallel,
    )


def _operand_reads(units: Sequence[Unit], bundles: Sequence[Bundle], costs: Costs) -> dict[int, tuple[float, float]]:
    """How often GEMMs read their operands."""
    found = {}
    for bundle in bundles:
        # Parts that only signal are no slices.
        slices = bundle.slices if bundle.end - bundle.first > 1 else 1
        for number in range(bundle.first, bundle.end):
            unit = units[number]
            if unit.engine is Engine.MME and unit.kernel.kind != "fused_attention":
                found[number] = costs.of(unit.kernel, unit.calls, unit.engine, slices, unit.part).reads
    return found
