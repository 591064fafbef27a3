"""Is it the same model, computed as precisely as declared? Decided before anything is timed.

Drives a session over what is to be compared; `bench.parity` judges. Standard library and numpy only.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from bench.api import Artifact, Progress, Session
from bench.artifacts.stored_reference import Reference
from bench.facts import PATH_ROWS, SessionFacts, precision_class
from bench.measure import CHECK_REPETITION, feed, token_ids
from bench.parity import EXACT_BOUND, NOT_FINITE, Check, agreement_bound, judge, relative_error
from bench.types import Float32, Int32, Workload

DECODE_POSITIONS = 8
"""Positions at the end of the reference that are fed one by one: decode has kernels of its own."""
ROWS_COMPARED = 8
"""Rows of a batch that are held against themselves alone; of more, as many evenly spread ones."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Certificate:
    """What the exact configuration of a prepared model achieved, on `layers` of its layers.

    `elsewhere` says what of it was not executed where asked, `elsewhere_share` how much of the matrix products.
    """

    error: float | None
    worst: float | None
    layers: int
    reason: str | None = None
    elsewhere: str | None = None
    elsewhere_share: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Fed:
    """Codes and scales read back from what the runtime was given, against the artifact's, bit by bit.

    `unread` counts tensors that cannot be read back; `differing` names those that are not equal.
    """

    equal: int
    unread: int
    differing: tuple[str, ...]

    @property
    def reason(self) -> str | None:
        if not self.differing:
            return None
        more = f" and {len(self.differing) - 3} more" if len(self.differing) > 3 else ""
        return f"codes or scales differ from the artifact's in {', '.join(self.differing[:3])}{more}"


def certify(session: Session, reference: Reference, layers: int) -> Certificate:
    """The exact configuration agrees with the reference within 1e-4 at every position."""
    error, worst = relative_error(_path_logits(session, reference.ids), reference, slice(None))
    reason = None
    if worst is None:
        reason = NOT_FINITE
    elif worst > EXACT_BOUND:
        reason = f"off by {worst:.2g} of the logits at its worst position, where {EXACT_BOUND:.0e} is allowed"
    return Certificate(error=error, worst=worst, layers=layers, reason=reason)


def compare_fed(session: Session, artifact: Artifact, progress: Progress) -> Fed:
    """Every tensor of the model, in bounded memory; takes as long as reading both."""
    equal, unread, differing = 0, 0, []
    names = artifact.names()
    for done, name in enumerate(names):
        progress(done, len(names))
        fed = session.fed(name)
        if fed is None:
            unread += 1
        elif fed.same_bits(artifact.tensor(name)):
            equal += 1
        else:
            differing.append(name)
    return Fed(equal=equal, unread=unread, differing=tuple(differing))


def native(session: Session, reference: Reference, progress: Progress) -> tuple[SessionFacts, list[Check]]:
    """Measured error against the class that `facts` declares, for prefill and for decode.

    Prefill is fed on the path: its class is that of `facts.path` where a runtime computes larger steps otherwise.
    """
    count = len(reference.ids)
    prefill = _path_logits(session, reference.ids)
    progress(count, count + DECODE_POSITIONS)
    tail = slice(count - DECODE_POSITIONS, count)
    decode = _decode_logits(session, reference.ids, tail.start)
    facts = session.facts()
    return facts, [
        judge("prefill", precision_class(facts.path or facts.prefill, facts.kv_cache), prefill, reference, slice(None)),
        judge("decode", precision_class(facts.decode, facts.kv_cache), decode, reference, tail),
    ]


def self_consistency(
    session: Session,
    workload: Workload,
    vocab: int,
    seed: int,
    facts: SessionFacts,
    reference: Reference,
    progress: Progress,
) -> Check:
    """Logits at the case's own depth, prefill length, chunk and batch agree with each row alone on the path.

    The case's way: depth and prompt in its chunks with all rows, then up to eight decode steps.
    """
    steps = min(workload.decode_steps, DECODE_POSITIONS)
    prefix = workload.depth + workload.prompt_tokens
    ids = token_ids(workload, vocab, seed, CHECK_REPETITION)[:, : prefix + steps]
    session.rewind(0)
    feed(session, ids[:, : workload.depth], workload.chunk)
    feed(session, ids[:, workload.depth : prefix], workload.chunk)
    feed(session, ids[:, prefix:], 1)
    together = np.array(session.logits())
    rows = sorted({round(r) for r in np.linspace(0, workload.batch - 1, min(workload.batch, ROWS_COMPARED))})
    errors = []
    for row in rows:
        _feed_path(session, ids[row : row + 1], progress)
        alone = session.logits()[0]
        errors.append(float(np.linalg.norm(together[row] - alone) / np.linalg.norm(alone - alone.mean())))
    session.rewind(0)
    return _judge_agreement(workload, errors, facts, reference)


def _judge_agreement(workload: Workload, errors: list[float], facts: SessionFacts, reference: Reference) -> Check:
    """Either way carries the error of one of the phases' classes; for f32 both are exact."""
    names = facts.precision_classes
    bound = agreement_bound(reference, names)
    worst = max(errors) if np.isfinite(errors).all() else None
    reason = None
    if worst is None:
        reason = f"{workload.name}: {NOT_FINITE}"
    elif bound is None:
        reason = f"{workload.name}: the error of class {' or '.join(names)} cannot be predicted, so nothing proves it"
    elif worst > bound:
        reason = f"{workload.name}: logits differ from the 16-row path by {worst:.2g} (allowed {bound:.2g})"
    return Check(
        what=workload.name,
        precision_class=" / ".join(names),
        error=None if worst is None else float(np.mean(errors)),
        worst=worst,
        bound=bound or 0.0,
        reason=reason,
    )


def _path_steps(ids: Int32) -> Iterator[Int32]:
    """`ids` [rows, n]: one token into the empty cache, then 16 a step.

    In the step that fills an empty cache a runtime may attend to keys and values that are not rounded yet; later ones
    read them as cached, so that what the cache costs shows from the second token on.
    """
    count = ids.shape[1]
    for start, stop in pairwise([0, *range(1, count, PATH_ROWS), count]):
        yield np.ascontiguousarray(ids[:, start:stop])


def _feed_path(session: Session, ids: Int32, progress: Progress | None = None) -> None:
    """The path of `ids` [rows, n] into an emptied cache; `progress` counts tokens of a row."""
    session.rewind(0)
    done = 0
    for part in _path_steps(ids):
        session.step(part)
        done += part.shape[1]
        if progress:
            progress(done, ids.shape[1])


def _path_logits(session: Session, ids: Int32) -> Float32:
    """[positions, vocab] of one row on the path."""
    session.rewind(0)
    parts = []
    for part in _path_steps(ids[None]):
        session.step(part, want="all")
        parts.append(np.array(session.logits()[0]))
    return np.concatenate(parts)


def _decode_logits(session: Session, ids: Int32, start: int) -> Float32:
    """[positions from `start`, vocab], each fed alone after the path."""
    if not session.rewind(start):
        _feed_path(session, ids[None, :start])
    parts = []
    for position in range(start, len(ids)):
        session.step(np.ascontiguousarray(ids[None, position : position + 1]))
        parts.append(np.array(session.logits()[0]))
    return np.stack(parts)
