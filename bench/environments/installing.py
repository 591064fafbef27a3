"""`bench setup`: from an adapter's requirements to a managed environment in which it finds its runtime."""

from __future__ import annotations

import errno
import hashlib
import json
import re
import shutil
import subprocess
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

import msgspec

from bench.api import Backend
from bench.artifacts.folders import remove_folder, remove_leftovers
from bench.collector import host
from bench.environments import pip
from bench.environments.interpreter import Interpreter
from bench.environments.managed import Environment, Told, check_writable, environment, held
from bench.environments.probing import probe
from bench.errors import BenchError, PrerequisiteError, UsageError
from bench.types import Availability, Requirements
from bench.units import render_bytes

CONSTRAINTS = Path(__file__).with_name("constraints.txt")
"""The committed versions: a link to constraints.txt at the root of a checkout, a copy of it in a wheel."""
WORKER_NEEDS = ("numpy>=1.26",)
LEAST_DISK_BYTES = 100 << 20
"""What an environment takes without a runtime."""
APT = {"c++": "g++", "cc": "gcc", "cmake": "cmake", "make": "make", "ninja": "ninja-build", "git": "git"}
BASE = "import sys, ensurepip, venv; print(*sys.version_info[:3], sep='.'); sys.exit(sys.version_info < (3, 10))"


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """What `bench setup` was asked for. `python` is the interpreter that makes the environment."""

    backend: Backend
    target: str
    accelerator: str | None
    requirements: Requirements
    python: str
    python_version: str
    environment: Environment

    @property
    def packages(self) -> tuple[str, ...]:
        return (*self.requirements.packages, *WORKER_NEEDS)

    @property
    def fingerprint(self) -> str:
        """Everything that decides what is installed, the committed versions apart: those are compared one by one."""
        needed = self.requirements
        processor = host.processor() if needed.native else None
        what = [self.backend.name, self.accelerator, asdict(needed), self.packages, self.python_version, processor]
        return hashlib.sha256(json.dumps(what, sort_keys=True).encode()).hexdigest()[:16]

    @property
    def interpreter(self) -> Interpreter:
        """The one inside."""
        return Interpreter(
            python=str(self.environment.python), origin="managed environment", remedy=f"read {self.environment.log}"
        )


def want(backend: Backend, target: str, accelerator: str | None, python: str) -> Wanted:
    """What is to be installed for a backend; UsageError where nothing can, PrerequisiteError for an unfit Python."""
    requirements = backend.requirements(accelerator)
    if not requirements.packages:
        what = "pip cannot bring its runtime" if backend.computes else "needs no environment: it has no runtime"
        raise UsageError(what, where=f"backend {backend.name}", remedy=requirements.notes)
    if not re.fullmatch(r"\w[\w.-]*", backend.name):
        raise UsageError(f"{backend.name!r} cannot name a folder", where=target)
    return Wanted(
        backend=backend,
        target=target,
        accelerator=accelerator,
        requirements=requirements,
        python=python,
        python_version=_version(python),
        environment=environment(backend.name),
    )


def finished(wanted: Wanted) -> Availability | None:
    """What the adapter finds in the environment as it is; None unless it is exactly what is wanted, and works."""
    told = wanted.environment.told
    if told is None or not told.ready or told.fingerprint != wanted.fingerprint or told.pins != _pins(told.installed):
        return None
    try:
        found = probe(wanted.target, wanted.interpreter)
    except BenchError:
        return None
    return found if found.ok else None


def check(wanted: Wanted) -> None:
    """PrerequisiteError where a tool or free disk is missing, or something else lies in its place."""
    check_tools(wanted.requirements, f"bench setup {wanted.backend.name}")
    check_writable()
    place = wanted.environment.path
    if wanted.environment.taken:
        raise PrerequisiteError(
            "is no environment that `bench setup` made",
            where=str(place),
            remedy="move it away, or set BENCH_ENVIRONMENTS to another folder",
        )
    needed_bytes = wanted.requirements.disk_bytes or LEAST_DISK_BYTES
    free_bytes = shutil.disk_usage(place.parent).free
    if free_bytes < needed_bytes:
        raise PrerequisiteError(
            f"{render_bytes(free_bytes)} free, about {render_bytes(needed_bytes)} needed",
            where=str(place.parent),
            remedy="free some space, or set BENCH_ENVIRONMENTS to a folder on a larger disk",
        )


