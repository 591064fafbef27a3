"""Checks of `step`, `logits` and `rewind`: shapes, counts, and that every way to the same tokens agrees."""

from __future__ import annotations

import numpy as np

from bench.api import Session
from bench.conformance.check import Check, demand
from bench.conformance.models import ARCHS, CAPACITY, POSITIONS, Variant, both
from bench.conformance.subject import Subject
from bench.types import Float32, Int32, Workload


def ids_are_the_argmax_of_the_logits(subject: Subject, variant: Variant) -> None:
    """A step returns int32 ids, one a row, and each is the most likely of that row's logits."""
    rows, vocab = subject.rows(variant), ARCHS[variant.model].vocab
    with subject.opened(variant) as session:
        for count in (POSITIONS - 1, 1):
            ids = session.step(rows[:, :count])
            logits = np.array(session.logits())
            _demand_ids(ids, len(rows), vocab)
            demand(logits.shape == (len(rows), vocab), f"logits have shape {logits.shape} after want='last'")
            demand(logits.dtype == np.float32, f"logits are {logits.dtype}, not float32")
            demand(np.isfinite(logits).all(), "logits are not finite")
            demand((ids == logits.argmax(axis=-1)).all(), f"ids {ids} are not the argmax {logits.argmax(axis=-1)}")


def all_positions_can_be_asked_for(subject: Subject, variant: Variant) -> None:
    """want="all" gives logits [rows, n, vocab], and the last of them are those of want="last"."""
    rows, vocab = subject.rows(variant), ARCHS[variant.model].vocab
    with subject.opened(variant) as session:
        ids = session.step(rows, want="all")
        whole = np.array(session.logits())
        demand(whole.shape == (*rows.shape, vocab), f"logits have shape {whole.shape} after want='all' of {rows.shape}")
        _demand_ids(ids, len(rows), vocab)
        session.rewind(0)
        session.step(rows)
        _demand_close(subject, variant, session, np.array(session.logits()), whole[:, -1], "last and all differ")


def fewer_rows_than_the_batch_are_accepted(subject: Subject, variant: Variant) -> None:
    """A session of batch 4 steps one, two and four rows, after an empty cache each time."""
    rows = subject.rows(variant)
    with subject.opened(variant) as session:
        for count in (1, 2, 4):
            session.rewind(0)
            _demand_ids(session.step(rows[:count]), count, ARCHS[variant.model].vocab)


def the_same_tokens_give_the_same_logits(subject: Subject, variant: Variant) -> None:
    """Fed the same tokens twice, a session repeats its logits, within its precision class."""
    rows = subject.rows(variant)
    with subject.opened(variant) as session:
        first = _fed(session, rows, (POSITIONS - 2, 1, 1))
        second = _fed(session, rows, (POSITIONS - 2, 1, 1))
        _demand_close(subject, variant, session, second, first, "the second time differs")


def rows_do_not_touch_each_other(subject: Subject, variant: Variant) -> None:
    """Each row of a batch has the logits that it has alone, prefill and decode."""
    rows = subject.rows(variant)
    with subject.opened(variant) as session:
        for counts in ((POSITIONS,), (POSITIONS - 3, 1, 1, 1)):
            together = _fed(session, rows, counts)
            alone = np.concatenate([_fed(session, row[None], counts) for row in rows])
            _demand_close(subject, variant, session, together, alone, f"steps of {counts}: batch and alone differ")


