"""`bench bundle`: installing from it with the index switched off, from a copy of the checkout and from the wheel."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from bench.environments.bundling import SOURCES
from bench.results.store import Store
from tests.cli.conftest import NULL_SWEEP
from tests.environments.conftest import TINY
from tests.sweeps.conftest import ROOT, Bench, environment


def offline(*folders: Path) -> dict[str, str]:
    """Variables of a machine without a package index; nothing of this project is importable there."""
    links = " ".join(folder.as_uri() for folder in folders)
    given = {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": links, "PIP_CONFIG_FILE": os.devnull}
    return {**given, "PYTHONPATH": "", "PIP_CACHE_DIR": str(folders[0] / "pip-cache")}


@pytest.fixture(scope="module")
def bundled(tmp_path_factory: pytest.TempPathFactory, wheels: Path) -> tuple[Path, str]:
    """A bundle of the core (the backend `null` needs no more), and what was said of it."""
    folder = tmp_path_factory.mktemp("a bundle") / "wheels"
    given = {**environment(folder.parent), **offline(wheels), "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "bench", "bundle", str(folder), "null"]
    done = subprocess.run(command, cwd=folder.parent, env=given, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return folder, done.stdout


def swept(command: list[str], folder: Path, variables: dict[str, str]) -> str:
    """Execute a sweep over `null` and return what its one record says of the interpreter."""
    (folder / "tiny.toml").write_text(TINY)
    given = {**environment(folder), **variables, "BENCH_RESULTS": str(folder / "results")}
    done = subprocess.run(command, cwd=folder, env=given, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    (record,) = Store(folder / "results").records()
    assert record.status == "unproven" and record.info.interpreter
    return record.info.interpreter.python


def test_it_says_what_to_do_there(bundled: tuple[Path, str]) -> None:
    folder, said = bundled
    first, *_ = said.splitlines()
    assert first.startswith(f"{len(list(folder.glob('*.whl')))} wheels, ") and first.endswith(f"in {folder}")
    assert f"export PIP_NO_INDEX=1 PIP_FIND_LINKS={folder.as_uri()}" in said
    assert list(folder.glob("evenbench-*.whl")) and list(folder.glob("setuptools-*.whl"))


def test_a_copy_of_the_checkout_is_installed_from_it(bundled: tuple[Path, str], tmp_path: Path) -> None:
    clone = tmp_path / "clone"
    for name in (*SOURCES, "scripts"):
        copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copyfile
        (clone / name).parent.mkdir(exist_ok=True)
        copy(ROOT / name, clone / name)
    (clone / "bench" / "models.toml").unlink()
    (clone / "bench" / "models.toml").symlink_to("../models.toml")
    variables = {**offline(bundled[0]), "PYTHON": sys.executable}
    python = swept([str(clone / "scripts" / "bench"), *NULL_SWEEP], tmp_path, variables)
    assert python == str(clone / ".venv" / "bin" / "python")


def test_the_wheel_alone_measures_in_another_interpreter(
    bundled: tuple[Path, str], with_numpy: str, tmp_path: Path
) -> None:
    """A worker elsewhere gets this project's packages, and none of those that are installed beside them."""
    place = tmp_path / "installed"
    subprocess.run([sys.executable, "-m", "venv", str(place)], check=True)
    install = [str(place / "bin" / "pip"), "install", "--quiet", "--disable-pip-version-check", "evenbench"]
    subprocess.run(install, env={**os.environ, **offline(bundled[0])}, check=True)
    command = [str(place / "bin" / "bench"), *NULL_SWEEP, "--python", with_numpy]
    assert swept(command, tmp_path, offline(bundled[0])) == with_numpy
    (copies,) = [sorted(path.name.rpartition("-")[0] for path in (tmp_path / "cache" / "code").iterdir())]
    assert copies == ["backends", "bench"]
    (constraints,) = place.glob("lib/python3*/site-packages/bench/environments/constraints.txt")
    assert constraints.read_bytes() == (ROOT / "constraints.txt").read_bytes()


def test_without_an_index_it_says_so(bench: Bench, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    ended = bench("bundle", "there", "null", env={**offline(tmp_path / "empty"), "PYTHONPATH": str(ROOT)})
    assert ended.code == 3 and "pip found no package index that has it" in ended.err.splitlines()[-1]
    assert bench("bundle", "there", "moon").code == 2
