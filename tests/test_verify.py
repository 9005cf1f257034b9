"""`overlap verify`: tuned against untouched in one process, and what becomes of the answer."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import pytest
import torch

pytest.importorskip("transformers")

from overlap.commands import verify_model
from overlap.commands.verify_answers import Distance, Generated, answers, compare
from overlap.commands.verify_block import device_config, time_block
from overlap.commands.verify_memory import peak_bytes
from overlap.serve.counts import Counts
from overlap.serve.lookup import shape_hash
from overlap.serve.tuned import Entry, Spread, Tuned
from overlap.serve.tuned_file import load, save, save_json
from overlap.serve.verdict import BLOCK_ONLY, GAIN, NO_GAIN, WRONG, Answers, judge
from overlap.split import Split
from overlap.stats import Interval
from overlap.workload import Bucket
from tests.fakes import FakeDevice
from tests.hf_models import config, make
from tests.sweeps import Silent
from tests.tuned_configs import entry

KEPT = Split(chunks=2, query_tile=4, masked_blocks="skip")
BUCKET = Bucket("prefill", 2, 16, 0)
QUICK = ("rounds=6", "tokens=6")
RIGHT = Answers(8, None, False, 1e-3, 1e-3)
RAN = Counts(Counter({"prefill 2x16+0": 3}))


def interval(low: float, median: float, high: float) -> Interval:
    return Interval(median, low, high, 9)


FASTER, EVEN, SLOWER = interval(1.2, 1.3, 1.4), interval(0.98, 1.0, 1.02), interval(0.7, 0.8, 0.9)


@pytest.mark.parametrize(
    ("block", "model", "verdict", "says"),
    [
        (FASTER, FASTER, GAIN, "the model is faster, 1.300x [1.200, 1.400]"),
        (FASTER, EVEN, BLOCK_ONLY, "the block is 1.300x, but the model is not faster for sure, 1.000x"),
        (FASTER, SLOWER, BLOCK_ONLY, "but the model is slower, 0.800x"),
        (EVEN, EVEN, NO_GAIN, "the model is not faster for sure"),
        (SLOWER, SLOWER, NO_GAIN, "the model is slower"),
        (None, FASTER, GAIN, "the model is faster"),
        (None, SLOWER, NO_GAIN, "the model is slower"),
        (FASTER, interval(1.005, 1.02, 1.03), BLOCK_ONLY, "not faster for sure"),
    ],
)
def test_the_verdict_is_about_the_model(block: Interval | None, model: Interval, verdict: str, says: str) -> None:
    found, reason = judge(block, model, RIGHT, RAN)
    assert found == verdict
    assert says in reason


@pytest.mark.parametrize(
    ("found", "says"),
    [
        (replace(RIGHT, first_difference=3), "greedy token 4 differs"),
        (replace(RIGHT, logits_rel_l2=2.1e-3), "logits are 2.1e-03 off, more than 2.0e-03"),
        (replace(RIGHT, logits_rel_l2=float("nan")), "logits are nan off"),
    ],
)
def test_speed_is_nothing_where_the_answers_are_wrong(found: Answers, says: str) -> None:
    verdict, reason = judge(FASTER, FASTER, found, RAN)
    assert verdict == WRONG
    assert says in reason


def test_no_gain_where_nothing_ran_tuned() -> None:
    """Whatever the clock says."""
    ran = Counts(passed=Counter({"autocast": 3}))
    assert judge(FASTER, FASTER, RIGHT, ran) == (NO_GAIN, "nothing ran tuned: autocast")
    verdict, reason = judge(FASTER, FASTER, RIGHT, Counts(RAN.tuned, Counter({"chunks are not carried: training": 1})))
    assert verdict == GAIN
    assert reason.endswith("; chunks are not carried: training")


def test_no_gain_where_the_untouched_model_gives_no_numbers() -> None:
    lost = replace(RIGHT, own_rel_l2=float("nan"), logits_rel_l2=float("nan"))
    verdict, reason = judge(FASTER, FASTER, lost, RAN)
    assert (verdict, "untouched model are no numbers" in reason) == (NO_GAIN, True)


def test_a_tie_and_a_rounding_are_not_wrong() -> None:
    assert judge(FASTER, FASTER, replace(RIGHT, first_difference=3, tie=True), RAN)[0] == GAIN
    assert judge(FASTER, FASTER, Answers(8, None, False, 1e-6, 0.0), RAN)[0] == GAIN


def generated(tokens: list[list[int]], margin: float) -> Generated:
    """Logits in which the best two are `margin` apart in every step."""
    logits = torch.zeros(len(tokens), 10)
    logits[:, 0], logits[:, 1] = 5.0 + margin, 5.0
    return Generated(torch.tensor(tokens), [logits] * len(tokens[0]))


def test_where_tokens_differ_a_tie_is_told_from_an_error() -> None:
    mine, theirs = [[1, 2, 3], [4, 5, 6]], [[1, 2, 3], [4, 9, 6]]
    own = Distance(1e-3, 0.1)
    same = answers(generated(mine, 1.0), generated(mine, 1.0), own, own)
    assert (same.first_difference, same.tie, same.tokens) == (None, False, 3)
    for margin, tie in ((0.19, True), (0.21, False)):
        found = answers(generated(mine, margin), generated(theirs, margin), own, own)
        assert (found.first_difference, found.tie) == (1, tie)


def test_distances() -> None:
    one, other = torch.tensor([3.0, 4.0]), torch.tensor([3.0, 4.5])
    assert compare(one, one) == Distance(0.0, 0.0)
    assert compare(other, one) == Distance(0.1, 0.5)


def test_peak_memory_counts_what_lives_at_once() -> None:
    def call() -> None:
        first = torch.ones(1 << 18)
        second = first + 1
        del first
        del second
        torch.ones(1 << 18)

    found = peak_bytes(call, torch.device("cpu"))
    assert found is not None
    assert 0 <= found - 2 * 4 * (1 << 18) < 64, "two tensors, and a scalar"


# -- the block ---------------------------------------------------------------------------------------------------------


def small(order: str = "list") -> Tuned:
    model = make(layers=2)
    return config(model, [msgspec.structs.replace(entry(BUCKET, KEPT), order=order)])


def test_the_block_is_timed_in_pairs() -> None:
    tuned = small()
    found = time_block(tuned, tuned.entries[0], Path(), FakeDevice(), 9, Silent())
    assert found.speedup.samples == found.baseline_ns.samples == 9
    assert found.speedup.median == found.baseline_ns.median / found.kept_ns.median
    assert found.order == "the list order"


def test_a_searched_order_comes_from_the_run(tmp_path: Path) -> None:
    tuned = small("searched")
    lost = time_block(tuned, tuned.entries[0], tmp_path, FakeDevice(), 6, Silent())
    assert lost.order == "a list order, for that of the sweep is gone"
    from overlap.kernels.capture import capture

    program = capture(tuned.workload(tuned.entries[0]), KEPT)
    names = [op.name for op in program.ops]
    (tmp_path / "profile.json").write_text(json.dumps({"kept_order": names}))
    assert time_block(tuned, tuned.entries[0], tmp_path, FakeDevice(), 6, Silent()).order == "the order of the sweep"
    (tmp_path / "profile.json").write_text("{ damaged")
    assert time_block(tuned, tuned.entries[0], tmp_path, FakeDevice(), 6, Silent()) == lost


def test_a_card_is_set_as_it_was_when_tuned() -> None:
    tuned = small()
    software = {"mode": "lazy", "hpu.softmax_mode": "fp32", "hpu.sdpa_block": "512", "hpu.hints": "False", "torch": "2"}
    device = msgspec.structs.replace(tuned.device, kind="hpu", software=software)
    found = device_config(msgspec.structs.replace(tuned, device=device))
    assert (found.kind, found.hpu.mode, found.hpu.softmax_mode) == ("hpu", "lazy", "fp32")
    assert (found.hpu.sdpa_block, found.hpu.hints, found.hpu.recompute) == (512, False, True)
    assert device_config(tuned).kind == "host"


# -- the command -------------------------------------------------------------------------------------------------------


@pytest.fixture
def tuned_file(tmp_path: Path) -> Path:
    """A config with two buckets, of which one passes through."""
    model = make(layers=2)
    others = entry(Bucket("prefill", 1, 8, 0), Split())
    save(config(model, [entry(BUCKET, KEPT), others]), tmp_path / "tuned.yaml")
    model.config.save_pretrained(tmp_path / "bare")
    model.save_pretrained(tmp_path / "full")
    return tmp_path / "tuned.yaml"


@pytest.mark.parametrize("model", ["", "full", "bare"])
def test_the_verdict_goes_into_the_config(cli: Any, tuned_file: Path, model: str) -> None:
    before = load(tuned_file)
    answer = cli("verify", "tuned=tuned.yaml", *QUICK, *([f"model={model}"] if model else []))
    assert answer.code == 0, answer.err
    after = load(tuned_file)
    entries = {one.bucket: one for one in after.entries}
    found = entries[BUCKET].verified
    assert found is not None
    assert (found.evidence, found.tokens, found.tokens_equal, found.rounds) == ("measured", 6, True, 6)
    assert found.block is not None
    assert 0 < found.block.low <= found.block.median <= found.block.high
    assert found.logits_rel_l2 < 1e-5
    assert found.peak_bytes
    assert found.untouched_peak_bytes
    assert ("random weights" in found.model) == (model != "full")
    assert found.verdict in answer.out
    assert f"{found.model_speedup.median:.3f}x" in answer.out
    assert "2 calls tuned (prefill 2x16+0, carried: 2)" in answer.out
    # Nothing else has changed.
    unverified = [msgspec.structs.replace(one, verified=None) for one in after.entries]
    assert after.with_entries(unverified) == before.with_entries(before.entries)


def test_a_config_in_json_stays_one(cli: Any, tuned_file: Path, tmp_path: Path) -> None:
    save_json(load(tuned_file), tmp_path / "tuned.json")
    assert cli("verify", "tuned=tuned.json", *QUICK, "bucket=prefill 2x16+0").code == 0
    found = json.loads((tmp_path / "tuned.json").read_text())
    assert [one["verified"] is not None for one in found["entries"]] == [False, True]


def test_a_variant_that_computes_something_else_is_called_wrong(
    cli: Any, tuned_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The judge is fed by what the model really says."""
    real = verify_model.apply

    def broken(model: Any, *given: Any, **named: Any) -> Any:
        applied = real(model, *given, **named)
        carry = applied.carry
        assert carry is not None
        carry._rotate = lambda query, key, cos, sin: (query, key)
        return applied

    monkeypatch.setattr(verify_model, "apply", broken)
    answer = cli("verify", "tuned=tuned.yaml", *QUICK, "model=full")
    assert "verdict: wrong: the tuned model does not compute the same" in answer.out
    found = load(tuned_file).entries[1].verified
    assert found is not None
    assert found.verdict == WRONG