def the_number_of_rows_may_change(subject: Subject, variant: Variant) -> None:
    """After rewind(0) a session takes another number of rows, in several steps, and nothing of the last is left."""
    rows = np.tile(subject.rows(variant), 2)[:, :CAPACITY]
    chunks = Workload(name="chunks", prompt_tokens=CAPACITY, new_tokens=0, batch=variant.batch, chunk=CAPACITY // 4)
    counts = (chunks.chunk,) * 4
    for some in (2, 3, 4):
        with subject.opened(variant, workload=chunks) as session:
            expected = _fed(session, rows[:some], counts)
        with subject.opened(variant, workload=chunks) as session:
            _fed(session, rows[:1], (1, 16, 15))
            got = _fed(session, rows[:some], counts)
            _demand_close(
                subject, variant, session, got, expected, f"{some} rows after one are not as in a new session"
            )


def chunks_agree_with_one_step(subject: Subject, variant: Variant) -> None:
    """A prompt in chunks of any size, single tokens included, ends in the logits of one step."""
    rows = subject.rows(variant)
    with subject.opened(variant) as session:
        whole = _fed(session, rows, (POSITIONS,))
        for counts in ((16, 16), (7, 20, 5), (20, *[1] * 12), (1,) * POSITIONS):
            chunked = _fed(session, rows, counts)
            _demand_close(subject, variant, session, chunked, whole, f"chunks of {counts} differ from one step")


def rewind_forgets_the_rest(subject: Subject, variant: Variant) -> None:
    """After rewind(n) the session continues as if only the first n tokens had been fed, or says that it cannot."""
    rows = subject.rows(variant)
    with subject.opened(variant) as session:
        whole = _fed(session, rows, (POSITIONS,))
        for length in (POSITIONS - 1, 10, 1):
            session.rewind(0)
            session.step(rows[:, ::-1].copy())
            demand(session.rewind(0) is True, "rewind(0) must always succeed")
            session.step(rows[:, :length].copy())
            _feed_singly(session, rows[:, :5])  # what must be forgotten
            if not session.rewind(length):
                continue
            _feed_singly(session, rows[:, length:])
            got = np.array(session.logits())
            _demand_close(subject, variant, session, got, whole, f"after rewind({length}) the logits differ")


def rewind_refuses_what_was_never_there(subject: Subject, variant: Variant) -> None:
    """rewind beyond what was fed returns False, and the cache stays as it is."""
    rows = subject.rows(variant)
    with subject.opened(variant) as session:
        whole = _fed(session, rows, (POSITIONS - 1, 1))
        session.rewind(0)
        session.step(rows[:, :-1])
        demand(session.rewind(POSITIONS + 1) is False, "rewind claims to keep more tokens than were fed")
        session.step(rows[:, -1:])
        _demand_close(subject, variant, session, np.array(session.logits()), whole, "the refused rewind did something")


def _fed(session: Session, rows: Int32, counts: tuple[int, ...]) -> Float32:
    """Logits [rows, vocab] after an empty cache and steps of `counts` tokens."""
    session.rewind(0)
    start = 0
    for count in counts:
        session.step(rows[:, start : start + count].copy())
        start += count
    return np.array(session.logits())


def _feed_singly(session: Session, rows: Int32) -> None:
    for position in range(rows.shape[1]):
        session.step(rows[:, position : position + 1].copy())


def _demand_ids(ids: Int32, rows: int, vocab: int) -> None:
    demand(isinstance(ids, np.ndarray) and ids.dtype == np.int32, f"ids are {type(ids).__name__}, not an int32 array")
    demand(ids.shape == (rows,), f"ids have shape {ids.shape} for {rows} rows")
    demand(ids.min() >= 0 and ids.max() < vocab, f"ids {ids} lie outside the vocabulary of {vocab}")


def _demand_close(
    subject: Subject, variant: Variant, session: Session, got: Float32, expected: Float32, message: str
) -> None:
    """Row by row within what two honest paths of this precision class may differ."""
    allowed = subject.agreement(variant, session.facts())
    centred = np.linalg.norm(expected - expected.mean(axis=-1, keepdims=True), axis=-1)
    worst = float((np.linalg.norm(got - expected, axis=-1) / centred).max())
    demand(worst <= allowed, f"{message}: by {worst:.2g} of the logits, where {allowed:.2g} is allowed")


_EXACT_AND_NATIVE = both()
_ALONE_AND_TOGETHER = (*both(), *both(batch=4))

CHECKS = (
    Check(ids_are_the_argmax_of_the_logits, _ALONE_AND_TOGETHER, computing=False),
    Check(all_positions_can_be_asked_for, _ALONE_AND_TOGETHER, computing=False),
    Check(fewer_rows_than_the_batch_are_accepted, both(batch=4), computing=False),
    Check(the_same_tokens_give_the_same_logits, _ALONE_AND_TOGETHER, computing=False),
    Check(rows_do_not_touch_each_other, both(batch=4)),
    Check(the_number_of_rows_may_change, both(batch=4)),
    Check(chunks_agree_with_one_step, _EXACT_AND_NATIVE),
    Check(rewind_forgets_the_rest, _ALONE_AND_TOGETHER),
    Check(rewind_refuses_what_was_never_there, _EXACT_AND_NATIVE),
)
