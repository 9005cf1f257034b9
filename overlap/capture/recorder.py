"""The recorder: a dispatch mode that sees every ATen call on meta tensors and sorts it into ops, views and roots."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from contextvars import ContextVar
from typing import Any, ParamSpec, TypeVar, cast

import torch

# PyTorch imports this, a second's worth of modules, at the first call under a dispatch mode. Better here, where other
# imports are paid, than in the middle of the first capture.
import torch._dynamo
from torch.utils._python_dispatch import TorchDispatchMode

from overlap.capture.edges import find_edges
from overlap.capture.frame import Frame, Place, Recorded
from overlap.errors import ProgramError
from overlap.program import Program

_P = ParamSpec("_P")
_R = TypeVar("_R")

_active: ContextVar[Recorder | None] = ContextVar("overlap_recorder", default=None)
_pieces: dict[Any, Recorded] = {}


class Recorder(TorchDispatchMode):
    """Records the program that the code under it describes.

    Usage::

        with Recorder() as recorder:
            x = recorder.input("x", (2, 8), torch.float32)
            with op("double"):
                y = x * 2
        program = recorder.finish({"y": y})
    """

    def __init__(self) -> None:
        super().__init__()
        self.frame = Frame()
        self._paused = False
        self._token: Any = None

    def __enter__(self) -> Recorder:
        """Start recording on this thread."""
        self._token = _active.set(self)
        super().__enter__()
        return self

    def __exit__(self, *exc: Any) -> None:
        """Stop recording."""
        super().__exit__(*exc)
        _active.reset(self._token)

    def input(self, name: str, shape: tuple[int, ...], dtype: torch.dtype) -> torch.Tensor:
        """A named input of the program, as a meta tensor."""
        tensor = self.meta(shape, None, dtype)
        self.frame.add_root(tensor, name=name)
        return tensor

    def meta(self, size: tuple[int, ...], stride: tuple[int, ...] | None, dtype: torch.dtype) -> torch.Tensor:
        """A meta tensor that the recorder does not see being made."""
        self._paused = True
        try:
            if stride is None:
                return torch.empty(size, dtype=dtype, device="meta")
            return torch.empty_strided(size, stride, dtype=dtype, device="meta")
        finally:
            self._paused = False

    def finish(self, outputs: Mapping[str, torch.Tensor], label: str = "") -> Program:
        """The program; `outputs` are what a caller wants back, by name."""
        refs = {name: self.frame.ref_of(tensor) for name, tensor in outputs.items()}
        recorded = self.frame.finish(refs.values())
        ops, roots = recorded.ops, recorded.roots
        return Program(ops=ops, roots=roots, outputs=refs, predecessors=find_edges(ops, roots), label=label)

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Run the call on meta tensors and record it."""
        kwargs = kwargs or {}
        made = func(*args, **kwargs)
        if not self._paused:
            self.frame.record(func, args, kwargs, made)
        return made

    def call_piece(self, func: Callable[..., Any], args: tuple[Any, ...]) -> Any:
        """Stamp `func(*args)`, recording it first if this call is new."""
        tensors: list[torch.Tensor] = []
        spec = _flatten(args, tensors)
        geometry = tuple((tuple(t.shape), t.stride(), t.dtype) for t in tensors)
        key = (func, spec, geometry)
        recorded = _pieces.get(key)
        if recorded is None:
            recorded = _pieces[key] = self._record_piece(func, spec, geometry)
        return self._stamp(recorded, tensors)

    def _record_piece(self, func: Callable[..., Any], spec: Any, geometry: tuple[Any, ...]) -> Recorded:
        """Run `func` once on fresh meta tensors in a frame of its own."""
        outer, self.frame = self.frame, Frame()
        try:
            fresh = [self.meta(*one) for one in geometry]
            for tensor in fresh:
                self.frame.add_root(tensor)
            result = func(*_unflatten(spec, iter(fresh)))
            tensors: list[torch.Tensor] = []
            out_spec = _flatten(result, tensors)
            return self.frame.finish([self.frame.ref_of(tensor) for tensor in tensors], len(fresh), out_spec)
        finally:
            self.frame = outer

    def _stamp(self, recorded: Recorded, tensors: list[torch.Tensor]) -> Any:
        """Copy a recorded piece into the current frame and make meta tensors for its results."""
        refs = self.frame.stamp(recorded, [self.frame.ref_of(tensor) for tensor in tensors])
        made = []
        for ref in refs:
            tensor = self.meta(ref.size, ref.stride, ref.dtype)
            self.frame.know(tensor, ref)
            made.append(tensor)
        return _unflatten(recorded.out_spec, iter(made))


