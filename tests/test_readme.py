"""The documents: what they link to is there, and what they tell people to type is understood."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from overlap.split import Split

ROOT = Path(__file__).resolve().parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "benchmarks").glob("*.md")), ROOT / "tests" / "README.md"]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_local_links_lead_somewhere(page: Path) -> None:
    links = re.findall(r"\]\(([^)#]+)\)", page.read_text(encoding="utf-8"))
    missing = [link for link in links if "://" not in link and not (page.parent / link).exists()]
    assert missing == []


def test_overrides_in_the_readme_compose(cli) -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    overrides = set(re.findall(r"\b(?:workload|space|search|device)=[a-z0-9_]+", text))
    assert len(overrides) >= 3
    for override in overrides:
        assert cli("sweep", override, "--cfg", "job").code == 0, override


def test_split_fields_in_the_readme_exist() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert set(re.findall(r"split\.(\w+)=", text)) <= set(Split().as_dict())


def test_every_room_is_in_the_layout() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    for room in ("kernels/", "traces/", "analysis/", "conf/", "overlap/search/", "overlap/serve/", "overlap/devices/"):
        assert f"`{room}`" in text
