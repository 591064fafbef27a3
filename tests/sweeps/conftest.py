"""Executing `bench` as a user does: in a process of its own, with the scripted backend and a store of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from bench.results.record import Record
from bench.results.store import Store

ROOT = Path(__file__).parents[2]
SCRIPTED = "tests.scripted:Scripted"
UNTOUCHED = {"PYTHONPATH": str(ROOT), "COLUMNS": "80"}
MODEL = "smollm2-135m-int8"


@dataclass
class Ended:
    """What a finished command left."""

    code: int
    out: str
    err: str
    store: Store

    @property
    def records(self) -> list[Record]:
        return list(self.store.records())

    @property
    def statuses(self) -> dict[str, str]:
        return {record.identity.workload.name: record.status for record in self.records}

    @property
    def printed(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.out.splitlines()]


Bench = Callable[..., Ended]


def environment(tmp_path: Path) -> dict[str, str]:
    """Nothing of the user's own: no cache, no managed environments, no host file, no models."""
    own = {"BENCH_CACHE": "cache", "BENCH_ENVIRONMENTS": "environments", "XDG_CONFIG_HOME": "config"}
    inherited = {name: value for name, value in os.environ.items() if name != "BENCH_HOST"}
    return {**inherited, **{name: str(tmp_path / folder) for name, folder in own.items()}, **UNTOUCHED}


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    """`bench(*words)` executes the command in an empty folder; `results` is its store."""

    def execute(*words: str, results: Path | None = None, env: dict[str, str] | None = None) -> Ended:
        results = results or tmp_path / "results"
        done = subprocess.run(
            [sys.executable, "-m", "bench", *words],
            cwd=tmp_path,
            env={**environment(tmp_path), "BENCH_RESULTS": str(results), **(env or {})},
            capture_output=True,
            text=True,
            timeout=120,
        )
        return Ended(done.returncode, done.stdout, done.stderr, Store(results))

    return execute


def scripted(script: str = "", *words: str, workload: str = "pp32,tg8") -> list[str]:
    """The words of a sweep over the scripted backend."""
    return ["run", "--backend", SCRIPTED, "--model", MODEL, "--workload", workload, "--set", f"script={script}", *words]
