"""`weights.bin`: the artifact's numbers as ONNX Runtime takes them, written in a stream and read back bit by bit.

Nothing is rounded: int8 codes are stored + 128 and int4 codes + 8 (the operators' default zero points), scales as the
float32 of the artifact's float16, float16 tensors as they are, norms and biases as float32.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Literal

import numpy as np
import numpy.typing as npt

from bench.api import GROUP, Q4_BLOCK, Artifact, Codes, Progress, stored_blocks
from bench.types import Arch

WEIGHTS_FILE = "weights.bin"
PAGE_BYTES = 4096
"""Each tensor starts on a page, so that ONNX Runtime can map it instead of reading it."""

SCALES = ".scales"
"""Suffix of the scales that belong to a quantized tensor's codes."""

TABLE = "token_embd.weight"
"""The embedding as the lookup takes it: two-dimensional."""

HEAD = "output.weight"
INT4 = "int4"
"""Signed, two in a byte, the first one low: numpy has no such type."""


@dataclass(frozen=True, slots=True)
class Stored:
    """One tensor of `weights.bin`: numpy dtype and shape as the graph declares them, and where its bytes lie."""

    dtype: str
    shape: tuple[int, ...]
    offset: int

    @property
    def size_bytes(self) -> int:
        count = int(np.prod(self.shape, dtype=np.int64))
        return count // 2 if self.dtype == INT4 else count * np.dtype(self.dtype).itemsize

    def mapped(self, path: Path, mode: Literal["r", "r+"] = "r") -> np.memmap[Any, Any]:
        """A memory map of the tensor's bytes in `path`; INT4 as bytes of two along the last axis."""
        if self.dtype == INT4:
            return np.memmap(path, np.uint8, mode, self.offset, (*self.shape[:-1], self.shape[-1] // 2))
        return np.memmap(path, self.dtype, mode, self.offset, self.shape)


def parts(arch: Arch) -> dict[str, tuple[tuple[str, int], ...]]:
    """Every tensor of the graph, in order, with the tensors of the artifact stacked in it and their number of rows."""
    plan: dict[str, tuple[tuple[str, int], ...]] = {TABLE: ((TABLE, arch.vocab),)}

    def add(name: str, *stacked: tuple[str, int]) -> None:
        plan[name] = stacked or ((name, arch.hidden),)

    qkv = (("attn_q", arch.q_rows), ("attn_k", arch.kv_rows), ("attn_v", arch.kv_rows))
    for layer in range(arch.layers):
        at = f"blk.{layer}."
        add(at + "attn_norm.weight")
        for kind in ("weight", "bias") if arch.qkv_bias else ("weight",):
            add(f"{at}attn_qkv.{kind}", *((f"{at}{name}.{kind}", rows) for name, rows in qkv))
        if arch.qk_norm:
            for name in ("attn_q_norm.weight", "attn_k_norm.weight"):
                add(at + name, (at + name, arch.head_dim))
        add(at + "attn_output.weight")
        add(at + "ffn_norm.weight")
        for name in ("ffn_gate.weight", "ffn_up.weight"):
            add(at + name, (at + name, arch.ffn))
        add(at + "ffn_down.weight")
    add("output_norm.weight")
    add(HEAD, (TABLE if arch.tied else HEAD, arch.vocab))
    return plan


def write(artifact: Artifact, path: Path, progress: Progress) -> dict[str, Stored]:
    """Write `path` from `artifact` in bounded memory and return what lies where, by the graph's tensor names.

    A tied head shares the bytes of the embedding table. `progress` counts tensors.
    """
    plan = parts(artifact.arch)
    stored: dict[str, Stored] = {}
    with path.open("wb") as file:
        for done, (name, stacked) in enumerate(plan.items()):
            progress(done, len(plan))
            if name == HEAD and artifact.arch.tied:
                stored |= _tied_head(stored)
            else:
                _write_stacked(file, name, [artifact.tensor(part) for part, _ in stacked], stored)
        progress(len(plan), len(plan))
    return stored


def rows_of(arch: Arch, stored: Mapping[str, Stored], tensor: str) -> tuple[str, slice] | None:
    """Where `tensor` of the artifact is stacked: the graph's tensor and its rows; None for one that is not there."""
    for name, stacked in parts(arch).items():
        start = 0
        for part, rows in stacked:
            if part == tensor and name in stored:
                return name, slice(start, start + rows)
            start += rows
    return None


def read_back(stored: Mapping[str, Stored], path: Path, arch: Arch, tensor: str) -> Codes | None:
    """`tensor` of the artifact as `path` holds it, un-stacked; None for a name that this graph does not have."""
    found = rows_of(arch, stored, tensor)
    return _codes(stored, path, *found) if found else None


def _write_stacked(file: BinaryIO, name: str, tensors: list[Codes], stored: dict[str, Stored]) -> None:
    rows = sum(tensor.shape[0] for tensor in tensors)
    scheme = tensors[0].scheme
    if scheme not in ("int8", "int4"):
        dtype = "<f2" if scheme == "f16" else "<f4"
        stored[name] = Stored(dtype, (rows, *tensors[0].shape[1:]), _aligned(file))
        for block in stored_blocks(tensors):
            file.write(np.ascontiguousarray(block.astype(dtype, copy=False)).data)
        return
    columns = tensors[0].shape[1]
    groups = columns // GROUP
    pack = _pack8 if scheme == "int8" else _pack4
    shape = (rows, columns) if name == TABLE else (rows, groups, GROUP if scheme == "int8" else GROUP // 2)
    stored[name] = Stored("|u1", shape, _aligned(file))
    for block in stored_blocks(tensors):
        file.write(np.ascontiguousarray(pack(block["codes"])).data)
    stored[name + SCALES] = Stored("<f4", (rows, groups), _aligned(file))
    for block in stored_blocks(tensors):
        file.write(np.ascontiguousarray(block["scale"].astype("<f4")).data)


def _aligned(file: BinaryIO) -> int:
    """Pad `file` to a page and return the position."""
    file.write(bytes(-file.tell() % PAGE_BYTES))
    return file.tell()


def _tied_head(stored: Mapping[str, Stored]) -> dict[str, Stored]:
    """The head's tensors over the bytes of the embedding table, in the shape that the product takes."""
    table = stored[TABLE]
    if TABLE + SCALES not in stored:
        return {HEAD: table}
    rows, columns = table.shape
    head = Stored(table.dtype, (rows, columns // GROUP, GROUP), table.offset)
    return {HEAD: head, HEAD + SCALES: stored[TABLE + SCALES]}


def _pack8(codes: npt.NDArray[Any]) -> npt.NDArray[np.uint8]:
    """[..., 32] int8 as uint8 + 128: flipping the sign bit adds 128."""
    flipped: npt.NDArray[np.uint8] = np.ascontiguousarray(codes).view(np.uint8) ^ np.uint8(128)
    return flipped


def _pack4(halves: npt.NDArray[Any]) -> npt.NDArray[np.uint8]:
    """[..., 16] of Q4_0 (code j low, code j + 16 high) as MatMulNBits wants them: code 2j low, code 2j + 1 high."""
    low, high = halves & 15, halves >> 4
    return np.concatenate([low[..., ::2] | low[..., 1::2] << 4, high[..., ::2] | high[..., 1::2] << 4], axis=-1)


def _unpack4(pairs: npt.NDArray[Any]) -> npt.NDArray[np.uint8]:
    """The inverse of `_pack4`."""
    low, high = pairs & 15, pairs >> 4
    codes = np.stack([low, high], axis=-1).reshape(*pairs.shape[:-1], GROUP)
    halves: npt.NDArray[np.uint8] = codes[..., : GROUP // 2] | codes[..., GROUP // 2 :] << 4
    return halves


def _codes(stored: Mapping[str, Stored], path: Path, name: str, rows: slice) -> Codes:
    entry = stored[name]
    numbers = entry.mapped(path)[rows]
    if name + SCALES not in stored:
        return Codes("f16" if entry.dtype == "<f2" else "f32", numbers)
    scales = stored[name + SCALES].mapped(path)[rows].astype(np.float16)
    groups = scales.shape[1]
    blocks = numbers.reshape(numbers.shape[0], groups, -1)
    if blocks.shape[-1] == GROUP:
        return Codes.dense("int8", (blocks ^ np.uint8(128)).view(np.int8), scales)
    data = np.empty(blocks.shape[:2], Q4_BLOCK)
    data["scale"], data["codes"] = scales, _unpack4(blocks)
    return Codes("int4", data)
