"""What `overlap export` prints: a line per bucket, the findings of the rules, and where the files are."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from overlap.commands.look import new_table
from overlap.serve.export.words import over_stack, sizes

if TYPE_CHECKING:
    from overlap.serve.export.optimum import OptimumExport
    from overlap.serve.export.plan import Option, Plan
    from overlap.serve.vllm.env_file import Finding

MOST_ROWS = 128
NOTHING = "–"


def show_vllm(plan: Plan, findings: Sequence[tuple[Path, Finding]], into: Path) -> None:
    """The table, the findings, and what to do next; warnings go to stderr."""
    console, aside = Console(), Console(stderr=True)
    console.print(_vllm_table(plan))
    _rest(console, len(plan.entries))
    for level in plan.levels:
        _line(console, f"level {level.level}: {over_stack(level)}")
        for cost in level.costs:
            _line(console, f"  {cost}")
    for path, one in findings:
        _line(console, f"{path}:{one.line}: {one.severity}: {one.name}: {one.reason}")
    _aside(aside, plan.device.kind, plan.device.evidence, plan.warnings)
    if plan.level(1) is None and not any("no level 1" in one for one in plan.warnings):
        _line(console, "no level 1: the plug-in would make no bucket faster")
    _line(console, sizes(plan.limits))
    _line(console, f"files in {into}; {into / 'README.txt'} says what to do")


def show_optimum(export: OptimumExport, into: Path) -> None:
    """The same for optimum-habana, where every bucket is a process of its own."""
    console, aside = Console(), Console(stderr=True)
    table = new_table(
        escape(f"{export.model.name} for optimum-habana, {export.mode}"), "bucket", "kept", "runs", "loss"
    )
    for record in export.records[:MOST_ROWS]:
        runs = Text(record.option.what, no_wrap=True, overflow="ellipsis")
        table.add_row(str(record.bucket), f"{record.kept_us:.6g} us", runs, percent(record.option.loss))
    console.print(table)
    _rest(console, len(export.records))
    for left in export.left_out:
        _line(console, f"left out, {left}")
    _aside(aside, export.device.kind, export.device.evidence, export.warnings)
    _line(console, f"files in {into}; {into / 'README.txt'} says what to do")


def _vllm_table(plan: Plan) -> Table:
    title = f"{plan.model.name} on {plan.device.name}, {plan.device.evidence}, for vLLM on Gaudi, {plan.mode}"
    table = new_table(escape(title), "bucket", "kept", "level 1", "loss", "level 0", "loss")
    for entry in plan.entries[:MOST_ROWS]:
        table.add_row(str(entry.bucket), f"{entry.kept_us:.6g} us", *_option(entry.level1), *_option(entry.level0))
    for column in (2, 4):
        table.columns[column].justify = "left"
    for column in (1, 3, 5):
        table.columns[column].no_wrap = True
    return table


def _option(option: Option | None) -> tuple[Text, str]:
    if option is None:
        return Text(NOTHING), NOTHING
    return Text(option.what, no_wrap=True, overflow="ellipsis"), percent(option.loss)


def percent(loss: float | None) -> str:
    """`+2.3 %`; what is negative is faster than what was kept."""
    return "?" if loss is None else f"{loss * 100:+.1f} %"


def _aside(aside: Console, kind: str, evidence: str, warnings: Sequence[str]) -> None:
    if kind == "host":
        _line(aside, "WARNING: this was tuned on a CPU and is NOT FOR A CARD")
    elif evidence == "simulated":
        _line(aside, "warning: every time is simulated; compare with the untouched stack on a card first")
    for warning in warnings:
        _line(aside, f"warning: {warning}")


def _rest(console: Console, count: int) -> None:
    if count > MOST_ROWS:
        _line(console, f"{count - MOST_ROWS} more buckets are in export.json")


def _line(console: Console, text: str) -> None:
    console.print(text, markup=False, highlight=False, soft_wrap=True)
