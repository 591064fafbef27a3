"""`bench run` as a user executes it, over a cache that already holds small models prepared without a fault."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import pytest

from bench.results.record import Record
from bench.results.store import Store
from bench.types import Arch
from tests.gate.plants import ARCHS, SCHEME

ROOT = Path(__file__).parents[2]


@dataclass
class Ended:
    """What a finished command left."""

    code: int
    err: str
    records: list[Record]


@dataclass
class Bench:
    """A cache, a store and a models file of its own."""

    folder: Path

    @property
    def cache(self) -> Path:
        return self.folder / "cache"

    def prepared(self, model: str) -> Path:
        """The folder that the adapter wrote for `model`."""
        (found,) = self.cache.glob(f"prepared/onnx-{model}-{SCHEME}-*")
        return found

    def __call__(self, model: str, *words: str, backend: str = "onnx") -> Ended:
        results = self.folder / f"results{len(list(self.folder.iterdir()))}"
        command = ["run", "--backend", backend, "--model", f"{model}-{SCHEME}", "--workload", "pp32,tg8"]
        done = subprocess.run(
            [sys.executable, "-m", "bench", *command, "--models", "models.toml", "--results", str(results), *words],
            cwd=self.folder,
            env={**os.environ, "PYTHONPATH": str(ROOT), "BENCH_CACHE": str(self.cache)},
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        return Ended(done.returncode, done.stderr, list(Store(results).records()) if results.exists() else [])


@pytest.fixture(scope="session")
def clean(tmp_path_factory: pytest.TempPathFactory) -> Bench:
    """Every model prepared, certified and measured without a fault."""
    bench = Bench(tmp_path_factory.mktemp("gate"))
    (bench.folder / "models.toml").write_text("".join(map(toml, ARCHS, ARCHS.values())))
    for model in ARCHS:
        ended = bench(model)
        assert ended.code == 0, ended.err
        assert [record.status for record in ended.records] == ["ok", "ok"]
    return bench


@pytest.fixture
def copied(clean: Bench, tmp_path: Path) -> Callable[[str], Bench]:
    """A copy of `clean` with only what concerns one model, to be tampered with."""

    def copy(model: str) -> Bench:
        bench = Bench(tmp_path)
        shutil.copy(clean.folder / "models.toml", tmp_path)
        for kind in ("artifacts", "prepared"):
            for folder in (clean.cache / kind).glob(f"*{model}-*"):
                shutil.copytree(folder, bench.cache / kind / folder.name)
        shutil.copytree(clean.cache / "certificates", bench.cache / "certificates")
        return bench

    return copy


def toml(name: str, arch: Arch) -> str:
    def text(value: object) -> str:
        if isinstance(value, dict):
            return "{ " + ", ".join(f"{key} = {text(inner)}" for key, inner in value.items()) + " }"
        return str(value).lower() if isinstance(value, bool) else repr(value).replace("'", '"')

    lines = [f"{key} = {text(value)}" for key, value in asdict(arch).items() if value is not None]
    return "\n".join([f"[{name}]", *lines, ""])
