"""Which reader takes a row.

First the reasons that hold whoever published it, then the reader of its source, then what its parameters look like.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import NamedTuple

from overlap.devices.gaudi.validation.cases import Case
from overlap.devices.gaudi.validation.readers.chunks import read_chunks
from overlap.devices.gaudi.validation.readers.engine import read_engine
from overlap.devices.gaudi.validation.readers.gemms import read_gemm
from overlap.devices.gaudi.validation.readers.generation import read_baseline, read_bench, read_script
from overlap.devices.gaudi.validation.readers.nominal import read_graph_ratio, read_long_prompt
from overlap.devices.gaudi.validation.readers.prefills import read_prefill
from overlap.devices.gaudi.validation.rows import Inexpressible, Row

ENGINES = "what one engine does inside a run"


class Rule(NamedTuple):
    """Rows in whose `column` the pattern is found cannot be expressed, for this reason."""

    column: str
    pattern: str
    reason: str


MEASURED = (
    Rule("metric", r"^(constant|clock|geometry|cycles_per|instruction_count)", "a constant, no time of a workload"),
    Rule("metric", r"^tdp|power|energy", "power is not modelled"),
    Rule("metric", r"^(overhead|host_|idle_time|warmup)", "time of the host, which goes into the model as a constant"),
    Rule("metric", r"^(producer_consumer_gap|gap|skew|node_duration|duration)$", "a gap or node inside one recipe"),
    Rule("metric", r"^(hbm_efficiency|throughput_or_utilisation)$", "a rate without the sizes of the work"),
    Rule("metric", r"^(engine_time|busy_fraction|(mme|tpc|dma|idle)_total|mme_tpc|device_time|ledger)", ENGINES),
    Rule("metric", r"^train_|^time_to_train|^run_time", "training"),
    Rule("op", r"training|fine-?tuning|pre-training", "training"),
    Rule("dtype", r"mxfp4", "weights in MXFP4, decoded on the way"),
)
DONE = (
    Rule("op", r"\bGDN\b|gated delta|Qwen3\.[5-9]", "layers of gated delta nets"),
    Rule("op", r"DeepSeek-V\d|MiMo|Moonlight|Mixtral|\bMoE\b", "a mixture of experts"),
    Rule("op", r"SwiGLU|RMSNorm|ScatterND|\bgather|\bSTREAM\b|TPC kernel|elementwise", "a vector op on its own"),
    Rule("op", r"softmax slice|matmul_qk|\bBMM\b|batch_gemm|conv", "one op of a recipe whose sizes are not recorded"),
    Rule("op", r"serving|paged attention|vision|encoder", "requests under a scheduler"),
)
SCHEDULED = ("concurrency", "requests", "prompts")
READERS: tuple[tuple[str, Callable[[Row], Case]], ...] = (
    ("NAVER-INTEL", read_prefill),
    ("LLM-Inference-Bench", read_bench),
    ("reciprocating-engine", read_engine),
    ("optimum-habana CI", read_baseline),
    ("optimum-habana", read_script),
    ("GenAIExamples", read_graph_ratio),
)


def read(row: Row) -> Case:
    """The row as a case.

    Raises:
        Inexpressible: with the reason.
        ConfigError: its value is not positive.
    """
    _check(row, MEASURED)
    if "M" in row.params:
        return read_gemm(row)
    _check(row, DONE)
    if any(name in row.params for name in SCHEDULED):
        raise Inexpressible("requests under a scheduler")
    if "chunks" in row.params:
        return read_chunks(row)
    for source, reader in READERS:
        if source in row.source:
            return reader(row)
    return _by_workload(row)


def _check(row: Row, rules: tuple[Rule, ...]) -> None:
    for rule in rules:
        if re.search(rule.pattern, getattr(row, rule.column), re.I):
            raise Inexpressible(rule.reason)


def _by_workload(row: Row) -> Case:
    """Rows of other sources, by what they say of their workload."""
    if re.search(r"prompt.*(unfused|FusedSDPA)", row.op) and "seq" in row.params:
        return read_long_prompt(row)
    if re.search(r"FusedSDPA|attention", row.op):
        raise Inexpressible("attention on its own")
    if "in_len" in row.params and "out_len" in row.params:
        return read_script(row)
    raise Inexpressible("too little is recorded of its workload")
