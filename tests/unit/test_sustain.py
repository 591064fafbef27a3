"""When phases were executed, on a clock that passes only inside steps: every window is exact."""

from __future__ import annotations

import pytest

from bench import measure, sustain
from bench.spec import parse_workload
from tests.fakes import Clock, TimedSession

VOCAB = 300


def sustained(text: str, phase: str, least_s: float, **session: bool) -> tuple[sustain.Executed, TimedSession]:
    workload, clock = parse_workload(text, chunk=8), Clock()
    fake = TimedSession(workload, clock, **session)
    ids = measure.token_ids(workload, VOCAB, 0, measure.ENERGY_REPETITION)
    return sustain.sustained(fake, workload, ids, phase, least_s=least_s, clock=clock), fake


def test_the_windows_of_timed_samples_lie_where_they_were_timed() -> None:
    workload, clock = parse_workload("16/4", chunk=8), Clock()
    fake = TimedSession(workload, clock)
    taken = list(measure.samples(fake, workload, VOCAB, repetitions=2, budget_s=None, seed=0, clock=clock))
    prefill, decode = (sustain.timed(taken, workload, phase) for phase in sustain.PHASES)
    assert prefill.windows_ns == ((0, 3_600_000), (6_900_000, 10_500_000)) and prefill.tokens == 32
    assert decode.windows_ns == ((3_600_000, 6_900_000), (10_500_000, 13_800_000)) and decode.tokens == 6
    assert not prefill.own_pass
    assert sustain.long_enough(prefill, 0.0036) and not sustain.long_enough(prefill, 0.0037)


@pytest.mark.parametrize(
    ("text", "phase", "tokens", "ends_ns"),
    [
        ("pp16", "prefill", 48, 10_800_000),
        ("tg4", "decode", 12, 13_200_000),
        ("16/4", "prefill", 48, 10_800_000),
        ("16/4", "decode", 12, 3_600_000 + 9 * 1_100_000 + 3 * 1_100_000),
        ("pp16x2", "prefill", 96, 10_800_000),
    ],
)
def test_a_short_phase_is_repeated_as_one_window(text: str, phase: str, tokens: int, ends_ns: int) -> None:
    executed, _ = sustained(text, phase, 0.01)
    [(began_ns, ended_ns)] = executed.windows_ns
    assert (executed.tokens, ended_ns) == (tokens, ends_ns)
    assert ended_ns - began_ns >= 10_000_000 and executed.own_pass


def test_only_the_phase_is_in_the_windows_of_a_session_that_cannot_rewind() -> None:
    executed, fake = sustained("tg4@d16", "decode", 0.01, can_rewind=False)
    assert [ended - began for began, ended in executed.windows_ns] == [4_400_000] * 3
    assert executed.tokens == 12
    assert fake.calls.count(("step", 1, 8)) == 6, "the depth is fed before each window"
    assert fake.clock.now_ns == 3 * (4_400_000 + 3_600_000)


def test_windows_that_no_sensor_can_fill_are_not_repeated() -> None:
    """4.4 ms of 1 s: a prefix fed 227 times would end in no number."""
    executed, fake = sustained("tg4@d16", "decode", 1.0, can_rewind=False)
    assert executed.windows_ns == ((3_600_000, 8_000_000),)
    assert (executed.tokens, executed.own_pass) == (4, True)
    assert fake.calls.count(("step", 1, 8)) == 2


def test_every_repetition_feeds_what_a_sample_feeds() -> None:
    _, fake = sustained("16/3", "decode", 0.005)
    ids = measure.token_ids(parse_workload("16/3", chunk=8), VOCAB, 0, measure.ENERGY_REPETITION)
    assert [part.tolist() for part in fake.fed_ids[2:4]] == [ids[:, 16:17].tolist(), ids[:, 17:18].tolist()]
    assert fake.length == 18
