"""The top of the page of `overlap report`: what was gained, in one number and a few sentences.

Terms
    block: the window of layers, which a sweep times; its speed-up is over the same layers unsplit.
    model: the whole model in its stack, which `overlap verify` times. Where there are verdicts, they stand first.

A verdict has a device and an evidence of its own: a model may have been timed elsewhere than the block was.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from html import escape

from overlap.analysis.html import badge
from overlap.commands.report_words import bucket_in_words, shares, spread_times, times
from overlap.serve.tuned import Tuned, Verified
from overlap.serve.verdict import BLOCK_ONLY, GAIN, NO_GAIN, WRONG

# Worst first: whoever reads only one line must not miss it.
SAID = {
    WRONG: "do not use this",
    BLOCK_ONLY: "the gain of these layers does not show in the whole model",
    NO_GAIN: "no gain in the whole model",
    GAIN: "the whole model is faster",
}
# From here on a change of the share of time in which both engines work is one.
MORE = 0.01
MOST_LINES = 6


def headline(tuned: Tuned) -> str:
    """The model, the number that counts most, and what it means."""
    verdicts = [entry.verified for entry in tuned.entries if entry.verified]
    figure, sentence = model_summary(verdicts, len(tuned.entries)) if verdicts else summary(tuned)
    evidence = dict.fromkeys(one.evidence for one in verdicts) if verdicts else [tuned.device.evidence]
    found = {one.verdict for one in verdicts}
    good = GAIN in found and WRONG not in found if verdicts else any(not entry.pass_through for entry in tuned.entries)
    ranks = f", one of {tuned.tensor_parallel} cards" if tuned.tensor_parallel > 1 else ""
    pieces = [_models, _layers, _stack] if verdicts else [_stack, _models]
    return (
        f"<header><h1>{escape(tuned.model.name)}{ranks}</h1><p class='muted'>{escape(tuned.device.name)}</p></header>"
        f'<section class="top"><div class="big{"" if good else " none"}"><b>{figure}</b>'
        f"{''.join(map(badge, evidence))}<p>{escape(sentence)}</p></div>"
        f'<div class="words">{"".join(piece(tuned) for piece in pieces)}</div></section>'
    )


def summary(tuned: Tuned) -> tuple[str, str]:
    """The mean speed-up of the layers and a sentence about it."""
    kept = [entry for entry in tuned.entries if not entry.pass_through]
    count = len(tuned.entries)
    if not count:
        return "–", "No shape has been tuned."
    if not kept:
        return "1.00×", "Nothing was faster for sure than the layers as they are; they are left as they are."
    mean = times(geometric_mean(1.0 if entry.pass_through else entry.speedup.median for entry in tuned.entries))
    more = sum(shares(e.busy)["MME+TPC"] > shares(e.baseline_busy)["MME+TPC"] + MORE for e in kept)
    layers = f"{tuned.window_layers} layers" if tuned.window_layers > 1 else "a layer"
    if count == 1:
        both = "; both engines work at once for more of the time" if more else ""
        return mean, f"as fast as the same {layers} unsplit: the same results, computed in other steps{both}."
    return (
        mean,
        f"as fast as the same {layers} unsplit, in the mean over {count} shapes. Computed in other steps now: "
        f"{len(kept)}; left as they are: {count - len(kept)}. In {more or 'none'}, both engines work at once for more "
        "of the time than before.",
    )


def model_summary(verdicts: Sequence[Verified], count: int) -> tuple[str, str]:
    """The mean speed-up of the whole model and a sentence about it; what computes something else has none."""
    right = [one for one in verdicts if one.verdict != WRONG]
    bad = len(verdicts) - len(right)
    wrong = f" Not the same results, so not to be used: {bad}." if bad else ""
    if not right:
        return "–", f"The whole model was run tuned and untouched.{wrong}"
    mean = times(geometric_mean(one.model_speedup.median for one in right))
    faster = sum(one.verdict == GAIN for one in right)
    shapes = f"{len(right)} of {count} shapes" if count > 1 else "one shape"
    where = ", ".join(dict.fromkeys(one.device for one in right))
    sure = "Faster for sure" if faster == len(right) else f"Faster for sure in {faster or 'none'}"
    return mean, f"as fast as the untouched model: the whole model, run in {shapes} on {where}. {sure}.{wrong}"


def geometric_mean(values: Iterable[float]) -> float:
    """Of positive values."""
    logs = [math.log(value) for value in values]
    return math.exp(sum(logs) / len(logs))


def verdict_in_words(found: Verified) -> str:
    """What `overlap verify` found, with what it is of."""
    faster = f", {spread_times(found.model_speedup)} as fast as the untouched one"
    said = SAID[found.verdict] + (f": {found.reason}" if found.verdict == WRONG else faster)
    block = f" These layers alone: {spread_times(found.block)}." if found.block else ""
    return f"{said}.{block} {tokens_in_words(found)} {origin_in_words(found)}"


def tokens_in_words(found: Verified) -> str:
    """Whether the tuned model said the same."""
    if found.tokens_equal:
        return f"All {found.tokens} tokens are the same."
    tie = ", where the untouched model itself was undecided" if found.tie else ""
    return f"Of {found.tokens} tokens, those from number {(found.first_difference or 0) + 1} on differ{tie}."


def origin_in_words(found: Verified) -> str:
    """Which model, where, and in which stack."""
    return f"{found.evidence.capitalize()} on {found.device}: {found.model}; {found.stack}; {found.date}."


def _models(tuned: Tuned) -> str:
    found = [(entry, entry.verified) for entry in tuned.entries if entry.verified]
    if not found:
        return "<h2>In the whole model</h2><p>Nobody has compared whole models yet: <b>overlap verify</b> does.</p>"
    worst = sorted(found, key=lambda pair: list(SAID).index(pair[1].verdict))
    lines = [f"<li>{escape(_capital(bucket_in_words(e.bucket)))}: {escape(verdict_in_words(v))}</li>" for e, v in worst]
    more = f"<details><summary>{len(lines) - MOST_LINES} more</summary><ul>{''.join(lines[MOST_LINES:])}</ul></details>"
    rest = more if len(lines) > MOST_LINES else ""
    return f"<h2>In the whole model</h2><ul>{''.join(lines[:MOST_LINES])}</ul>{rest}"


def _layers(tuned: Tuned) -> str:
    """The gain at block level, for a page on which it does not stand first."""
    figure, sentence = summary(tuned)
    return f"<h2>The layers alone</h2><p>{figure}{badge(tuned.device.evidence)} {escape(sentence)}</p>"


def _stack(tuned: Tuned) -> str:
    """What serving stacks do anyway is no plain order: the gain over that is another one."""
    found = [entry.speedup_vs_stack for entry in tuned.entries if entry.speedup_vs_stack]
    if not found:
        return ""
    mean = times(geometric_mean(one.median for one in found))
    where = f", in the mean over {len(found)} shapes" if len(found) > 1 else ""
    slower = sum(one.median < 1 for one in found)
    but = f" In {slower} of them the stack is ahead." if slower and len(found) > 1 else ""
    return (
        f"<h2>Over the stack</h2><p>{mean} as fast as what a serving stack does by default on this device{where}.{but} "
        "The unsplit layers are a plain yardstick; no stack has to run them.</p>"
    )


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]