def test_fewer_layers_are_said(cli: Any, tmp_path: Path) -> None:
    save(config(make(layers=3), [entry(BUCKET, KEPT)]), tmp_path / "tuned.yaml")
    assert cli("verify", "tuned=tuned.yaml", "layers=2", *QUICK).code == 0
    found = load(tmp_path / "tuned.yaml").entries[0].verified
    assert found is not None
    assert "2 layers of it" in found.model
    assert "layers=4" in cli("verify", "tuned=tuned.yaml", "layers=4", *QUICK).lines[-1]


BAD: list[tuple[tuple[str, ...], str]] = [
    ((), "tuned is missing"),
    (("tuned=nothing.yaml",), "cannot read nothing.yaml"),
    (("tuned=tuned.yaml", "rounds=3"), "rounds=3 (a whole number of at least 6)"),
    (("tuned=tuned.yaml", "tokens=none"), "tokens=none"),
    (("tuned=tuned.yaml", "device=abacus"), "device=abacus (one of cpu, cuda, hpu)"),
    (("tuned=tuned.yaml", "bucket=prefill 9x9+9"), "no bucket 'prefill 9x9+9'"),
    (("tuned=tuned.yaml", "model=empty"), "cannot load the model empty"),
    (("tuned=tuned.yaml", "model=other"), "tuned for another model"),
    (("tuned=tuned.yaml", "bucket=prefill 1x8+0"), "the bucket prefill 1x8+0 passes through"),
    (("tuned=tuned.yaml", "models=full"), "verify does not take 'models=full'"),
]


