"""ggml's tensors in memory: their struct, their numbers, and llama.cpp's re-ordered weights put back in order."""

from __future__ import annotations

import ctypes
import platform
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from backends.llamacpp.library import Library
from bench.api import GROUP, Q4_BLOCK, Q8_BLOCK, Codes, CodeScheme
from bench.errors import CaseError, PrerequisiteError

OBJECT_BYTES = 32
"""sizeof(struct ggml_object), which ggml_tensor_overhead() counts too."""
REPACKED = "CPU_REPACK"
X86 = ("x86_64", "AMD64")
INTERLEAVED = 8
"""Rows that a block of Q4_0 holds side by side on x86 (block_q4_0x8); elsewhere other numbers of rows."""
STORED: Mapping[int, tuple[CodeScheme, Any]] = {
    0: ("f32", np.dtype("<f4")),
    1: ("f16", np.dtype("<f2")),
    2: ("int4", Q4_BLOCK),
    8: ("int8", Q8_BLOCK),
    30: ("bf16", np.dtype("<u2")),
}
"""ggml's number of a type, this project's word for it, and how its numbers lie."""


class Struct(ctypes.Structure):
    """struct ggml_tensor of the pinned release."""

    _fields_ = (
        ("type", ctypes.c_int),
        ("buffer", ctypes.c_void_p),
        ("ne", ctypes.c_int64 * 4),
        ("nb", ctypes.c_size_t * 4),
        ("op", ctypes.c_int),
        ("op_params", ctypes.c_int32 * 16),
        ("flags", ctypes.c_int32),
        ("src", ctypes.c_void_p * 10),
        ("view_src", ctypes.c_void_p),
        ("view_offs", ctypes.c_size_t),
        ("data", ctypes.c_void_p),
        ("name", ctypes.c_char * 64),
        ("extra", ctypes.c_void_p),
        ("padding", ctypes.c_char * 8),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Tensor:
    """One tensor as the library holds it; valid as long as its model or graph is."""

    at: int
    name: str
    kind: int
    shape: tuple[int, ...]
    buffer: str
    host: bool
    device: str
    data: int

    @property
    def scheme(self) -> CodeScheme | None:
        """How its numbers are coded, in this project's words; None for other codes of ggml's."""
        return STORED[self.kind][0] if self.kind in STORED else None


def check_struct(lib: Library) -> None:
    """PrerequisiteError unless the library's tensors have the size that this module reads."""
    expected = ctypes.sizeof(Struct) + OBJECT_BYTES
    if lib.ggml_tensor_overhead() != expected:
        raise PrerequisiteError(
            f"ggml's tensors have {lib.ggml_tensor_overhead()} bytes where {expected} are read",
            where="backend llamacpp",
            cause="the library is of another release than llama-cpp-python's",
            remedy="bench setup llamacpp",
        )


def tensor_at(lib: Library, at: int) -> Tensor:
    """What the struct at `at` says; `shape` is rows first, without leading ones."""
    struct = Struct.from_address(at)
    buffer, device, host = "none", "none", True
    if struct.buffer:
        kind = lib.ggml_backend_buffer_get_type(struct.buffer)
        buffer = lib.ggml_backend_buft_name(kind).decode()
        host = lib.ggml_backend_buffer_is_host(struct.buffer)
        owner = lib.ggml_backend_buft_get_device(kind)
        # pinned memory of the host belongs to a device, but the CPU computes in it
        device = lib.ggml_backend_dev_name(owner).decode() if owner and not (host or buffer == REPACKED) else "CPU"
    lengths = [int(length) for length in struct.ne]
    while len(lengths) > 1 and lengths[-1] == 1:
        lengths.pop()
    return Tensor(
        at=at,
        name=struct.name.decode(errors="replace"),
        kind=struct.type,
        shape=tuple(reversed(lengths)),
        buffer=buffer,
        host=host,
        device=device,
        data=struct.data or 0,
    )


def sources(at: int) -> list[int]:
    """Addresses of the tensors that the one at `at` is computed from."""
    return [source for source in Struct.from_address(at).src if source]


def floats(lib: Library, tensor: Tensor) -> npt.NDArray[np.float32]:
    """A contiguous tensor of float32, copied from wherever it lies."""
    if tensor.scheme != "f32":
        raise CaseError(f"{tensor.name} is no float32", phase="facts", where="llama.cpp")
    return _copied(lib, tensor).view("<f4").reshape(tensor.shape)


def codes(lib: Library, tensor: Tensor, heads: int | None) -> Codes | None:
    """Codes and scales as the library holds them; None for codes or an order of rows that nobody here can read.

    `heads`: the file keeps rows of Q and K in pairs (llama); they are put into half-split order.
    """
    scheme = tensor.scheme
    if scheme is None or (tensor.buffer == REPACKED and (scheme != "int4" or platform.machine() not in X86)):
        return None
    if not tensor.host and tensor.buffer not in (REPACKED, tensor.device):
        return None  # weights in an order of an accelerator of the CPU (AMX)
    raw = _viewed(lib, tensor) if tensor.host or tensor.buffer == REPACKED else _copied(lib, tensor)
    width = stored_width(scheme, tensor.shape[-1])
    if tensor.buffer == REPACKED:
        data = _ordered(raw, tensor.shape[0], width)
    else:
        data = raw.view(STORED[tensor.kind][1]).reshape(*tensor.shape[:-1], width)
    return Codes(scheme, data, _half_split(tensor.shape[0], heads) if heads else None)


def stored_width(scheme: CodeScheme, columns: int) -> int:
    """Blocks, or plain numbers, that a row of `columns` is stored in."""
    return columns // GROUP if scheme in ("int8", "int4") else columns


def _viewed(lib: Library, tensor: Tensor) -> npt.NDArray[np.uint8]:
    """The tensor's own bytes in the host's memory."""
    size = lib.ggml_nbytes(tensor.at)
    return np.ctypeslib.as_array(ctypes.cast(tensor.data, ctypes.POINTER(ctypes.c_uint8)), (size,))


def _copied(lib: Library, tensor: Tensor) -> npt.NDArray[np.uint8]:
    out = np.empty(lib.ggml_nbytes(tensor.at), np.uint8)
    lib.ggml_backend_tensor_get(tensor.at, out.ctypes.data, 0, out.nbytes)
    return out


def _ordered(raw: npt.NDArray[np.uint8], rows: int, blocks: int) -> npt.NDArray[Any]:
    """[rows, blocks] of Q4_BLOCK from ggml's block_q4_0x8: eight scales, then their codes 8 bytes a row in turn.

    Re-ordering flips the codes' highest bit (ggml-cpu/repack.cpp, make_block_q4_0x8).
    """
    packed = np.dtype([("scale", "<f2", (INTERLEAVED,)), ("codes", "u1", (2, INTERLEAVED, 8))])
    groups = raw.view(packed).reshape(rows // INTERLEAVED, blocks)
    out = np.empty((rows // INTERLEAVED, INTERLEAVED, blocks), Q4_BLOCK)
    out["scale"] = groups["scale"].transpose(0, 2, 1)
    halves = groups["codes"].transpose(0, 3, 1, 2, 4)  # group, row, block, half, byte
    out["codes"] = halves.reshape(*halves.shape[:3], GROUP // 2) ^ 0x88
    return out.reshape(rows, blocks)


def _half_split(rows: int, heads: int) -> npt.NDArray[np.intp]:
    """Rows of the file (pairs that rotate together) in half-split order."""
    order: npt.NDArray[np.intp] = np.arange(rows).reshape(heads, -1, 2).transpose(0, 2, 1).reshape(-1)
    return order
