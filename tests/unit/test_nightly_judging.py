"""Verdicts: what a night says of a series, of a machine, and after pairs were executed."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.nightly.history import Series, series_of
from bench.nightly.judging import VERDICTS, Incident, Judged, Verdict, alarm, judge, settled, to_confirm
from bench.results.record import Record
from tests.nights import NOTHING, Said, launch, nights

NOW = "2026-02-01T00:00:00Z"
STEADY = [100.0, 100.4, 99.8, 100.1, 99.9, 100.0, 100.2]
SLOWER, FASTER = [0.9] * 8, [1.1] * 8


def series(value: float, rates: list[float] = STEADY, **who: str) -> Series:
    (found,) = series_of([launch(50, value, **who)], nights(rates, **who), NOTHING, NOW)
    return found


def host(values: list[float], host_id: str = "h1") -> list[Series]:
    """Series of one machine with a history at 100."""
    return [series(value, model=f"m{number}", host_id=host_id) for number, value in enumerate(values)]


def alone(value: float, rates: list[float] = STEADY, least_nights: int = 5) -> Judged:
    (judged,), incidents = judge([series(value, rates)], least_nights)
    assert not incidents
    return judged


@pytest.mark.parametrize(
    ("value", "verdict"),
    [(100.0, "quiet"), (98.2, "quiet"), (97.5, "suspected"), (1.0, "suspected"), (101.8, "quiet"), (103.0, "improved")],
)
def test_a_steady_series_is_judged_by_the_floor(value: float, verdict: Verdict) -> None:
    judged = alone(value)
    assert (judged.verdict, judged.ratio) == (verdict, pytest.approx(value / 100.0))


def test_a_noisy_series_is_judged_by_its_own_spread() -> None:
    noisy = [100.0, 92.0, 108.0, 95.0, 105.0, 90.0, 110.0]
    assert alone(90.0, noisy).verdict == "quiet"
    assert alone(115.0, noisy).verdict == "quiet"
    assert alone(60.0, noisy).verdict == "suspected"


@pytest.mark.parametrize("count", range(5))
def test_too_few_nights_are_no_verdict_however_low_the_value(count: int) -> None:
    judged = alone(1.0, STEADY[:count])
    assert (judged.verdict, judged.ratio, judged.why) == ("too-little-data", None, f"{count} of 5 nights")


def test_the_plan_says_how_many_nights_are_enough() -> None:
    assert alone(1.0, STEADY[:3], least_nights=3).verdict == "suspected"
    assert alone(1.0, STEADY[:6], least_nights=7).verdict == "too-little-data"


def test_what_is_quarantined_is_never_suspected() -> None:
    quarantined = replace(series(1.0), quarantine=Said(reason="fan"))
    judged, _ = judge([quarantined], 5)
    assert (judged[0].verdict, judged[0].ratio) == ("quarantined", pytest.approx(0.01))
    assert to_confirm(judged, []) == []
    (without_history,), _ = judge([replace(quarantined, nights=())], 5)
    assert (without_history.verdict, without_history.ratio) == ("quarantined", None)


def test_the_last_good_night_is_the_newest_within_bounds() -> None:
    judged = alone(90.0, [*STEADY, 99.5, 90.1, 89.9])
    assert judged.verdict == "suspected"
    assert judged.good is not None
    assert judged.good.value == pytest.approx(99.5)


@given(st.floats(0.01, 1e6), st.floats(50, 150))
def test_units_do_not_matter(scale: float, value: float) -> None:
    one, other = alone(value), alone(value * scale, [rate * scale for rate in STEADY])
    assert one.ratio is not None
    assert other.ratio == pytest.approx(one.ratio)
    if all(abs(abs(one.ratio - 1) - bound) > 1e-3 for bound in (0.02, 0.0204)):  # away from the edge
        assert one.verdict == other.verdict


def test_one_alert_where_most_of_a_machine_moved() -> None:
    judged, (incident,) = judge(host([95.0, 94.0, 96.0, 100.0, 100.1]), 5)
    assert incident == Incident(host_id="h1", ratio=pytest.approx(0.95), moved=3, of=5)
    assert [each.verdict for each in judged] == ["incident"] * 3 + ["quiet"] * 2
    assert [each.ratio for each in to_confirm(judged, [incident])] == [pytest.approx(0.94)], "one stands for all"


def test_a_machine_does_not_move_another() -> None:
    judged, incidents = judge([*host([95.0, 94.0, 96.0]), *host([95.0, 100.0, 100.0, 100.0], "h2")], 5)
    assert [incident.host_id for incident in incidents] == ["h1"]
    assert [each.verdict for each in judged] == ["incident"] * 3 + ["suspected"] + ["quiet"] * 3
    assert [each.host_id for each in to_confirm(judged, incidents)] == ["h1", "h2"]


def test_two_of_two_series_are_candidates_and_no_incident() -> None:
    judged, incidents = judge(host([90.0, 95.0]), 5)
    assert not incidents
    assert [each.ratio for each in to_confirm(judged, [])] == [pytest.approx(0.9), pytest.approx(0.95)]


def test_a_machine_that_became_faster_is_told_and_not_confirmed() -> None:
    judged, (incident,) = judge(host([110.0, 111.0, 112.0, 90.0]), 5)
    assert not incident.slower
    assert [each.verdict for each in judged] == ["incident"] * 3 + ["suspected"], "what fell against it is its own"
    assert [each.ratio for each in to_confirm(judged, [incident])] == [pytest.approx(0.9)]
    assert alarm(judged[:3], [incident], strict=True) is None


def test_what_is_quarantined_or_new_says_nothing_of_its_machine() -> None:
    quarantined = [replace(each, quarantine=Said()) for each in host([90.0, 90.0, 90.0])]
    new = [series(50.0, STEADY[:2], model=f"n{number}") for number in range(3)]
    judged, incidents = judge([*quarantined, *new, series(90.0, model="old")], 5)
    assert not incidents
    assert [each.verdict for each in judged] == ["quarantined"] * 3 + ["too-little-data"] * 3 + ["suspected"]


def test_what_is_quarantined_stays_so_where_its_machine_moved() -> None:
    first, *others = host([90.0, 95.0, 95.0, 95.0])
    judged, (incident,) = judge([replace(first, quarantine=Said()), *others], 5)
    assert [each.verdict for each in judged] == ["quarantined"] + ["incident"] * 3
    assert (incident.moved, incident.of) == (3, 3)
    assert [each.ratio for each in to_confirm(judged, [incident])] == [pytest.approx(0.95)]


def test_pairs_decide() -> None:
    suspect = alone(90.0)
    assert settled(suspect, SLOWER, 8).verdict == "regression"
    assert settled(suspect, FASTER, 8).verdict == "unconfirmed"
    assert settled(suspect, [0.995] * 8, 8).verdict == "unconfirmed", "less than 1 % is not worth an alarm"
    short = settled(suspect, SLOWER[:5], 8)
    assert (short.verdict, short.why, short.pairs) == ("suspected", "5 of 8 pairs could be executed", (0.9,) * 5)
    assert settled(suspect, SLOWER[:7], 8).verdict == "regression", "seven suffice for p < 0.01"
    assert settled(suspect, [], 8).verdict == "suspected"


def test_a_member_of_an_incident_that_pairs_acquit_stays_one() -> None:
    member = replace(alone(90.0), verdict="incident")
    assert settled(member, [1.0] * 8, 8).verdict == "incident"
    assert settled(member, SLOWER, 8).verdict == "regression"


DOWN = Incident(host_id="h1", ratio=0.9, moved=3, of=3)
UP = replace(DOWN, ratio=1.1)


@pytest.mark.parametrize(
    ("verdicts", "incidents", "code", "strictly"),
    [
        ([], [], None, None),
        (["quiet", "improved", "quarantined"], [], None, None),
        (["quiet", "incident"], [UP], None, None),
        (["quiet", "incident"], [DOWN], None, 11),
        (["suspected"], [], None, 11),
        (["unconfirmed", "too-little-data"], [], None, 11),
        (["quiet", "too-little-data"], [], None, 12),
        (["regression", "too-little-data", "suspected"], [DOWN], 10, 10),
    ],
)
def test_exit_codes(verdicts: list[Verdict], incidents: list[Incident], code: int | None, strictly: int | None) -> None:
    judged = [replace(alone(100.0), verdict=verdict) for verdict in verdicts]
    assert alarm(judged, incidents) == code
    assert alarm(judged, incidents, strict=True) == strictly


def test_verdicts_are_ordered_by_how_serious_they_are() -> None:
    assert VERDICTS[0] == "regression"
    assert VERDICTS[-1] == "quiet"


def test_nothing_is_judged_of_nothing() -> None:
    assert judge([], 5) == ([], [])


def test_a_record_without_a_host_is_judged() -> None:
    record: Record = launch(50, 90.0, host_id=None)
    (found,) = series_of([record], nights(STEADY, host_id=None), NOTHING, NOW)
    (judged,), _ = judge([found], 5)
    assert (judged.verdict, judged.host_id) == ("suspected", "")
