"""Backend `cpu` below the conformance suite: the file it maps, the numbers it multiplies, what it says of a step."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
import torch

from backends.pytorch import Cpu, weights
from backends.pytorch.failures import translated
from backends.pytorch.products import Held, RoundedDequantized, RowInt8, native, rounded
from bench.api import Codes
from bench.conformance.models import Variant
from bench.conformance.subject import Subject
from bench.errors import CaseError, UsageError

SCHEMES = ("int8", "int4", "fp16", "bf16")


@pytest.fixture(scope="module")
def subject(tmp_path_factory: pytest.TempPathFactory) -> Subject:
    return Subject("cpu", tmp_path_factory.mktemp("pytorch"))


def held(codes: Codes) -> Held:
    numbers = codes.stored()["codes"].reshape(codes.shape[0], -1)
    return Held(codes.scheme, torch.from_numpy(np.array(numbers)), torch.from_numpy(codes.scales()))


@pytest.mark.parametrize("scheme", SCHEMES)
def test_what_is_written_is_mapped_back_bit_by_bit(subject: Subject, scheme: str, tmp_path: Path) -> None:
    artifact = subject.artifact(Variant(scheme=scheme))
    told = json.loads(json.dumps({n: asdict(s) for n, s in weights.write(artifact, tmp_path / "w", print).items()}))
    stored = {name: weights.Stored.from_json(entry) for name, entry in told.items()}
    assert "blk.0.attn_qkv.bias" in stored and "blk.0.attn_q.weight" not in stored
    for name in artifact.names():
        place, rows = weights.rows_of(artifact.arch, name)
        entry = stored[place]
        scales = entry.scales(tmp_path / "w")[rows] if entry.scales_shape else None
        found = weights.codes(entry.scheme, entry.numbers(tmp_path / "w")[rows], scales)
        assert found.same_bits(artifact.tensor(name)), name


@pytest.mark.parametrize("scheme", ["int8", "int4"])
def test_values_are_codes_times_scales(subject: Subject, scheme: str) -> None:
    codes = subject.artifact(Variant(scheme=scheme)).tensor("blk.0.ffn_down.weight")
    assert np.array_equal(held(codes).values(torch.float32).numpy(), codes.values())
    rows = torch.tensor([[5, 0], [3, 5]])
    assert np.array_equal(held(codes).values(torch.float32, rows).numpy(), codes.values()[rows.numpy()])


def test_products_round_their_inputs_by_token(subject: Subject) -> None:
    inputs = torch.randn(3, 352, generator=torch.Generator().manual_seed(1))
    inputs[1] = 0
    codes, scale = rounded(inputs)
    assert codes.abs().max() == 127 and not codes[1].any() and torch.isfinite(scale).all()
    for scheme, kind in (("int8", RowInt8), ("int4", RoundedDequantized)):
        weight = held(subject.artifact(Variant(scheme=scheme)).tensor("blk.0.ffn_down.weight"))
        product = native(scheme).product(by_row(weight) if scheme == "int8" else weight, torch.ones(256))
        expected = (codes * scale).double() @ weight.values(torch.float32).double().T + 1
        assert isinstance(product, kind)
        torch.testing.assert_close(product(inputs).double(), expected, rtol=1e-5, atol=1e-5)


def by_row(weight: Held) -> Held:
    assert weight.scales is not None
    return Held(weight.scheme, weight.numbers, weight.scales[:, :1].contiguous())


def test_int8_with_a_scale_for_each_group_is_not_multiplied_by_row(subject: Subject) -> None:
    codes = subject.artifact(Variant()).tensor("blk.0.ffn_down.weight")
    blocks = codes.stored().copy()
    blocks["scale"][:, ::2] *= 2
    weight = held(Codes("int8", blocks))
    product = native("int8").product(weight, None)
    assert isinstance(product, RoundedDequantized)
    inputs = torch.eye(352)[:5] * 127  # each is rounded to itself
    torch.testing.assert_close(product(inputs) / 127, weight.values(torch.float32)[:, :5].T)


@pytest.mark.parametrize(
    ("scheme", "fidelity", "classes", "matmul", "kept"),
    [
        ("int8", "native", ("a8-token",), "aten::_int_mm", "int8 row"),
        ("int4", "native", ("a8-token",), "aten::_int_mm, aten::mm", "int4 group 32"),
        ("fp16", "native", ("f32",), "aten::mm", "f16 held as f32"),
        ("bf16", "native", ("bf16",), "aten::mm", "bf16"),
        ("bf16", "exact", ("f32",), "aten::mm", "bf16 held as f32"),
        ("int8", "exact", ("f32",), "aten::mm", "int8 row"),
    ],
)
def test_facts_are_those_of_the_operators(
    subject: Subject, scheme: str, fidelity: str, classes: tuple[str, ...], matmul: str, kept: str
) -> None:
    with subject.opened(Variant(scheme=scheme, fidelity=fidelity)) as session:  # type: ignore[arg-type]
        session.step(np.array([[1, 2, 3]], np.int32))
        facts = session.facts()
        assert session.rewind(3)  # looking has not touched the session's own cache
    assert (facts.precision_classes, facts.weights) == (classes, kept)
    assert facts.decode.kernels["matmul"] == facts.prefill.kernels["matmul"] == matmul
    assert "flash_attention_for_cpu" in facts.decode.kernels["attention"]
    (place,) = facts.placement
    assert place.device == facts.asked_placement == "cpu" and place.matmul_share == 1
    assert facts.threads == torch.get_num_threads()


def test_threads_are_those_asked_for_and_torchs_own_again(subject: Subject) -> None:
    own = torch.get_num_threads()
    options = {"threads": own + 1}
    with subject.opened(Variant(), options=options) as session:
        assert session.facts().threads == own + 1
    with subject.opened(Variant()) as session:
        assert session.facts().threads == own


@pytest.mark.parametrize(
    ("error", "what"),
    [
        (RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried …"), "out of memory"),
        (MemoryError(), "out of memory"),
        (RuntimeError("mat1 and mat2 shapes cannot be multiplied\nmore"), "mat1 and mat2 shapes cannot be multiplied"),
        (ValueError(), "ValueError"),
    ],
)
def test_torchs_errors_are_one_line(error: Exception, what: str) -> None:
    found = translated(error, "step")
    assert isinstance(found, CaseError) and found.what == what and "\n" not in str(found)
    assert translated(found, "open") is found


def test_no_accelerator_is_known() -> None:
    assert Cpu().requirements("CPU").packages == Cpu().requirements(None).packages
    with pytest.raises(UsageError, match="cuda"):
        Cpu().requirements("cuda")
