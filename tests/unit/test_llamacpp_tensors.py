"""What the library holds, read back as codes; what a product rounds, found in its answer."""

from __future__ import annotations

import ctypes
import platform
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from backends.llamacpp import rounding, tensors
from backends.llamacpp.graph import Product
from backends.llamacpp.library import library
from backends.llamacpp.tensors import REPACKED, Struct, Tensor
from bench.api import Codes, CodeScheme
from bench.artifacts.noise import PrecisionClass
from bench.errors import CaseError, PrerequisiteError
from bench.facts import Activations
from bench.types import Float32
from tests.llamacpp_models import Models

KINDS: dict[str, int] = {"f32": 0, "f16": 1, "int4": 2, "int8": 8, "bf16": 30}


class Memory:
    """A library that holds one tensor: what `codes` asks of it."""

    def __init__(self, data: npt.NDArray[Any]):
        self.data = np.frombuffer(data.tobytes(), np.uint8).copy()

    def ggml_nbytes(self, at: int) -> int:
        return self.data.nbytes

    def ggml_backend_tensor_get(self, at: int, into: int, offset: int, size: int) -> None:
        ctypes.memmove(into, self.data.ctypes.data + offset, size)


def read(stored: npt.NDArray[Any], scheme: str, heads: int | None = None, **held: Any) -> Codes | None:
    """`codes` of a tensor [rows, columns] of `stored` in the host's memory unless `held` says otherwise."""
    blocks = 32 if scheme in ("int8", "int4") else 1
    memory: Any = Memory(stored)
    told = {
        "at": 1,
        "name": "w",
        "kind": KINDS.get(scheme, 12),
        "shape": (stored.shape[0], stored.shape[1] * blocks),
        "buffer": "CPU",
        "host": True,
        "device": "CPU",
        "data": memory.data.ctypes.data,
    }
    found = tensors.codes(memory, Tensor(**{**told, **held}), heads)
    return found and Codes(found.scheme, found.data.copy(), found.order)


