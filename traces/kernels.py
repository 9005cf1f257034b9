"""CUDA and ROCm kernel names in a length that people can read.

`void at::native::vectorized_elementwise_kernel<4, at::native::CUDAFunctor_add<float>, …>(int, …)` becomes
`vectorized_elementwise_kernel<CUDAFunctor_add>`: without return type, parameters, namespaces and numbers of templates,
but with the first functor, for it is what tells one elementwise kernel from another.
"""

from __future__ import annotations

import re

_SPACES = re.compile(r"\(anonymous namespace\)::|(?<![\w:])(?:void|static|std::enable_if<.*?>::type)\s+")
_NAMESPACES = re.compile(r"(?:[A-Za-z_]\w*::)+")
_FUNCTOR = re.compile(r"([A-Za-z_]\w*(?:[Ff]unctor|_kernel|Ops?\b)\w*)")
# Words in a functor's place that say nothing about what is computed.
_PLUMBING = re.compile(r"gpu_kernel_impl|TensorIterator|(?:B|A|Binary)?(?:Unary)?Functor$|multi_tensor_apply_kernel")
# Kernels of CUTLASS are one template; what they are is its first argument.
_WRAPPERS = ("Kernel", "Kernel2", "device_kernel")
LONGEST = 120
# `f(int)` and `f<4>` are C++, `Memcpy HtoD (Pinned -> Device)` is not.
_CODE = re.compile(r"<|\S\(")


def short_kernel(name: str) -> str:
    """Short form of a kernel's name; names that are not C++ stay as they are, up to `LONGEST` characters."""
    if not _CODE.search(name):
        return name[:LONGEST]
    text = _SPACES.sub("", name)
    head = re.split(r"[<(]", text, maxsplit=1)[0]
    rest = text[len(head) :]
    base = _NAMESPACES.sub("", head).strip() or name[:LONGEST]
    if base in _WRAPPERS and (inner := re.match(r"<\s*([\w:]+)", rest)):
        return _NAMESPACES.sub("", inner.group(1))[:LONGEST]
    named = (found for found in _FUNCTOR.findall(rest) if found != base and not _PLUMBING.match(found))
    functor = next(named, "")
    return (f"{base}<{functor}>" if functor else base)[:LONGEST]
