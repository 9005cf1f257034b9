from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from overlap.commands import COMMANDS
from overlap.serve.export.optimum_files import read_records
from overlap.serve.export.vllm import parse_export
from overlap.serve.tuned_file import save
from overlap.split import Split
from overlap.workload import Bucket
from tests.conftest import Answer
from tests.export_tables import config, entry, one, table64
from tests.test_cli import assert_refused

Cli = Callable[..., Answer]
PROMPT = Bucket("prefill", 1, 2048, 0)
TILED = Split(query_tile=256, masked_blocks="skip", layers_per_graph=1)


@pytest.fixture
def tuned(tmp_path: Path) -> Path:
    decode = entry(Bucket("decode", 4, 1, 2048), Split(), 180.0, 180.0)
    save(config([entry(PROMPT, TILED), decode]), tmp_path / "mine.yaml")
    return tmp_path / "mine.yaml"


def test_for_vllm(cli: Cli, tuned: Path, tmp_path: Path) -> None:
    answer = cli("export", "tuned=mine.yaml", "target=vllm", "model=some/model")
    assert answer.code == 0
    assert "prefill 1x2048+0" in answer.out
    assert "query_tile=256" in answer.out
    assert "+20.0 %" in answer.out
    assert "files in mine.vllm" in answer.out
    assert "simulated" in answer.err
    made = parse_export(tmp_path / "mine.vllm")
    assert made.plan.serve == "some/model"
    assert [level.level for level in made.plan.levels] == [0, 1]
    assert {path.name for path in (tmp_path / "mine.vllm").iterdir()} == {
        "level0",
        "level1",
        "export.json",
        "README.txt",
    }
    for level in ("level0", "level1"):
        checked = cli("export", "--check", f"mine.vllm/{level}/overlap.env")
        assert (checked.code, checked.err) == (0, "")
        assert "0 errors, 0 warnings" in checked.out
    again = cli("export", "tuned=mine.yaml", "target=vllm", "mode=lazy", "block_size=256", "max_num_seqs=64")
    assert again.code == 0
    plan = parse_export(tmp_path / "mine.vllm").plan
    assert (plan.mode, plan.limits.block_size, plan.limits.max_num_seqs) == ("lazy", 256, 64)


def test_for_optimum(cli: Cli, tuned: Path, tmp_path: Path) -> None:
    answer = cli("export", "tuned=mine.yaml", "target=optimum", "into=a/b")
    assert answer.code == 0
    assert "fused" in answer.out
    assert len(read_records(tmp_path / "a" / "b").records) == 1


def test_a_large_table(cli: Cli, tmp_path: Path) -> None:
    save(table64(), tmp_path / "t.yaml")
    answer = cli("export", "--tuned", "t.yaml", "--target=vllm", "into=out")
    assert answer.code == 0
    assert len([line for line in answer.out.splitlines() if line.startswith(("prefill", "decode"))]) == 64


