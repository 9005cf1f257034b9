"""What validation asks of a model of the device, and the terms it asks in.

Terms
    stack: how a serving stack runs a forward pass: its attention, how it is launched, what is compiled together.
    shard: under tensor parallelism the predictor is given whole sizes and takes one card's part itself.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, Protocol

from overlap.workload import Bucket, ModelShape

Attention = Literal["plain", "fused"]
Softmax = Literal["exact", "fast"]
Mode = Literal["eager", "lazy", "hpu_graph", "compile"]


@dataclass(frozen=True)
class Stack:
    """How a forward pass is run.

    Args:
        attention: `plain` materialises all scores, masked ones too; `fused` is the vendor's attention op, which skips
            masked blocks in prefill.
        softmax: `fast` is the vendor's approximation.
        mode: what launches the recipes.
        layers_per_recipe: 0 compiles the whole model into one recipe. A collective ends a recipe whatever this says, so
            that with tensor parallelism and 1 a layer is two recipes, each launched by the host.
        device_loop: steps follow each other without the host: no launch and no read-back in between.
        logits: the LM head runs on the `last` token of each sequence, or on `all`.
    """

    attention: Attention = "plain"
    softmax: Softmax = "exact"
    mode: Mode = "hpu_graph"
    layers_per_recipe: int = 0
    device_loop: bool = False
    logits: Literal["last", "all"] = "last"


class Predictor(Protocol):
    """A model of one chip. Equal questions must get equal answers; all times are ns.

    Anything that the chip cannot hold or run is refused with an `OverlapError`.
    """

    @property
    def name(self) -> str:
        """Of the model, for every output that shows its numbers."""
        ...

    @property
    def version(self) -> str:
        """Of the model."""
        ...

    def gemm_ns(self, dtype: str, m: int, n: int, k: int, batch: int = 1) -> float:
        """One GEMM in steady state, operands in memory; `dtype` is bf16, fp8 or fp32."""
        ...

    def forward_ns(
        self, shape: ModelShape, vocab: int, tied: bool, bucket: Bucket, tensor_parallel: int, stack: Stack
    ) -> float:
        """One forward of the whole model: embedding, all layers, final norm, LM head."""
        ...

    def all_reduce_ns(self, nbytes: int, degree: int) -> float:
        """The sum of one tensor over `degree` cards."""
        ...

    def row_parallel_ns(self, tokens: int, k: int, n: int, degree: int, chunks: int) -> float:
        """A linear layer whose depth `k` (of all cards together) is spread over `degree` cards, with its all-reduce.

        It is cut into `chunks` along the tokens; the sum over the cards of one chunk runs beside the GEMM of the next,
        and each chunk is a graph of its own.
        """
        ...
