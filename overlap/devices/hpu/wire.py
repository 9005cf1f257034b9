"""Messages between the process that searches and the one that holds the card: pickles over a pipe, tensors in files."""

from __future__ import annotations

import io
import pickle
from collections.abc import Mapping
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import torch

# Operators of ours, which a message may name, are there once their modules are.
import overlap.kernels.collective
import overlap.kernels.fused  # noqa: F401


class _Pickler(pickle.Pickler):
    """Knows operators, which PyTorch does not pickle: they go by name."""

    def reducer_override(self, value: Any) -> Any:
        """How to make `value` again."""
        if isinstance(value, torch._ops.OpOverload):
            return _operator, (value.namespace, value._opname, value._overloadname)
        return NotImplemented


def _operator(namespace: str, name: str, overload: str) -> Any:
    return getattr(getattr(getattr(torch.ops, namespace), name), overload)


def send(connection: Connection, message: object) -> None:
    """Send one message."""
    buffer = io.BytesIO()
    _Pickler(buffer, protocol=pickle.HIGHEST_PROTOCOL).dump(message)
    connection.send_bytes(buffer.getbuffer())


def receive(connection: Connection) -> Any:
    """Wait for one message; raises `EOFError` when the other side is gone. Only ever used between our own processes."""
    return pickle.loads(connection.recv_bytes())


def save(tensors: Mapping[str, torch.Tensor], path: Path) -> None:
    """Tensors into a file."""
    torch.save(dict(tensors), path)


def load(path: Path) -> dict[str, torch.Tensor]:
    """Tensors out of a file, which is read as they are used."""
    found: dict[str, torch.Tensor] = torch.load(path, mmap=True, weights_only=True)
    return found
