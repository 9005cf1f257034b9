"""The plug-in for vLLM on Gaudi: its entry point, what it checks when a layer is made, and what it logs."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from overlap.errors import TunedError
from overlap.serve.tuned_file import save, save_json
from overlap.serve.vllm import here, prefill, tally
from overlap.serve.vllm.prefill import tuned_class
from overlap.split import Split
from tests import vllm_calls
from tests.vllm_calls import DOUBLE, GQA, TILED, call, entry, flat, tuned

if sys.version_info >= (3, 11):
    import tomllib
else:
    tomllib = pytest.importorskip("tomli")

# Fixtures; imported by name, every use would look like a second definition.
stack, layer = vllm_calls.stack, vllm_calls.layer
ROOT = Path(__file__).resolve().parent.parent
VARIABLE = "VLLM_HPU_OVERLAP_CONFIG"


# -- construction ------------------------------------------------------------------------------------------------------


def test_the_class_looks_like_the_one_it_replaces(stack: Any, tmp_path: Path) -> None:
    made = tuned_class(stack.ModuleFusedSDPA, str(tmp_path / "not there"))
    assert (made.__name__, made.__qualname__) == ("ModuleFusedSDPA", "ModuleFusedSDPA")
    assert issubclass(made, stack.ModuleFusedSDPA)


def test_the_config_is_read_once_and_at_the_first_layer(
    stack: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loads: list[Path] = []
    monkeypatch.setattr(prefill, "load", lambda path: loads.append(path) or tuned(entry(TILED)))
    made = tuned_class(stack.ModuleFusedSDPA, str(tmp_path / "once.json"))
    assert loads == []
    first, second = made(None), made(None)
    assert loads == [tmp_path / "once.json"]
    assert first._overlap is second._overlap
    assert list(first.state_dict()) == []


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (None, "cannot read"),
        (b"", "not a tuned config"),
        (b"{", "not YAML"),
        (b"\xff\xfe\x00", "not text"),
        (b'{"schema": "overlap.tuned/9"}', "overlap.tuned/9"),
        (b'{"schema": "overlap.tuned/1"}', "missing"),
    ],
)
def test_a_damaged_config_stops_the_server(stack: Any, tmp_path: Path, text: bytes | None, words: str) -> None:
    path = tmp_path / "bad.json"
    if text is not None:
        path.write_bytes(text)
    made = tuned_class(stack.ModuleFusedSDPA, str(path))
    for _ in range(2):  # not only the first time
        with pytest.raises(TunedError, match=words):
            made(None)


@pytest.mark.parametrize(
    ("device", "words"),
    [({"kind": "host", "name": "EPYC"}, "this is hpu or"), ({"kind": "cuda", "name": "H100"}, "this is hpu or")],
)
def test_another_kind_of_device_stops_the_server(layer: Any, device: dict[str, str], words: str) -> None:
    with pytest.raises(TunedError, match=words):
        layer(tuned(entry(TILED), **device))


@pytest.mark.parametrize(
    ("name", "config", "stops"),
    [
        ("GAUDI3", {"kind": "hpu", "name": "GAUDI3 (lazy)"}, False),
        ("GAUDI3", {"kind": "gaudi3", "name": "Gaudi 3"}, False),
        ("GAUDI2", {"kind": "hpu", "name": "GAUDI3 (lazy)"}, True),
        ("GAUDI2", {"kind": "gaudi3", "name": "Gaudi 3"}, True),
        ("", {"kind": "gaudi2", "name": "Gaudi 2"}, False),
    ],
)
def test_the_chip_is_compared_where_the_card_tells_it(
    layer: Any, monkeypatch: pytest.MonkeyPatch, name: str, config: dict[str, str], stops: bool
) -> None:
    monkeypatch.setattr(torch, "hpu", SimpleNamespace(get_device_name=lambda: name), raising=False)
    if not stops:
        layer(tuned(entry(TILED), **config))
        return
    with pytest.raises(TunedError, match="this is"):
        layer(tuned(entry(TILED), **config))


def test_software_is_compared_where_both_are_known(
    layer: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    theirs = {"software": {"habana-torch-plugin": "1.22.0.638"}}
    monkeypatch.setattr(here, "_version", lambda package: "1.23.1.5")
    with pytest.raises(TunedError, match=r"habana-torch-plugin 1\.22\.0\.638, here is 1\.23\.1\.5"):
        layer(tuned(entry(TILED), **theirs))
    monkeypatch.setattr(here, "_version", lambda package: "1.22.1.5")
    layer(tuned(entry(TILED), **theirs))
    caplog.clear()
    with caplog.at_level(logging.WARNING, logger="vllm.plugins.overlap"):
        layer(tuned(entry(TILED)))
    assert any("habana-torch-plugin: tuned with an unknown version" in line for line in caplog.messages)


CONFIG = {
    "model_type": "qwen2",
    "hidden_size": 64,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "intermediate_size": 48,
    "num_hidden_layers": 4,
}
SERVED = replace(GQA, qkv_bias=True)


@pytest.mark.parametrize(
    ("values", "dtype", "degree", "words"),
    [
        ({}, torch.float32, 1, ""),
        ({"intermediate_size": 96}, torch.float32, 1, "ffn 48, not 96"),
        ({}, torch.bfloat16, 1, "tuned for float32, the model is bfloat16"),
        ({}, torch.float32, 2, "runs at 2"),
        ({"is_causal": False}, torch.float32, 1, "looks both ways"),
        ({"vision_config": {"hidden_size": 8}}, torch.float32, 1, "looks both ways"),
        ({"use_bidirectional_attention": True}, torch.float32, 1, "looks both ways"),
    ],
)
def test_the_model_is_compared_where_vllm_tells_it(
    stack: Any, layer: Any, values: dict[str, Any], dtype: torch.dtype, degree: int, words: str
) -> None:
    hf = SimpleNamespace(to_dict=lambda: {**CONFIG, **values})
    served = SimpleNamespace(
        model_config=SimpleNamespace(hf_config=hf, dtype=dtype, model="here/small"),
        parallel_config=SimpleNamespace(tensor_parallel_size=degree),
    )
    __import__("vllm.config", fromlist=["config"]).current = served
    if not words:
        layer(tuned(entry(TILED), model=SERVED))
        return
    with pytest.raises(TunedError, match=words):
        layer(tuned(entry(TILED), model=SERVED))


def test_a_model_that_cannot_be_compared_is_a_warning(stack: Any, layer: Any, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, logger="vllm.plugins.overlap"):
        layer(tuned(entry(TILED)))
    assert any("vLLM does not tell its model" in line for line in caplog.messages)
    hf = SimpleNamespace(to_dict=lambda: {"model_type": "mamba"})
    config = SimpleNamespace(hf_config=hf, dtype=torch.float32, model="m")
    parallel = SimpleNamespace(tensor_parallel_size=1)
    module = __import__("vllm.config", fromlist=["config"])
    module.current = SimpleNamespace(model_config=config, parallel_config=parallel)
    with caplog.at_level(logging.WARNING, logger="vllm.plugins.overlap"):
        layer(tuned(entry(TILED)))
    assert any("'mamba' is not covered" in line for line in caplog.messages)
    module.current = SimpleNamespace(model_config=None, parallel_config=parallel)
    layer(tuned(entry(TILED)))


# -- the log -----------------------------------------------------------------------------------------------------------


def test_every_bucket_is_told_at_the_start(layer: Any, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, logger="vllm.plugins.overlap"):
        layer(tuned(entry(TILED), entry(Split(), 1, 64, 0, pass_through=True)))
    lines = "\n".join(caplog.messages)
    assert "prefill 1x32+0: query_tile=8 masked_blocks=skip, when tuned 1.000x over the unsplit block" in lines
    assert "prefill 1x64+0: the baseline was the best" in lines


def test_totals_come_at_powers_of_two(caplog: pytest.LogCaptureFixture) -> None:
    counts = tally.Tally()
    with caplog.at_level(logging.INFO, logger="vllm.plugins.overlap"):
        for number in range(1030):
            counts.ran("a") if number % 2 else counts.went_through("b")
    assert caplog.messages == [
        "overlap: passes through: b",
        "overlap: runs tuned: a",
        *(f"overlap: {n} calls tuned (a: {n}), {n} passed through (b: {n})" for n in (128, 256, 512)),
    ]


# -- the entry point, in processes of its own --------------------------------------------------------------------------


def python(code: str, config: Path | None = None) -> subprocess.CompletedProcess[str]:
    """Run code in a fresh interpreter that finds the stand-in."""
    environment = {name: value for name, value in os.environ.items() if name != VARIABLE}
    environment["PYTHONPATH"] = os.pathsep.join([str(DOUBLE), *filter(None, [os.environ.get("PYTHONPATH")])])
    if config is not None:
        environment[VARIABLE] = str(config)
    return subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=120)


def ran(code: str, config: Path | None = None) -> str:
    done = python(code, config)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "tuned.json"
    save_json(tuned(entry(TILED)), path)
    return path


REGISTER = "from overlap.serve.vllm_plugin import register; register()\n"
IMPORT = "import vllm_gaudi.attention.backends.hpu_attn as seam\n"
SHOW = "import sys; print([c.__module__ for c in seam.ModuleFusedSDPA.__mro__[:3]], len(sys.meta_path))\n"
HEAVY = "import sys; print(sorted({'torch', 'polars', 'msgspec', 'vllm_gaudi', 'yaml'} & set(sys.modules)))\n"


def test_without_the_variable_nothing_happens(tmp_path: Path) -> None:
    count = "import sys; before = list(sys.meta_path)\n"
    assert ran(count + REGISTER + HEAVY + "print(sys.meta_path == before)") == "[]\nTrue"
    assert ran(REGISTER + IMPORT + "print(seam.ModuleFusedSDPA.__module__)") == "vllm_gaudi.extension.utils"
    assert ran(REGISTER + HEAVY, Path("")) == "[]"


def test_with_the_variable_nothing_is_imported_until_the_stack_is(config: Path) -> None:
    assert ran(REGISTER + HEAVY, config) == "[]"


@pytest.mark.parametrize(
    "code",
    [
        REGISTER + IMPORT,
        IMPORT + REGISTER,
        REGISTER + REGISTER + IMPORT + REGISTER + REGISTER,
        IMPORT + REGISTER + REGISTER,
        "import vllm_gaudi.extension.utils\n" + REGISTER + IMPORT,
    ],
    ids=["before", "after", "twice around", "twice after", "between"],
)
def test_the_seam_is_bound_once_in_any_order(config: Path, code: str) -> None:
    finders = ran("import sys; import torch; print(len(sys.meta_path))")
    told = ran("import torch\n" + code + SHOW, config)
    assert (
        told == f"['overlap.serve.vllm.prefill', 'overlap.serve.vllm.prefill', 'vllm_gaudi.extension.utils'] {finders}"
    )


def test_a_layer_made_after_that_runs_tuned_and_says_so_at_the_end(config: Path) -> None:
    code = (
        "import logging, torch; logging.basicConfig(level=logging.INFO)\n"
        + REGISTER
        + IMPORT
        + "one = seam.HPUAttentionImpl(4, 16, 0.25, 2)\n"
        + "q, k = torch.randn(1, 32, 4, 16), torch.randn(1, 32, 2, 16)\n"
        + "for _ in range(3): one(q, k, k, lengths=torch.tensor([32]))\n"
    )
    done = python(code, config)
    assert done.returncode == 0
    lines = [line for line in done.stderr.splitlines() if line.startswith("INFO:vllm.plugins.overlap")]
    assert lines[-1].endswith("3 calls tuned (prefill 1x32+0: 3), 0 passed through")


def test_children_of_multiprocessing_say_so_too(config: Path, tmp_path: Path) -> None:
    code = f"""
