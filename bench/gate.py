"""Is it the same model, computed as precisely as declared? Decided before anything is timed.

Error = ‖logits − reference‖ / ‖reference − its mean‖ over all compared positions. Standard library and numpy only.
The reference folder is read by `bench.artifacts.stored_reference`; definitions and calibration: docs/method.md.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from bench.api import Artifact, Session
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


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """One comparison. `predicted` None where the bound is absolute; `reason` says what failed, None = passed."""

    what: str
    precision_class: str
    error: float
    worst: float
    bound: float
    predicted: float | None = None
    kl_mean: float | None = None
    top1_ratio: float | None = None
    reason: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Certificate:
    """What the exact configuration of a prepared model achieved, on `layers` of its layers.

    `tensors_equal` counts tensors whose codes and scales, read back from what the runtime was given, equal the
    artifact's bit by bit; `tensors_unread` those that cannot be read back.
    """

    error: float
    worst: float
    layers: int
    tensors_equal: int
    tensors_unread: int
    reason: str | None = None


def certify(session: Session, reference: Reference, artifact: Artifact) -> Certificate:
    """Logits within 1e-4 of the reference at every position, and bits fed equal bits of the artifact."""
    error, worst = relative_error(_path_logits(session, reference.ids), reference, slice(None))
    reasons = []
    if not worst <= EXACT_BOUND:
        reasons.append(f"exact configuration is off by {worst:.2g} at its worst position (allowed {EXACT_BOUND:.0e})")
    equal, unread, differing = 0, 0, []
    for name in artifact.names():
        fed = session.fed(name)
        if fed is None:
            unread += 1
        elif fed.same_bits(artifact.tensor(name)):
            equal += 1
        else:
            differing.append(name)
    if differing:
        more = f" and {len(differing) - 3} more" if len(differing) > 3 else ""
        reasons.append(f"codes or scales differ from the artifact's in {', '.join(differing[:3])}{more}")
    return Certificate(
        error=error,
        worst=worst,
        layers=artifact.arch.layers,
        tensors_equal=equal,
        tensors_unread=unread,
        reason="; ".join(reasons) or None,
    )


def native(session: Session, reference: Reference) -> tuple[SessionFacts, list[Check]]:
    """Measured error against the class that `facts` declares, for prefill and for decode."""
    prefill = _path_logits(session, reference.ids)
    count = len(reference.ids)
    tail = slice(count - DECODE_POSITIONS, count)
    decode = _decode_logits(session, reference.ids, tail.start)
    facts = session.facts()
    return facts, [
        _judge("prefill", precision_class(facts.prefill, facts.kv_cache), prefill, reference, slice(None)),
        _judge("decode", precision_class(facts.decode, facts.kv_cache), decode, reference, tail),
    ]


def self_consistency(
    session: Session, workload: Workload, vocab: int, seed: int, facts: SessionFacts, reference: Reference
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
        feed(session, ids[row : row + 1], PATH_ROWS)
        alone = session.logits()[0]
        errors.append(float(np.linalg.norm(together[row] - alone) / np.linalg.norm(alone - alone.mean())))
    session.rewind(0)
    return _judge_agreement(workload, errors, facts, reference)


def relative_error(logits: Float32, reference: Reference, positions: slice) -> tuple[float, float]:
    """(over all positions, worst position) of ‖Δ‖ / ‖centred reference‖; infinite where logits are not finite."""
    delta = logits.astype(np.float64) - reference.logits[positions]
    delta2 = np.einsum("pv,pv->p", delta, delta)
    centred2 = reference.centred2[positions]
    if not np.isfinite(delta2).all():
        return float("inf"), float("inf")
    return float(np.sqrt(delta2.sum() / centred2.sum())), float(np.sqrt((delta2 / centred2).max()))


def predicted_error(reference: Reference, name: str, positions: slice) -> float | None:
    """What rounding of class `name` inside the reference causes; None for a class it does not predict."""
    delta2 = reference.delta2.get(name)
    if delta2 is None:
        return None
    return float(np.sqrt(delta2[positions].sum() / reference.centred2[positions].sum()))


def _judge(what: str, name: str, logits: Float32, reference: Reference, positions: slice) -> Check:
    error, worst = relative_error(logits, reference, positions)
    predicted = predicted_error(reference, name, positions)
    reason, bound = None, EXACT_BOUND
    if name == "f32":
        if not error <= EXACT_BOUND:
            reason = f"error {error:.2g} where f32 allows {EXACT_BOUND:.0e}"
    elif predicted is None:
        reason = f"the error of class {name} cannot be predicted, so nothing proves it"
    else:
        bound = HIGH * predicted
        ratio = error / predicted
        if not LOW <= ratio <= HIGH:
            meaning = "another model, or a broken kernel" if not ratio <= HIGH else "more precise than declared"
            reason = f"error {error:.2g} is {ratio:.2f} times what {name} predicts ({predicted:.2g}): {meaning}"
    if reason:
        reason = f"{what}: {reason}{_fitting(error, name, reference, positions)}"
    kl_mean, top1_ratio = _for_the_reader(logits, reference.logits[positions]) if np.isfinite(error) else (None, None)
    return Check(
        what=what,
        precision_class=name,
        error=error,
        worst=worst,
        bound=bound,
        predicted=predicted,
        kl_mean=kl_mean,
        top1_ratio=top1_ratio,
        reason=reason,
    )


def _fitting(error: float, declared: str, reference: Reference, positions: slice) -> str:
    """Names the classes whose prediction the error would fit, for the message."""
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
    worst = max(errors) if np.isfinite(errors).all() else float("inf")
    reason = None
    if not worst <= bound:
        reason = f"{workload.name}: logits differ from the 16-row path by {worst:.2g} (allowed {bound:.2g})"
    return Check(
        what=workload.name,
        precision_class=" / ".join(sorted(names)),
        error=float(np.mean(errors)),
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
