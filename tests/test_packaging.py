from __future__ import annotations

import ast
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest

from overlap import __version__

ROOT = Path(__file__).resolve().parent.parent
if not (ROOT / "pyproject.toml").exists():
    pytest.skip("not in a checkout", allow_module_level=True)

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
SETUPTOOLS = PROJECT["tool"]["setuptools"]
ROOMS: dict[str, str] = SETUPTOOLS["package-dir"]


def packages_on_disk() -> set[str]:
    """Every folder below a room that holds Python code, by its name once installed."""
    found = set()
    for package, folder in ROOMS.items():
        for file in (ROOT / folder).rglob("*.py"):
            below = file.parent.relative_to(ROOT / folder).parts
            found.add(".".join((package, *below)))
    return found


def test_no_package_is_forgotten() -> None:
    assert set(SETUPTOOLS["packages"]) == packages_on_disk()


def test_every_package_says_what_it_is() -> None:
    for package in packages_on_disk():
        room = max((one for one in ROOMS if package == one or package.startswith(f"{one}.")), key=len)
        folder = ROOT / ROOMS[room] / Path(*package.removeprefix(room).strip(".").split("."))
        text = (folder / "__init__.py").read_text(encoding="utf-8")
        assert ast.get_docstring(ast.parse(text)), package


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A wheel built from a copy, so that the checkout gets no build folder."""
    pytest.importorskip("setuptools", minversion="77")
    source, target = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("wheel")
    for folder in set(ROOMS.values()):
        shutil.copytree(ROOT / folder, source / folder, ignore=shutil.ignore_patterns("__pycache__"))
    for file in ("pyproject.toml", "LICENSE", "README.md"):
        shutil.copy(ROOT / file, source)
    command = [
        sys.executable,
        "-m",
        "pip",
        "wheel",
        "--quiet",
        "--no-deps",
        "--no-build-isolation",
        "-w",
        target,
        source,
    ]
    subprocess.run(command, check=True, capture_output=True)
    return next(target.glob("*.whl"))


def test_the_wheel_holds_all_code_and_values(wheel: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    for package, folder in ROOMS.items():
        for file in (ROOT / folder).rglob("*"):
            if file.suffix in (".py", ".yaml", ".typed"):
                assert f"{package.replace('.', '/')}/{file.relative_to(ROOT / folder)}" in names
    roots = {name.split("/")[0] for name in names}
    assert roots == {"overlap", f"overlap-{__version__}.dist-info"}


def test_the_wheel_works_on_its_own(wheel: Path, tmp_path: Path) -> None:
    zipfile.ZipFile(wheel).extractall(tmp_path / "site")
    code = (
        "import sys; sys.path.insert(0, 'site'); import overlap.conf; assert 'site' in overlap.conf.__file__; "
        "from overlap.cli import main; sys.exit(main(['sweep', '--cfg', 'job', 'workload=llama_3_1_405b_decode']))"
    )
    # -S leaves out the editable install of this checkout, so its dependencies are named by hand.
    paths = [path for path in sys.path if path.endswith("site-packages")]
    code = f"import sys; sys.path += {paths!r}; {code}"
    done = subprocess.run([sys.executable, "-S", "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert "llama-3.1-405b" in done.stdout


def test_metadata(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        info = f"overlap-{__version__}.dist-info"
        metadata = archive.read(f"{info}/METADATA").decode()
        scripts = archive.read(f"{info}/entry_points.txt").decode()
        assert f"{info}/licenses/LICENSE" in archive.namelist()
    assert "Requires-Python: >=3.10" in metadata
    assert "License-Expression: MIT" in metadata
    assert "overlap = overlap.cli:main" in scripts


def test_torch_of_a_gaudi_container_is_admitted() -> None:
    requirements = pytest.importorskip("packaging.requirements")
    torch = next(one for one in PROJECT["project"]["dependencies"] if one.startswith("torch"))
    # pip keeps what is installed if the specifier holds it, pre-releases included.
    specifier = requirements.Requirement(torch).specifier
    for version in ("2.7.1a0+gitf17ec26", "2.9.0", "2.13.0+cpu"):
        assert specifier.contains(version, prereleases=True)


def test_every_dependency_is_pinned() -> None:
    requirements = pytest.importorskip("packaging.requirements")
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pins = {requirements.Requirement(line).name.lower() for line in lines if line and not line.startswith("#")}
    project = PROJECT["project"]
    extras = [one for extra in project["optional-dependencies"].values() for one in extra]
    wanted = {requirements.Requirement(one).name.lower() for one in [*project["dependencies"], *extras]}
    assert wanted <= pins


def test_no_host_and_no_path_of_a_machine() -> None:
    for name in ("pyproject.toml", "constraints.txt", "Makefile"):
        text = (ROOT / name).read_text(encoding="utf-8")
        assert not [word for word in ("://", "index-url", "find-links", "/root", "/home", "/tmp") if word in text], name


@pytest.mark.parametrize("target", ["sweep", "profile", "test", "lint", "clean"])
def test_make_knows_its_targets(target: str, tmp_path: Path) -> None:
    make = shutil.which("make")
    if make is None:
        pytest.skip("no make")
    for name in ("Makefile", "pyproject.toml", "constraints.txt"):
        shutil.copy(ROOT / name, tmp_path)
    done = subprocess.run([make, "-n", target, "ARGS=a=1"], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    # What is not there yet is made first.
    assert ("-m venv" in done.stdout) == (target != "clean")
    if target in ("sweep", "profile"):
        assert f"overlap {target} a=1" in done.stdout


@pytest.mark.parametrize("gaudi", [False, True])
def test_make_keeps_the_torch_of_a_gaudi_container(
    gaudi: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make = shutil.which("make")
    if make is None:
        pytest.skip("no make")
    for name in ("Makefile", "pyproject.toml", "constraints.txt"):
        shutil.copy(ROOT / name, tmp_path)
    if gaudi:
        (tmp_path / "site" / "habana_frameworks").mkdir(parents=True)
        (tmp_path / "site" / "habana_frameworks" / "__init__.py").touch()
        monkeypatch.setenv("PYTHONPATH", str(tmp_path / "site"))
    command = [make, "-n", "test", f"PYTHON={sys.executable}"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
    assert ("--system-site-packages" in done.stdout) == gaudi
    assert ("--constraint constraints.txt" in done.stdout) != gaudi
    # What the container brings is pinned to what it is.
    assert ("> .venv/kept.txt" in done.stdout) == gaudi
    assert ("--constraint .venv/kept.txt" in done.stdout) == gaudi


def test_continuous_integration_calls_make_test() -> None:
    script = ROOT / ".ci" / "run"
    assert "make test" in script.read_text(encoding="utf-8")
    assert script.stat().st_mode & 0o111
