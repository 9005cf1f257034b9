"""A frame: what has been recorded so far of a program or of a piece, and how pieces are stamped into it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import torch

from overlap.capture.kernelize import ALLOCATE, OVERWRITE, OpDraft, base_name, build_kernel, call_work, tensors_in
from overlap.errors import ProgramError
from overlap.program import Call, Op, Ref, RootSpec, Slot, ViewCall

# Views that change nothing.
SAME = {"alias", "detach"}


class Place(NamedTuple):
    """Where in the model an op lies; -1 and empty mean unknown, and are filled in by the frame it is stamped into."""

    path: str = ""
    phase: str = ""
    layer: int = -1
    chunk: int = -1
    graph: int = 0


class Recorded(NamedTuple):
    """A finished frame. The first `inputs` roots stand for what the caller passes in."""

    ops: tuple[Op, ...]
    roots: tuple[RootSpec, ...]
    inputs: int
    outputs: tuple[Ref, ...]
    out_spec: Any


class Frame:
    """Recording state. Tensors are known by object identity, so every tensor seen is kept alive with the frame."""

    def __init__(self) -> None:
        self.place = Place()
        self.roots: list[RootSpec] = []
        self._refs: dict[int, Ref] = {}
        self._keep: list[torch.Tensor] = []
        self._items: list[OpDraft | Op] = []
        self._used: set[int] = set()
        self._draft: OpDraft | None = None

    # -- tensors ---------------------------------------------------------------------------------------------------

    def add_root(self, tensor: torch.Tensor, name: str = "", buffer: bool = False) -> Ref:
        """Register a tensor that owns its memory."""
        size = tuple(tensor.shape)
        nbytes = tensor.untyped_storage().nbytes()
        ref = Ref(len(self.roots), (), size, tensor.stride(), 0, tensor.dtype)
        self.roots.append(RootSpec(size, tensor.stride(), tensor.dtype, nbytes, name, buffer))
        self.know(tensor, ref)
        return ref

    def know(self, tensor: torch.Tensor, ref: Ref) -> None:
        """Remember what `tensor` stands for."""
        self._refs[id(tensor)] = ref
        self._keep.append(tensor)

    def ref_of(self, tensor: torch.Tensor) -> Ref:
        """What `tensor` stands for.

        Raises:
            ProgramError: it was made outside of the recording.
        """
        ref = self._refs.get(id(tensor))
        if ref is None:
            raise ProgramError(
                f"a {tuple(tensor.shape)} tensor enters {self.place.path or 'the program'} from outside of the capture",
                "declare it with Recorder.input or pass it to the piece",
            )
        return ref

    # -- ops -------------------------------------------------------------------------------------------------------

    def open_op(self, name: str) -> None:
        """Start an op; calls until `close_op` belong to it."""
        if self._draft is not None:
            raise ProgramError(f"op {name} inside op {self._draft.name}", "ops do not nest")
        path, phase, layer, chunk, graph = self.place
        self._draft = OpDraft(f"{path}.{name}" if path else name, phase, layer, chunk, graph)

    def close_op(self) -> None:
        """End the current op."""
        assert self._draft is not None
        self._items.append(self._draft)
        self._draft = None

    def record(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], made: Any) -> None:
        """Sort one ATen call: a view, an allocation, or work of the current op."""
        outputs = list(tensors_in(made))
        written = _written(func, args, kwargs)
        aliased = None if written else _aliased(args, outputs)
        if aliased is not None:
            self._record_view(func, args, kwargs, aliased, made)
        elif self._draft is not None:
            self._record_work(self._draft, func, args, kwargs, outputs, written)
        elif base_name(func) in ALLOCATE:
            for output in outputs:
                self.add_root(output, buffer=True)
        else:
            raise ProgramError(
                f"{func} outside any op in {self.place.path or 'the program'}", "wrap it in `with op(name):`"
            )

    def _record_view(
        self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], source: torch.Tensor, made: Any
    ) -> None:
        """Views cost nothing: inside an op on its own values they are calls, otherwise steps of a chain."""
        if args[0] is not source or kwargs:
            raise ProgramError(f"view {func} of an argument that is not its first", "use a plain view")
        ref = self.ref_of(source)
        draft = self._draft
        inside = draft is not None and id(source) in draft.local
        if base_name(func) in SAME:
            self.know(made, ref)
            if draft is not None and inside:
                draft.local[id(made)] = draft.local[id(source)]
            return
        many = not isinstance(made, torch.Tensor)
        outputs = list(made) if many else [made]
        if draft is not None and inside:
            slots = tuple(draft.new_slot() for _ in outputs)
            draft.calls.append(Call(func, (Slot(draft.local[id(source)]), *args[1:]), {}, slots))
            draft.local.update({id(output): slot for output, slot in zip(outputs, slots, strict=True)})
        for position, output in enumerate(outputs):
            step = ViewCall(func, args[1:], position if many else -1)
            self.know(
                output,
                Ref(
                    ref.root,
                    (*ref.chain, step),
                    tuple(output.shape),
                    output.stride(),
                    output.storage_offset(),
                    output.dtype,
                ),
            )

    def _record_work(
        self,
        draft: OpDraft,
        func: Any,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        outputs: list[torch.Tensor],
        written: set[int],
    ) -> None:
        """A call that computes: map its tensors to slots and note what it reads, writes and creates."""
        kwargs = _deviceless(func, args, kwargs)
        overwrites = base_name(func) in OVERWRITE or "out" in kwargs
        bound_args = self._bind(draft, args, written, overwrites)
        bound_kwargs = self._bind(draft, kwargs, written, overwrites)
        draft.work.append(call_work(func, args, kwargs, outputs))
        slots = []
        for output in outputs:
            slot = draft.new_slot()
            slots.append(slot)
            if id(output) in written:
                continue
            root = self.add_root(output).root
            draft.local[id(output)] = slot
            draft.created[root] = slot
        draft.calls.append(Call(func, bound_args, bound_kwargs, tuple(slots)))

    def _bind(self, draft: OpDraft, value: Any, written: set[int], overwrites: bool) -> Any:
        """Replace tensors by slots."""
        if isinstance(value, torch.Tensor):
            return Slot(self._slot(draft, value, id(value) in written, overwrites))
        if isinstance(value, (tuple, list)):
            return type(value)([self._bind(draft, item, written, overwrites) for item in value])
        if isinstance(value, dict):
            return {key: self._bind(draft, item, written, overwrites) for key, item in value.items()}
        return value

    def _slot(self, draft: OpDraft, tensor: torch.Tensor, written: bool, overwrites: bool) -> int:
        """Slot of a tensor: a value of the op, or an input of it (added when it is new)."""
        local = draft.local.get(id(tensor))
        if local is not None:
            return local
        ref = self.ref_of(tensor)
        if ref in draft.refs:
            position = draft.refs.index(ref)
        else:
            position = len(draft.refs)
            draft.refs.append(ref)
            draft.ref_slots.append(draft.new_slot())
            self._used.add(ref.root)
        if written:
            draft.written.add(position)
        if not (written and overwrites):
            draft.read.add(position)
        return draft.ref_slots[position]

    # -- pieces ----------------------------------------------------------------------------------------------------

    def finish(self, outputs: Iterable[Ref], inputs: int = 0, out_spec: Any = None) -> Recorded:
        """Turn drafts into ops; a created root that nobody else uses stays inside its op."""
        refs = tuple(outputs)
        self._used.update(ref.root for ref in refs)
        root_bytes = {root: spec.bytes for root, spec in enumerate(self.roots)}
        ops = tuple(self._build(item, root_bytes) if isinstance(item, OpDraft) else item for item in self._items)
        return Recorded(ops, tuple(self.roots), inputs, refs, out_spec)

    def _build(self, draft: OpDraft, root_bytes: dict[int, int]) -> Op:
        outputs = tuple(root for root in draft.created if root in self._used)
        _inputs_first(draft)
        kernel = build_kernel(draft, outputs, root_bytes)
        reads, writes = tuple(sorted(draft.read)), tuple(sorted(draft.written))
        return Op(
            draft.name,
            kernel,
            tuple(draft.refs),
            reads,
            writes,
            outputs,
            draft.layer,
            draft.chunk,
            draft.phase,
            draft.graph,
        )

    def stamp(self, recorded: Recorded, arguments: Sequence[Ref]) -> list[Ref]:
        """Copy a recorded piece in, its input roots replaced by `arguments`; returns the refs of its results."""
        self._used.update(ref.root for ref in arguments)
        shift = len(self.roots) - recorded.inputs
        self.roots.extend(recorded.roots[recorded.inputs :])
        path, phase, layer, chunk, graph = self.place
        prefix = f"{path}." if path else ""
        inputs = recorded.inputs
        for op in recorded.ops:
            refs = tuple(
                _compose(arguments[ref[0]], ref) if ref[0] < inputs else Ref(ref[0] + shift, *ref[1:])
                for ref in op.refs
            )
            self._items.append(
                Op(
                    prefix + op.name,
                    op.kernel,
                    refs,
                    op.reads,
                    op.writes,
                    tuple(root + shift for root in op.outputs),
                    layer if op.layer < 0 else op.layer,
                    chunk if op.chunk < 0 else op.chunk,
                    op.phase or phase,
                    graph,
                )
            )
        return [
            _compose(arguments[ref[0]], ref) if ref[0] < inputs else Ref(ref[0] + shift, *ref[1:])
            for ref in recorded.outputs
        ]


def _compose(outer: Ref, inner: Ref) -> Ref:
    """`inner`, a view of a piece's input, as a view of the root that was passed in as `outer`."""
    return Ref(
        outer.root, outer.chain + inner.chain, inner.size, inner.stride, outer.offset + inner.offset, inner.dtype
    )


