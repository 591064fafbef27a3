"""Is it the same model, computed as precisely as declared? Decided before anything is timed.

Error = ‖logits − reference‖ / ‖reference − its mean‖ over all compared positions. Standard library and numpy only.
The reference folder is read by `bench.artifacts.stored_reference`; definitions and calibration: docs/method.md.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from bench.api import Artifact, Progress, Session
from bench.artifacts.stored_reference import Reference
from bench.measure import feed, token_ids
from bench.types import Float32, Int32, SessionFacts, Workload, precision_class

EXACT_BOUND = 1e-4
"""An exact configuration differs from the float32 reference by summation order only; 1e-6 is usual."""
LOW, HIGH = 0.8, 1.25
"""Band of measured / predicted error. Below: the declared precision is not what executed. Above: another model."""
AGREE = 2**0.5 * HIGH
"""Two honest paths differ by two independent errors of one class."""
PATH_ROWS = 16
"""Tokens a step feeds on the reference path; no runtime changes its kernels just there."""
DECODE_POSITIONS = 8
"""Positions at the end of the reference that are fed one by one: decode has kernels of its own."""
ROWS_COMPARED = 4
NOT_FINITE = "logits are not finite"


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """One comparison. `predicted` None where the bound is absolute; `reason` says what failed, None = passed."""

    what: str
    precision_class: str
    error: float | None
    worst: float | None
    bound: float
    predicted: float | None = None
    kl_mean: float | None = None
    top1_ratio: float | None = None
    reason: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Certificate:
    """What the exact configuration of a prepared model achieved, on `layers` of its layers."""

    error: float | None
    worst: float | None
    layers: int
    reason: str | None = None


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
    """Measured error against the class that `facts` declares, for prefill and for decode."""
    count = len(reference.ids)
    prefill = _path_logits(session, reference.ids)
    progress(count, count + DECODE_POSITIONS)
    tail = slice(count - DECODE_POSITIONS, count)
    decode = _decode_logits(session, reference.ids, tail.start)
    facts = session.facts()
    return facts, [
        _judge("prefill", precision_class(facts.prefill, facts.kv_cache), prefill, reference, slice(None)),
        _judge("decode", precision_class(facts.decode, facts.kv_cache), decode, reference, tail),
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
    """Logits at the case's own depth, prefill length, chunk and batch agree with each row alone on the 16-row path.

    The case's way: depth and prompt in its chunks with all rows, then up to eight decode steps.
    """
    steps = min(workload.decode_steps, DECODE_POSITIONS)
    prefix = workload.depth + workload.prompt_tokens
    ids = token_ids(workload, vocab, seed, 0)[:, : prefix + steps]
    session.rewind(0)
    feed(session, ids[:, : workload.depth], workload.chunk)
    feed(session, ids[:, workload.depth : prefix], workload.chunk)
    feed(session, ids[:, prefix:], 1)
    together = np.array(session.logits())
    rows = sorted({round(r) for r in np.linspace(0, workload.batch - 1, min(workload.batch, ROWS_COMPARED))})
    errors = []
    for row in rows:
        session.rewind(0)
        feed(session, ids[row : row + 1], PATH_ROWS, progress)
        alone = session.logits()[0]
        errors.append(float(np.linalg.norm(together[row] - alone) / np.linalg.norm(alone - alone.mean())))
    session.rewind(0)
    return _judge_agreement(workload, errors, facts, reference)


def relative_error(logits: Float32, reference: Reference, positions: slice) -> tuple[float, float] | tuple[None, None]:
    """(over all positions, worst position) of ‖Δ‖ / ‖centred reference‖; None where logits are not finite."""
    delta = logits.astype(np.float64) - reference.logits[positions]
    delta2 = np.einsum("pv,pv->p", delta, delta)
    centred2 = reference.centred2[positions]
    if not np.isfinite(delta2).all():
        return None, None
    return float(np.sqrt(delta2.sum() / centred2.sum())), float(np.sqrt((delta2 / centred2).max()))


def predicted_error(reference: Reference, name: str, positions: slice) -> float | None:
    """What rounding of class `name` inside the reference causes; None for a class it does not predict."""
    delta2 = reference.delta2.get(name)
    if delta2 is None:
        return None
    return float(np.sqrt(delta2[positions].sum() / reference.centred2[positions].sum()))


def _judge(what: str, name: str, logits: Float32, reference: Reference, positions: slice) -> Check:
    error, worst = relative_error(logits, reference, positions)
    predicted = None if name == "f32" else predicted_error(reference, name, positions)
    kl_mean, top1_ratio = (None, None) if error is None else _for_the_reader(logits, reference.logits[positions])
    reason = _doubt(error, name, predicted)
    if reason:
        reason = f"{what}: {reason}{_fitting(error, name, reference, positions)}"
    return Check(
        what=what,
        precision_class=name,
        error=error,
        worst=worst,
        bound=HIGH * predicted if predicted else EXACT_BOUND,
        predicted=predicted,
        kl_mean=kl_mean,
        top1_ratio=top1_ratio,
        reason=reason,
    )


def _doubt(error: float | None, name: str, predicted: float | None) -> str | None:
    """Why an error is not what class `name` causes, or None."""
    if error is None:
        return NOT_FINITE
    if name == "f32":
        return None if error <= EXACT_BOUND else f"error {error:.2g} where f32 allows {EXACT_BOUND:.0e}"
    if predicted is None:
        return f"the error of class {name} cannot be predicted, so nothing proves it"
    ratio = error / predicted
    if LOW <= ratio <= HIGH:
        return None
    meaning = "another model, or a broken kernel" if ratio > HIGH else "more precise than declared"
    return f"error {error:.2g} is {ratio:.2f} times what {name} predicts ({predicted:.2g}): {meaning}"


def _fitting(error: float | None, declared: str, reference: Reference, positions: slice) -> str:
    """Names the classes whose prediction the error would fit, for the message."""
    if error is None:
        return ""
    names = []
    for name in reference.delta2:
        predicted = predicted_error(reference, name, positions)
        if name != declared and predicted and LOW <= error / predicted <= HIGH:
            names.append(name)
    if error <= EXACT_BOUND and declared != "f32":
        names.append("f32")
    return f"; it would fit {' or '.join(names)}" if names else ""


def _judge_agreement(workload: Workload, errors: list[float], facts: SessionFacts, reference: Reference) -> Check:
    """Both paths carry the error of their phase's class; for f32 both are exact."""
    names = {precision_class(facts.prefill, facts.kv_cache), precision_class(facts.decode, facts.kv_cache)}
    predicted = [p for n in names if n != "f32" and (p := predicted_error(reference, n, slice(None)))]
    bound = AGREE * max(predicted) if predicted else 2 * EXACT_BOUND
    worst = max(errors) if np.isfinite(errors).all() else None
    reason = None
    if worst is None:
        reason = f"{workload.name}: {NOT_FINITE}"
    elif worst > bound:
        reason = f"{workload.name}: logits differ from the 16-row path by {worst:.2g} (allowed {bound:.2g})"
    return Check(
        what=workload.name,
        precision_class=" / ".join(sorted(names)),
        error=None if worst is None else float(np.mean(errors)),
        worst=worst,
        bound=bound,
        reason=reason,
    )


