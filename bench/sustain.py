"""When each phase of a workload was executed: in the timed samples, or once more for as long as sensors need.

Sensors of energy and power are updated some ten times a second: of a prefill of 50 ms they see nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from bench.api import Session
from bench.measure import Clock, Sample, feed
from bench.types import Int32, Workload

PHASES = ("prefill", "decode")
LEAST_SHARE = 0.1
"""Of the time that sensors need, which is at least 20 updates: a window of two has an error as large as itself."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Executed:
    """One phase: its windows on the worker's clock, and the tokens of all rows that were fed in them.

    `own_pass`: it was repeated for this, and not timed.
    """

    phase: str
    windows_ns: tuple[tuple[int, int], ...]
    tokens: int
    own_pass: bool = False


def tokens_of(workload: Workload, phase: str) -> int:
    """Tokens that one repetition feeds in a phase, all rows."""
    return workload.batch * (workload.prompt_tokens if phase == "prefill" else workload.decode_steps)


def timed(samples: Sequence[Sample], workload: Workload, phase: str) -> Executed:
    """A phase as the timed samples executed it."""
    windows = []
    for sample in samples:
        prefilled_ns = sample.began_ns + round(1e9 * (sample.prefill_s or 0.0))
        ended_ns = sample.began_ns + round(1e9 * sample.total_s)
        windows.append((sample.began_ns, prefilled_ns) if phase == "prefill" else (prefilled_ns, ended_ns))
    return Executed(phase=phase, windows_ns=tuple(windows), tokens=tokens_of(workload, phase) * len(samples))


def long_enough(executed: Executed, least_s: float) -> bool:
    """Whether every one of its windows lasts `least_s`."""
    return all(ended_ns - began_ns >= 1e9 * least_s for began_ns, ended_ns in executed.windows_ns)


def sustained(
    session: Session, workload: Workload, ids: Int32, phase: str, *, least_s: float, clock: Clock
) -> Executed:
    """Repeat one phase until its windows last `least_s` together; `ids` [batch, positions] of one repetition.

    One window as long as the session can rewind; what has to be fed again before a repetition lies between windows.
    Where each of these is shorter than a tenth of `least_s` no number can come of them, and there is only one.
    """
    base = workload.depth + (workload.prompt_tokens if phase == "decode" else 0)
    until = workload.positions if phase == "decode" else workload.depth + workload.prompt_tokens
    size = 1 if phase == "decode" else workload.chunk
    parts = [ids[:, start : min(start + size, until)].copy() for start in range(base, until, size)]
    windows: list[tuple[int, int]] = []
    left_ns, repetitions = round(1e9 * least_s), 0
    while left_ns > 0:
        session.rewind(0)
        feed(session, ids[:, :base], workload.chunk)
        began_ns = clock()
        while True:
            for part in parts:
                session.step(part)
            repetitions += 1
            ended_ns = clock()
            if ended_ns - began_ns >= left_ns or not session.rewind(base):
                break
        windows.append((began_ns, ended_ns))
        left_ns -= max(1, ended_ns - began_ns)
        if ended_ns - began_ns < 1e9 * LEAST_SHARE * least_s:
            break
    tokens = tokens_of(workload, phase) * repetitions
    return Executed(phase=phase, windows_ns=tuple(windows), tokens=tokens, own_pass=True)
