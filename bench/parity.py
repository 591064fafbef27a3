"""Logits against the reference: how wrong, in which direction, and whether that is what a precision class causes.

Error = ‖logits − reference‖ / ‖reference − its mean‖ over all compared positions. Definitions and calibration:
docs/method.md. Pure; standard library and numpy only.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np

from bench.artifacts.stored_reference import Reference, sampled_columns
from bench.types import Float32

EXACT_BOUND = 1e-4
"""An exact configuration differs from the float32 reference by summation order only; 1e-6 is usual."""
LOW, HIGH = 0.8, 1.25
"""Band of measured / predicted error. Below: the declared precision is not what executed. Above: another model."""
AGREE = 2**0.5 * HIGH
"""Two honest paths differ by two independent errors, each of them within the band."""
ALIGNMENT_MARGIN = 0.1
"""Classes of another kind than what executes came out at a cosine of 0.08 at most over eight positions."""
ALIGNMENT_FLOOR = 0.05
"""Least alignment with a declared class of int8 inputs or an 8-bit cache alone; honest ones showed 0.13 and more."""
WORST_FACTOR = 2.0
"""Allowed worst position / worst predicted position: errors of honest rounding spread over all positions."""
NOT_FINITE = "logits are not finite"


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """One comparison. `predicted` None where the bound is absolute; `reason` says what failed, None = passed.

    `alignment` is the cosine between the measured errors and those that the declared class must make: rounding is
    deterministic, so an honest runtime errs not only as much as predicted but, in part, in the same direction.
    """

    what: str
    precision_class: str
    error: float | None
    worst: float | None
    bound: float
    predicted: float | None = None
    alignment: float | None = None
    kl_mean: float | None = None
    top1_ratio: float | None = None
    reason: str | None = None


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


def agreement_bound(reference: Reference, names: Iterable[str]) -> float | None:
    """Most that two honest ways to one position's logits may differ, each of one of the classes `names`.

    From the worst predicted position, for it is one position that is compared; None where a class is not predicted.
    """
    worst = [worst_predicted(reference, name, slice(None)) for name in names if name != "f32"]
    known = [error for error in worst if error is not None]
    if len(known) < len(worst):
        return None
    return AGREE * max(known) if known else 2 * EXACT_BOUND


def worst_predicted(reference: Reference, name: str, positions: slice) -> float | None:
    """What rounding of class `name` causes at the position where it causes most; None for a class not predicted."""
    delta2 = reference.delta2.get(name)
    if delta2 is None:
        return None
    return float(np.sqrt((delta2[positions] / reference.centred2[positions]).max()))


def judge(what: str, name: str, logits: Float32, reference: Reference, positions: slice) -> Check:
    """Logits of these positions against what the declared class `name` predicts for them."""
    error, worst = relative_error(logits, reference, positions)
    predicted = None if name == "f32" else predicted_error(reference, name, positions)
    finite = error is not None
    kl_mean, top1_ratio = _for_the_reader(logits, reference.logits[positions]) if finite else (None, None)
    aligned = alignments(logits, reference, positions) if finite else {}
    reason = _doubt(error, name, predicted)
    if reason:
        reason = f"{reason}{_fitting(error, name, reference, positions)}"
    elif error is not None and worst is not None and predicted is not None:
        reason = (
            _other_class(error, name, aligned, reference, positions)
            or _unaligned(name, aligned)
            or _one_position(worst, name, reference, positions)
        )
    return Check(
        what=what,
        precision_class=name,
        error=error,
        worst=worst,
        bound=HIGH * predicted if predicted else EXACT_BOUND,
        predicted=predicted,
        alignment=aligned.get(name),
        kl_mean=kl_mean,
        top1_ratio=top1_ratio,
        reason=f"{what}: {reason}" if reason else None,
    )


def alignments(logits: Float32, reference: Reference, positions: slice) -> dict[str, float]:
    """By class, the cosine between the measured errors and the predicted ones, over the sampled columns."""
    columns = sampled_columns(logits.shape[-1])
    measured = (logits[:, columns] - reference.logits[positions][:, columns]).ravel()
    found = {}
    for name, errors in reference.errors.items():
        predicted = errors[positions].ravel()
        norms = float(np.linalg.norm(measured) * np.linalg.norm(predicted))
        if norms > 0:
            found[name] = float(measured @ predicted) / norms
    return found


def _other_class(
    error: float, declared: str, aligned: Mapping[str, float], reference: Reference, positions: slice
) -> str | None:
    """Names the class whose errors these are, where the size fits both it and the declared one.

    Classes of one kind are not told apart: each is now and then nearer to a relative's errors than to its own.
    """
    own = _own_alignment(declared, aligned) or 0.0
    for name in sorted(aligned, key=lambda each: -aligned[each]):
        predicted = predicted_error(reference, name, positions)
        if _kind(name) == _kind(declared) or not predicted or not LOW <= error / predicted <= HIGH:
            continue
        if aligned[name] > own + ALIGNMENT_MARGIN:
            return (
                f"the errors are as large as {declared} makes them but point where those of {name} do "
                f"(cosine {aligned[name]:.2f} against {own:.2f})"
            )
    return None


def _unaligned(declared: str, aligned: Mapping[str, float]) -> str | None:
    """Rounding to int8 leaves a trace of its direction; wrong weights of the same size do not.

    How much is left was measured for int8 activations and for an 8-bit cache alone; half precision leaves little. Where
    nothing is sampled nothing is said.
    """
    own = _own_alignment(declared, aligned)
    if own is None or own >= ALIGNMENT_FLOOR or not (declared.startswith("a8-") or declared == "f32+kv8"):
        return None
    return f"the errors are as large as {declared} makes them but unrelated to its own (cosine {own:.3f})"


def _own_alignment(declared: str, aligned: Mapping[str, float]) -> float | None:
    """The best alignment with class `declared` or one that rounds a part of it, the largest rounding included.

    Roundings disturb each other: of `a8-g32+bf16+kv8` the errors of `a8-g32` alone may be what is recognized.
    """
    parts = {"f32", *declared.split("+")}
    found = [aligned[name] for name in aligned if _kind(name) == _kind(declared) and parts >= set(name.split("+"))]
    return max(found, default=None)


def _kind(name: str) -> str:
    """The largest rounding of class `name`; what else is rounded decides little of the errors' direction."""
    return "kv8" if name in ("f32+kv8", "f16+kv8") else name.removeprefix("a16-").split("+")[0]


def _one_position(worst: float, declared: str, reference: Reference, positions: slice) -> str | None:
    """A position that is far worse than all others is no rounding."""
    predicted = worst_predicted(reference, declared, positions)
    if predicted is None or worst <= WORST_FACTOR * predicted:
        return None
    return f"one position errs by {worst:.2g}, where {declared} predicts {predicted:.2g} for the worst"


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
    """Names the classes whose prediction the error would fit, the three nearest at most, for the message."""
    if error is None:
        return ""
    distance = {}
    for name in reference.delta2:
        predicted = predicted_error(reference, name, positions)
        if name != declared and predicted and LOW <= error / predicted <= HIGH:
            distance[name] = abs(float(np.log(error / predicted)))
    names = sorted(distance, key=lambda name: distance[name])[:3]
    if error <= EXACT_BOUND and declared != "f32":
        names.append("f32")
    return f"; it would fit {' or '.join(names)}" if names else ""


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
