"""What is declared must be true: the precision class in either direction, the provider, the device."""

from __future__ import annotations

import onnxruntime as ort
import pytest

from bench.results.record import Record
from tests.gate.conftest import Bench

MODEL = "bite-qwen2"


@pytest.mark.parametrize(
    ("liar", "said"),
    [
        ("SaysInt8ComputesFloat", "more precise than declared; it would fit f32"),
        ("SaysFloatComputesInt8", "where f32 allows 1e-04; it would fit a8-g32"),
        ("SaysHalfComputesInt8", "times what a16-f16 predicts"),
        ("SaysPerTokenComputesPerGroup", "more precise than declared; it would fit a8-g32"),
    ],
)
def test_a_class_that_is_not_the_declared_one_is_invalid(liar: str, said: str, clean: Bench) -> None:
    ended = clean(MODEL, backend=f"tests.gate.liars:{liar}")
    assert ended.code == 5, ended.err
    assert [record.status for record in ended.records] == ["invalid", "invalid"]
    for record in ended.records:
        assert record.reason is not None and said in record.reason.what
        assert record.gate is not None and record.gate.verdict == "failed" and not record.samples
        assert record.gate.certificate is not None, (
            "the certificate passed: what executes is right, what is said is not"
        )


def test_nodes_elsewhere_than_asked_are_invalid(clean: Bench) -> None:
    """This provider is in the list of the CPU's wheel and takes no node at all."""
    ended = clean(MODEL, "--provider", "AzureExecutionProvider")
    assert ended.code == 5, ended.err
    for record in ended.records:
        assert record.status == "invalid" and record.reason is not None
        assert "asked for AzureExecutionProvider, but CPUExecutionProvider executes" in record.reason.what
        assert "MatMulNBits" in record.reason.what


def test_a_share_elsewhere_is_invalid_or_allowed_and_told(clean: Bench) -> None:
    backend = "tests.gate.liars:LeavesSomeElsewhere"
    named = "SpareExecutionProvider executes 2 Attention, 1 Add"
    strict, tight = clean(MODEL, backend=backend), clean(MODEL, "--allow-fallback", "2%", backend=backend)
    assert (strict.code, tight.code) == (5, 5), strict.err + tight.err
    for record in strict.records:
        assert record.reason is not None and record.reason.remedy == "`--allow-fallback 0.03` accepts it"
        what = f"asked for CPUExecutionProvider, but {named}: 3 % of the matrix products are there"
        assert (record.status, record.reason.what, record.info.allow_fallback) == ("invalid", what, None)
        assert f"{what}; {record.reason.remedy}" in strict.err
    assert all(record.reason and record.reason.what.endswith("are there, 2 % may be") for record in tight.records)
    allowed = clean(MODEL, "--allow-fallback", "3%", backend=backend)
    assert allowed.code == 0, allowed.err
    for record in allowed.records:
        assert record.status == "ok" and record.facts is not None and record.gate is not None
        assert record.facts.elsewhere_share == pytest.approx(0.03) and record.info.allow_fallback == 0.03
        assert record.gate.verdict == "passed" and len(record.samples) == 5
        warning = f"3 % of the matrix products not on CPUExecutionProvider, 3 % allowed: {named}"
        assert record.warnings[0] == warning
    whole = clean(MODEL, "--allow-fallback", "3%")
    assert whole.code == 0, whole.err
    plain = clean(MODEL)
    keys = [{(r.series_key, r.precision_key) for r in ended.records} for ended in (plain, whole, allowed)]
    assert keys[0] == keys[1] and not keys[0] & keys[2]
    assert {key for key, _ in keys[0]} == {key for key, _ in keys[2]}, "of one series, in another segment"


@pytest.mark.parametrize(
    ("words", "what", "remedy"),
    [
        (("--provider", "CUDAExecutionProvider"), "no CUDAExecutionProvider here", "install"),
        (
            ("--provider", "NoSuchExecutionProvider"),
            "no NoSuchExecutionProvider here",
            "install",
        ),
        (("--device", "97"), "has no device 97", "`bench list devices`"),
        (("--device", "npu:0"), "has no device npu:0", "`bench list devices`"),
    ],
)
def test_what_is_not_there_is_a_prerequisite(words: tuple[str, ...], what: str, remedy: str, clean: Bench) -> None:
    if set(words) & set(ort.get_available_providers()):
        pytest.skip(f"{words[1]} is here")
    ended = clean(MODEL, *words)
    assert ended.code == 3, ended.err
    assert "Traceback" not in ended.err
    assert [told(record, what, remedy) for record in ended.records] == [True, True]


def told(record: Record, what: str, remedy: str) -> bool:
    reason = record.reason
    return (
        record.status == "failed"
        and reason is not None
        and reason.code == "prerequisite"
        and what in reason.what
        and remedy in (reason.remedy or "")
    )
