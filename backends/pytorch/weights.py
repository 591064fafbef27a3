"""`weights.bin`: the artifact's numbers as torch reads them; Q, K and V are stacked, and so are gate and up.

Nothing is rounded: int8 codes lie as they are, int4 codes two a byte as in Q4_0; float16 scales behind them, one a row
where all of a row are equal, else one for 32 columns. All else lies as it is.
"""

from __future__ import annotations

import mmap
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

from bench.api import Q4_BLOCK, Q8_BLOCK, Artifact, Codes, CodeScheme, Progress, stored_blocks
from bench.types import Arch

FILE = "weights.bin"
ALIGNMENT_BYTES = 64
AT_ONCE_BYTES = 64 << 20
STACKS = {"attn_qkv": ("attn_q", "attn_k", "attn_v"), "ffn_gate_up": ("ffn_gate", "ffn_up")}
_DTYPES: Mapping[CodeScheme, str] = {"int8": "i1", "int4": "u1", "f16": "<f2", "bf16": "<u2", "f32": "<f4"}

Numbers = npt.NDArray[Any]
Buffer = mmap.mmap


@dataclass(frozen=True, slots=True, kw_only=True)
class Stored:
    """One tensor of `weights.bin`: its coding, its shape in numbers, and where codes and scales lie."""

    scheme: CodeScheme
    shape: tuple[int, ...]
    offset: int
    scales_offset: int = 0
    scales_shape: tuple[int, ...] = ()

    @classmethod
    def from_json(cls, told: Mapping[str, Any]) -> Stored:
        return cls(**{**told, "shape": tuple(told["shape"]), "scales_shape": tuple(told["scales_shape"])})

    def numbers(self, file: Buffer) -> Numbers:
        """Codes (int4 as bytes [rows, columns / 2]) or plain numbers, as they lie in `file`."""
        shape = (*self.shape[:-1], self.shape[-1] // 2) if self.scheme == "int4" else self.shape
        numbers: Numbers = np.ndarray(shape, _DTYPES[self.scheme], file, self.offset)
        return numbers

    def scales(self, file: Buffer) -> Numbers:
        scales: Numbers = np.ndarray(self.scales_shape, "<f2", file, self.scales_offset)
        return scales


def mapped(path: Path) -> Buffer:
    """The file's own pages; what is written to them, which nobody does, stays in this process."""
    with path.open("rb") as file:
        return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)


def resident(path: Path) -> Buffer:
    """A copy of the file in this process's memory, in huge pages where the system gives them.

    Through small pages a processor reads weights more slowly than its memory delivers them.
    """
    copy = mmap.mmap(-1, path.stat().st_size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    with suppress(OSError, AttributeError):  # a kernel without them, a system without the call
        copy.madvise(mmap.MADV_HUGEPAGE)
    with path.open("rb", buffering=0) as file:
        view = memoryview(copy)
        done = 0
        while read := file.readinto(view[done : done + AT_ONCE_BYTES]):
            done += read
    return copy


def let_go(file: Buffer, stored: Stored) -> None:
    """Pages of `stored` in a mapped file count no longer as this process's; whoever reads them finds them again."""
    first = -(-stored.offset // mmap.PAGESIZE) * mmap.PAGESIZE
    last = (stored.offset + stored.numbers(file).nbytes) // mmap.PAGESIZE * mmap.PAGESIZE
    if last > first:
        with suppress(OSError, AttributeError):
            file.madvise(mmap.MADV_DONTNEED, first, last - first)


def parts(names: Iterable[str]) -> dict[str, list[str]]:
    """The decoder's tensors, in order, each with the artifact's tensors that are stacked in it."""
    stacked_in = {part: stack for stack, members in STACKS.items() for part in members}
    found: dict[str, list[str]] = {}
    for name in names:
        *before, kind, last = name.split(".")
        found.setdefault(".".join([*before, stacked_in.get(kind, kind), last]), []).append(name)
    return found


def rows_of(arch: Arch, name: str) -> tuple[str, slice]:
    """The decoder's tensor that holds the artifact's `name`, and where in it."""
    sizes = {
        "attn_q": arch.q_rows,
        "attn_k": arch.kv_rows,
        "attn_v": arch.kv_rows,
        "ffn_gate": arch.ffn,
        "ffn_up": arch.ffn,
    }
    *before, kind, last = name.split(".")
    for stack, members in STACKS.items():
        if kind in members:
            start = sum(sizes[member] for member in members[: members.index(kind)])
            return ".".join([*before, stack, last]), slice(start, start + sizes[kind])
    return name, slice(None)


def write(artifact: Artifact, path: Path, progress: Progress) -> dict[str, Stored]:
    """Write `path` in bounded memory and return what lies where. `progress` counts tensors."""
    plan = parts(artifact.names())
    stored: dict[str, Stored] = {}
    with path.open("wb") as file:
        for done, (name, stacked) in enumerate(plan.items()):
            progress(done, len(plan))
            stored[name] = _write(file, [artifact.tensor(part) for part in stacked])
        progress(len(plan), len(plan))
    return stored


def codes(scheme: CodeScheme, numbers: Numbers, scales: npt.NDArray[np.float16] | None) -> Codes:
    """What a tensor holds, as the artifact codes it: the inverse of writing."""
    if scales is None:
        return Codes(scheme, numbers)
    block = Q8_BLOCK if scheme == "int8" else Q4_BLOCK
    blocks = numbers.reshape(numbers.shape[0], -1, *block["codes"].shape)
    data = np.empty(blocks.shape[:2], block)
    data["codes"], data["scale"] = blocks, scales
    return Codes(scheme, data)


def _write(file: BinaryIO, tensors: Sequence[Codes]) -> Stored:
    scheme, shape = tensors[0].scheme, (sum(tensor.shape[0] for tensor in tensors), *tensors[0].shape[1:])
    offset = _aligned(file)
    if scheme not in ("int8", "int4"):
        for block in stored_blocks(tensors):
            file.write(np.ascontiguousarray(block).data)
        return Stored(scheme=scheme, shape=shape, offset=offset)
    found = []
    for block in stored_blocks(tensors):
        found.append(np.array(block["scale"]))
        file.write(np.ascontiguousarray(block["codes"]).data)
    scales = np.concatenate(found)
    if (scales == scales[:, :1]).all():
        scales = np.ascontiguousarray(scales[:, :1])
    at = _aligned(file)
    file.write(scales.data)
    return Stored(scheme=scheme, shape=shape, offset=offset, scales_offset=at, scales_shape=scales.shape)


def _aligned(file: BinaryIO) -> int:
    """Pad `file` to the alignment and return the position."""
    file.write(bytes(-file.tell() % ALIGNMENT_BYTES))
    return file.tell()
