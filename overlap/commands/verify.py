"""`overlap verify`: a tuned config against the untouched model, in one process; the verdict goes into the config."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from overlap.errors import ConfigError
from overlap.stats import samples_needed

if TYPE_CHECKING:
    from overlap.commands.verify_run import Options, Outcome
    from overlap.serve.tuned import Entry, Tuned

# What the type of a PyTorch device is for the kind of a tuned one.
PLACES = {"host": "cpu", "hpu": "hpu"}
ON = ("cpu", "cuda", "hpu")
ROUNDS, BLOCK_ROUNDS, TOKENS = 7, 15, 64
CONFIDENCE = 0.95


def run(
    tuned: str = "",
    model: str = "",
    bucket: str = "",
    rounds: str = str(ROUNDS),
    tokens: str = str(TOKENS),
    layers: str = "",
    device: str = "",
) -> None:
    """Verify the entries of `tuned` that keep a split, or the one of `bucket`, and write what was found into it.

    Raises:
        OverlapError: the config cannot be used on this model or here, or the file cannot be written.
    """
    if not tuned:
        raise ConfigError("tuned is missing", "overlap verify tuned=<file> [model=<folder or name>]")
    least = samples_needed(CONFIDENCE)
    counts = {"rounds": _count("rounds", rounds, least), "tokens": _count("tokens", tokens)}
    few = _count("layers", layers) if layers else None
    if device and device not in ON:
        raise ConfigError(f"device={device}", f"one of {', '.join(ON)}")

    from overlap.commands.verify_run import Options, verify
    from overlap.serve.tuned_file import load

    path = Path(tuned)
    config = load(path)
    chosen = _chosen(config, bucket)
    place = device or PLACES.get(config.device.kind, "")
    if not place:
        raise ConfigError(
            f"tuned on a model of a card, {config.device.name}, which no clock can verify",
            "device=hpu on a card, or tune where you serve",
        )
    options = Options(path, model, place, counts["rounds"], BLOCK_ROUNDS, counts["tokens"], few)
    for outcome in verify(config, chosen, options):
        _print(outcome, options)


def _count(name: str, text: str, least: int = 1) -> int:
    """A number of at least `least`."""
    if not text.isdecimal() or int(text) < least:
        raise ConfigError(f"{name}={text}", f"a whole number of at least {least}")
    return int(text)


def _chosen(config: Tuned, bucket: str) -> list[Entry]:
    if bucket:
        found = [entry for entry in config.entries if str(entry.bucket) == " ".join(bucket.split())]
        if not found:
            known = ", ".join(str(entry.bucket) for entry in config.entries[:8])
            raise ConfigError(f"there is no bucket {bucket!r} in the config", f"such as {known}")
        if found[0].pass_through:
            raise ConfigError(f"the bucket {found[0].bucket} passes through", "there is nothing to verify")
        return found
    found = [entry for entry in config.entries if not entry.pass_through]
    if not found:
        raise ConfigError("every bucket of the config passes through", "there is nothing to verify")
    return found


def _print(outcome: Outcome, options: Options) -> None:
    from rich.console import Console
    from rich.table import Table

    from overlap.commands.table_print import times

    found, entry = outcome.verified, outcome.entry
    console = Console()
    title = f"{found.model}, {entry.bucket}, {found.evidence}"
    console.print(title, highlight=False, soft_wrap=True, markup=False)
    table = Table(box=None, pad_edge=False)
    for name in ("", "tuned over", "speed-up"):
        table.add_column(name, justify="right" if name == "speed-up" else "left")
    if found.block is not None:
        table.add_row("block", f"the unsplit block, {outcome.order}", times(found.block))
    table.add_row("model", "untouched", times(found.model_speedup))
    if found.model_over_eager is not None:
        table.add_row("model", "plain attention, all scores", times(found.model_over_eager))
    console.print(table, "")
    facts: dict[str, Any] = {
        "time of the model": f"{_ms(found.untouched_latency_us.median)} → {_ms(found.model_latency_us.median)}",
        "peak memory": f"{_mib(found.untouched_peak_bytes)} → {_mib(found.peak_bytes)}",
        "greedy tokens": outcome.tokens_in_words,
        "logits": "no numbers" if found.logits_rel_l2 is None else f"{found.logits_rel_l2:.1e} apart (relative L2)",
        "stack": f"{found.stack}, {found.device}",
        "calls": outcome.ran,
    }
    for name, value in facts.items():
        console.print(f"  {name:<18} {value}", highlight=False, soft_wrap=True, markup=False)
    console.print(f"verdict: {found.verdict}: {found.reason}", highlight=False, soft_wrap=True, markup=False)
    console.print(f"written into {options.path}", "", highlight=False, soft_wrap=True, markup=False)


def _ms(us: float) -> str:
    return f"{us / 1e3:.1f} ms"


def _mib(count: int | None) -> str:
    return "not counted" if count is None else f"{count / 2**20:.0f} MiB"
