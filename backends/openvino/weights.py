"""`openvino_model.bin`: the artifact's numbers as the IR's constants take them, written in a stream, read back by bit.

Nothing is rounded: int8 codes as they are with one float16 scale a row; int4 codes + 8, two a byte, with the float16
scales of their groups; float16 and bfloat16 tensors as they are; norms and biases as float32.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

from bench.api import GROUP, Artifact, Codes, CodeScheme, Progress, row_ranges
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
_PLAIN: dict[str, CodeScheme] = {"f16": "f16", "bf16": "bf16", "f32": "f32"}


def write(artifact: Artifact, path: Path, progress: Progress) -> dict[str, Stored]:
    """Write `path` from `artifact` in bounded memory and return what lies where. `progress` counts tensors."""
    names = artifact.names()
    stored: dict[str, Stored] = {}
    with path.open("wb") as file:
        for done, name in enumerate(names):
            progress(done, len(names))
            _write_tensor(file, name, artifact.tensor(name), stored)
        progress(len(names), len(names))
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
    return Codes(_PLAIN[kind], numbers)


def _write_tensor(file: BinaryIO, name: str, tensor: Codes, stored: dict[str, Stored]) -> None:
    rows = tensor.shape[0]
    if tensor.scheme not in ("int8", "int4"):
        stored[name] = Stored(tensor.scheme, tensor.shape, _aligned(file))
        for start, stop in _ranges(tensor):
            file.write(np.ascontiguousarray(tensor.stored(start, stop)).data)
        return
    groups = tensor.shape[1] // GROUP
    if tensor.scheme == "int8":
        stored[name] = Stored("i8", tensor.shape, _aligned(file))
    else:
        stored[name] = Stored("u4", (rows, groups, GROUP), _aligned(file))
    scales = np.empty((rows, groups), np.float16)
    for start, stop in _ranges(tensor):
        blocks = tensor.stored(start, stop)
        scales[start:stop] = blocks["scale"]
        numbers = blocks["codes"] if tensor.scheme == "int8" else _paired(blocks["codes"])
        file.write(np.ascontiguousarray(numbers).data)
    if tensor.scheme == "int8":
        scales = _one_a_row(name, scales)
    shape = (rows, 1) if tensor.scheme == "int8" else (rows, groups, 1)
    stored[name + SCALES] = Stored("f16", shape, _aligned(file))
    file.write(np.ascontiguousarray(scales).data)


def _ranges(tensor: Codes) -> Iterator[tuple[int, int]]:
    return row_ranges(tensor.shape[0], tensor.data.nbytes // tensor.shape[0])


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
