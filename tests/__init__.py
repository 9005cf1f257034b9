"""Tests; see `tests/README.md` for how they are sorted."""
