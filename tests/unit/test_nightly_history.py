"""What belongs to the history of a series, and what does not."""

from __future__ import annotations

import random
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.nightly.history import WINDOW, Annotations, Series, changed, series_of
from bench.results.ids import uuid7_time
from bench.results.record import Record
from bench.results.schema import Code, Interpreter, Sample
from tests.nights import NOTHING, Said, launch, nights, uuid7_on
from tests.nights import Annotations as Scripted
from tests.records import FACTS, fallback

NOW = "2026-02-01T00:00:00Z"
KV8 = msgspec.structs.replace(FACTS, kv_cache="u8")


def one(tonight: list[Record], stored: list[Record], annotations: Annotations = NOTHING) -> Series:
    (series,) = series_of(tonight, stored, annotations, NOW)
    return series


def values(series: Series) -> list[float]:
    return [round(night.value, 6) for night in series.nights]


def test_a_night_is_a_sweep_and_its_value_the_median_of_its_launches() -> None:
    stored = [launch(1, rate) for rate in (10, 30, 11)] + [launch(2, 20)]
    tonight = [launch(3, rate) for rate in (5, 7)]
    series = one(tonight, stored + tonight)
    assert values(series) == [11, 20]
    assert series.tonight.value == pytest.approx(6)
    assert [record.launch_id for record in series.tonight.records] == sorted(record.launch_id for record in tonight)


def test_a_record_without_a_sweep_is_a_night_of_its_own() -> None:
    stored = [launch(1, 10), launch(1, 20)]
    stored = [msgspec.structs.replace(r, info=msgspec.structs.replace(r.info, sweep_id=None)) for r in stored]
    assert values(one([launch(3, 5)], stored)) == [10, 20]


def test_only_what_is_older_counts_and_never_tonight() -> None:
    tonight = [launch(3, 5), launch(3.1, 6, sweep=uuid7_on(3))]
    newer = nights([99, 98], first=4)
    same_sweep = launch(2.9, 97, sweep=uuid7_on(3))
    assert values(one(tonight, [*newer, same_sweep, *nights([10], first=1), *tonight])) == [10]


def test_what_was_executed_between_tonights_launches_is_no_night_before() -> None:
    tonight = [launch(3, 5), launch(3.2, 6, sweep=uuid7_on(3))]
    assert values(one(tonight, [*nights([10]), launch(3.1, 99)])) == [10]


def test_two_entries_that_measure_one_series_are_one_night() -> None:
    first, second = launch(3, 5), launch(3.1, 7)
    series = one([second, first], [first, second, *nights([10], first=1)])
    assert (series.tonight.value, values(series)) == (pytest.approx(6), [10])


def test_at_most_the_window_is_kept_and_these_are_the_newest() -> None:
    series = one([launch(99, 1)], nights([float(rate) for rate in range(1, WINDOW + 12)]))
    assert values(series) == [float(rate) for rate in range(12, WINDOW + 12)]


@pytest.mark.parametrize(
    "record",
    [
        launch(2, 99, status="failed"),
        launch(2, 99, status="invalid"),
        launch(2, 99, status="unsupported"),
        launch(2, 99, origin="imported"),
        launch(2, 99, samples=[]),
        launch(2, 99, samples=[Sample(step_s=[1e-320] * 4)]),
        launch(2, 99, samples=[Sample(step_s=[1e308])]),
        launch(2, 99, backend="cpu"),
        launch(2, 99, host_id="h2"),
        launch(2, 99, options={"threads": 3}),
    ],
    ids=lambda record: f"{record.status} {record.origin} {record.identity.backend} {len(record.samples)}",
)
def test_what_is_no_night_of_this_series(record: Record) -> None:
    assert values(one([launch(3, 5)], [launch(1, 10), record])) == [10]


def test_the_unproven_have_a_history_too() -> None:
    assert values(one([launch(3, 5, status="unproven")], [launch(1, 10, status="unproven")])) == [10]


def test_what_must_not_be_believed_tonight_is_no_series() -> None:
    assert series_of([launch(3, 5, status="invalid"), launch(3, 5, samples=[])], [launch(1, 10)], NOTHING, NOW) == []


def test_another_precision_starts_anew_and_tells_what_changed() -> None:
    series = one([launch(3, 5, facts=KV8)], nights([10, 11, 12]))
    assert (values(series), series.before is not None) == ([], True)
    assert series.before is not None
    assert changed(series.before, series.tonight) == {"kv_cache": ("f32", "u8")}
    again = one([launch(5, 5, facts=KV8)], [*nights([10, 11, 12]), launch(3, 5, facts=KV8), launch(4, 10)])
    assert values(again) == [5]


