"""The gate against sessions whose error is known."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from bench import gate, parity
from bench.artifacts.stored_reference import Reference
from bench.facts import Activations, Compute, PhaseFacts, SessionFacts
from bench.spec import parse_workload
from bench.types import Int32
from tests.fakes import Noisy, facts

VOCAB = 512
PREDICTED = {"a8-g32": 0.025, "bf16": 0.018, "a8-token": 0.06, "f32": 0.0}


@pytest.fixture(scope="module")
def reference() -> Reference:
    random = np.random.default_rng(0)
    ids = random.permutation(VOCAB)[:32].astype(np.int32)
    logits = random.standard_normal((VOCAB, VOCAB)).astype(np.float32)[ids] * 2.5
    centred2 = np.square(logits - logits.mean(-1, keepdims=True)).sum(-1).astype(np.float64)
    delta2 = {name: centred2 * predicted**2 for name, predicted in PREDICTED.items()}
    return Reference(digest="0", ids=ids, logits=logits, centred2=centred2, delta2=delta2)


def session(reference: Reference, error: float, **given: int) -> Noisy:
    table = np.random.default_rng(2).standard_normal((VOCAB, VOCAB)).astype(np.float32)
    table[reference.ids] = reference.logits
    return Noisy(table, error, **given)


def quiet(done: int, total: int) -> None:
    pass


@pytest.mark.parametrize("factor", [0.81, 1.0, 1.24])
def test_an_error_within_the_band_passes(reference: Reference, factor: float) -> None:
    _, checks = gate.native(session(reference, 0.025 * factor), reference, quiet)
    assert [check.what for check in checks] == ["prefill", "decode"]
    assert all(check.reason is None for check in checks)
    assert all(check.error == pytest.approx(0.025 * factor, rel=1e-3) for check in checks)


@pytest.mark.parametrize(
    ("error", "says"),
    [(0.06, "another model.*a8-token"), (0.018, "more precise than declared.*it would fit bf16"), (1e-6, "fit f32")],
)
def test_an_error_outside_the_band_fails_and_names_what_would_fit(
    reference: Reference, error: float, says: str
) -> None:
    _, checks = gate.native(session(reference, error), reference, quiet)
    for check in checks:
        assert check.reason is not None
    with pytest.raises(AssertionError, match=says):
        raise AssertionError(checks[0].reason)


def test_f32_is_bounded_absolutely(reference: Reference) -> None:
    for error, passes in ((0.9e-4, True), (1.1e-4, False)):
        fake = session(reference, error)
        fake.declared = PhaseFacts(activations="f32", compute="f32")
        _, checks = gate.native(fake, reference, quiet)
        assert [check.reason is None for check in checks] == [passes] * 2


def test_a_class_that_nobody_predicts_proves_nothing(reference: Reference) -> None:
    fake = session(reference, 0.025)
    fake.declared = PhaseFacts(activations="a8-tensor", compute="f32")
    _, checks = gate.native(fake, reference, quiet)
    assert all("cannot be predicted" in (check.reason or "") for check in checks)


def test_logits_that_are_no_numbers_fail(reference: Reference) -> None:
    _, checks = gate.native(session(reference, float("nan")), reference, quiet)
    assert all(check.reason is not None and check.error is None for check in checks)
    assert gate.certify(session(reference, float("nan")), reference, 4).reason == parity.NOT_FINITE


def test_a_certificate_holds_at_the_worst_position(reference: Reference) -> None:
    assert gate.certify(session(reference, 1e-6), reference, 4).reason is None
    fake = session(reference, 1e-6)
    fake.table = fake.table.copy()
    fake.table[reference.ids[17]] *= 1.0002
    certificate = gate.certify(fake, reference, 4)
    assert certificate.reason is not None
    assert certificate.error is not None
    assert certificate.error < parity.EXACT_BOUND < (certificate.worst or 0)


def aligned(reference: Reference, size: float, towards: str) -> Noisy:
    """A session whose errors have this size and point, in part, where those of one class do."""
    fake = session(reference, size)
    fake.directions = {int(i): e for i, e in zip(reference.ids, reference.errors[towards], strict=True)}
    return fake


@pytest.fixture(scope="module")
def directed(reference: Reference) -> Reference:
    """As `reference`, with errors of classes that are orthogonal to each other; every column is sampled."""
    random = np.random.default_rng(5)
    errors = {name: random.standard_normal((32, VOCAB)).astype(np.float32) for name in ("a8-g32", "bf16")}
    return replace(reference, errors=errors, delta2={**reference.delta2, "bf16": reference.centred2 * 0.022**2})


def test_errors_of_the_right_size_in_the_wrong_direction_name_their_class(directed: Reference) -> None:
    fake = aligned(directed, 0.025, "a8-g32")
    _, honest = gate.native(fake, directed, quiet)
    assert [check.reason for check in honest] == [None, None]
    assert all(check.alignment is not None and check.alignment > 0.5 for check in honest)
    fake.declared = PhaseFacts(activations="bf16", compute="bf16")
    _, lying = gate.native(fake, directed, quiet)
    assert all("point where those of a8-g32 do" in (check.reason or "") for check in lying)


def test_errors_of_the_right_size_but_unrelated_to_rounding_are_refuted_where_int8_is_declared(
    directed: Reference,
) -> None:
    """Wrong weights can err as much as rounding does, but not as rounding does."""
    fake = session(directed, 0.022)
    _, checks = gate.native(fake, directed, quiet)
    assert all("unrelated to its own" in (check.reason or "") for check in checks)
    fake.declared = PhaseFacts(activations="bf16", compute="bf16")
    _, checks = gate.native(fake, directed, quiet)
    assert [check.reason for check in checks] == [None, None], "how much bf16 leaves of its direction is not known"


def measured(reference: Reference, declared: str, cosines: dict[str, float]) -> parity.Check:
    """The verdict on errors of the declared class's size that have these cosines with the errors of classes."""
    names = list(cosines)
    random = np.random.default_rng(7)
    directions = np.linalg.qr(random.standard_normal((reference.logits.size, len(names) + 1)))[0].T
    shares = np.array([*cosines.values(), (1 - sum(c**2 for c in cosines.values())) ** 0.5])
    shape = reference.logits.shape
    size = 0.03 * float(np.sqrt(reference.centred2.sum()))
    seen = replace(
        reference,
        delta2=dict.fromkeys([declared, *names], reference.centred2 * 0.03**2),
        errors={name: part.reshape(shape).astype(np.float32) for name, part in zip(names, directions, strict=False)},
    )
    logits = reference.logits + (size * (shares @ directions)).reshape(shape).astype(np.float32)
    return parity.judge("prefill", declared, logits, seen, slice(None))


