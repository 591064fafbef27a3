"""Resuming: what changed is refused, a running sweep is left alone, the plan shows only what is missing."""

from __future__ import annotations

import json
import signal
import subprocess
from pathlib import Path

import pytest

from bench.results.journal import Journal
from bench.results.store import Store
from tests.cli.conftest import TINY
from tests.sweeps.conftest import SCRIPTED, Bench, scripted
from tests.sweeps.test_interrupts import start, wait_for

HANGS = ("--set", "script=rewind@9:hang", "--workload", "tg4,tg8")
"""The first of the two cases is measured, then the worker hangs."""


def interrupt(tmp_path: Path, process: subprocess.Popen[str]) -> str:
    """Ctrl-C after the first case; what was said on standard error."""
    wait_for(tmp_path, process, b"case-done")
    process.send_signal(signal.SIGINT)
    return process.communicate(timeout=30)[1]


def interrupted_tiny(tmp_path: Path) -> Path:
    """A sweep over a model of `tiny.toml` that misses one case."""
    toml = tmp_path / "tiny.toml"
    toml.write_text(TINY)
    words = ["run", "--backend", SCRIPTED, "--model", "tiny-int8", "--models", str(toml), *HANGS]
    interrupt(tmp_path, start(tmp_path, *words))
    return toml


def test_a_changed_model_is_not_resumed(tmp_path: Path, bench: Bench) -> None:
    toml = interrupted_tiny(tmp_path)
    toml.write_text(TINY.replace("layers = 2", "layers = 3"))
    changed = bench("run", "--resume")
    assert (changed.code, changed.out) == (2, "")
    assert "planned no longer (1 of 2 cases) (arch.layers was 2, is 3)" in changed.err
    assert "start again without --resume: bench run" in changed.err and "tiny.toml" in changed.err
    toml.write_text(TINY)
    again = bench("run", "--resume")
    assert again.code == 0, "it was not marked finished"
    assert sorted(again.statuses) == ["tg4", "tg8"]


def test_a_journal_that_tells_no_cases_is_refused_all_the_same(tmp_path: Path, bench: Bench) -> None:
    toml = interrupted_tiny(tmp_path)
    (path,) = (tmp_path / "results" / "sweeps").iterdir()
    first, *rest = path.read_text().splitlines(keepends=True)
    event = json.loads(first)
    del event["plan"]["cases"]
    path.write_text(json.dumps(event) + "\n" + "".join(rest))
    toml.write_text(TINY.replace("layers = 2", "layers = 3"))
    changed = bench("run", "--resume")
    assert changed.code == 2 and "a model, an adapter or a default changed since" in changed.err


def test_a_running_sweep_is_left_alone_until_its_process_is_gone(tmp_path: Path, bench: Bench) -> None:
    process = start(tmp_path, *scripted("rewind@9:hang", workload="tg4,tg8"))
    wait_for(tmp_path, process, b"case-done")
    busy = bench("run", "--resume")
    assert (busy.code, busy.out, busy.err.count("\n")) == (75, "", 1)
    assert "is being executed by another process" in busy.err and "wait until it ends" in busy.err
    assert "1 launches" in bench("run", "--resume", "--plan").out, "looking is allowed"
    process.kill()
    process.communicate()
    journal = Journal.open_latest_unfinished(Store(tmp_path / "results"))
    assert journal is not None
    with journal.held():
        assert len(journal.missing()) == 2


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ((), "`bench run --resume` goes on"),
        (("--results", "my store"), "`bench run --resume --results 'my store'` goes"),
    ],
)
def test_the_hint_after_an_interrupt_finds_the_store(tmp_path: Path, words: tuple[str, ...], said: str) -> None:
    (tmp_path / "results").mkdir()
    (tmp_path / "my store").symlink_to("results")
    err = interrupt(tmp_path, start(tmp_path, *scripted("rewind@9:hang", *words, workload="tg4,tg8")))
    assert said in err
    assert len(list(Store(tmp_path / "results").records())) == 1


def test_the_plan_of_a_resumed_sweep_is_what_it_misses(tmp_path: Path, bench: Bench) -> None:
    launches = ("--launches", "2")
    whole = bench(*scripted("rewind@9:hang", *launches, "--plan", workload="tg4,tg8"))
    assert "4 cases, 2 launches" in whole.out
    interrupt(tmp_path, start(tmp_path, *scripted("rewind@9:hang", *launches, workload="tg4,tg8")))
    assert "3 cases, 2 launches" in bench("run", "--resume", "--plan").out
    assert len(list(Store(tmp_path / "results").records())) == 1, "nothing was executed"


def test_a_time_limit_that_is_too_short_is_told_before_anything_starts(bench: Bench) -> None:
    words = scripted("", "--budget", "2h", "--plan", workload="tg8")
    assert "--timeout 60.0 s is short" in bench(*words, "--timeout", "60s").err
    assert bench(*words).err == ""