def test_one_series_at_two_precisions_in_one_night_is_two() -> None:
    tonight = [launch(3, 5), launch(3, 6, facts=KV8)]
    first, second = series_of(tonight, [*nights([10]), launch(1, 20, facts=KV8)], NOTHING, NOW)
    assert (values(first), values(second)) == ([10], [20])
    assert first.key != second.key


def test_other_work_elsewhere_starts_anew_and_tells_what_changed() -> None:
    series = one([launch(3, 5, facts=fallback(0.03))], nights([10, 11, 12]))
    assert values(series) == [] and series.before is not None
    assert changed(series.before, series.tonight) == {"elsewhere": ("–", "3 % on CPU")}
    tonight = [launch(5, 5, facts=fallback(0.03)), launch(5, 6)]
    first, second = series_of(tonight, [launch(3, 7, facts=fallback(0.03)), *nights([10])], NOTHING, NOW)
    assert (values(first), values(second)) == ([7], [10]) and first.key != second.key


def test_an_acknowledgement_starts_anew() -> None:
    accepted = Said(id="a7", reason="new driver")
    said = Scripted(accepted=lambda record: accepted if record.launch_id > uuid7_on(1.5) else None)
    series = one([launch(4, 5)], nights([10, 11, 6, 7]), said)
    assert (values(series), series.acknowledged) == ([6, 7], accepted)
    assert series.before is not None
    assert series.before.value == pytest.approx(11)


def test_the_excluded_count_neither_tonight_nor_before() -> None:
    bad = [launch(2, 99), launch(3, 99)]
    said = Scripted(out=lambda record: record.record_id in {each.record_id for each in bad})
    series = one([launch(3, 5), bad[1]], [launch(1, 10), bad[0]], said)
    assert (values(series), series.tonight.value) == ([10], pytest.approx(5))


def test_nights_in_quarantine_are_left_out_and_what_is_quarantined_now_says_so() -> None:
    def quarantine(record: Record, at_utc: str | None) -> Said | None:
        when = at_utc or f"{uuid7_time(record.launch_id):%Y-%m-%d}"
        return Said(until_utc="2026-01-03") if "2026-01-02" <= when < "2026-01-03" else None

    said = Scripted(quarantine=quarantine)
    (series,) = series_of([launch(3, 5)], nights([10, 99, 12]), said, NOW)
    assert (values(series), series.quarantine) == ([10, 12], None)
    (series,) = series_of([launch(3, 5)], nights([10, 99, 12]), said, "2026-01-02T12:00:00Z")
    assert series.quarantine is not None


def test_pairs_are_no_nights() -> None:
    pair = launch(2, 99)
    pair = msgspec.structs.replace(pair, info=msgspec.structs.replace(pair.info, ab_id="two sides", ab_side="a"))
    assert values(one([launch(3, 5)], [launch(1, 10), pair])) == [10]


@given(st.randoms(use_true_random=False), st.lists(st.integers(0, 5), min_size=1, max_size=12))
def test_the_order_of_the_store_does_not_matter(order: random.Random, days: list[int]) -> None:
    stored = [launch(day, 10 + number) for number, day in enumerate(days)]
    tonight = [launch(9, 5), launch(9, 6)]
    shuffled = order.sample(stored, len(stored))
    assert one(tonight[::-1], shuffled) == one(tonight, stored)


def test_history_keeps_no_measurements() -> None:
    series = one([launch(3, 5)], [launch(1, 10)])
    for night in (*series.nights, series.tonight):
        assert all(not record.samples and record.gate is None for record in night.records)


def told(**changed: Any) -> Record:
    used = Interpreter(origin="--python", python="/a/python", version="3.11.1", packages={"numpy": "1", "torch": "2"})
    return launch(1, 10, **{"interpreter": used, "runtime": {"torch": "2"}, **changed})


def test_what_differs_between_two_nights() -> None:
    now = Interpreter(origin="--python", python="/b/python", version="3.11.1", packages={"torch": "3", "new": "1"})
    before = one([told(kernel="6.1", code=Code(commit="a", dirty=False))], []).tonight
    after = one([told(kernel="6.2", code=Code(commit="b", dirty=False), runtime={"torch": "3"}, interpreter=now)], [])
    assert changed(before, after.tonight) == {
        "code.commit": ("a", "b"),
        "interpreter.python": ("/a/python", "/b/python"),
        "kernel": ("6.1", "6.2"),
        "packages.new": ("–", "1"),
        "packages.numpy": ("1", "–"),
        "runtime.torch": ("2", "3"),
    }
    assert changed(before, before) == {}


def test_launches_that_differ_within_a_night_show_all_their_values() -> None:
    mixed = one([told(kernel="6.1"), told(kernel="6.2")], []).tonight
    assert changed(one([told(kernel="6.1")], []).tonight, mixed) == {"kernel": ("6.1", "6.1, 6.2")}
