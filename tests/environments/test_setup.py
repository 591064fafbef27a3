"""`bench setup` as a user executes it: a runtime is compiled on the spot, offline, and whatever can goes wrong."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from bench.results.store import Store
from tests.cli.conftest import refused
from tests.environments.toy import make_toys, offline
from tests.sweeps.conftest import ROOT, Ended, environment

TOY = "toy:Toy"
RUN = ("run", "--backend", TOY, "--model", "smollm2-135m-int8", "--workload", "tg4", "--json")


class Machine:
    """A folder with the toys, the environments and the results of one test."""

    def __init__(self, folder: Path):
        self.folder, self.place = folder, folder / "environments" / "toy"
        make_toys(folder)
        path = os.pathsep.join([str(ROOT), str(folder)])
        own = {"PYTHONPATH": path, "BENCH_RESULTS": str(folder / "results")}
        self.variables = {**environment(folder), **offline(folder), **own}

    def start(self, *words: str, **variables: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-m", "bench", *words],
            cwd=self.folder,
            env={**self.variables, **variables},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def bench(self, *words: str, **variables: str) -> Ended:
        process = self.start(*words, **variables)
        out, err = process.communicate(timeout=120)
        assert "Traceback" not in err
        return Ended(process.returncode, out, err, Store(self.folder / "results"))

    def builds(self) -> list[str]:
        notes = self.folder / "notes"
        return notes.read_text().splitlines() if notes.exists() else []

    def started_to_build(self, *words: str) -> subprocess.Popen[str]:
        """A setup that is compiling, and goes on when the file `slow` is gone."""
        (self.folder / "slow").touch()
        count = len(self.builds())
        process = self.start("setup", TOY, *words)
        while len(self.builds()) == count:
            assert process.poll() is None, process.communicate()
            time.sleep(0.02)
        return process


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


def test_from_nothing_to_a_measurement_and_away_again(machine: Machine) -> None:
    before = machine.bench(*RUN)
    assert before.code == 3 and "pip install toyruntime, or bench setup toy:Toy" in before.err
    made = machine.bench("setup", TOY)
    assert made.code == 0, made.err
    assert made.out.startswith("toy: toyruntime 1.0, flags plain; ") and made.out.count("\n") == 1
    first, *_ = lines = made.err.splitlines()
    assert first.startswith("installs toyruntime==1.0, numpy>=1.26 with Python 3.")
    assert f"  into {machine.place}" in lines and "  toys need batteries" in lines
    assert "  about 2.00 kB to download, about 1.00 kB on disk, compiles for about 6.00 s on two cores" in lines
    record = machine.bench(*RUN).records[-1]
    assert record.status == "unproven" and record.info.interpreter
    assert record.info.interpreter.origin == "managed environment"
    assert record.info.interpreter.python == str(machine.place / "venv" / "bin" / "python")
    assert record.info.interpreter.packages["toyruntime"] == "1.0"
    again = machine.bench("setup", TOY)
    assert (again.code, again.out) == (0, made.out)
    assert "nothing to do" in again.err and machine.builds() == ["building with plain"]
    listed = machine.bench("setup", "--list")
    assert listed.out.startswith("toy: ready; toyruntime 1.0, flags plain; Python 3.")
    assert machine.bench("setup", "--remove", "toy").code == 0
    assert machine.bench("setup", "--list").out == "none\n" and not machine.place.exists()
    refused(machine.bench("setup", "--remove", "toy"), 2, "unknown environment 'toy'", "bench setup --list")


def test_other_flags_are_compiled_anew_and_no_cache_hands_out_the_old(machine: Machine) -> None:
    assert "flags plain" in machine.bench("setup", TOY).out
    assert "flags other" in machine.bench("setup", TOY, TOY_ASKED="other").out
    assert "flags fast" in machine.bench("setup", TOY, "--accelerator", "fast").out
    assert [line.split()[-1] for line in machine.builds()] == ["plain", "other", "fast"]
    assert "toy (fast): ready" in machine.bench("setup", "--list").out
    told = machine.place / "environment.json"
    told.write_text(told.read_text().replace("numpy==", "numpy==0."))
    assert "nothing to do" not in machine.bench("setup", TOY, "--accelerator", "fast").err, "another numpy is committed"
    assert len(machine.builds()) == 3, "which is no reason to compile again"
    broken = machine.bench("setup", TOY, TOY_ASKED="broken")
    assert broken.code == 3 and "does not find its runtime: toyruntime is broken" in broken.err
    assert "toy: not finished" in machine.bench("setup", "--list").out, "what does not work is never taken for ready"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_interrupted_it_ends_what_it_compiles_and_goes_on_later(machine: Machine, number: signal.Signals) -> None:
    process = machine.started_to_build()
    compiling = psutil.Process(process.pid).children(recursive=True)
    process.send_signal(number)
    _, err = process.communicate(timeout=30)
    assert process.returncode == 130 and "Traceback" not in err
    assert compiling and not psutil.wait_procs(compiling, timeout=10)[1]
    assert "toy: not finished" in machine.bench("setup", "--list").out
    kept = machine.place / "venv" / "kept"
    kept.touch()
    (machine.folder / "slow").unlink()
    assert machine.bench("setup", TOY).code == 0
    assert kept.exists(), "it went on in the same folder"


def test_two_at_once_are_kept_apart(machine: Machine) -> None:
    process = machine.started_to_build()
    second = machine.bench("setup", TOY)
    assert second.code == 75 and "another process is at work on it" in second.err
    assert machine.bench("setup", "--remove", "toy").code == 75
    (machine.folder / "slow").unlink()
    _, err = process.communicate(timeout=60)
    assert process.returncode == 0, err


def test_without_a_network(machine: Machine) -> None:
    nowhere = {
        "PIP_INDEX_URL": "http://127.0.0.1:9/simple",
        "PIP_RETRIES": "0",
        "PIP_FIND_LINKS": "",
        "PIP_NO_INDEX": "",
    }
    ended = machine.bench("setup", TOY, **nowhere)
    assert ended.code == 3
    last = ended.err.splitlines()[-1]
    for said in (
        "pip found no package index that has it",
        "No matching distribution found for toyruntime",
        "PIP_INDEX_",
    ):
        assert said in last
    assert machine.bench("setup", TOY).code == 0, "the network is back: it goes on"


@pytest.mark.parametrize(
    ("words", "variables", "code", "says"),
    [
        (("setup",), {}, 2, "takes a backend, --list or --remove"),
        (("setup", TOY, "--list"), {}, 2, "takes a backend, --list or --remove"),
        (("setup", "toi"), {}, 2, "unknown backend 'toi'"),
        (("setup", "null"), {}, 2, "needs no environment"),
        (("setup", TOY, "--accelerator", "slow"), {}, 2, "unknown accelerator 'slow' (known: fast)"),
        (("setup", TOY, "--python", "/no/python"), {}, 3, "/no/python: cannot be executed"),
        (("setup", TOY, "--python", "/bin/false"), {}, 3, "no venv or ensurepip module"),
        (("setup", TOY), {"TOY_NEEDS": "no-such-tool c++"}, 3, "no-such-tool not found on PATH; install it; toys need"),
        (("setup", TOY), {"TOY_NEEDS": "c++", "PATH": "/nowhere"}, 3, "apt install g++"),
        (("setup", TOY), {"TOY_DISK": str(10**18)}, 3, "BENCH_ENVIRONMENTS to a folder on a larger disk"),
        (("setup", TOY), {"BENCH_ENVIRONMENTS": "/proc/nowhere"}, 3, "set BENCH_ENVIRONMENTS to a folder that can"),
        (("setup", TOY), {"BENCH_ENVIRONMENTS": "{folder}/mine"}, 3, "is no environment that `bench setup` made"),
    ],
)
def test_what_cannot_begin_says_why(
    machine: Machine, words: tuple[str, ...], variables: dict[str, str], code: int, says: str
) -> None:
    (machine.folder / "mine" / "toy").mkdir(parents=True)
    (machine.folder / "mine" / "toy" / "diary.txt").touch()
    ended = machine.bench(*words, **{name: text.format(folder=machine.folder) for name, text in variables.items()})
    assert (ended.code, ended.out) == (code, "")
    assert ended.err.splitlines()[-1].startswith("bench: ") and says in ended.err.splitlines()[-1]
    assert (machine.folder / "mine" / "toy" / "diary.txt").exists() and not machine.builds()


@pytest.mark.parametrize("size", ["64k", "6m"])
def test_a_disk_that_fills_up_midway(machine: Machine, size: str) -> None:
    (machine.folder / "disk").mkdir()
    mounted = f"mount -t tmpfs -o size={size} tmpfs disk || exit 99; exec {sys.executable} -m bench setup {TOY}"
    done = subprocess.run(
        ["unshare", "-rm", "sh", "-c", mounted],
        cwd=machine.folder,
        env={**machine.variables, "BENCH_ENVIRONMENTS": "disk/environments"},
        capture_output=True,
        text=True,
        timeout=120,
    )
    if done.returncode == 99 or done.stderr.startswith("unshare:"):
        pytest.skip(f"no file system can be mounted here: {done.stderr.strip()}")
    assert done.returncode == 3, done.stderr
    assert "disk full" in done.stderr.splitlines()[-1] and "BENCH_ENVIRONMENTS" in done.stderr.splitlines()[-1]
