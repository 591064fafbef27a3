"""The gate against sessions whose error is known."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from bench import gate, parity
from bench.artifacts.stored_reference import Reference
from bench.spec import parse_workload
from bench.types import PhaseFacts
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


def test_one_position_that_is_far_worse_than_predicted_is_refuted(reference: Reference) -> None:
    fake = session(reference, 0.022)
    fake.table = fake.table.copy()
    fake.table[reference.ids[3]] *= 1.09
    _, (prefill, decode) = gate.native(fake, reference, quiet)
    assert "one position errs" in (prefill.reason or "")
    assert decode.reason is None


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
