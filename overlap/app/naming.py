"""Names of multirun sub-folders, made of what a job is rather than of its number.

The same overrides give the same folder on any machine and in any order, so a second `overlap sweep -m …` goes on where
the first one stopped, and jobs of different content never share a folder.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable

from omegaconf import OmegaConf

from overlap import __version__

HASH_DIGITS = 10
SLUG_LENGTH = 48
# Overrides that say where results are reported to, or how many are worked on at once, and change nothing in them.
NOT_CONTENT = frozenset({"records", "buckets.jobs"})


def run_name(overrides: Iterable[str]) -> str:
    """`<values>-<hash>`: readable words of the overrides, and a hash of all of them and of the program's version."""
    # The last of two overrides of one key wins in Hydra, so only that one counts here.
    pairs = {key: value for key, _, value in (text.partition("=") for text in overrides)}
    pairs = {key: value for key, value in pairs.items() if key not in NOT_CONTENT}
    content = json.dumps([__version__, sorted(pairs.items())])
    digest = hashlib.sha256(content.encode()).hexdigest()[:HASH_DIGITS]
    words = re.sub(r"[^A-Za-z0-9._]+", "-", "-".join(pairs[key] for key in sorted(pairs)))
    slug = words.strip("-.")[:SLUG_LENGTH].rstrip("-.")
    return f"{slug or 'default'}-{digest}"


def register_resolvers() -> None:
    """Make `${overlap.run_name:…}` known to OmegaConf."""
    OmegaConf.register_new_resolver("overlap.run_name", run_name, replace=True)