@pytest.mark.parametrize(
    ("declared", "cosines", "says"),
    [
        ("a8-g32+bf16+kv8", {"a8-g32+bf16+kv8": 0.09, "a8-g32+f16": 0.3}, None),
        ("a8-g32+bf16+kv8", {"a8-g32+bf16+kv8": 0.02, "a8-g32": 0.12}, None),
        ("a8-g32+bf16+kv8", {"a8-g32+bf16+kv8": 0.02, "a8-g32+f16": 0.3}, "unrelated to its own"),
        ("a8-g32+bf16+kv8", {"a8-g32+bf16+kv8": 0.09, "bf16+kv8": 0.3}, "point where those of bf16.kv8 do"),
        ("a8-g32", {"a8-g32": 0.02, "a8-g32+bf16": 0.2}, "unrelated to its own"),
        ("f16+kv8", {"f16+kv8": 0.3, "f32+kv8": 0.5}, None),
        ("f32+kv8", {"f32+kv8": 0.02}, "unrelated to its own"),
        ("f32+kv8", {"f32+kv8": 0.3, "bf16": 0.5}, "point where those of bf16 do"),
        ("bf16+kv8", {"bf16+kv8": 0.02}, None),
    ],
)
def test_what_the_direction_of_errors_may_say(
    reference: Reference, declared: str, cosines: dict[str, float], says: str | None
) -> None:
    """Relatives, whose largest rounding is the same, refute nothing; a part of the declared class speaks for it."""
    reason = measured(reference, declared, cosines).reason
    assert reason is None if says is None else re.search(says, reason or ""), reason


