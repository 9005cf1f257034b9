"""The list of settings that vLLM on Gaudi reads: complete, at one with itself, and any value can be checked."""

from __future__ import annotations

import hashlib

from hypothesis import given
from hypothesis import strategies as st

from overlap.serve.vllm.env_file import Assignment
from overlap.serve.vllm.rules import check
from overlap.serve.vllm.settings import allowed, dead, dead_names, known, range_names, settings, source

# Of the sorted names that commit 091bbadd of vllm-project/vllm-gaudi reads, one per line.
NAMES_SHA256 = "93900df38e45bb4a486fcf7eae3cd56be41bd8e81a45de9cafeefa4d5005ef25"


def test_the_list_has_the_names_that_the_plugin_reads() -> None:
    names = allowed("plugin")
    ranges = {name for name in names if name.rpartition("_BUCKET_")[0] + "_BUCKET" in range_names()}
    assert (len(ranges), len(names - ranges)) == (30, 101)
    assert hashlib.sha256("\n".join(sorted(names)).encode()).hexdigest() == NAMES_SHA256
    assert "091bbadd" in source()


def test_no_name_is_both_read_and_dead() -> None:
    assert allowed() & dead_names() == set()
    assert all(dead(name) for name in dead_names())
    assert dead("VLLM_SKIP_WARMUP") is None
    assert known("VLLM_PIPELINED_PA") is None


def test_every_setting_says_what_it_means_and_its_default_fits() -> None:
    for name, setting in settings().items():
        assert setting.name == name
        assert setting.means
        assert bool(setting.choices) == (setting.type in ("choice", "choices"))
        if setting.default.isdigit() and setting.least is not None:
            assert setting.least <= int(setting.default)


NAMES = st.sampled_from(sorted([*allowed(), *dead_names(), "VLLM_OTHER", "OTHER"]))
VALUES = st.text(max_size=12) | st.integers().map(str) | st.sampled_from(["true", "0", "pad", "lin", "1,2", "9" * 5000])
FLAGS = st.dictionaries(
    st.sampled_from(["block-size", "max-num-batched-tokens", "max-model-len", "max-num-seqs", "enforce-eager", "x"]),
    st.integers().map(str) | st.text(max_size=5) | st.just("true"),
)


@given(st.dictionaries(NAMES, VALUES, max_size=12), FLAGS)
def test_no_assignment_is_too_odd(values: dict[str, str], flags: dict[str, str]) -> None:
    given = [Assignment(name, value, line) for line, (name, value) in enumerate(values.items(), start=1)]
    findings = check(given, flags)
    assert findings == sorted(findings, key=lambda one: one.place)
    assert all(0 <= one.line <= len(given) and one.reason and len(one.reason) < 1000 for one in findings)
