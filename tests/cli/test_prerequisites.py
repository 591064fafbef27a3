"""What this machine lacks: exit code 3 (6 for the store), one clear line, a remedy, and nothing half-written."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.cli.conftest import NULL_SWEEP, TINY_SWEEP, refused
from tests.sweeps.conftest import ROOT, Bench, Ended, environment

NO_RUNTIME = """
import sys

class Refuses:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("onnxruntime", "openvino", "llama_cpp", "torch"):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Refuses())
"""
MUCH_SPACE = """
import collections, shutil
usage = collections.namedtuple("usage", "total used free")
shutil.disk_usage = lambda path: usage(1 << 40, 0, 1 << 40)
"""
ON_SMALL_DISK = 'mount -t tmpfs -o size="$0" tmpfs "$1" || exit 99; shift; "$@"; code=$?; find disk; exit $code'
"""Executed in a mount namespace of its own, which ends with it: mounts, executes, lists what is left."""


def failed(ended: Ended, code: int, *says: str) -> None:
    """The sweep went on and recorded it, with all of this in one line on standard error."""
    assert ended.code == code, ended.err
    assert "Traceback" not in ended.err
    assert [record.status for record in ended.records] == ["failed"]
    (line,) = [line for line in ended.err.splitlines() if line.startswith("failed: ")]
    for text in says:
        assert text in line


def python_path(folder: Path, customized: str) -> dict[str, str]:
    """An environment in which every interpreter executes `customized` first."""
    (folder / "first").mkdir(exist_ok=True)
    (folder / "first" / "sitecustomize.py").write_text(customized)
    return {"PYTHONPATH": os.pathsep.join([str(folder / "first"), str(ROOT)])}


def test_a_missing_runtime(bench: Bench, tmp_path: Path) -> None:
    without = python_path(tmp_path, NO_RUNTIME)
    ended = bench(*TINY_SWEEP, env=without)
    failed(
        ended, 3, "tiny-int8 onnx tg4", "No module named 'onnxruntime'", "pip install 'onnxruntime>=1.24' 'onnx>=1.21'"
    )
    assert not (tmp_path / "cache").exists(), "nothing was prepared in vain"
    doctor = bench("doctor", env=without)
    assert doctor.code == 3
    assert "!!  backend onnx: " in doctor.out and "pip install 'onnxruntime>=1.24' 'onnx>=1.21'" in doctor.out
    backends = bench("list", "backends", env=without)
    assert backends.code == 0 and "No module named 'onnxruntime'" in backends.out


@pytest.mark.parametrize(
    ("python", "says"),
    [
        ("/no/such/python", "No such file"),
        ("{tmp}/tiny.toml", "Permission denied"),
        ("/bin/true", "it said nothing"),
        ("/bin/echo", "no event"),
        ("/bin/false", "exit code 1"),
    ],
)
def test_an_interpreter_that_is_none(bench: Bench, tmp_path: Path, python: str, says: str) -> None:
    failed(bench(*NULL_SWEEP, "--python", python.format(tmp=tmp_path)), 3, says, "--python")


def test_an_interpreter_without_numpy(bench: Bench, tmp_path: Path) -> None:
    without = python_path(tmp_path, NO_RUNTIME.replace("onnxruntime", "numpy"))
    (tmp_path / "python").write_text(f'#!/bin/sh\nPYTHONPATH={without["PYTHONPATH"]} exec {sys.executable} "$@"\n')
    (tmp_path / "python").chmod(0o755)
    failed(bench(*NULL_SWEEP, "--python", str(tmp_path / "python")), 3, "No module named 'numpy'", "--python")


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("--provider", "MoonExecutionProvider"), ("no MoonExecutionProvider here", "present: ", "CPUExec")),
        (
            ("--provider", "MIGraphXExecutionProvider"),
            ("brings MIGraphXExecutionProvider", f"{sys.executable} -m pip install onnxruntime-migraphx 'onnx>="),
        ),
        (("--device", "moon"), ("no device moon", "bench list devices")),
        (
            ("--provider", "MoonExecutionProvider", "--set", "plugin=/no/moon.so", "--set", "dialect=opset21"),
            ("option plugin: there is no file /no/moon.so",),
        ),
    ],
)  # fmt: skip
def test_a_provider_or_device_that_is_not_there(
    bench: Bench, measured: Path, words: tuple[str, ...], says: tuple[str, ...]
) -> None:
    failed(bench(*TINY_SWEEP, *words, results=measured / "new"), 3, *says)


def test_a_store_that_cannot_be_written(bench: Bench, tmp_path: Path) -> None:
    file = tmp_path / "tiny.toml"
    refused(bench(*NULL_SWEEP, results=file), 6, str(file), "a file, not a folder", "--results DIR")
    refused(bench(*NULL_SWEEP, results=file / "in"), 6, str(file), "a file, not a folder", "--results DIR")
    refused(bench(*NULL_SWEEP, results=Path("/proc/nowhere")), 6, "/proc/nowhere", "--results DIR")
    doctor = bench("doctor", "--results", str(file))
    assert doctor.code == 3 and "!!  results: cannot write" in doctor.out


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_store_without_permission(bench: Bench, tmp_path: Path) -> None:
    (tmp_path / "closed").mkdir(mode=0o555)
    refused(bench(*NULL_SWEEP, results=tmp_path / "closed" / "in"), 6, "closed", "Permission denied", "--results DIR")


@pytest.mark.parametrize("place", ["tiny.toml", "/proc/nowhere"])
def test_a_cache_that_cannot_be_written(bench: Bench, place: str) -> None:
    ended = bench("prepare", "tiny-int8", "--models", "tiny.toml", env={"BENCH_CACHE": place})
    assert ended.code == 3
    assert "cannot be written" in ended.err and "set BENCH_CACHE" in ended.err and "Traceback" not in ended.err


def test_a_full_standard_output(tmp_path: Path) -> None:
    with Path("/dev/full").open("w") as full:
        words = [sys.executable, "-m", "bench", "list", "workloads"]
        done = subprocess.run(words, env=environment(tmp_path), stdout=full, stderr=subprocess.PIPE, text=True)
    assert (done.returncode, done.stderr.count("\n")) == (3, 1) and "disk full" in done.stderr


def on_small_disk(tmp_path: Path, size: str, *words: str, **env: str) -> subprocess.CompletedProcess[str]:
    """Execute `bench` while `disk` is a file system of this size; what is left there stands on standard output."""
    (tmp_path / "disk").mkdir(exist_ok=True)
    done = subprocess.run(
        ["unshare", "-rm", "sh", "-c", ON_SMALL_DISK, size, "disk", sys.executable, "-m", "bench", *words],
        cwd=tmp_path,
        env={**environment(tmp_path), "BENCH_RESULTS": str(tmp_path / "results"), **env},
        capture_output=True,
        text=True,
        timeout=120,
    )
    if done.returncode == 99 or done.stderr.startswith("unshare:"):
        pytest.skip(f"no file system can be mounted here: {done.stderr.strip()}")
    assert "Traceback" not in done.stderr
    return done


def test_a_disk_that_cannot_hold_it_is_refused_beforehand(tmp_path: Path) -> None:
    done = on_small_disk(tmp_path, "256k", *TINY_SWEEP, BENCH_CACHE="disk/cache")
    assert done.returncode == 3
    assert done.stderr.startswith("bench: tiny-int8 on onnx: needs 476 kB of disk") and done.stderr.count("\n") == 1
    assert "BENCH_CACHE names another folder" in done.stderr
    done = on_small_disk(tmp_path, "256k", "prepare", "tiny-int8", "--models", "tiny.toml", BENCH_CACHE="disk/cache")
    assert done.returncode == 3
    assert "disk full" in done.stderr and "needed" in done.stderr and "bench cache prune" in done.stderr


@pytest.mark.parametrize(
    ("size", "reached"), [("128k", "look for"), ("360k", "reference"), ("600k", "reference"), ("1400k", "prepare")]
)
def test_a_disk_that_fills_up_midway(tmp_path: Path, size: str, reached: str) -> None:
    """While the artifact, the reference or the adapter's files are written: nothing half-written stays."""
    done = on_small_disk(tmp_path, size, *TINY_SWEEP, BENCH_CACHE="disk/cache", **python_path(tmp_path, MUCH_SPACE))
    assert done.returncode == 3, done.stderr
    assert [line for line in done.stderr.splitlines() if line.startswith(reached)], "it filled up somewhere else"
    assert "disk full" in done.stderr and "bench cache prune" in done.stderr
    assert "partial" not in done.stdout


@pytest.mark.parametrize("size", ["4k", "8k"])
def test_a_store_that_fills_up_midway(tmp_path: Path, size: str) -> None:
    done = on_small_disk(tmp_path, size, *NULL_SWEEP, BENCH_RESULTS="disk/results")
    assert done.returncode == 6
    assert done.stderr.splitlines()[-1].startswith("bench: ")
    assert "No space left" in done.stderr and "--results DIR" in done.stderr
    assert "record-" not in done.stdout.replace("partial/record-", ""), "no record is half-written"
