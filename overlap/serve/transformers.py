"""A tuned config at work in a Hugging Face model: `apply(model, tuned)` and `remove(model)`.

    from overlap.serve.transformers import apply, remove

    applied = apply(model, "tuned.yaml")
    model.generate(...)
    print(applied.counts)
    remove(model)

Calls of tuned shapes run by their split, all others as before. What a split does within a layer is an attention
function of its own name; a split that carries chunks through layers takes over the calls of the decoder layers.

Contract: `apply` changes nothing if it raises; `remove` leaves the model as it was before `apply`. Remove before a copy
is made or a model is pickled: the copy asks for an attention by a name that goes with the original. In code under
torch.compile calls run tuned within their layers and are not counted.
"""

from __future__ import annotations

import logging
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from weakref import WeakKeyDictionary, finalize

from overlap.errors import ServeError
from overlap.serve.counts import Counts
from overlap.serve.hf.attention import TunedAttention
from overlap.serve.hf.carry import Carry, carries
from overlap.serve.hf.seams import Seam, find_seam, host_of
from overlap.serve.lookup import Lookup, check_key
from overlap.serve.tuned import Entry, Tuned
from overlap.serve.tuned_file import load

log = logging.getLogger("overlap.serve")


@dataclass(frozen=True)
class Applied:
    """What `apply` did: `counts` tells how often calls ran tuned, and why others did not."""

    tuned: Tuned
    counts: Counts
    warnings: tuple[str, ...]
    seam: Seam
    function: TunedAttention
    carry: Carry | None
    # Forgets the function's name when the model is gone.
    finalizer: finalize[..., Any]


_applied: WeakKeyDictionary[Any, Applied] = WeakKeyDictionary()


def apply(model: Any, tuned: Tuned | str | Path, *, pad: bool = False, waive: Collection[str] = ()) -> Applied:
    """Let `model` run by `tuned`, a config or the path of one.

    Args:
        model: a causal language model of transformers, of the llama, mistral, qwen2 or qwen3 family.
        tuned: tuned for this model, its dtype, its device and this software.
        pad: whether a call may be padded to the smallest tuned bucket that contains it.
        waive: parts of the key that may differ: dtype, device, software. What is true of one is a guess on another.

    Raises:
        TunedError: the config is damaged, or was tuned for something else.
        ServeError: the model has no seam, transformers is too old, or a config is applied already.
    """
    if model in _applied:
        raise ServeError("a tuned config is applied to this model already", "remove(model) first")
    config = tuned if isinstance(tuned, Tuned) else load(Path(tuned))
    seam = find_seam(model)
    here = host_of(model)
    warnings = check_key(config, here, waive)
    counts, lookup = Counts(), Lookup(config, pad)
    function = TunedAttention(seam, lookup, counts)
    carried = any(carries(entry.split) for entry in config.entries if not entry.pass_through)
    carry = Carry(seam, here.model, lookup, function) if carried else None
    _install(model, seam, function, carry)
    finalizer = finalize(model, function.unregister)
    applied = _applied[model] = Applied(config, counts, tuple(warnings), seam, function, carry, finalizer)
    _tell(type(model).__name__, applied)
    return applied


def remove(model: Any) -> None:
    """Leave `model` as it was before `apply`.

    Raises:
        ServeError: nothing is applied to it.
    """
    applied = _applied.pop(model, None)
    if applied is None:
        raise ServeError("no tuned config is applied to this model", "apply(model, tuned) first")
    log.info("overlap: removed; %s", applied.counts)
    if applied.carry is not None:
        applied.carry.uninstall()
    if model.config._attn_implementation == applied.function.name:
        model.set_attn_implementation(applied.seam.original_name)
    applied.finalizer()


def _install(model: Any, seam: Seam, function: TunedAttention, carry: Carry | None) -> None:
    function.register(seam.original_name)
    try:
        model.set_attn_implementation(function.name)
        if model.config._attn_implementation != function.name:
            name = type(model).__name__
            raise ServeError(f"{name} has no seam: it takes no attention by name", "a model of transformers 5")
    except BaseException:
        function.unregister()
        raise
    if carry is not None:
        carry.install(model.base_model)


def _tell(name: str, applied: Applied) -> None:
    """One line per bucket, and what nobody knows."""
    for warning in applied.warnings:
        log.warning("overlap: %s", warning)
    device = applied.tuned.device
    log.info("overlap: %s runs by a config tuned on %s (%s)", name, device.name, device.evidence)
    for entry in applied.tuned.entries:
        log.info("overlap: %s: %s", entry.bucket, _in_words(entry))


def _in_words(entry: Entry) -> str:
    """What a bucket runs by, and what that was worth when it was tuned."""
    if entry.pass_through:
        return "as before"
    over = f", {entry.speedup_vs_stack.median:.3f}x over the stack" if entry.speedup_vs_stack else ""
    return f"{entry.split}; when tuned {entry.speedup.median:.3f}x over the unsplit block{over}"
