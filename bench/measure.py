"""The timed loops. They know a Session, a workload and a clock; no vendor, no file, no print.

A sample is one repetition. What is timed ends when the step's ids are visible on the host (Session.step's contract), so
nothing is synchronized here. All token ids are made before the clock starts and are the same for every backend;
end-of-sequence is ignored.
"""

from __future__ import annotations

import gc
import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from itertools import pairwise

import numpy as np

from bench.api import Progress, Session
from bench.errors import CaseError, InvalidMeasurement
from bench.types import Int32, Workload

Clock = Callable[[], int]
"""Monotonic nanoseconds."""

WARMUP_STEPS = 3
WARMUP_REPETITION, CHECK_REPETITION, ENERGY_REPETITION = 2**31, 2**31 + 1, 2**31 + 2
"""Ids of what is not counted: never those of a sample."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """Timings of one repetition, in seconds; prefill_s None where the workload has no prompt.

    step_s[i] lies between the host seeing the ids of one decode step and of the next; the first starts where the
    prefill ended. `began_ns` is when, on the worker's clock: what else was read then is found by it.
    """

    prefill_s: float | None
    step_s: tuple[float, ...]
    kind: str = "step"
    began_ns: int = field(default=0, compare=False)

    @property
    def total_s(self) -> float:
        return (self.prefill_s or 0.0) + sum(self.step_s)


def token_ids(workload: Workload, vocab: int, seed: int, repetition: int) -> Int32:
    """Seeded ids [batch, positions]: other ones for every workload, row and repetition, so that no prefix cache hits.

    Only the untimed depth is the same in every repetition of a workload, so that it need not be fed again.
    """
    name = int.from_bytes(hashlib.sha256(workload.name.encode()).digest()[:8], "big")

    def draw(count: int, *key: int) -> Int32:
        generator = np.random.Generator(np.random.PCG64([seed, name, *key]))
        return generator.integers(0, vocab, size=(workload.batch, count), dtype=np.int32)

    timed = workload.positions - workload.depth
    return np.concatenate([draw(workload.depth, 0), draw(timed, 1, repetition)], axis=1)


def feed(session: Session, ids: Int32, chunk: int, progress: Progress | None = None) -> None:
    """Prefill `ids` [rows, n] in steps of at most `chunk` tokens."""
    done = 0
    for part in _chunks(ids, chunk):
        session.step(part)
        done += part.shape[1]
        if progress:
            progress(done, ids.shape[1])


def repetition(session: Session, workload: Workload, ids: Int32, clock: Clock, *, at_depth: bool) -> Sample:
    """Execute `workload` once with `ids` [batch, positions] and return its timings.

    `at_depth`: the cache already begins with this workload's depth, so rewinding is enough where the session can.
    """
    if not (at_depth and session.rewind(workload.depth)):
        session.rewind(0)
        feed(session, ids[:, : workload.depth], workload.chunk)
    prompt = ids[:, workload.depth : workload.depth + workload.prompt_tokens]
    chunks = [np.ascontiguousarray(c) for c in _chunks(prompt, workload.chunk)]
    steps = [np.ascontiguousarray(c) for c in _chunks(ids[:, workload.depth + workload.prompt_tokens :], 1)]
    marks = [0] * (len(steps) + 1)
    step = session.step
    started = clock()
    for chunk in chunks:
        step(chunk)
    marks[0] = clock() if chunks else started
    for index, token in enumerate(steps, 1):
        step(token)
        marks[index] = clock()
    return Sample(
        prefill_s=(marks[0] - started) / 1e9 if chunks else None,
        step_s=tuple((after - before) / 1e9 for before, after in pairwise(marks)),
        began_ns=started,
    )


def warm_up(session: Session, workload: Workload, vocab: int, seed: int, clock: Clock) -> Sample:
    """One pass at the full shape and three decode steps, never counted; checks what comes back.

    Raises CaseError where the adapter breaks its contract (ids missing, out of range).
    """
    steps = min(workload.decode_steps, WARMUP_STEPS)
    short = replace(workload, new_tokens=steps, first_id_from_prompt=False)
    ids = token_ids(short, vocab, seed, repetition=WARMUP_REPETITION)
    sample = repetition(session, short, ids, clock, at_depth=False)
    returned = session.step(ids[:, -1:]) if short.positions < workload.positions else None
    if returned is not None and (
        returned.shape != (workload.batch,) or int(returned.min()) < 0 or int(returned.max()) >= vocab
    ):
        raise CaseError(f"a step returned ids {returned!r} for {workload.batch} rows of vocabulary {vocab}")
    return sample


def samples(
    session: Session,
    workload: Workload,
    vocab: int,
    *,
    repetitions: int,
    budget_s: float | None,
    seed: int,
    clock: Clock,
) -> Iterator[Sample]:
    """At least `repetitions` samples, more while the time budget lasts; never until a statistic pleases.

    The garbage collector rests while a repetition is timed: its pauses are ours, not the runtime's.
    """
    started, done = clock(), 0
    while done < repetitions or (budget_s is not None and (clock() - started) / 1e9 < budget_s):
        ids = token_ids(workload, vocab, seed, done)
        collecting = gc.isenabled()
        gc.disable()
        try:
            sample = repetition(session, workload, ids, clock, at_depth=True)
        finally:
            if collecting:
                gc.enable()
        done += 1
        yield sample


def check_last_logits(session: Session) -> None:
    """The last timed step produced numbers: finite and not constant; InvalidMeasurement otherwise."""
    logits = session.logits()
    if not np.isfinite(logits).all():
        raise InvalidMeasurement("the last timed step's logits are not finite")
    if float(np.ptp(logits, axis=-1).min()) == 0.0:
        raise InvalidMeasurement("the last timed step's logits are constant")


def _chunks(ids: Int32, size: int) -> Iterator[Int32]:
    for start in range(0, ids.shape[1], size):
        yield ids[:, start : start + size]
