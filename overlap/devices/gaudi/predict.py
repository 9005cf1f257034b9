"""Times of whole models and of single parts, put together from simulated windows.

A model's layers repeat: the time of a window of a few layers, and of one with a few more, give the time per layer and
what the ends cost. Embedding, final norm and LM head are added as ops of their own, and what the host costs per step.
"""

from __future__ import annotations

from dataclasses import replace

import torch

from overlap.capture import Recorder, op
from overlap.devices.gaudi.constants import Constants, load_constants
from overlap.devices.gaudi.kernels import Costs
from overlap.devices.gaudi.machine import MODEL, VERSION, Machine
from overlap.devices.gaudi.nic import all_reduce_ns
from overlap.devices.gaudi.plan import compile_program
from overlap.devices.gaudi.settings import GaudiConfig
from overlap.devices.gaudi.validation.predictor import Stack
from overlap.kernels.capture import capture
from overlap.kernels.collective import all_reduce
from overlap.kernels.fused import fused_attention
from overlap.kernels.inputs import torch_dtype
from overlap.kernels.layer import rms_norm
from overlap.program import Program
from overlap.split import Split
from overlap.workload import Bucket, ModelShape, Workload

# Layers of the two windows whose difference is the time of a layer.
WINDOWS = (2, 4)
TORCH_DTYPES = {"bf16": torch.bfloat16, "fp8": torch.float8_e4m3fn, "fp32": torch.float32}
# GEMMs in one graph, as the published sweeps repeat them.
REPEATS = 8


class ModelPredictor:
    """Answers what validation asks (`validation.predictor.Predictor`)."""

    def __init__(self, chip: str, constants: Constants | None = None, settings: GaudiConfig | None = None) -> None:
        self.chip = chip
        self._settings = settings or GaudiConfig()
        self.name = MODEL
        self.version = VERSION
        self._costs = Costs(Machine.of(constants or load_constants(chip)))

    def gemm_ns(self, dtype: str, m: int, n: int, k: int, batch: int = 1) -> float:
        """One GEMM of several in one graph."""
        with Recorder() as recorder:
            kind = TORCH_DTYPES[dtype]
            made = []
            for number in range(REPEATS):
                a = recorder.input(f"a{number}", (batch, m, k), kind)
                b = recorder.input(f"b{number}", (batch, k, n), kind)
                with op(f"gemm{number}"):
                    made.append(a[0] @ b[0] if batch == 1 else torch.bmm(a, b))
            program = recorder.finish({f"c{number}": one for number, one in enumerate(made)})
        return self.run(program, self._settings) / REPEATS

    def forward_ns(
        self, shape: ModelShape, vocab: int, tied: bool, bucket: Bucket, tensor_parallel: int, stack: Stack
    ) -> float:
        """One forward of the whole model."""
        config = replace(self._settings, mode=stack.mode, fast_fused_softmax=stack.softmax == "fast")
        split = Split(layers_per_graph=stack.layers_per_recipe)
        if stack.attention == "fused" and bucket.phase == "prefill":
            split = replace(split, fused_sdpa=True, masked_blocks="skip")
        elif stack.softmax == "fast":
            split = replace(split, softmax="fast")
        few, more = (min(count, shape.layers) for count in WINDOWS)
        times = {
            count: self.run(capture(Workload(shape, bucket, tensor_parallel, count), split), config)
            for count in {few, more}
        }
        per_layer = (times[more] - times[few]) / (more - few) if more > few else 0.0
        layers_ns = times[few] + per_layer * (shape.layers - few)
        ends = self.run(_ends(shape, vocab // tensor_parallel, bucket, stack.logits == "all"), config)
        host_ns = 0.0 if stack.device_loop else self._costs.machine.host.step_us * 1e3
        return layers_ns + ends + host_ns

    def attention_ns(self, heads: int, tokens: int, head_dim: int) -> float:
        """One causal fused attention without a cache, in the fast softmax mode that serving stacks use."""
        with Recorder() as recorder:
            shape = (1, heads, tokens, head_dim)
            query = recorder.input("query", (1, heads, tokens, 1, head_dim), torch.bfloat16)
            key, value = (recorder.input(name, shape, torch.bfloat16) for name in ("key", "value"))
            with op("fused"):
                result = fused_attention(query, key, value, None, True)
            program = recorder.finish({"result": result})
        return self.run(program, replace(self._settings, fast_fused_softmax=True))

    def all_reduce_ns(self, nbytes: int, degree: int) -> float:
        """The sum of one tensor over the cards of a box."""
        return all_reduce_ns(self._costs.machine.nic, nbytes, degree)

    def row_parallel_ns(self, tokens: int, k: int, n: int, degree: int, chunks: int) -> float:
        """A linear layer whose partial sums are added over the cards, in chunks of tokens, a recipe each."""
        with Recorder() as recorder:
            x = recorder.input("x", (tokens, k // degree), torch.bfloat16)
            weight = recorder.input("weight", (n, k // degree), torch.bfloat16)
            made = []
            for number, part in enumerate(x.chunk(chunks)):
                with op(f"gemm{number}"):
                    made.append(part @ weight.t())
                with op(f"all_reduce{number}"):
                    all_reduce(made[-1], degree)
            program = recorder.finish({f"y{number}": one for number, one in enumerate(made)})
        return self.run(program, replace(self._settings, mode="compile"))

    def run(self, program: Program, config: GaudiConfig) -> float:
        """Simulated time of a program in its own order, ns."""
        return float(compile_program(program, range(len(program.ops)), self._costs, config).run().time_ns)


def _ends(shape: ModelShape, vocab: int, bucket: Bucket, all_logits: bool) -> Program:
    """Embedding, final norm and LM head of one card."""
    tokens = bucket.batch * bucket.query
    rows = tokens if all_logits else bucket.batch
    dtype = torch_dtype(shape.dtype)
    with Recorder() as recorder:
        table = recorder.input("embedded", (tokens, shape.hidden), dtype)
        hidden = recorder.input("hidden", (rows, shape.hidden), dtype)
        norm = recorder.input("norm", (shape.hidden,), dtype)
        head = recorder.input("head", (vocab, shape.hidden), dtype)
        with op("embedding"):
            embedded = table.clone()
        with op("norm"):
            normed = rms_norm(hidden, norm, shape.norm_eps)
        with op("head"):
            logits = normed @ head.t()
        return recorder.finish({"embedded": embedded, "logits": logits})
