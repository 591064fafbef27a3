"""Backend `cpu` below the conformance suite: the file it maps, the numbers it multiplies, what it says of a step."""

from __future__ import annotations

import json
import shutil
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
import torch

from backends.pytorch import Cpu, weights
from backends.pytorch.failures import translated
from backends.pytorch.packed import PackedInt4, PackedInt8
from backends.pytorch.products import (
    Dense,
    DenseBf16,
    DenseF16,
    Held,
    RoundedDequantized,
    RowInt8,
    SignedInt8,
    WidenedDequantized,
    rounded,
)
from backends.pytorch.recipes import native
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
    for file in (weights.mapped(tmp_path / "w"), weights.resident(tmp_path / "w")):
        for name in artifact.names():
            place, rows = weights.rows_of(artifact.arch, name)
            entry = stored[place]
            scales = entry.scales(file)[rows] if entry.scales_shape else None
            found = weights.codes(entry.scheme, entry.numbers(file)[rows], scales)
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
    weight = held(subject.artifact(Variant()).tensor("blk.0.ffn_down.weight"))
    for kind, each in ((RowInt8, by_row(weight)), (SignedInt8, by_row(weight)), (RoundedDequantized, weight)):
        product = kind(each, torch.ones(256), torch.float32)
        expected = (codes * scale).double() @ weight.values(torch.float32).double().T + 1
        torch.testing.assert_close(product(inputs).double(), expected, rtol=1e-5, atol=1e-5)


def by_row(weight: Held) -> Held:
    assert weight.scales is not None
    return Held(weight.scheme, weight.numbers, weight.scales[:, :1].contiguous())


def test_int8_with_a_scale_for_each_group_is_not_multiplied_by_row(subject: Subject) -> None:
    codes = subject.artifact(Variant()).tensor("blk.0.ffn_down.weight")
    blocks = codes.stored().copy()
    blocks["scale"][:, ::2] *= 2
    weight = held(Codes("int8", blocks))
    product = native("int8", on_processor=True).product(weight, None)
    assert isinstance(product, RoundedDequantized)
    inputs = torch.eye(352)[:5] * 127  # each is rounded to itself
    torch.testing.assert_close(product(inputs) / 127, weight.values(torch.float32)[:, :5].T)


@pytest.mark.parametrize(
    ("scheme", "fidelity", "classes", "matmul", "kept"),
    [
        ("int8", "native", ("a8-token",), "aten::_int_mm", "int8 row"),
        ("int4", "native", ("bf16",), "aten::_weight_int4pack_mm_for_cpu, aten::_weight_int8pack_mm", "int4 group 32"),
        ("fp16", "native", ("f16",), "aten::mm", "f16"),
        ("fp16", "exact", ("f32",), "aten::mm", "f16 held as f32"),
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
    options = subject.case(Variant()).options | {"threads": own + 1}
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
        (
            RuntimeError("backend='inductor' raised:\nOSError: no c++\n\nmore"),
            "backend='inductor' raised: OSError: no c++",
        ),
    ],
)
def test_torchs_errors_are_one_line(error: Exception, what: str) -> None:
    found = translated(error, "step")
    assert isinstance(found, CaseError) and found.what == what and "\n" not in str(found)
    assert translated(found, "open") is found


