"""`weights.bin` as operators of the standard take it: products [columns, rows], so that nothing has to be transposed.

Nothing is rounded. Level `opset21`: int8 codes with a float32 scale for each row, int4 codes with one for each 32,
float16 tensors as they are. Level `opset17`: all of them as float16, code times scale; where that is not exact the
artifact is refused. Its scales lie beside, unused by the graph: with them the codes can be read back. Norms and biases
are float32.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from backends.onnx.standard import Level
from backends.onnx.weights import HEAD, INT4, PAGE_BYTES, SCALES, TABLE, Stored, parts, rows_of
from bench.api import GROUP, Artifact, Codes, Progress, row_ranges
from bench.errors import CaseError
from bench.types import Arch

STRIP_BYTES = 128 << 20
"""Of float32 numbers in memory at once."""


def write(artifact: Artifact, path: Path, level: Level, progress: Progress) -> dict[str, Stored]:
    """Write `path` from `artifact` in bounded memory and return what lies where. `progress` counts tensors."""
    plan = parts(artifact.arch)
    stored = places(artifact, level)
    with path.open("wb") as file:
        size = max(entry.offset + entry.size_bytes for entry in stored.values())
        os.posix_fallocate(file.fileno(), 0, size)  # a disk that is full must say so, and not end who writes into a map
    for done, (name, stacked) in enumerate(plan.items()):
        progress(done, len(plan))
        start = 0
        for part, _ in stacked:
            tensor = artifact.tensor(part)
            _write(tensor, path, name, stored, start)
            start += tensor.shape[0]
    progress(len(plan), len(plan))
    return stored


def read_back(stored: Mapping[str, Stored], path: Path, arch: Arch, tensor: str) -> Codes | None:
    """`tensor` of the artifact as `path` holds it; None for a name that this graph does not have."""
    found = rows_of(arch, stored, tensor)
    if found is None:
        return None
    codes = _codes(stored, path, *found)
    if tensor == TABLE and arch.tied:  # the head is a copy of it here, and as much the model's
        head = _codes(stored, path, HEAD, found[1])
        return codes if head.same_bits(codes) else head
    return codes


def beside(notes: Mapping[str, Any]) -> dict[str, Stored]:
    """The scales that no graph names, from what `noted` put into the notes."""
    return {name: Stored("<f4", tuple(shape), offset) for name, (shape, offset) in notes["scales"].items()}


def noted(stored: Mapping[str, Stored]) -> dict[str, Any]:
    """Where scales lie, to be kept with the prepared files."""
    return {name: [list(entry.shape), entry.offset] for name, entry in stored.items() if name.endswith(SCALES)}


def places(artifact: Artifact, level: Level) -> dict[str, Stored]:
    """What `write` puts where: each tensor on a page of its own, in the order of the graph."""
    found: dict[str, Stored] = {}
    end = 0

    def place(name: str, dtype: str, *shape: int) -> None:
        nonlocal end
        found[name] = Stored(dtype, shape, -(-end // PAGE_BYTES) * PAGE_BYTES)
        end = found[name].offset + found[name].size_bytes

    for name, stacked in parts(artifact.arch).items():
        tensors = [artifact.tensor(part) for part, _ in stacked]
        scheme, rows = tensors[0].scheme, sum(tensor.shape[0] for tensor in tensors)
        if len(tensors[0].shape) == 1:
            place(name, "<f4", rows)
            continue
        columns = tensors[0].shape[1]
        shape = (rows, columns) if name == TABLE else (columns, rows)
        coded = {"int8": "|i1", "int4": INT4}.get(scheme)
        place(name, coded if coded and level == "opset21" else "<f2", *shape)
        if scheme == "int4":
            place(name + SCALES, "<f4", columns // GROUP, rows)
        elif scheme == "int8":
            place(name + SCALES, "<f4", *((rows, 1) if name == TABLE else (rows,)))
    return found


def _write(tensor: Codes, path: Path, name: str, stored: Mapping[str, Stored], first: int) -> None:
    """`tensor` as the rows from `first` of the stacked tensor `name`."""
    into = stored[name].mapped(path, "r+")
    scales = stored[name + SCALES].mapped(path, "r+") if name + SCALES in stored else None
    for start, stop in _strips(tensor.shape):
        rows = slice(first + start, first + stop)
        if len(tensor.shape) == 1:
            into[rows] = tensor.values(start, stop)
        elif stored[name].dtype == "<f2":
            _rows_of(into, name)[rows] = _exact_half(tensor, start, stop, name)
        elif stored[name].dtype == INT4:
            into[:, rows.start // 2 : rows.stop // 2] = _pairs(tensor.codes(start, stop).T)
        else:
            _rows_of(into, name)[rows] = tensor.codes(start, stop)
        if scales is not None:
            found = tensor.scales(start, stop)
            if tensor.scheme == "int4":
                scales[:, rows] = found.T
            else:
                _one_a_row(found, name)
                scales.reshape(-1)[rows] = found[:, 0]
    into.flush()


def _strips(shape: tuple[int, ...]) -> Iterator[tuple[int, int]]:
    """Ranges of an even number of rows: two rows of int4 share bytes."""
    pair_bytes = 2 * 4 * int(np.prod(shape[1:]))
    for start, stop in row_ranges(-(-shape[0] // 2), pair_bytes, STRIP_BYTES):
        yield 2 * start, min(2 * stop, shape[0])


def _rows_of(held: npt.NDArray[Any], name: str) -> npt.NDArray[Any]:
    """A product's [columns, rows] seen as [rows, columns]; the table is kept so."""
    return held if name == TABLE else held.T


