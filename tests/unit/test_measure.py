"""The timed loops on a clock that passes only inside steps: every figure is exact."""

from __future__ import annotations

import numpy as np
import pytest

from bench import measure
from bench.errors import CaseError, InvalidMeasurement
from bench.spec import parse_workload
from tests.fakes import Clock, TimedSession

VOCAB = 300


def taken(text: str, repetitions: int = 1, **session: bool) -> tuple[list[measure.Sample], TimedSession]:
    workload, clock = parse_workload(text, chunk=8), Clock()
    fake = TimedSession(workload, clock, **session)
    measure.warm_up(fake, workload, VOCAB, 0, clock)
    fake.calls.clear()
    fake.fed_ids.clear()
    samples = measure.samples(fake, workload, VOCAB, repetitions=repetitions, budget_s=None, seed=0, clock=clock)
    return list(samples), fake


def test_prefill_is_timed_over_its_chunks() -> None:
    [sample], fake = taken("pp20")
    assert fake.calls == [("rewind", 0), ("step", 1, 8), ("step", 1, 8), ("step", 1, 4)]
    assert sample == measure.Sample(prefill_s=pytest.approx(0.005), step_s=())


def test_tg_is_n_steps_from_an_empty_cache_as_llama_bench_counts() -> None:
    [sample], fake = taken("tg3")
    assert sample == measure.Sample(prefill_s=None, step_s=pytest.approx((0.0011,) * 3))
    assert fake.calls == [("rewind", 0), *[("step", 1, 1)] * 3]


def test_of_a_prompt_and_its_answer_the_prefill_yields_the_first_id() -> None:
    [sample], _ = taken("16/4")
    assert sample.prefill_s == pytest.approx(0.0036)
    assert len(sample.step_s) == 3


def test_pp_plus_tg_feeds_all_new_tokens() -> None:
    [sample], fake = taken("pp8+tg4")
    assert len(sample.step_s) == 4
    assert fake.length == 12


def test_the_depth_is_fed_once_and_never_timed() -> None:
    samples, fake = taken("tg2@d16", repetitions=2)
    assert fake.calls == [("rewind", 16), *[("step", 1, 1)] * 2] * 2
    assert all(sample.total_s == pytest.approx(0.0022) for sample in samples)


def test_where_a_session_cannot_rewind_the_depth_is_fed_again_untimed() -> None:
    samples, fake = taken("tg2@d16", repetitions=2, can_rewind=False)
    assert fake.calls.count(("step", 1, 8)) == 4
    assert all(sample.total_s == pytest.approx(0.0022) for sample in samples)


def test_all_rows_are_fed() -> None:
    _, fake = taken("pp8+tg1x3")
    assert [call for call in fake.calls if call[0] == "step"] == [("step", 3, 8), ("step", 3, 1)]


def test_no_prompt_is_ever_repeated_but_the_depth_is() -> None:
    workload = parse_workload("pp8@d8x2")
    first, second = (measure.token_ids(workload, VOCAB, 7, repetition) for repetition in (0, 1))
    assert (first[:, :8] == second[:, :8]).all()
    assert (first[:, 8:] != second[:, 8:]).any()
    assert (first[0] != first[1]).any()
    assert (measure.token_ids(workload, VOCAB, 7, 0) == first).all()
    assert first.min() >= 0
    assert first.max() < VOCAB


def test_no_workload_begins_as_another_does() -> None:
    """A prefix cache would otherwise answer pp512 from what chat left, or samples from the check before them."""
    ids = [measure.token_ids(parse_workload(text), VOCAB, 0, 0)[0, :64] for text in ("pp512", "pp64", "chat", "tg64")]
    ids.append(measure.token_ids(parse_workload("pp64"), VOCAB, 0, measure.CHECK_REPETITION)[0])
    ids.append(measure.token_ids(parse_workload("pp64"), VOCAB, 0, measure.WARMUP_REPETITION)[0])
    for i, one in enumerate(ids):
        assert all((one == other).mean() < 0.1 for other in ids[i + 1 :])


def test_a_budget_adds_samples_and_never_takes_any() -> None:
    workload, clock = parse_workload("tg2"), Clock()
    fake = TimedSession(workload, clock)

    def count(budget_s: float) -> int:
        given = {"repetitions": 5, "budget_s": budget_s, "seed": 0, "clock": clock}
        return len(list(measure.samples(fake, workload, VOCAB, **given)))

    assert count(0.001) == 5
    assert count(0.0221) == 11


def test_warm_up_executes_the_full_shape_and_three_steps() -> None:
    workload, clock = parse_workload("pp20+tg100", chunk=8), Clock()
    fake = TimedSession(workload, clock)
    measure.warm_up(fake, workload, VOCAB, 0, clock)
    steps = [call for call in fake.calls if call[0] == "step"]
    assert steps[:6] == [("step", 1, 8), ("step", 1, 8), ("step", 1, 4), *[("step", 1, 1)] * 3]


def test_ids_that_break_the_contract_are_found_while_warming_up() -> None:
    workload, clock = parse_workload("tg100"), Clock()
    fake = TimedSession(workload, clock)
    fake._vocab = 10**6
    with pytest.raises(CaseError, match="returned ids"):
        for _ in range(100):
            fake._length += 1000
            measure.warm_up(fake, workload, 2, 0, clock)


@pytest.mark.parametrize(("value", "says"), [(np.nan, "not finite"), (np.inf, "not finite"), (1.5, "constant")])
def test_the_last_logits_are_numbers(value: float, says: str) -> None:
    fake = TimedSession(parse_workload("tg2"), Clock())
    fake.logits = lambda: np.full((1, VOCAB), value, np.float32)
    with pytest.raises(InvalidMeasurement, match=says):
        measure.check_last_logits(fake)