def random_int4(rows: int, columns: int) -> Held:
    generator = torch.Generator().manual_seed(rows)
    stored = torch.randint(0, 256, (rows, columns // 2), dtype=torch.uint8, generator=generator)
    return Held("int4", stored, torch.rand(rows, columns // 32, generator=generator).half())


@pytest.mark.parametrize(("rows", "columns"), [(16, 32), (64, 352), (80, 64), (192, 96)])
def test_packed_codes_are_what_they_were_in_every_bit(rows: int, columns: int) -> None:
    weight = random_int4(rows, columns)
    product = PackedInt4(weight, None, torch.bfloat16)
    codes, scales = product.held.stored()
    assert torch.equal(codes, weight.numbers) and torch.equal(scales, weight.scales)
    assert product.held.size_bytes == weight.numbers.nbytes + 4 * weight.scales.nbytes
    assert not torch.equal(product.held.numbers, weight.numbers)
    one = torch.eye(columns, dtype=torch.bfloat16)[::7]  # each picks a column: code × scale, rounded once at the end
    expected = weight.values(torch.float32).T[::7]
    torch.testing.assert_close(product(one).float(), expected, rtol=2**-7, atol=0)


def test_the_scales_of_packed_codes_lose_no_bit() -> None:
    scales = torch.arange(1, 0x7C00, dtype=torch.int16).view(torch.float16).float()  # all that are positive and finite
    high = scales.bfloat16()
    assert torch.equal(high.float() + (scales - high.float()).bfloat16().float(), scales)


def test_what_the_kernel_of_int4_does_not_take_is_widened() -> None:
    recipe = native("int4", on_processor=True)
    assert isinstance(recipe.product(random_int4(24, 64), None), WidenedDequantized)
    assert isinstance(recipe.product(random_int4(32, 64), None), PackedInt4)


def test_the_head_of_int4_models_is_scaled_after_its_codes(subject: Subject) -> None:
    weight = by_row(held(subject.artifact(Variant()).tensor("blk.0.ffn_down.weight")))
    inputs = torch.randn(2, 352, generator=torch.Generator().manual_seed(1)).bfloat16()
    expected = inputs.float() @ weight.values(torch.float32).T + 1
    found = PackedInt8(weight, torch.ones(256), torch.bfloat16)(inputs).float()
    assert (found - expected).norm() < 2**-8 * expected.norm()


@pytest.mark.parametrize(("kind", "dtype"), [(DenseF16, torch.float16), (DenseBf16, torch.bfloat16)])
def test_halves_are_multiplied_alike_by_few_rows_and_by_many(kind: type[Dense], dtype: torch.dtype) -> None:
    generator = torch.Generator().manual_seed(1)
    weight = Held("f16", torch.randn(48, 64, generator=generator).to(dtype))
    inputs = torch.randn(40, 64, generator=generator).to(dtype)
    product = kind(weight, torch.ones(48), dtype)
    expected = inputs.double() @ weight.numbers.double().T + 1
    for rows in (1, 2, DenseF16.MOST_ROWS, 40):
        found = product(inputs[:rows]).double()
        assert found.shape == (rows, 48) and (found - expected[:rows]).norm() < 2**-8 * expected[:rows].norm()
    assert torch._C._get_mkldnn_enabled()


@pytest.mark.skipif(not shutil.which("c++"), reason="torch.compile needs a C++ compiler for a processor")
@pytest.mark.filterwarnings("ignore")  # torch's compiler warns of its own code
@pytest.mark.parametrize("scheme", SCHEMES)
def test_decode_can_be_compiled_on_a_processor_too(subject: Subject, scheme: str) -> None:
    variant = Variant(model="qwen2", scheme=scheme, fidelity="native")
    told = []
    for compiled in (False, True):
        with subject.opened(variant, options=subject.case(variant).options | {"compile": compiled}) as session:
            session.step(np.array([[1, 2, 3]], np.int32))
            session.step(np.array([[4]], np.int32))
            told.append(session.logits())
    assert np.abs(told[0] - told[1]).max() < 0.1 * np.abs(told[0]).max()


def test_where_products_saturate_the_sums_are_those_of_whole_numbers(subject: Subject) -> None:
    weight = by_row(held(subject.artifact(Variant()).tensor("blk.0.ffn_down.weight")))
    inputs = torch.randn(3, 352, generator=torch.Generator().manual_seed(1))
    plain, signed = (kind(weight, torch.ones(256), torch.float32) for kind in (RowInt8, SignedInt8))
    assert torch.equal(plain(inputs), signed(inputs))


def test_no_accelerator_is_known() -> None:
    assert Cpu().requirements("CPU").packages == Cpu().requirements(None).packages
    with pytest.raises(UsageError, match="cuda"):
        Cpu().requirements("cuda")
