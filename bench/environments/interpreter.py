"""Where a worker is executed: an interpreter, what stands before it, and how it sees this machine's files."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

from bench.artifacts import cache
from bench.environments.code import PROJECT, code_folders
from bench.errors import PrerequisiteError
from bench.protocol import Job

Origin = Literal["--python", "host file", "this interpreter", "managed environment"]
CIDFILE = "{cidfile}"
"""In a prefix: the file into which a container engine writes the id of what it starts."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Interpreter:
    """A Python that executes workers, and who chose it.

    `prefix` stands before it on the command line; what it starts inherits nothing, so `environment` is handed over
    there by `env`. Without a prefix `environment` is added to this process's. `paths`: folder here -> folder inside;
    empty where both are the same. `build` tells what was installed by `bench setup` from the same versions built
    otherwise. `remedy` is what to do where it cannot execute a worker.
    """

    python: str = sys.executable
    origin: Origin = "this interpreter"
    prefix: tuple[str, ...] = ()
    environment: Mapping[str, str] = field(default_factory=dict)
    paths: Mapping[str, str] = field(default_factory=dict)
    build: str | None = None
    remedy: str = "install Evenbench again: this Python lacks what it needs"

    @property
    def label(self) -> str:
        """The command line, up to the worker."""
        return " ".join([*self.prefix, self.python])

    def given(self, variables: Mapping[str, str]) -> Interpreter:
        """The same with these variables for its workers, which win over its own."""
        return replace(self, environment={**self.environment, **variables})

    def command(self, adapter: str, cidfile: Path) -> list[str]:
        """How a worker for `adapter` (`module:Attribute`) is started; its container's id will be in `cidfile`."""
        worker = [self.python, "-m", "bench.worker"]
        if not self.prefix:
            return worker
        given = {**self.environment, "PYTHONPATH": self._python_path(adapter)}
        prefix = (word.replace(CIDFILE, str(cidfile)) for word in self.prefix)
        return [*prefix, "env", *(f"{name}={value}" for name, value in given.items()), *worker]

    def variables(self, adapter: str) -> dict[str, str]:
        """The environment of the process that is started: the worker, or what the prefix names."""
        if self.prefix:
            return dict(os.environ)
        return {**os.environ, **self.environment, "PYTHONPATH": self._python_path(adapter, os.environ)}

    def adapt(self, job: Job) -> Job:
        """`job` with its paths as the worker sees them."""
        return replace(
            job,
            behind_prefix=bool(self.prefix),
            artifact=job.artifact and self.inside(job.artifact),
            reference=job.reference and self.inside(job.reference),
            prepared_folder=job.prepared_folder and self.inside(job.prepared_folder),
            prepared=job.prepared and replace(job.prepared, path=self.inside(job.prepared.path)),
        )

    def inside(self, path: str | Path) -> str:
        """`path` as the worker sees it, by the longest folder that holds it; PrerequisiteError where none does."""
        if not self.paths:
            return str(path)
        for seen in (Path(path), Path(path).resolve()):
            held = [folder for folder in self.paths if seen.is_relative_to(folder)]
            if held:
                folder = max(held, key=lambda folder: len(Path(folder).parts))
                return str(Path(self.paths[folder]) / seen.relative_to(folder))
        raise PrerequisiteError(
            "lies in no folder that the interpreter sees",
            where=str(path),
            cause=f"`paths` has {', '.join(self.paths)}",
            remedy=f'add "{_top(Path(path))}" = "/where/it/is/inside" to `paths` and let the command show it there; '
            + self.remedy,
        )

    def _python_path(self, adapter: str, inherited: Mapping[str, str] | None = None) -> str:
        """This project and the adapter first, then what was set before; each entry as the worker sees it."""
        code = [self.inside(folder) for folder in code_folders(adapter, shared=self.origin == "this interpreter")]
        before = [source.get("PYTHONPATH", "") for source in (self.environment, inherited or {})]
        return os.pathsep.join([*code, *(part for text in before for part in text.split(os.pathsep) if part)])


def _top(path: Path) -> Path:
    """The folder worth mapping: the cache, this project, or the file's own."""
    return next((top for top in (cache.root(), PROJECT) if path.is_relative_to(top)), path.parent)
