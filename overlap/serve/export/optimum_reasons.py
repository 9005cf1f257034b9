"""What of a kept split no option of optimum-habana says, in words."""

from __future__ import annotations

from collections.abc import Iterator

from overlap.serve.export.choose import Shape
from overlap.serve.export.plan import Option

NO_OPTION = {
    "head_groups": "no option cuts heads",
    "query_tile": "query tiles are chosen by length inside of the models, no option sets them",
    "kv_tile": "no option cuts keys",
    "normalise": "no option moves the normalisation",
    "projections": "no option separates projections",
    "attend": "parts of a batch attend apart",
}


def reasons_of(shape: Shape, option: Option, family: str) -> Iterator[str]:
    """What of the kept split no option says."""
    entry, cards = shape.entry, shape.workload.tensor_parallel
    if option.split is not None and shape.times.get(option.split) is not None and shape.times[option.split].is_kept:
        return
    changed = entry.split.changed()
    for name, reason in NO_OPTION.items():
        if name in changed:
            yield f"{name}={changed[name]}: {reason}"
    if entry.split.chunks > 1:
        axis = entry.split.chunk_axis
        why = "only parts of the batch are" if axis == "query" else _why_no_parts(family, cards)
        yield f"chunks={entry.split.chunks} along the {axis}: {why}"
    if entry.order != "program":
        yield f"order {entry.order}: no option orders programs"


def _why_no_parts(family: str, cards: int) -> str:
    if family != "llama":
        return f"only Llama has parts of the batch, not {family or 'this model'}"
    return "one card runs no parts of the batch" if cards == 1 else "the order of its parts is another one"
