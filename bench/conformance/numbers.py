"""Checks of what is computed: bits fed, exact agreement, native error, long context."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from bench import gate, parity
from bench.api import Session
from bench.artifacts.reference import compute_reference
from bench.artifacts.stored_reference import Reference
from bench.conformance.check import Check, demand
from bench.conformance.models import ARCHS, DECODED, LONG_CAPACITY, LONG_POSITIONS, POSITIONS, Variant, matrix
from bench.conformance.subject import Subject, ignore
from bench.facts import precision_class
from bench.types import Float32, Int32, Workload

LONG_CHUNK = 512
LONG = Variant(model="llama3-long", scheme="int8", capacity=LONG_CAPACITY)


def the_bits_fed_are_the_artifacts(subject: Subject, variant: Variant) -> None:
    """Codes and scales read back from the runtime equal the artifact's bit by bit, in every tensor that can be read."""
    with subject.opened(variant) as session:
        fed = gate.compare_fed(session, subject.artifact(variant), ignore)
        unknown = session.fed("blk.0.no_such.weight")
    demand(fed.reason is None, fed.reason or "")
    demand(unknown is None, "fed() answers for a tensor that no model has")


def exact_agrees_with_the_reference(subject: Subject, variant: Variant) -> None:
    """Exact logits lie within 1e-4 of the float32 reference at every position of every row, prefill and decode."""
    with subject.opened(variant) as session:
        prefill, decode = both_phases(subject, variant, session)
    for row in range(variant.batch):
        reference = subject.reference(variant, row)
        _demand_exact(f"prefill, row {row}", prefill[row], reference, slice(None))
        _demand_exact(f"decode, row {row}", decode[row], reference, slice(-DECODED, None))


def native_errs_as_its_class_predicts(subject: Subject, variant: Variant) -> None:
    """The native error lies within the predicted band of the class that facts() declares, prefill and decode."""
    with subject.opened(variant) as session:
        if variant.batch == 1:
            _, checks = gate.native(session, subject.reference(variant), ignore)
            demand(not any(check.reason for check in checks), "; ".join(filter(None, (c.reason for c in checks))))
        prefill, decode = both_phases(subject, variant, session)
        facts = session.facts()
    references = [subject.reference(variant, row) for row in range(variant.batch)]
    # a step of the whole prompt is computed as `prefill` or as `path`: only the runtime knows where its limit lies
    of_prompt = [precision_class(phase, facts.kv_cache) for phase in (facts.prefill, facts.path) if phase]
    demand_class("prefill", prefill, of_prompt, references, slice(None))
    of_token = [precision_class(facts.decode, facts.kv_cache)]
    demand_class("decode", decode, of_token, references, slice(-DECODED, None))


def exact_holds_in_a_long_context(subject: Subject, variant: Variant) -> None:
    """Exact logits of 2048 positions with llama3 rope scaling lie within 1e-4 of the reference, chunk by chunk."""
    ids = long_ids(subject)
    reference = compute_reference(subject.artifact(variant), ids, ["f32"])
    with subject.opened(variant) as session:
        error, worst = long_context_error(session, reference)
    demand(
        worst is not None and worst <= parity.EXACT_BOUND,
        f"off by {worst} of the logits at the worst of {LONG_POSITIONS} positions (all together {error}), "
        f"where {parity.EXACT_BOUND:.0e} is allowed: rope scaling or angles at large positions",
    )


def long_ids(subject: Subject) -> Int32:
    """[2048] ids, seeded."""
    vocab = ARCHS[LONG.model].vocab
    return np.random.Generator(np.random.PCG64(7)).integers(0, vocab, LONG_POSITIONS, dtype=np.int32)


def long_context_error(session: Session, reference: Reference) -> tuple[float, float] | tuple[None, None]:
    """(all positions, worst position) over the whole reference, fed in chunks, its end token by token."""
    parts, prompt = [], LONG_POSITIONS - DECODED
    for start in range(0, prompt, LONG_CHUNK):
        session.step(reference.ids[None, start : min(prompt, start + LONG_CHUNK)], want="all")
        parts.append(np.array(session.logits()[0]))
    for position in range(prompt, LONG_POSITIONS):
        session.step(reference.ids[None, position : position + 1])
        parts.append(np.array(session.logits()))
    return parity.relative_error(np.concatenate(parts), reference, slice(None))


def both_phases(subject: Subject, variant: Variant, session: Session) -> tuple[Float32, Float32]:
    """Logits [rows, 32, vocab] of the rows of `variant` as a prompt, and [rows, 8, vocab] of the last one by one.

    The prompt begins with one token alone, for the gate's reason: what fills an empty cache may be read before it is
    rounded. All in one step where the adapter says that it cannot continue a batch otherwise.
    """
    rows = subject.rows(variant)
    workload = Workload(name="continued", prompt_tokens=POSITIONS - 1, new_tokens=0, depth=1, batch=variant.batch)
    alone = 1 if subject.backend.support(subject.case(variant, workload)).ok else 0
    prefill = _prompt_logits(session, rows, alone)
    start = POSITIONS - DECODED
    if not session.rewind(start):
        _prompt_logits(session, rows[:, :start], alone)
    decode = []
    for position in range(start, POSITIONS):
        session.step(rows[:, position : position + 1].copy())
        decode.append(np.array(session.logits()))
    return prefill, np.stack(decode, axis=1)


def _prompt_logits(session: Session, rows: Int32, alone: int) -> Float32:
    """[rows, n, vocab] of `rows` [rows, n]: the first `alone` tokens in a step of their own, then all others."""
    session.rewind(0)
    parts = []
    for part in (rows[:, :alone], rows[:, alone:]):
        if part.size:
            session.step(part.copy(), want="all")
            parts.append(np.array(session.logits()))
    return np.concatenate(parts, axis=1)


def _demand_exact(what: str, logits: Float32, reference: Reference, positions: slice) -> None:
    error, worst = parity.relative_error(logits, reference, positions)
    demand(
        worst is not None and worst <= parity.EXACT_BOUND,
        f"{what}: off by {worst} at the worst position ({error} in all), where {parity.EXACT_BOUND:.0e} is allowed",
    )


def demand_class(
    phase: str, logits: Float32, declared: Sequence[str], references: list[Reference], positions: slice
) -> None:
    """Failure unless logits [rows, positions, vocab] err as the gate demands of one of the classes `declared`.

    Over all rows together: a row of few positions alone scatters more than the band is wide.
    """
    whole = Reference(
        digest=references[0].digest,
        ids=np.concatenate([r.ids[positions] for r in references]),
        logits=np.concatenate([r.logits[positions] for r in references]),
        centred2=np.concatenate([r.centred2[positions] for r in references]),
        delta2={name: np.concatenate([r.delta2[name][positions] for r in references]) for name in references[0].delta2},
        errors={name: np.concatenate([r.errors[name][positions] for r in references]) for name in references[0].errors},
    )
    flat = logits.reshape(-1, logits.shape[-1])
    reasons = [parity.judge(phase, name, flat, whole, slice(None)).reason for name in declared]
    demand(None in reasons, "; ".join(filter(None, reasons)))


_EVERY_FAMILY = tuple(variant for variant in matrix("native") if variant.batch == 1)

CHECKS = (
    Check(the_bits_fed_are_the_artifacts, _EVERY_FAMILY),
    Check(exact_agrees_with_the_reference, matrix("exact")),
    Check(native_errs_as_its_class_predicts, matrix("native")),
    Check(exact_holds_in_a_long_context, (LONG,)),
)
