"""What is tuned: the shape of a model, the bucket a serving stack compiles for, and how many layers are looked at.

Terms
    bucket: (phase, batch, query, context), one static shape. `context` counts the tokens that are in the KV cache
        before the step; `query` the tokens of the step (1 in decode).
    shard: the part of a layer that one card holds under tensor parallelism.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from overlap.errors import WorkloadError

DTYPE_BYTES = {"bfloat16": 2, "float16": 2, "float32": 4}
PHASES = ("prefill", "decode")


@dataclass(frozen=True)
class ModelShape:
    """Shape of a decoder-only transformer; names follow the field, values come from a preset or a `config.json`.

    Raises:
        WorkloadError: naming the rule that a value breaks.
    """

    name: str
    hidden: int
    heads: int
    kv_heads: int
    head_dim: int
    ffn: int
    layers: int
    qkv_bias: bool = False
    qk_norm: bool = False
    norm_eps: float = 1e-6
    rope_theta: float = 10000.0
    dtype: str = "bfloat16"

    def __post_init__(self) -> None:
        """Refuse shapes that no model can have."""
        for name in ("hidden", "heads", "kv_heads", "head_dim", "ffn", "layers"):
            if getattr(self, name) < 1:
                raise WorkloadError(f"model {self.name}: {name} is {getattr(self, name)}", f"{name} must be at least 1")
        if self.heads % self.kv_heads:
            raise WorkloadError(
                f"model {self.name}: {self.heads} heads over {self.kv_heads} kv_heads",
                "heads must be a multiple of kv_heads: every KV head serves the same number of query heads",
            )
        if self.head_dim % 2:
            raise WorkloadError(
                f"model {self.name}: head_dim {self.head_dim} is odd", "RoPE turns pairs, so head_dim must be even"
            )
        if self.dtype not in DTYPE_BYTES:
            raise WorkloadError(f"model {self.name}: dtype {self.dtype!r}", f"one of {', '.join(DTYPE_BYTES)}")
        for name in ("norm_eps", "rope_theta"):
            if not getattr(self, name) > 0:
                raise WorkloadError(f"model {self.name}: {name} is {getattr(self, name)}", f"{name} must be positive")

    @property
    def group(self) -> int:
        """Query heads per KV head."""
        return self.heads // self.kv_heads


@dataclass(frozen=True)
class Bucket:
    """One static shape: (phase, batch, query, context), counts of sequences and tokens."""

    phase: str = "prefill"
    batch: int = 1
    query: int = 2048
    context: int = 0

    def __post_init__(self) -> None:
        """Refuse buckets that no serving stack would compile."""
        if self.phase not in PHASES:
            raise WorkloadError(f"bucket phase {self.phase!r}", f"one of {', '.join(PHASES)}")
        if self.batch < 1 or self.query < 1:
            raise WorkloadError(
                f"bucket of batch {self.batch}, query {self.query}", "batch and query must be at least 1"
            )
        if self.context < 0:
            raise WorkloadError(f"bucket context {self.context}", "context counts cached tokens and cannot be negative")
        if self.phase == "decode" and self.query != 1:
            raise WorkloadError(f"decode bucket with query {self.query}", "a decode step computes one token: query=1")
        if self.phase == "decode" and self.context == 0:
            raise WorkloadError("decode bucket with context 0", "decode reads a KV cache: context must be at least 1")

    @property
    def key_tokens(self) -> int:
        """Tokens that the last query token can see, itself included."""
        return self.context + self.query

    def __str__(self) -> str:
        """Short form for tables and file names: `prefill 1x2048+0`."""
        return f"{self.phase} {self.batch}x{self.query}+{self.context}"


@dataclass(frozen=True)
class Workload:
    """A model shape, a bucket, and the window of consecutive layers that is profiled and tuned."""

    model: ModelShape
    bucket: Bucket = field(default_factory=Bucket)
    tensor_parallel: int = 1
    window_layers: int = 2

    def __post_init__(self) -> None:
        """Refuse windows and shards that do not exist."""
        model, degree = self.model, self.tensor_parallel
        if not 1 <= self.window_layers <= model.layers:
            raise WorkloadError(
                f"window of {self.window_layers} layers in a model of {model.layers}",
                f"window_layers must be between 1 and {model.layers}",
            )
        if degree < 1 or model.heads % degree or model.ffn % degree:
            raise WorkloadError(
                f"tensor_parallel {degree} for {model.heads} heads and ffn {model.ffn}",
                "it must divide both, so that every card holds whole heads",
            )
        if model.kv_heads % degree and degree % model.kv_heads:
            raise WorkloadError(
                f"tensor_parallel {degree} for {model.kv_heads} kv_heads",
                "it must divide kv_heads, or be a multiple of them (KV heads are then replicated)",
            )

    @property
    def shard(self) -> ModelShape:
        """Shape of one card's part of a layer (the model's own at tensor_parallel 1)."""
        model, degree = self.model, self.tensor_parallel
        if degree == 1:
            return model
        return ModelShape(
            name=f"{model.name}/tp{degree}",
            hidden=model.hidden,
            heads=model.heads // degree,
            kv_heads=max(1, model.kv_heads // degree),
            head_dim=model.head_dim,
            ffn=model.ffn // degree,
            layers=model.layers,
            qkv_bias=model.qkv_bias,
            qk_norm=model.qk_norm,
            norm_eps=model.norm_eps,
            rope_theta=model.rope_theta,
            dtype=model.dtype,
        )

    def __str__(self) -> str:
        """Short form for titles: `qwen2.5-0.5b prefill 1x2048+0, 2 layers`."""
        ranks = f", rank of tp{self.tensor_parallel}" if self.tensor_parallel > 1 else ""
        return f"{self.model.name} {self.bucket}, {self.window_layers} layers{ranks}"
