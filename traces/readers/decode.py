"""Text of rows of a Chrome trace → typed rows: quickly where the text is sound, patiently where it is not.

Times: `ts` and `dur` are µs with decimals, read as doubles first because that is quick. A double holds ns up to 2**43
µs (three months); `Batch.made_exact` reads the decimal text again where times are beyond that, so no ns is ever lost.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import msgspec

from overlap.traces.readers.times import micros_to_ns

BETWEEN = b", \t\r\n"
# Values that JSON does not have, as some profilers print them.
_NO_JSON = re.compile(rb"(?<=[:\[,])\s*[-+]?(?:nan|inf|infinity|n/a|none|undefined)(?:\([^)\"]*\))?\s*(?=[,}\]])", re.I)
_SURROGATE = re.compile(rb"\\u[dD][89a-fA-F][0-9a-fA-F]{2}")
_CONTROL = bytes(max(byte, 32) for byte in range(256))
_BROKEN = (msgspec.DecodeError, UnicodeError, RecursionError)


class Args(msgspec.Struct, gc=False, frozen=True):
    """What is used of the `args` of a profiler's row; -1 and None stand for absent."""

    device: Any = -1
    correlation: Any = -1
    external: Any = msgspec.field(default=-1, name="External id")
    external_old: Any = msgspec.field(default=-1, name="external id")
    bytes: Any = -1
    node: str | None = msgspec.field(default=None, name="EventName")
    event: str | None = msgspec.field(default=None, name="HW event name")
    recipe: int | str | None = msgspec.field(default=None, name="recipeId")
    recipe_name: str | None = msgspec.field(default=None, name="recipeName")
    name: Any = None
    dims: msgspec.Raw = msgspec.field(default=msgspec.Raw(b""), name="Input Dims")
    types: msgspec.Raw = msgspec.field(default=msgspec.Raw(b""), name="Input type")


NO_ARGS = Args()


class Row(msgspec.Struct, gc=False):
    """One row. `ts` and `dur` are µs; in a batch that is exact, integer ns."""

    ph: str = ""
    cat: str = ""
    name: str = ""
    pid: int | str | None = None
    tid: int | str | None = None
    ts: float = -1.0
    dur: float = -0.001
    args: Args | None = NO_ARGS


class _LooseRow(msgspec.Struct, gc=False):
    """A row whose types are not what they should be, or whose times need their decimals."""

    ph: Any = ""
    cat: Any = ""
    name: Any = ""
    pid: Any = None
    tid: Any = None
    ts: msgspec.Raw = msgspec.Raw(b"")
    dur: msgspec.Raw = msgspec.Raw(b"")
    args: msgspec.Raw = msgspec.Raw(b"null")


@dataclass
class Batch:
    """Rows in file order. `exact`: their times are integer ns, None where there is none; otherwise doubles of µs."""

    rows: list[Any]
    exact: bool = False
    again: Callable[[], Batch | None] = lambda: None

    def with_args(self, args: Any) -> Batch:
        """The same rows with `args` where they have none."""
        for row in self.rows:
            if row.args is None:
                row.args = args
        return self

    def made_exact(self) -> Batch:
        """The same rows with times from their decimal text."""
        return self if self.exact else self.again() or self


class Decoding:
    """Decoders for one type of row: `row_type` is `Row` or derived from it, `no_args` what stands for absent args."""

    def __init__(self, row_type: type[Row] = Row, args_type: Any = Args, no_args: Any = NO_ARGS) -> None:
        self.row_type = row_type
        self.no_args = no_args
        self._strict = msgspec.json.Decoder(list[row_type])  # type: ignore[valid-type]
        self._loose = msgspec.json.Decoder(list[_LooseRow])
        self._args = msgspec.json.Decoder(args_type)

    def block(self, text: bytes) -> Batch | None:
        """All rows of `[`, rows, `]`; None if that cannot be read as a whole."""
        try:
            return Batch(self._strict.decode(text), again=lambda: self.loose(text[1:-1]))
        except msgspec.ValidationError:
            return self.loose(text[1:-1])
        except _BROKEN:
            pass
        clean = cleaned(text)
        try:
            return Batch(self._strict.decode(clean), again=lambda: self.loose(clean[1:-1]))
        except _BROKEN:
            return self.loose(clean[1:-1])

    def loose(self, text: bytes) -> Batch | None:
        """All rows of a text without brackets, with exact times and any types; None as above."""
        for clean in (_as_it_is, cleaned):
            try:
                found = self._loose.decode(b"[" + clean(text).rstrip(BETWEEN) + b"]")
            except _BROKEN:
                continue
            return Batch([self._tightened(row) for row in found], exact=True)
        return None

    def _tightened(self, row: _LooseRow) -> Row:
        """Text where text is due, integer ns for times; args that are not what they should be are absent."""
        try:
            args = self._args.decode(row.args)
        except _BROKEN:
            args = self.no_args
        ph, cat, name = ("" if one is None else str(one) for one in (row.ph, row.cat, row.name))
        pid, tid = (one if one is None or isinstance(one, int | str) else str(one) for one in (row.pid, row.tid))
        start, length = (micros_to_ns(bytes(one)) for one in (row.ts, row.dur))
        times: Any = {"ts": start, "dur": length}
        return self.row_type(ph=ph, cat=cat, name=name, pid=pid, tid=tid, args=args, **times)


class PlainDecoding(Decoding):
    """Rows as dictionaries with everything that is in them; times are left as they are."""

    def __init__(self) -> None:
        super().__init__()
        self._plain = msgspec.json.Decoder(list[dict[str, Any]])

    def loose(self, text: bytes) -> Batch | None:
        """The same for a text without brackets."""
        return self.block(b"[" + text.rstrip(BETWEEN) + b"]")

    def block(self, text: bytes) -> Batch | None:
        """All rows of `[`, rows, `]`; None if that cannot be read as a whole."""
        for clean in (_as_it_is, cleaned):
            try:
                return Batch(self._plain.decode(clean(text)), exact=True)
            except _BROKEN:
                continue
        return None


def _as_it_is(text: bytes) -> bytes:
    return text


def cleaned(text: bytes) -> bytes:
    """`text` without what JSON forbids but profilers write."""
    text = text.translate(_CONTROL)
    text = text.decode("utf-8", "replace").encode()
    return _SURROGATE.sub(b"\\\\ufffd", _NO_JSON.sub(b" null", text))