@pytest.mark.parametrize(("arguments", "says"), BAD)
def test_mistakes_are_one_line(
    cli: Any, tuned_file: Path, tmp_path: Path, arguments: tuple[str, ...], says: str
) -> None:
    (tmp_path / "empty").mkdir()
    make(layers=2, intermediate_size=64).save_pretrained(tmp_path / "other")
    before = tuned_file.read_bytes()
    answer = cli("verify", *arguments)
    assert answer.code == 2
    assert says in answer.lines[-1]
    assert "Traceback" not in answer.err
    assert tuned_file.read_bytes() == before


def cut_off(folder: Path) -> None:
    file = folder / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-1000])


def without_a_layer(folder: Path) -> None:
    from safetensors.torch import load_file, save_file

    file = folder / "model.safetensors"
    save_file({n: t for n, t in load_file(file).items() if ".layers.1." not in n}, file, metadata={"format": "pt"})


def of_another_size(folder: Path) -> None:
    from safetensors.torch import load_file, save_file

    file = folder / "model.safetensors"
    save_file({n: t[:-1].contiguous() for n, t in load_file(file).items()}, file, metadata={"format": "pt"})


def nonsense(folder: Path) -> None:
    file = folder / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"hidden_size": "wide"}))


DAMAGES = [
    (cut_off, "cannot load the model full: SafetensorError"),
    (without_a_layer, "the checkpoint full lacks 9 tensors, such as model.layers.1.input_layernorm.weight"),
    (of_another_size, "cannot load the model full: RuntimeError"),
    (nonsense, "cannot load the model full"),
]