def random_codes(scheme: CodeScheme, rows: int, columns: int) -> Codes:
    random = np.random.default_rng(3)
    low, high = (-127, 128) if scheme == "int8" else (-8, 8)
    scales = random.uniform(0.1, 1, (rows, columns // 32)).astype(np.float16)
    return Codes.dense(scheme, random.integers(low, high, (rows, columns)).astype(np.int8), scales)


def repacked(codes: Codes) -> npt.NDArray[np.uint8]:
    """make_block_q4_0x8 of ggml-cpu/repack.cpp, byte by byte, for every eight rows and every block of them."""
    out = bytearray()
    for first in range(0, codes.data.shape[0], 8):
        for block in range(codes.data.shape[1]):
            eight = codes.data[first : first + 8, block]
            out += b"".join(row["scale"].tobytes() for row in eight)
            for i in range(16):
                start = i // 8 * 8
                out += bytes(byte ^ 0x88 for byte in eight[i % 8]["codes"].tobytes()[start : start + 8])
    return np.frombuffer(bytes(out), np.uint8)


def test_the_struct_is_as_large_as_the_librarys() -> None:
    tensors.check_struct(library())
    assert ctypes.sizeof(Struct) + tensors.OBJECT_BYTES == library().ggml_tensor_overhead()


def test_a_struct_of_another_size_is_refused() -> None:
    other: Any = SimpleNamespace(ggml_tensor_overhead=lambda: 400)
    with pytest.raises(PrerequisiteError, match=r"400 bytes where 368 are read.*bench setup llamacpp"):
        tensors.check_struct(other)


def test_re_ordered_codes_are_put_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(platform, "machine", lambda: "x86_64")
    codes = random_codes("int4", 24, 96)
    held = repacked(codes).reshape(24, -1)
    found = read(held, "int4", buffer=REPACKED, host=False, shape=(24, 96))
    assert found is not None and found.same_bits(codes)
    other = read(held[:, ::-1], "int4", buffer=REPACKED, host=False, shape=(24, 96))
    assert other is not None and not other.same_bits(codes)


def test_orders_that_nobody_can_undo_are_not_read(monkeypatch: pytest.MonkeyPatch) -> None:
    data = random_codes("int4", 8, 64).data
    monkeypatch.setattr(platform, "machine", lambda: "aarch64")
    assert read(data, "int4", buffer=REPACKED, host=False) is None, "8 rows side by side is x86's order"
    monkeypatch.setattr(platform, "machine", lambda: "AMD64")
    assert read(data, "int4", buffer=REPACKED, host=False) is not None
    assert read(random_codes("int8", 8, 64).data, "int8", buffer=REPACKED, host=False) is None
    assert read(data, "int4", buffer="AMX", host=False) is None
    assert read(data, "q4_k", shape=(8, 64)) is None


def test_a_devices_memory_is_copied() -> None:
    codes = random_codes("int8", 4, 64)
    found = read(codes.data, "int8", buffer="CUDA0", device="CUDA0", host=False, data=0)
    assert found is not None and found.same_bits(codes)


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Models:
    return Models(tmp_path_factory.mktemp("llamacpp"))


@pytest.mark.parametrize("scheme", ["int8", "fp16", "bf16"])
@pytest.mark.parametrize(("name", "heads"), [("attn_q", 4), ("attn_k", 2)])
def test_paired_rows_are_put_into_half_split_order(models: Models, scheme: str, name: str, heads: int) -> None:
    """As the artifact does: its own order and that of the file it is read from."""
    expected = models.made(scheme).artifact.tensor(f"blk.0.{name}.weight")
    assert expected.order is not None
    found = read(np.ascontiguousarray(expected.data), expected.scheme, heads)
    assert found is not None and found.same_bits(expected)
    unordered = read(np.ascontiguousarray(expected.data), expected.scheme)
    assert unordered is not None and not unordered.same_bits(expected)


@pytest.mark.parametrize("family", ["llama", "qwen2", "qwen3"])
@pytest.mark.parametrize("scheme", ["int8", "int4", "fp16", "bf16"])
def test_every_tensor_is_read_back(models: Models, family: str, scheme: str) -> None:
    artifact = models.made(scheme, family=family, tied=True).artifact
    with models.opened(scheme, arch={"family": family, "tied": True}, repack=False) as session:
        for name in artifact.names():
            fed = session.fed(name)
            assert fed is not None and fed.same_bits(artifact.tensor(name)), name
        assert session.fed("blk.0.nothing.weight") is None


def test_of_widened_weights_norms_and_biases_are_read_back(models: Models) -> None:
    """Products of codes and scales are no codes; the certificate says that they are right."""
    artifact = models.made("int8", family="qwen2").artifact
    with models.opened("int8", exact=True, arch={"family": "qwen2"}) as session:
        for name in artifact.names():
            expected, fed = artifact.tensor(name), session.fed(name)
            assert fed is None if len(expected.shape) > 1 else fed is not None and fed.same_bits(expected), name


def test_what_this_processor_re_orders_is_read_back(models: Models) -> None:
    artifact = models.made("int4").artifact
    with models.opened("int4") as session:
        if platform.machine() not in tensors.X86 or not session.facts().weights.endswith("re-ordered"):
            pytest.skip("nothing is re-ordered here as on x86 without AMX")
        for name in artifact.names():
            fed = session.fed(name)
            assert fed is not None and fed.same_bits(artifact.tensor(name)), name


def test_what_is_no_float32_has_no_floats() -> None:
    tensor = Tensor(at=1, name="w", kind=8, shape=(1, 32), buffer="CPU", host=True, device="CPU", data=0)
    with pytest.raises(CaseError, match="w is no float32"):
        tensors.floats(library(), tensor)


WEIGHT = random_codes("int8", 96, 256)


def answered(rounds: Callable[[Float32], Float32], rows: int) -> Product:
    """A product whose kernel rounds its inputs as it is told to."""
    inputs = np.random.default_rng(rows).standard_normal((rows, 256)).astype(np.float32)
    return Product(inputs=inputs, outputs=rounds(inputs) @ WEIGHT.values().T)


@pytest.mark.parametrize("rows", [1, 16])
@pytest.mark.parametrize("name", ["f32", "f16", "bf16", "a8-g32", "a8-token", "a8-tensor"])
def test_each_rounding_is_found(name: Activations, rows: int) -> None:
    """The kernels round as the reference's classes do: written apart from the probe."""
    kind = PrecisionClass(f"a16-{name}" if name in ("f16", "bf16") else name)
    expected = "a8-token" if name == "a8-tensor" and rows == 1 else name
    assert rounding.found(answered(kind.linear_input, rows), WEIGHT) == expected


@pytest.mark.parametrize(
    "rounds",
    [
        lambda inputs: np.rint(inputs * 36) / 36,  # int8 with a scale that nobody declares
        lambda inputs: inputs[::-1],  # not this product at all
        lambda inputs: np.full_like(inputs, np.nan),
    ],
)
def test_what_no_rounding_explains_is_none(rounds: Callable[[Float32], Float32]) -> None:
    assert rounding.found(answered(rounds, 16), WEIGHT) is None


@pytest.mark.parametrize("inputs", [np.zeros((4, 256)), np.random.default_rng(0).integers(-9, 10, (4, 256))])
def test_where_two_roundings_explain_equally_well_there_is_none(inputs: npt.NDArray[Any]) -> None:
    """Small whole numbers are bf16 and f16 alike."""
    given = inputs.astype(np.float32)
    assert rounding.found(Product(inputs=given, outputs=given @ WEIGHT.values().T), WEIGHT) is None


def test_only_the_first_outputs_are_compared() -> None:
    product = answered(lambda inputs: inputs, 4)
    wide = Product(inputs=product.inputs, outputs=np.tile(product.outputs, 8))
    many = Codes(WEIGHT.scheme, np.tile(WEIGHT.data, (8, 1)))
    assert rounding.found(wide, many) == "f32"
