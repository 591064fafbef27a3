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