import logging, multiprocessing
def work():
    logging.basicConfig(level=logging.INFO, filename={str(tmp_path / "log")!r})
    import torch
    from overlap.serve.vllm_plugin import register; register()
    import vllm_gaudi.attention.backends.hpu_attn as seam
    one = seam.HPUAttentionImpl(4, 16, 0.25, 2)
    q, k = torch.randn(1, 32, 4, 16), torch.randn(1, 32, 2, 16)
    one(q, k, k, lengths=torch.tensor([32]))
child = multiprocessing.get_context("fork").Process(target=work)
child.start(); child.join()
"""
    ran(code, config)
    assert "1 calls tuned" in (tmp_path / "log").read_text(encoding="utf-8")


def test_a_bad_config_stops_the_process(tmp_path: Path) -> None:
    done = python(REGISTER + IMPORT + "seam.HPUAttentionImpl(4, 16, 0.25, 2)", tmp_path / "not there.json")
    assert done.returncode == 1
    assert "TunedError: cannot read" in done.stderr


def test_a_stack_without_the_seam_stops_the_process(config: Path) -> None:
    empty = "import sys, types; sys.modules['vllm_gaudi.attention.backends.hpu_attn'] = types.ModuleType('m')\n"
    done = python(empty + REGISTER, config)
    assert done.returncode == 1
    assert "ServeError: m has no ModuleFusedSDPA" in done.stderr


def test_an_import_that_fails_is_watched_on(config: Path) -> None:
    code = (
        REGISTER
        + "import sys, torch; kept = torch.nn.Module; del torch.nn.Module\n"
        + f"try:\n    {IMPORT}except AttributeError: print('failed')\n"
        + "torch.nn.Module = kept\n"
        + IMPORT
        + "print(seam.ModuleFusedSDPA.__module__, seam.__loader__ is seam.__spec__.loader)\n"
        + "print(type(seam.__loader__).__name__)"
    )
    assert ran(code, config) == "failed\noverlap.serve.vllm.prefill True\nSourceFileLoader"


def test_the_entry_point_is_declared() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    declared = project["entry-points"]["vllm.general_plugins"]
    assert declared == {"overlap": "overlap.serve.vllm_plugin:register"}


def test_yaml_is_read_as_json_is(stack: Any, tmp_path: Path) -> None:
    save(tuned(entry(TILED)), tmp_path / "tuned.yaml")
    made = tuned_class(stack.ModuleFusedSDPA, str(tmp_path / "tuned.yaml"))(None)
    made(*flat(call(GQA)))
    assert made._overlap.tally.tuned.total() == 1
