"""Wheels for a machine without any network: this project, backends' runtimes, and what an installation builds with."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path

from bench.api import Backend
from bench.environments import pip
from bench.environments.code import IGNORED, PROJECT
from bench.environments.installing import CONSTRAINTS, WORKER_NEEDS, check_tools
from bench.errors import PrerequisiteError
from bench.types import Requirements

SOURCES = ("bench", "backends", "pyproject.toml", "README.md", "models.toml", "constraints.txt")
"""What this project's wheel is made of; copied, because building leaves its traces."""
BUILDS_WITH = ("setuptools>=77",)


def bundle(folder: Path, backends: Sequence[Backend], watch: pip.Watch) -> list[Path]:
    """Collect into `folder`, going on with what is there already; all wheels in it.

    PrerequisiteError outside of a checkout, and where a tool, the network or disk is missing.
    """
    if not (PROJECT / "pyproject.toml").is_file():
        raise PrerequisiteError(
            "no checkout: this project's wheel cannot be built from itself",
            where=str(PROJECT),
            remedy="execute scripts/bench of a checkout",
        )
    needed = [backend.requirements(None) for backend in backends]
    for each in needed:
        check_tools(each, "bench bundle")
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="bench-bundle-") as place:
        source = _copy(Path(place))
        core = (str(source), *BUILDS_WITH, *WORKER_NEEDS)
        pip.collect(folder, core, CONSTRAINTS, Requirements(packages=core), watch)
    for each in needed:
        if each.packages:
            pip.collect(folder, each.packages, CONSTRAINTS, each, watch)
    return sorted(folder.glob("*.whl"))


def _copy(place: Path) -> Path:
    for name in SOURCES:
        if (PROJECT / name).is_dir():
            shutil.copytree(PROJECT / name, place / name, symlinks=True, ignore=shutil.ignore_patterns(IGNORED))
        else:
            shutil.copyfile(PROJECT / name, place / name)
    return place