class _Leaf:
    """Stands for a tensor in a flattened argument structure."""


_LEAF = _Leaf()


def _flatten(value: Any, tensors: list[torch.Tensor]) -> Any:
    """Hashable structure of `value` with its tensors taken out (tuples, named tuples and lists are walked)."""
    if isinstance(value, torch.Tensor):
        tensors.append(value)
        return _LEAF
    if isinstance(value, (tuple, list)):
        return (type(value), tuple(_flatten(item, tensors) for item in value))
    return value


def _unflatten(spec: Any, tensors: Iterator[torch.Tensor]) -> Any:
    """The inverse of `_flatten`."""
    if spec is _LEAF:
        return next(tensors)
    if isinstance(spec, tuple):
        kind, items = spec
        built = [_unflatten(item, tensors) for item in items]
        return kind(*built) if hasattr(kind, "_fields") else kind(built)
    return spec


def piece(func: Callable[_P, _R]) -> Callable[_P, _R]:
    """Record `func` once per distinct call (static arguments and tensor geometry) and stamp it afterwards.

    Arguments must be positional: tensors, hashable values, or tuples and lists of these. The function may not depend on
    anything else, and may not tell apart views of one tensor from separate tensors.
    """

    @functools.wraps(func)
    def call(*args: _P.args, **kwargs: _P.kwargs) -> _R:
        recorder = _recording()
        if recorder is None:
            return func(*args, **kwargs)
        if kwargs:
            raise ProgramError(f"piece {func.__name__} called with keywords", "pass its arguments by position")
        return cast(_R, recorder.call_piece(func, args))

    return call


def _recording() -> Recorder | None:
    """The recorder of this thread. A compiler that traces the code must not find a context variable, nor need one."""
    return None if torch.compiler.is_compiling() else _active.get()


@contextmanager
def _op_scope(recorder: Recorder, name: str) -> Iterator[None]:
    recorder.frame.open_op(name)
    try:
        yield
    finally:
        recorder.frame.close_op()


def op(name: str) -> AbstractContextManager[None]:
    """Name the calls under it as one op, `<region>.<name>`."""
    recorder = _recording()
    return nullcontext() if recorder is None else _op_scope(recorder, name)


def region(
    name: str = "",
    *,
    phase: str | None = None,
    layer: int | None = None,
    chunk: int | None = None,
    graph: int | None = None,
) -> AbstractContextManager[None]:
    """Say where the ops under it lie; `name` is added to their path. Regions nest."""
    recorder = _recording()
    if recorder is None:
        return nullcontext()
    outer = recorder.frame.place
    inner = Place(
        path=f"{outer.path}.{name}" if outer.path and name else outer.path or name,
        phase=outer.phase if phase is None else phase,
        layer=outer.layer if layer is None else layer,
        chunk=outer.chunk if chunk is None else chunk,
        graph=outer.graph if graph is None else graph,
    )
    return _placed(recorder.frame, inner)


@contextmanager
def _placed(frame: Frame, place: Place) -> Iterator[None]:
    outer, frame.place = frame.place, place
    try:
        yield
    finally:
        frame.place = outer
