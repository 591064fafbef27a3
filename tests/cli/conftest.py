"""A model of 40 thousand weights, a cache that holds it, and what every message must look like."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.sweeps.conftest import Ended, bench, environment

__all__ = ["bench"]

TINY = """
[tiny]
family = "llama"
layers = 2
hidden = 96
heads = 4
kv_heads = 2
head_dim = 32
ffn = 160
vocab = 300
context = 512
rope_theta = 10000.0
norm_eps = 1e-5
tied = false
"""
TINY_SWEEP = ("run", "--backend", "onnx", "--model", "tiny-int8", "--models", "tiny.toml", "--workload", "tg4")
NULL_SWEEP = ("run", "--backend", "null", "--model", "tiny-int8", "--models", "tiny.toml", "--workload", "tg4")


def refused(ended: Ended, code: int, *says: str) -> None:
    """One line, with its exit code, that says all of this; nothing on standard output."""
    assert ended.code == code, ended.err
    assert ended.err.startswith("bench: ") and ended.err.endswith("\n") and ended.err.count("\n") == 1, ended.err
    assert ended.out == ""
    for text in says:
        assert text in ended.err, ended.err


@pytest.fixture(autouse=True)
def tiny_toml(tmp_path: Path) -> Path:
    """`tiny.toml` in the folder in which commands are executed."""
    path = tmp_path / "tiny.toml"
    path.write_text(TINY)
    return path


@pytest.fixture(scope="session")
def measured_once(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the cache and the results that one real sweep over the tiny model leaves."""
    pytest.importorskip("onnxruntime")
    folder = tmp_path_factory.mktemp("measured")
    (folder / "tiny.toml").write_text(TINY)
    done = subprocess.run(
        [sys.executable, "-m", "bench", *TINY_SWEEP, "--repetitions", "2"],
        cwd=folder,
        env={**environment(folder), "BENCH_RESULTS": str(folder / "results")},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture
def measured(tmp_path: Path, measured_once: Path) -> Path:
    """The same in the folder of this test, to be broken at will."""
    for name in ("cache", "results"):
        shutil.copytree(measured_once / name, tmp_path / name)
    return tmp_path
