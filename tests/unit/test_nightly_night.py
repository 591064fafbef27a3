"""One night from entries to findings, with an executor that does as it is told."""

from __future__ import annotations

from pathlib import Path

import pytest

from bench.errors import BenchError, BusyError, CaseError, PrerequisiteError, StoreError
from bench.nightly.night import Findings, Suspect, spend
from bench.nightly.plan import NightlyPlan
from bench.results.record import Record
from bench.results.schema import Reason
from tests.nights import NOTHING, Annotations, Said, Scripted, entry, launch, nights

NOW = "2026-03-01T00:00:00Z"
STEADY = [100.0, 100.4, 99.8, 100.1, 99.9, 100.0]


def spent(executor: Scripted, stored: list[Record], count: int = 1, said: Annotations = NOTHING) -> Findings:
    plan = NightlyPlan(path=Path("plan.toml"), entries=tuple(entry(number) for number in range(1, count + 1)))
    return spend(plan, plan.entries, executor, lambda: stored, said, NOW)


def test_a_quiet_night_asks_for_no_pairs() -> None:
    executor = Scripted([launch(50, 100.0)])
    findings = spent(executor, nights(STEADY))
    assert [each.verdict for each in findings.judged] == ["quiet"]
    assert executor.asked == []


def test_a_candidate_is_confirmed_against_the_last_good_night() -> None:
    executor = Scripted([launch(50, 90.0)], lambda suspect: [0.9] * suspect.pairs)
    findings = spent(executor, nights([*STEADY, 100.3, 90.0]))
    assert [each.verdict for each in findings.judged] == ["regression"]
    (suspect,) = executor.asked
    assert (suspect.entry.number, suspect.pairs) == (1, 8)
    assert suspect.good.value == pytest.approx(100.3)
    assert suspect.good.newest.info.sweep_id


def test_noise_is_not_news() -> None:
    findings = spent(Scripted([launch(50, 90.0)], lambda suspect: [0.99, 1.01] * 4), nights(STEADY))
    assert [each.verdict for each in findings.judged] == ["unconfirmed"]


def test_what_cannot_be_confirmed_stays_suspected_with_the_reason() -> None:
    def gone(suspect: Suspect) -> list[float]:
        raise PrerequisiteError("no such interpreter", where="/old/python")

    (judged,) = spent(Scripted([launch(50, 90.0)], gone), nights(STEADY)).judged
    assert judged.verdict == "suspected"
    assert judged.why == "could not be confirmed: /old/python: no such interpreter"


def test_each_suspect_comes_with_the_entry_that_measured_it() -> None:
    tonight = {1: [launch(50, 80.0, model="a")], 2: [launch(50, 90.0, model="b")]}
    executor = Scripted(tonight)
    spent(executor, [*nights(STEADY, model="a"), *nights(STEADY, model="b")], count=2)
    assert [suspect.entry.number for suspect in executor.asked] == [1, 2], "the furthest fallen first"


def test_a_whole_machine_costs_one_confirmation() -> None:
    models = ["a", "b", "c", "d"]
    stored = [record for model in models for record in nights(STEADY, model=model)]
    executor = Scripted([launch(50, 95.0, model=model) for model in models])
    findings = spent(executor, stored)
    assert [each.verdict for each in findings.judged] == ["incident"] * 4
    assert len(executor.asked) == 1
    slower = Scripted(executor.measured, lambda suspect: [0.95] * 8)
    assert sorted(each.verdict for each in spent(slower, stored).judged) == ["incident"] * 3 + ["regression"]


def test_an_entry_that_fails_does_not_end_the_night() -> None:
    error = PrerequisiteError("disk full")
    findings = spent(Scripted({1: error, 2: [launch(50, 100.0)]}), nights(STEADY), count=2)
    assert [(failed.number, told) for failed, told in findings.errors] == [(1, error)]
    assert [each.verdict for each in findings.judged] == ["quiet"]


@pytest.mark.parametrize("error", [BusyError("busy"), StoreError("gone"), KeyboardInterrupt()])
def test_a_busy_machine_a_broken_store_or_a_person_ends_it(error: BaseException) -> None:
    class Ends(Scripted):
        def execute(self, entry: object) -> list[Record]:
            raise error

    with pytest.raises(type(error)):
        spent(Ends([]), [])


@pytest.mark.parametrize("error", [BusyError("busy"), StoreError("gone"), CaseError("died")])
def test_what_was_measured_is_told_even_if_pairs_cannot_be(error: BenchError) -> None:
    def fails(suspect: Suspect) -> list[float]:
        raise error

    (judged,) = spent(Scripted([launch(50, 90.0)], fails), nights(STEADY)).judged
    assert (judged.verdict, judged.pairs) == ("suspected", ())


def test_records_are_kept_apart_by_what_was_said_of_them() -> None:
    plain, quiet, out = (launch(50, 1, status="failed", reason=Reason(what="died"), samples=[], model=m) for m in "abc")
    said = Annotations(
        quarantine=lambda record, at_utc: Said() if record.identity.model == "b" else None,
        out=lambda record: record.identity.model == "c",
    )
    findings = spent(Scripted([plain, quiet, out]), [], said=said)
    assert (findings.records, findings.quarantined, findings.judged) == ((plain,), (quiet,), ())


def test_the_store_is_read_after_everything_was_executed() -> None:
    order: list[str] = []

    class Told(Scripted):
        def execute(self, entry: object) -> list[Record]:
            order.append("execute")
            return []

    plan = NightlyPlan(path=Path("p"), entries=(entry(1), entry(2)))
    spend(plan, plan.entries, Told([]), lambda: order.append("read") or [], NOTHING, NOW)
    assert order == ["execute", "execute", "read"]


def test_a_runtime_whose_defaults_changed_raises_no_alarm() -> None:
    import msgspec

    from tests.records import FACTS

    u8 = msgspec.structs.replace(FACTS, kv_cache="u8")
    executor = Scripted([launch(50, 50.0, facts=u8, runtime={"openvino": "2"})], lambda suspect: [0.5] * 8)
    (judged,) = spent(executor, nights(STEADY, runtime={"openvino": "1"})).judged
    assert (judged.verdict, judged.why, executor.asked) == ("too-little-data", "0 of 5 nights", [])
