"""The plainest way to run a program: op by op on this machine's CPU. For devices that compute no values themselves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch

from overlap.program import Program

# What memory holds that ops fill piecewise: finite, and far from any value of a working model.
POISON = 100.0


def interpret(program: Program, order: Sequence[int], inputs: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Clones of the program's outputs after its ops ran one by one in `order`; memory to be written is poisoned."""
    for op in program.ops:
        for position in op.writes:
            ref = op.refs[position]
            if name := program.roots[ref.root].name:
                ref.resolve(inputs[name]).fill_(POISON)
    roots: list[torch.Tensor | None] = []
    for spec in program.roots:
        if spec.name:
            roots.append(inputs[spec.name])
        elif spec.buffer:
            roots.append(torch.empty_strided(spec.shape, spec.stride, dtype=spec.dtype).fill_(POISON))
        else:
            roots.append(None)
    with torch.inference_mode():
        for index in order:
            op = program.ops[index]
            made = op.kernel.run([ref.resolve(_there(roots[ref.root])) for ref in op.refs])
            for root, tensor in zip(op.outputs, made, strict=True):
                roots[root] = tensor
    return {name: ref.resolve(_there(roots[ref.root])).clone() for name, ref in program.outputs.items()}


def _there(tensor: torch.Tensor | None) -> torch.Tensor:
    assert tensor is not None
    return tensor
