"""Questions to a predictor, as values: a case is a weighted sum of them, and equal ones are asked once."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Protocol

from overlap.devices.gaudi.validation.models import Model
from overlap.devices.gaudi.validation.predictor import Predictor, Stack
from overlap.workload import Bucket


class Call(Protocol):
    """One question; hashable, so that answers can be kept."""

    def ask(self, predictor: Predictor) -> float:
        """The predicted time in ns."""
        ...

    def __hash__(self) -> int:
        """Equal questions have equal hashes."""
        ...


@dataclass(frozen=True)
class Gemm:
    """One GEMM; `batch` counts independent products of the same sizes."""

    dtype: str
    m: int
    n: int
    k: int
    batch: int = 1

    def ask(self, predictor: Predictor) -> float:
        """See `Predictor.gemm_ns`."""
        return predictor.gemm_ns(self.dtype, self.m, self.n, self.k, self.batch)


@dataclass(frozen=True)
class Forward:
    """One forward of a whole model."""

    model: Model
    bucket: Bucket
    tensor_parallel: int
    stack: Stack

    def ask(self, predictor: Predictor) -> float:
        """See `Predictor.forward_ns`."""
        model = self.model
        return predictor.forward_ns(model.shape, model.vocab, model.tied, self.bucket, self.tensor_parallel, self.stack)


@dataclass(frozen=True)
class AllReduce:
    """The sum of one tensor over several cards."""

    nbytes: int
    degree: int

    def ask(self, predictor: Predictor) -> float:
        """See `Predictor.all_reduce_ns`."""
        return predictor.all_reduce_ns(self.nbytes, self.degree)


@dataclass(frozen=True)
class RowParallel:
    """A row-parallel linear layer in chunks."""

    tokens: int
    k: int
    n: int
    degree: int
    chunks: int

    def ask(self, predictor: Predictor) -> float:
        """See `Predictor.row_parallel_ns`."""
        return predictor.row_parallel_ns(self.tokens, self.k, self.n, self.degree, self.chunks)


@dataclass(frozen=True)
class Term:
    """A question and how often its answer counts; a negative count takes away."""

    call: Call
    count: float = 1.0


class Answers:
    """A predictor that is asked every question once."""

    def __init__(self, predictor: Predictor) -> None:
        self._predictor = predictor
        self._kept: dict[Call, float] = {}

    def total_ns(self, terms: Iterable[Term]) -> float:
        """The weighted sum of the answers."""
        return sum(term.count * self._answer(term.call) for term in terms)

    def _answer(self, call: Call) -> float:
        if call not in self._kept:
            self._kept[call] = call.ask(self._predictor)
        return self._kept[call]