def check_tools(needed: Requirements, where: str) -> None:
    """PrerequisiteError where an executable that compiling needs is not on PATH."""
    absent = [tool for tool in needed.tools if shutil.which(tool) is None]
    if absent:
        packages = [APT[tool] for tool in absent if tool in APT]
        remedy = f"install it (Debian, Ubuntu: apt install {' '.join(packages)})" if packages else "install it"
        notes = f"; {needed.notes}" if needed.notes and len(packages) < len(absent) else ""
        raise PrerequisiteError(f"{', '.join(absent)} not found on PATH", where=where, remedy=remedy + notes)


def install(wanted: Wanted, watch: pip.Watch) -> Availability:
    """Make the environment, going on with what an interrupted call left, and probe the backend inside.

    `watch` gets each line of the log, and None while nothing is said. Raises PrerequisiteError where it fails,
    BusyError while another process is at it.
    """
    try:
        with held(wanted.environment):
            return _install(wanted, watch)
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise PrerequisiteError(
            "disk full",
            where=str(wanted.environment.path),
            remedy="free some space, or set BENCH_ENVIRONMENTS to a folder on a larger disk",
        ) from error


def _install(wanted: Wanted, watch: pip.Watch) -> Availability:
    made, needed = wanted.environment, wanted.requirements
    begun = Told(
        backend=wanted.backend.name,
        accelerator=wanted.accelerator,
        fingerprint=wanted.fingerprint,
        python_version=wanted.python_version,
    )
    if made.path.exists() and not _goes_on(made.told, wanted):
        remove_folder(made.path)
    remove_leftovers(made.path)
    made.path.mkdir(exist_ok=True)
    made.tell(begun)
    cache = made.pip_cache if needed.build or needed.native else None
    pip.make_venv(wanted.python, made, watch)
    pip.install(made, wanted.packages, CONSTRAINTS, needed, cache, watch)
    found = probe(wanted.target, wanted.interpreter)
    if not found.ok:
        raise PrerequisiteError(
            f"installed, but the backend does not find its runtime: {found.reason}",
            where=str(made.path),
            cause=needed.notes,
            remedy=f"read {made.log}",
        )
    installed = pip.installed(made)
    shutil.rmtree(made.pip_cache, ignore_errors=True)
    held_now = {"versions": found.versions, "installed": installed, "pins": _pins(installed)}
    made.tell(msgspec.structs.replace(begun, ready=True, **held_now))
    return found


def _goes_on(told: Told | None, wanted: Wanted) -> bool:
    """Whether what is there can become what is wanted: it was interrupted, or other versions were committed since.

    What is finished and as asked is here because it does not work.
    """
    if told is None or told.fingerprint != wanted.fingerprint:
        return False
    return not told.ready or told.pins != _pins(told.installed)


def _version(python: str) -> str:
    """Of an interpreter that can make an environment."""
    remedy = "give --python a Python 3.10 or newer with its venv module (Debian, Ubuntu: apt install python3-venv)"
    try:
        done = subprocess.run([python, "-c", BASE], capture_output=True, text=True, timeout=60, check=False)
    except (OSError, subprocess.SubprocessError) as error:
        raise PrerequisiteError("cannot be executed", where=python, cause=str(error), remedy=remedy) from error
    version = done.stdout.strip()
    if done.returncode:
        cause = f"it is Python {version}" if version else "it has no venv or ensurepip module"
        raise PrerequisiteError("cannot make an environment", where=python, cause=cause, remedy=remedy)
    return version


def _pins(names: Iterable[str]) -> list[str]:
    """The lines of the committed versions that are about `names`: other packages' may change without harm."""
    lines = [line.strip() for line in CONSTRAINTS.read_text(encoding="utf-8").splitlines()]
    wanted = {_normal(name) for name in names}
    return [line for line in lines if "==" in line and _normal(line.partition("==")[0]) in wanted]


def _normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()
