"""`bench nightly`: what goes where, exit codes, and what is said where something is wrong."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from pathlib import Path
from xml.etree import ElementTree

import pytest

from bench.cli import cli, night
from bench.errors import UsageError
from bench.nightly.night import Suspect
from bench.results.record import Record
from bench.results.schema import Reason
from bench.results.store import Store
from tests.cli.conftest import refused
from tests.nights import Scripted, launch, nights
from tests.sweeps.conftest import Bench

PLAN = """
[defaults]
model = "smollm2-135m-int8"
workload = "tg4"

[[case]]
backend = "onnx"
label = "here"
"""
STEADY = [100.0, 100.4, 99.8, 100.1, 99.9, 100.0]
Nightly = Callable[..., int]


def kept(store: Store, records: Iterable[Record]) -> list[Record]:
    records = list(records)
    for record in records:
        with store.launch(record.launch_id) as draft:
            draft.add(record)
    return records


@pytest.fixture
def plan(tmp_path: Path) -> Path:
    path = tmp_path / "plan.toml"
    path.write_text(PLAN)
    return path


@pytest.fixture
def nightly(plan: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Nightly:
    """`nightly(value, *words)`: the exit code of a night on which one series had `value`; None: nothing was measured.

    `pairs` is what a confirmation answers, `known` are the rates of earlier nights, `more` are further records.
    """

    def spend(
        value: float | None, *words: str, pairs: float = 1.0, known: list[float] = STEADY, more: Iterable[Record] = ()
    ) -> int:
        store = Store(tmp_path / "results")
        kept(store, nights(known))
        tonight = kept(store, [*([launch(50, value)] if value else []), *more])

        def answer(suspect: Suspect) -> list[float]:
            return [pairs] * suspect.pairs

        monkeypatch.setattr(night, "make_executor", lambda *given: Scripted(tonight, answer))
        code = cli.main(["nightly", str(plan), "--results", str(store.root), *words], standalone_mode=False)
        assert isinstance(code, int)
        return code

    return spend


def dead() -> Record:
    return launch(50, 1, model="dead", status="failed", reason=Reason(what="died"), samples=[])


def test_a_quiet_night(nightly: Nightly, capsys: pytest.CaptureFixture[str]) -> None:
    assert nightly(100.0) == 0
    out, err = capsys.readouterr()
    assert out.startswith("Nightly 20") and out.endswith(": 1 quiet\n")
    assert err == ""


@pytest.mark.parametrize("strict", [[], ["--strict"]])
def test_a_confirmed_regression_is_10(nightly: Nightly, strict: list[str]) -> None:
    assert nightly(90.0, *strict, pairs=0.9, more=[dead()]) == 10


def test_a_candidate_that_was_not_confirmed_is_11_where_it_is_strict(nightly: Nightly) -> None:
    assert nightly(90.0) == 0
    assert nightly(90.0, "--strict", known=[]) == 11


def test_too_little_data_is_12_where_it_is_strict(nightly: Nightly) -> None:
    assert nightly(1.0, known=[100.0]) == 0
    assert nightly(1.0, "--strict", known=[]) == 12


def test_what_failed_has_the_exit_code_of_a_sweep(nightly: Nightly, capsys: pytest.CaptureFixture[str]) -> None:
    assert nightly(100.0, more=[dead()]) == 4
    assert "dead-int8 onnx tg4  failed  1  died" in capsys.readouterr().out
    wrong = launch(50, 1, model="wrong", status="invalid", reason=Reason(what="gate"), samples=[])
    assert nightly(100.0, more=[dead(), wrong], known=[]) == 5


def test_json_is_all_that_is_printed(nightly: Nightly, capsys: pytest.CaptureFixture[str]) -> None:
    assert nightly(90.0, "--json", pairs=0.9) == 10
    out, err = capsys.readouterr()
    assert out.count("\n") == 1 and err == ""
    told = json.loads(out)
    assert (told["exit_code"], [each["verdict"] for each in told["series"]]) == (10, ["regression"])


def test_files(nightly: Nightly, tmp_path: Path) -> None:
    (tmp_path / "s.md").write_text("of last night")
    words = ["--summary", str(tmp_path / "s.md"), "--junit", str(tmp_path / "j.xml")]
    assert nightly(90.0, *words, pairs=0.9) == 10
    assert (tmp_path / "s.md").read_text().startswith("## Nightly 20")
    suite = ElementTree.fromstring((tmp_path / "j.xml").read_text())
    assert suite.get("failures") == "1"


def test_a_file_that_cannot_be_written_is_said_before_anything_is_executed(
    plan: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(night, "make_executor", lambda *given: pytest.fail("too late"))
    words = ["nightly", str(plan), "--results", str(tmp_path), "--junit", str(tmp_path / "none" / "j.xml")]
    with pytest.raises(UsageError, match=r"none/j.xml: cannot be written: No such file"):
        cli.main(words, standalone_mode=False)


def test_a_damaged_record_is_passed_over(nightly: Nightly, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (bad,) = kept(Store(tmp_path / "results"), [launch(3, 100.0)])
    next((tmp_path / "results").rglob(f"record-{bad.record_id}.json")).write_text("{")
    assert nightly(90.0, pairs=0.9) == 10
    assert capsys.readouterr().err.startswith("bench: passed over: ")


def test_the_matrix_is_one_line(bench: Bench, plan: Path) -> None:
    ended = bench("nightly", str(plan), "--emit", "github")
    assert (ended.code, ended.err) == (0, "")
    assert ended.out == '{"include":[{"label":"here","cases":1}]}\n'


def test_the_matrix_needs_no_statistics(bench: Bench, plan: Path, tmp_path: Path) -> None:
    (tmp_path / "scipy.py").write_text("raise ImportError('not here')")
    without = {"PYTHONPATH": f"{tmp_path}:{Path(__file__).parents[2]}"}
    assert bench("nightly", str(plan), "--emit", "github", env=without).code == 0
    assert "nightly" in bench("--help", env=without).out
    refused(bench("nightly", str(plan), env=without), 3, "scipy is missing", "pip install 'evenbench[analysis]'")


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["none.toml"], "none.toml: no such file; docs/nightly.md shows a plan"),
        (["plan.toml", "--label", "hera"], "plan.toml: unknown label 'hera' (nearest: here)"),
        (["plan.toml", "--emit", "gitlab"], "--emit"),
        (["wrong.toml"], "wrong.toml:4: [[case]] 1: unknown backend 'onyx' (nearest: onnx)"),
        ([], "Missing argument 'PLAN.toml'"),
    ],
)
def test_what_is_wrong_is_one_line(bench: Bench, plan: Path, words: list[str], says: str) -> None:
    (plan.parent / "wrong.toml").write_text(PLAN.replace("onnx", "onyx").lstrip().replace("\n\n", "\n"))
    refused(bench("nightly", *words), 2, says)