@pytest.mark.parametrize(("damage", "says"), DAMAGES, ids=[damage.__name__ for damage, _ in DAMAGES])
def test_damaged_checkpoints_are_one_line(
    cli: Any, tuned_file: Path, tmp_path: Path, damage: Callable[[Path], None], says: str
) -> None:
    """What is missing would be random, and no verdict about the checkpoint."""
    damage(tmp_path / "full")
    before = tuned_file.read_bytes()
    answer = cli("verify", "tuned=tuned.yaml", "model=full", *QUICK)
    assert answer.code == 2
    assert says in answer.lines[-1]
    assert tuned_file.read_bytes() == before


@pytest.mark.parametrize(
    "said", [{"cache_implementation": "static"}, {"prompt_lookup_num_tokens": 3}, {"do_sample": True}]
)
def test_settings_of_a_checkpoint_decide_no_tokens(
    cli: Any, tuned_file: Path, tmp_path: Path, said: dict[str, Any]
) -> None:
    (tmp_path / "full" / "generation_config.json").write_text(json.dumps(said))
    answer = cli("verify", "tuned=tuned.yaml", "model=full", *QUICK)
    assert answer.code == 0, answer.err
    found = load(tuned_file).entries[1].verified
    assert found is not None
    assert (found.tokens, found.tokens_equal) == (6, True)


def changed(path: Path, change: Callable[[Entry], Entry], **device: Any) -> None:
    tuned = load(path)
    entries = [change(one) for one in tuned.entries]
    save(
        msgspec.structs.replace(tuned.with_entries(entries), device=msgspec.structs.replace(tuned.device, **device)),
        path,
    )


def test_a_model_of_a_card_cannot_be_verified_by_a_clock(cli: Any, tuned_file: Path) -> None:
    changed(
        tuned_file,
        lambda one: msgspec.structs.replace(one, evidence="simulated"),
        kind="gaudi3",
        name="Gaudi3 (simulated)",
        evidence="simulated",
    )
    answer = cli("verify", "tuned=tuned.yaml")
    assert answer.code == 2
    assert "tuned on a model of a card" in answer.lines[-1]


def test_nothing_to_verify(cli: Any, tmp_path: Path) -> None:
    save(config(make(layers=2), [entry(BUCKET, Split())]), tmp_path / "tuned.yaml")
    assert "every bucket of the config passes through" in cli("verify", "tuned=tuned.yaml").lines[-1]


def test_the_hash_of_a_shape_is_that_of_the_made_up_model() -> None:
    """Random models are of the family that has what the shape has."""
    from overlap.commands.verify_source import load_model
    from overlap.serve.hf.seams import shape_of_model

    for family in ("Llama", "Qwen2", "Qwen3"):
        shape = shape_of_model(make(family, layers=2))
        model, words = load_model("", shape, None, torch.device("cpu"))
        assert shape_hash(shape_of_model(model)) == shape_hash(shape)
        assert words.endswith("random weights")


def test_spreads_of_too_few_samples_are_open() -> None:
    assert Spread.of(interval(0.0, 1.0, float("inf"))).high == float("inf")


def test_the_way_that_takes_less_time_is_the_faster_one(
    cli: Any, tuned_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Twice as fast as untouched, four times as fast as plain attention, whatever the clock says."""
    real = verify_model._ModelBench._once
    times = {verify_model.UNTOUCHED: 20, verify_model.TUNED: 10, verify_model.PLAIN: 40}

    def once(self: Any, way: str) -> tuple[int, torch.Tensor]:
        return times[way] * 1_000_000, real(self, way)[1]

    monkeypatch.setattr(verify_model._ModelBench, "_once", once)
    assert cli("verify", "tuned=tuned.yaml", *QUICK).code == 0
    found = load(tuned_file).entries[1].verified
    assert found is not None
    assert found.model_over_eager is not None
    assert (found.model_speedup.median, found.model_over_eager.median) == (2.0, 4.0)
    assert (found.untouched_latency_us.median, found.model_latency_us.median) == (20_000.0, 10_000.0)
    assert found.verdict == GAIN