def _path_logits(session: Session, ids: Int32) -> Float32:
    """[positions, vocab] of one row fed 16 tokens a step."""
    session.rewind(0)
    parts = []
    for start in range(0, len(ids), PATH_ROWS):
        session.step(np.ascontiguousarray(ids[None, start : start + PATH_ROWS]), want="all")
        parts.append(np.array(session.logits()[0]))
    return np.concatenate(parts)


def _decode_logits(session: Session, ids: Int32, start: int) -> Float32:
    """[positions from `start`, vocab], each fed alone after a 16-row prefill."""
    if not session.rewind(start):
        session.rewind(0)
        feed(session, ids[None, :start], PATH_ROWS)
    parts = []
    for position in range(start, len(ids)):
        session.step(np.ascontiguousarray(ids[None, position : position + 1]))
        parts.append(np.array(session.logits()[0]))
    return np.stack(parts)


def _for_the_reader(logits: Float32, reference: Float32) -> tuple[float, float]:
    """Mean KL(reference ‖ logits) in nats and the share of positions with the same most likely id."""
    log_p, log_q = _log_softmax(reference), _log_softmax(logits)
    kl = (np.exp(log_p) * (log_p - log_q)).sum(axis=-1).mean()
    return float(kl), float((logits.argmax(axis=-1) == reference.argmax(axis=-1)).mean())


def _log_softmax(logits: Float32) -> np.ndarray[tuple[int, ...], np.dtype[np.float64]]:
    shifted = logits.astype(np.float64) - logits.max(axis=-1, keepdims=True)
    log: np.ndarray[tuple[int, ...], np.dtype[np.float64]] = shifted - np.log(
        np.exp(shifted).sum(axis=-1, keepdims=True)
    )
    return log