def test_what_was_tuned_on_a_cpu_is_loud(cli: Cli, tmp_path: Path) -> None:
    changes: dict[str, Any] = {"kind": "host", "name": "host", "evidence": "measured"}
    save(config([entry(PROMPT, TILED, evidence="measured")], **changes), tmp_path / "t.yaml")
    for target, file in (("vllm", "level0/overlap.env"), ("optimum", "README.txt")):
        answer = cli("export", "tuned=t.yaml", f"target={target}")
        assert answer.code == 0
        assert "NOT FOR A CARD" in answer.err
        assert "NOT FOR A CARD" in (tmp_path / f"t.{target}" / file).read_text()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((), ("tuned is missing", "--check")),
        (("tuned=mine.yaml",), ("target is missing", "vllm|optimum")),
        (("tuned=.", "target=vllm"), ("cannot read .",)),
        (("tuned=mine.yaml", "target=vllm", "model=--trust-remote-code"), ("is an option of a command",)),
        (("tuned=mine.yaml", "target=vlm"), ("target=vlm", "did you mean vllm?")),
        (("tuned=nope.yaml", "target=vllm"), ("cannot read nope.yaml",)),
        (("tuned=cut.yaml", "target=vllm"), ("cut.yaml",)),
        (("tuned=cut.yaml", "target=optimum"), ("cut.yaml",)),
        (("tuned=schema.yaml", "target=vllm"), ("schema", "overlap.tuned/1")),
        (("tuned=device.yaml", "target=vllm"), ("'tpu'", "gaudi2, gaudi3")),
        (("tuned=device.yaml", "target=optimum"), ("'tpu'",)),
        (("tuned=mine.yaml", "target=vllm", "mode=lasy"), ("did you mean lazy?",)),
        (("tuned=mine.yaml", "target=vllm", "into=foreign"), ("foreign holds files of something else", "into=")),
        (("tuned=mine.yaml", "target=vllm", "max_model_len=1024"), ("leaves out buckets", "max_model_len=2048")),
        (("tuned=mine.yaml", "target=vllm", "max_model_len=0"), ("whole number from 1",)),
        (("tuned=mine.yaml", "target=vllm", "block_size=big"), ("block_size=big",)),
        (("tuned=mine.yaml", "target=vllm", "max_num_batched_tokens=-1"), ("max_num_batched_tokens=-1",)),
        (("tuned=mine.yaml", "target=optimum", "block_size=128"), ("size of a vLLM server",)),
        (("tuned=mine.yaml", "target=vllm", "model=foreign"), ("another model",)),
        (("tuned=mine.yaml", "tagret=vllm"), ("does not take 'tagret=vllm'",)),
        (("--check", "nope.env"), ("cannot read", "nope.env")),
        (("--check", "foreign"), ("cannot read",)),
        (("--check",), ("--check has no value",)),
        (("--chekc", "a.env"), ("does not take '--chekc'",)),
        (("check=a.env", "target=vllm"), ("takes nothing else",)),
    ],
)
def test_mistakes_get_one_line(
    cli: Cli, tuned: Path, tmp_path: Path, arguments: tuple[str, ...], words: tuple[str, ...]
) -> None:
    text = tuned.read_text()
    (tmp_path / "cut.yaml").write_text(text[: len(text) // 2])
    (tmp_path / "schema.yaml").write_text(text.replace("overlap.tuned/1", "overlap.tuned/7"))
    save(config([entry(PROMPT)], kind="tpu"), tmp_path / "device.yaml")
    (tmp_path / "foreign").mkdir()
    shape = '{"model_type": "llama", "hidden_size": 64, "num_attention_heads": 4, "intermediate_size": 128, '
    (tmp_path / "foreign" / "config.json").write_text(shape + '"num_hidden_layers": 2, "hidden_act": "silu"}')
    before = sorted(tmp_path.rglob("*"))
    assert_refused(cli("export", *arguments), *words)
    assert sorted(tmp_path.rglob("*")) == before


def test_check(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "a.env").write_text("# fine\nVLLM_SKIP_WARMUP=true\n")
    for arguments in (("--check", "a.env"), ("--check=a.env",), ("check=a.env",)):
        answer = cli("export", *arguments)
        assert answer.code == 0
        assert answer.out.startswith("a.env: 1 setting, 0 errors, 0 warnings, by the rules of vllm-project/vllm-gaudi")
    (tmp_path / "a.env").write_text("VLLM_CONFIG_HIDDEN_LAYERS=2\n")
    warned = cli("export", "--check", "a.env")
    assert warned.code == 0
    assert warned.out.startswith("a.env:1: warning: VLLM_CONFIG_HIDDEN_LAYERS: ")
    (tmp_path / "a.env").write_text("VLLM_SKIP_WARMUP=true\nVLLM_PIPELINED_PA=1\nx y\n")
    wrong = cli("export", "--check", "a.env")
    assert wrong.code == 1
    assert wrong.err == ""
    assert [line.split(": ")[:2] for line in wrong.out.splitlines()[:2]] == [["a.env:2", "error"], ["a.env:3", "error"]]
    assert "2 errors" in wrong.out


def test_help_of_a_plain_command_is_help(cli: Cli) -> None:
    for name in ("export", "collect"):
        answer = cli(name, "--help")
        assert answer.code == 0
        assert COMMANDS[name].summary in answer.out
    assert "--check" in cli("export", "--help").out


def test_plain_commands_take_options(cli: Cli, tmp_path: Path) -> None:
    assert_refused(cli("collect", "--records", "nowhere"), "nowhere is no folder")
    assert_refused(cli("collect", "--records=nowhere"), "nowhere is no folder")
    assert_refused(cli("collect", "--record=nowhere"), "does not take '--record=nowhere'")


def test_a_speedup_with_an_interval_around_one_is_told(cli: Cli, tmp_path: Path) -> None:
    unsure = entry(PROMPT, TILED, speedup_vs_stack=one(1.2).__class__(median=1.2, low=0.9, high=1.5))
    save(config([unsure]), tmp_path / "t.yaml")
    assert cli("export", "tuned=t.yaml", "target=vllm").code == 0
    assert "not told apart from the stack: 1.200x [0.900, 1.500]" in (tmp_path / "t.vllm" / "README.txt").read_text()