def _inputs_first(draft: OpDraft) -> None:
    """Renumber slots so that the refs are slots 0..n-1, which is how `Kernel.run` is called."""
    rest = [slot for slot in range(draft.slots) if slot not in set(draft.ref_slots)]
    place = {slot: position for position, slot in enumerate([*draft.ref_slots, *rest])}

    def renumber(value: Any) -> Any:
        kind = type(value)
        if kind is Slot:
            return Slot(place[value.at])
        if kind is tuple or kind is list:
            return kind([renumber(item) for item in value])
        if kind is dict:
            return {key: renumber(item) for key, item in value.items()}
        return value

    draft.calls = [
        Call(call.func, renumber(call.args), renumber(call.kwargs), tuple(place[slot] for slot in call.out))
        for call in draft.calls
    ]
    draft.created = {root: place[slot] for root, slot in draft.created.items()}
    draft.ref_slots = list(range(len(draft.ref_slots)))


def _written(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> set[int]:
    """Identities of the arguments that the call writes, by its schema."""
    if not func._schema.is_mutable:
        return set()
    found: set[int] = set()
    for position, argument in enumerate(func._schema.arguments):
        if argument.alias_info is None or not argument.alias_info.is_write:
            continue
        value = args[position] if position < len(args) else kwargs.get(argument.name)
        found.update(id(tensor) for tensor in tensors_in(value))
    return found


def _deviceless(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any]:
    """Without the meta device that the call was recorded on, so that it runs wherever its tensors are."""
    device = kwargs.get("device")
    if device is None or torch.device(device).type != "meta":
        return kwargs
    if next(tensors_in(args), None) is None:
        raise ProgramError(f"{func} inside an op names its device", "use tensor.new_empty and the like")
    return {name: value for name, value in kwargs.items() if name not in ("device", "layout", "pin_memory")}


def _aliased(args: tuple[Any, ...], outputs: list[torch.Tensor]) -> torch.Tensor | None:
    """The argument whose memory the outputs share, if this is a view."""
    if not outputs:
        return None
    memory = outputs[0].untyped_storage()._cdata
    for tensor in tensors_in(args):
        if tensor.untyped_storage()._cdata == memory:
            return tensor
    return None