def test_one_position_that_is_far_worse_than_predicted_is_refuted(reference: Reference) -> None:
    fake = session(reference, 0.022)
    fake.table = fake.table.copy()
    fake.table[reference.ids[3]] *= 1.09
    _, (prefill, decode) = gate.native(fake, reference, quiet)
    assert "one position errs" in (prefill.reason or "")
    assert decode.reason is None


class ReadsFreshKeys(Noisy):
    """Attends to what is not rounded yet in the step that fills an empty cache, so that it makes no error there."""

    def step(self, token_ids: Int32, want: Any = "last") -> Int32:
        error, self.error = self.error, 0.0 if self.length == 0 else self.error
        ids = super().step(token_ids, want)
        self.error = error
        return ids


def test_a_runtime_that_rounds_what_it_caches_only_afterwards_errs_from_the_second_token_on(
    reference: Reference,
) -> None:
    table = session(reference, 0.025).table
    _, checks = gate.native(ReadsFreshKeys(table, 0.025), reference, quiet)
    assert [check.reason for check in checks] == [None, None]


class WithPath(Noisy):
    """Declares a class of its own for the path, and errs as that one in steps of 2 to 16 tokens of a row."""

    path, path_error = PhaseFacts(activations="bf16", compute="bf16"), 0.018

    def step(self, token_ids: Int32, want: Any = "last") -> Int32:
        error, self.error = self.error, self.path_error if 2 <= token_ids.shape[1] <= 16 else self.error
        ids = super().step(token_ids, want)
        self.error = error
        return ids

    def facts(self) -> SessionFacts:
        return facts(self.declared, path=self.path)


def test_the_path_is_judged_by_its_own_class(reference: Reference) -> None:
    fake = WithPath(session(reference, 0.025).table, 0.025)
    _, checks = gate.native(fake, reference, quiet)
    assert [(check.precision_class, check.reason) for check in checks] == [("bf16", None), ("a8-g32", None)]
    fake.path = PhaseFacts(activations="f32", compute="f32")
    _, checks = gate.native(fake, reference, quiet)
    assert "it would fit bf16" in (checks[0].reason or "")


@pytest.mark.parametrize(
    ("path", "path_error", "says"),
    [("bf16", 0.018, None), ("a8-token", 0.06, None), ("bf16", 0.06, "differ"), ("a8-tensor", 0.018, "cannot be pre")],
)
def test_either_class_may_make_the_difference_to_the_path(
    reference: Reference, path: Activations, path_error: float, says: str | None
) -> None:
    fake = WithPath(session(reference, 0.025).table, 0.025)
    compute: Compute = "bf16" if path == "bf16" else "f32"
    fake.path, fake.path_error = PhaseFacts(activations=path, compute=compute), path_error
    check = gate.self_consistency(fake, parse_workload("pp64", chunk=64), VOCAB, 0, fake.facts(), reference, quiet)
    assert check.precision_class == " / ".join(sorted({"a8-g32", path}))
    assert check.reason is None if says is None else says in (check.reason or ""), check


def agreement(reference: Reference, fake: Noisy, text: str) -> parity.Check:
    workload = parse_workload(text, chunk=64)
    return gate.self_consistency(fake, workload, VOCAB, 0, facts(fake.declared), reference, quiet)


@pytest.mark.parametrize("text", ["pp64", "tg16", "tg4@d64", "48/8", "pp32+tg2x4"])
def test_honest_paths_agree_within_the_class(reference: Reference, text: str) -> None:
    check = agreement(reference, session(reference, 0.025, batch=4), text)
    assert check.reason is None
    assert check.worst == pytest.approx(0.025 * 2**0.5, rel=0.1)


@pytest.mark.parametrize(
    ("text", "rows", "seen"), [("pp64", 33, True), ("tg4@d64", 17, False), ("pp16x4", 40, True), ("tg4x8", 5, True)]
)
def test_a_kernel_that_breaks_at_the_timed_shape_is_seen(
    reference: Reference, text: str, rows: int, seen: bool
) -> None:
    """Broken from `rows` rows a step on, as llama.cpp changes kernels at 8 and OpenVINO on Arc at 64.

    The fake keeps no state, so only what the last timed step does is seen.
    """
    check = agreement(reference, session(reference, 0.025, batch=8, broken_from_rows=rows), text)
    assert (check.reason is not None) == seen
