"""Interpreters that hold chosen packages of the running one, linked: made in a second, without a network."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from tests.cli.conftest import TINY
from tests.environments.toy import make_numpy
from tests.sweeps.conftest import bench

__all__ = ["bench"]

CORE = (
    "click",
    "gguf",
    "msgspec",
    "platformdirs",
    "psutil",
    "rich",
    *(["tomli"] if sys.version_info < (3, 11) else []),
)


def closure(*names: str) -> dict[str, metadata.Distribution]:
    """The installed distributions of these names and of everything that they require."""
    found: dict[str, metadata.Distribution] = {}
    waiting = list(names)
    while waiting:
        name = waiting.pop().lower().replace("_", "-")
        if name not in found:
            found[name] = metadata.distribution(name)
            needed = (Requirement(line) for line in found[name].requires or ())
            waiting += [each.name for each in needed if each.marker is None or each.marker.evaluate({"extra": ""})]
    return found


def tops(distribution: metadata.Distribution) -> Iterator[Path]:
    """The files and folders right in site-packages that belong to a distribution."""
    names = {file.parts[0] for file in distribution.files or ()} - {"..", "__pycache__"}
    yield from (Path(str(distribution.locate_file(name))) for name in sorted(names))


def make_interpreter(folder: Path, *names: str) -> str:
    """A virtual environment with these packages and what they require, and no others."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(folder)], check=True)
    (packages,) = folder.glob("lib/python3*/site-packages")
    for distribution in closure(*names).values():
        for top in tops(distribution):
            if not (packages / top.name).exists():
                (packages / top.name).symlink_to(top)
    return str(folder / "bin" / "python")


@pytest.fixture(scope="session")
def without_runtime(tmp_path_factory: pytest.TempPathFactory) -> str:
    """An interpreter for the command line: everything of the core, and no runtime."""
    return make_interpreter(tmp_path_factory.mktemp("first"), *CORE)


@pytest.fixture(scope="session")
def with_runtime(tmp_path_factory: pytest.TempPathFactory) -> str:
    """An interpreter for workers: numpy and one runtime, nothing of the core."""
    pytest.importorskip("onnxruntime")
    return make_interpreter(tmp_path_factory.mktemp("second"), "numpy", "onnxruntime", "onnx")


@pytest.fixture(scope="session")
def with_numpy(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The least that a worker needs."""
    return make_interpreter(tmp_path_factory.mktemp("numpy"), "numpy")


@pytest.fixture(autouse=True)
def tiny_toml(tmp_path: Path) -> None:
    """`tiny.toml` in the folder in which commands are executed."""
    (tmp_path / "tiny.toml").write_text(TINY)


@pytest.fixture(scope="session")
def wheels(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with wheels of the core's packages and of setuptools, packed again from where they are installed."""
    folder = tmp_path_factory.mktemp("wheels")
    make_numpy(folder, folder)
    for name, distribution in closure(*CORE, "setuptools").items():
        if name != "numpy":
            repack(distribution, folder)
    return folder


def repack(distribution: metadata.Distribution, into: Path) -> None:
    """A wheel of an installed distribution; what pip wrote beside it is left out."""
    tag = next(line for line in (distribution.read_text("WHEEL") or "").splitlines() if line.startswith("Tag: "))[5:]
    name, version = distribution.metadata["Name"].replace("-", "_"), distribution.version
    kept = [file for file in distribution.files or () if file.parts[0] != ".." and file.suffix != ".pyc"]
    kept = [file for file in kept if file.name not in ("RECORD", "INSTALLER", "REQUESTED", "direct_url.json")]
    (about,) = {file.parts[0] for file in kept if file.parts[0].endswith(".dist-info")}
    with zipfile.ZipFile(into / f"{name}-{version}-{tag}.whl", "w") as wheel:
        for file in kept:
            wheel.write(str(file.locate()), str(file))
        wheel.writestr(f"{about}/RECORD", "".join(f"{file},,\n" for file in [*kept, f"{about}/RECORD"]))