def _exact_half(tensor: Codes, start: int, stop: int, name: str) -> npt.NDArray[np.float16]:
    values = tensor.values(start, stop)
    half = values.astype(np.float16)
    if not np.array_equal(half, values):
        raise CaseError(
            f"code times scale is not exact in float16 in {name}", phase="prepare", remedy="choose dialect opset21"
        )
    return half


def _one_a_row(scales: npt.NDArray[np.float16], name: str) -> None:
    if not (scales == scales[:, :1]).all():
        raise CaseError(f"{name} has more than one scale a row", phase="prepare", remedy="choose dialect contrib")


def _pairs(codes: npt.NDArray[np.int8]) -> npt.NDArray[np.uint8]:
    """[columns, rows] as two in a byte along the last axis."""
    nibbles = codes.view(np.uint8) & np.uint8(15)
    pairs: npt.NDArray[np.uint8] = nibbles[:, ::2] | nibbles[:, 1::2] << 4
    return pairs


def _codes(stored: Mapping[str, Stored], path: Path, name: str, rows: slice) -> Codes:
    entry = stored[name]
    held = entry.mapped(path)
    if len(entry.shape) == 1:
        return Codes("f32", held[rows])
    if name + SCALES not in stored:
        return Codes("f16", np.ascontiguousarray(_rows_of(held, name)[rows]))
    scales, scheme = _scales(stored, path, name, rows)
    if entry.dtype == INT4:
        codes = _unpaired(held[:, rows.start // 2 : rows.stop // 2]).T
    elif entry.dtype == "<f2":
        values = _rows_of(held, name)[rows]
        codes = np.empty(values.shape, np.int8)
        for start, stop in _strips(values.shape):
            part = values[start:stop].astype(np.float32).reshape(stop - start, -1, GROUP)
            codes[start:stop] = (part / scales[start:stop, :, None]).reshape(stop - start, -1)
    else:
        codes = _rows_of(held, name)[rows]
    return Codes.dense(scheme, np.ascontiguousarray(codes), scales.astype(np.float16))


def _scales(
    stored: Mapping[str, Stored], path: Path, name: str, rows: slice
) -> tuple[npt.NDArray[np.float32], Literal["int8", "int4"]]:
    """[rows, groups] of a product's or the table's weight; those of int8 lie one a row, those of int4 by group."""
    columns = stored[name].shape[1 if name == TABLE else 0]
    scales = stored[name + SCALES].mapped(path)
    if scales.shape[0] == columns // GROUP and scales.ndim == 2 and name != TABLE:
        return scales[:, rows].T, "int4"
    return np.repeat(scales.reshape(-1)[rows, None], columns // GROUP, axis=1), "int8"


def _unpaired(pairs: npt.NDArray[np.uint8]) -> npt.NDArray[np.int8]:
    """The inverse of `_pairs`."""
    low, high = (pairs << 4).view(np.int8) >> 4, pairs.view(np.int8) >> 4
    return np.stack([low, high], axis=-1).reshape(len(pairs), -1)
