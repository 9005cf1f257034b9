"""Guesses at what a misspelt word was meant to be."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence

# As many names as still read well on one line; more are left to --help.
LISTED = 8


def meant(word: str, known: Iterable[str]) -> list[str]:
    """Entries of `known` that `word` is probably a misspelling of, the likeliest first."""
    return difflib.get_close_matches(word, list(dict.fromkeys(known)), n=2, cutoff=0.6)


def did_you_mean(word: str, known: Sequence[str], otherwise: str = "") -> str:
    """A hint about a word that does not exist: what was meant, and what there is where that is short enough."""
    guesses = f"did you mean {' or '.join(meant(word, known))}?" if meant(word, known) else ""
    listed = f"there are: {', '.join(known)}" if len(known) <= LISTED else ""
    return " ".join(part for part in (guesses, listed or ("" if guesses else otherwise)) if part)
