"""`openvino_model.bin`: the artifact's numbers as the IR's constants take them, written in a stream, read back by bit.

Nothing is rounded: int8 codes as they are with one float16 scale a row; int4 codes + 8, two a byte, with the float16
scales of their groups; float16 and bfloat16 tensors as they are; norms and biases as float32.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, cast

import numpy as np
import numpy.typing as npt

from bench.api import GROUP, Artifact, Codes, CodeScheme, Progress, stored_blocks
from bench.errors import CaseError

ALIGNMENT_BYTES = 64
"""A cache line: where a constant may start, so that kernels can read it in place."""

SCALES = ".scales"
"""Suffix of the scales that belong to a quantized tensor's codes."""

OFFSET = 8
"""What the file adds to an int4 code: unsigned codes with a zero point are faster than signed ones."""


@dataclass(frozen=True, slots=True)
class Stored:
    """One constant: OpenVINO's element type, its shape, and where its bytes lie in the file."""

    kind: str
    shape: tuple[int, ...]
    offset: int

    @property
    def size_bytes(self) -> int:
        return int(np.prod(self.shape, dtype=np.int64)) * BITS[self.kind] // 8


BITS = {"i8": 8, "u4": 4, "f16": 16, "bf16": 16, "f32": 32}
NUMPY: dict[str, np.dtype[Any]] = {"i8": np.dtype("i1"), "f16": np.dtype("<f2"), "f32": np.dtype("<f4")}
"""Of the element types that numpy has; u4 and bf16 are bytes to it."""


def parts(names: Iterable[str]) -> dict[str, tuple[str, ...]]:
    """The IR's constants by name, with the tensors of the artifact that are stacked in each: Q, K and V are one."""
    plan: dict[str, tuple[str, ...]] = {}
    for name in names:
        layer, dot, rest = name.partition(".attn_q.")
        if dot:
            plan[f"{layer}.attn_qkv.{rest}"] = tuple(f"{layer}.attn_{kind}.{rest}" for kind in "qkv")
        elif ".attn_k." not in name and ".attn_v." not in name:
            plan[name] = (name,)
    return plan


def write(artifact: Artifact, path: Path, progress: Progress) -> dict[str, Stored]:
    """Write `path` from `artifact` in bounded memory and return what lies where. `progress` counts constants."""
    plan = parts(artifact.names())
    stored: dict[str, Stored] = {}
    with path.open("wb") as file:
        for done, (name, stacked) in enumerate(plan.items()):
            progress(done, len(plan))
            _write_constant(file, name, [artifact.tensor(part) for part in stacked], stored)
        progress(len(plan), len(plan))
    return stored


def bytes_of(stored: Stored, path: Path) -> npt.NDArray[np.uint8]:
    """The bytes of one constant in `path`: a private memory map, because OpenVINO refuses read-only ones."""
    return np.memmap(path, np.uint8, mode="c", offset=stored.offset, shape=(stored.size_bytes,))


def append(path: Path, constants: Mapping[str, npt.NDArray[Any]]) -> dict[str, int]:
    """Add small constants at the end of `path` and return their offsets."""
    offsets = {}
    with path.open("ab") as file:
        for name, array in constants.items():
            offsets[name] = _aligned(file)
            file.write(array.tobytes())
    return offsets


def codes(kind: str, numbers: npt.NDArray[Any], scales: npt.NDArray[np.float16] | None) -> Codes:
    """What a constant of `kind` holds, as the artifact codes it: the inverse of writing.

    `numbers` are [rows, columns] of i8, or bytes [rows, columns / 2] of u4 codes, or plain numbers.
    """
    if kind == "i8" and scales is not None:
        groups = numbers.shape[1] // GROUP
        return Codes.dense("int8", numbers, np.repeat(scales.reshape(-1, 1), groups, axis=1))
    if kind == "u4" and scales is not None:
        rows = numbers.shape[0]
        pairs = np.stack([numbers & 15, numbers >> 4], axis=-1).reshape(rows, -1).astype(np.int8)
        return Codes.dense("int4", pairs - np.int8(OFFSET), scales.reshape(rows, -1))
    return Codes(cast(CodeScheme, kind), numbers)  # OpenVINO's names are the artifact's


def _write_constant(file: BinaryIO, name: str, tensors: Sequence[Codes], stored: dict[str, Stored]) -> None:
    scheme, rows = tensors[0].scheme, sum(tensor.shape[0] for tensor in tensors)
    if scheme not in ("int8", "int4"):
        stored[name] = Stored(scheme, (rows, *tensors[0].shape[1:]), _aligned(file))
        for block in stored_blocks(tensors):
            file.write(np.ascontiguousarray(block).data)
        return
    columns = tensors[0].shape[1]
    shape = (rows, columns) if scheme == "int8" else (rows, columns // GROUP, GROUP)
    stored[name] = Stored("i8" if scheme == "int8" else "u4", shape, _aligned(file))
    found = []
    for block in stored_blocks(tensors):
        found.append(_one_a_row(name, block["scale"]) if scheme == "int8" else np.array(block["scale"]))
        file.write(np.ascontiguousarray(block["codes"] if scheme == "int8" else _paired(block["codes"])).data)
    scales = np.concatenate(found)
    stored[name + SCALES] = Stored("f16", scales.shape if scheme == "int8" else (*scales.shape, 1), _aligned(file))
    file.write(scales.data)


def _one_a_row(name: str, scales: npt.NDArray[np.float16]) -> npt.NDArray[np.float16]:
    """[rows, 1]; CaseError where a row has several: that is another scheme under this one's name."""
    first = np.ascontiguousarray(scales[:, :1])
    if (scales != first).any():
        raise CaseError("an int8 row has more than one scale", phase="prepare", where=name)
    return first


def _paired(halves: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """[..., 16] of Q4_0 (code j low, code j + 16 high) as u4 wants them: code 2j low, code 2j + 1 high."""
    low, high = halves & 15, halves >> 4
    return np.concatenate([low[..., ::2] | low[..., 1::2] << 4, high[..., ::2] | high[..., 1::2] << 4], axis=-1)


def _aligned(file: BinaryIO) -> int:
    """Pad `file` to the alignment and return the position."""
    file.write(bytes(-file.tell() % ALIGNMENT_BYTES))
    return file.tell()
