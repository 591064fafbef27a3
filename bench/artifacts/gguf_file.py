"""The header of anybody's GGUF: metadata and the list of tensors, every length checked before it is believed.

The format is ggml's docs/gguf.md, versions 2 and 3. The `gguf` package reads every string of a vocabulary into objects
(7 to 12 s for a 7B model) and trusts lengths; here strings of arrays are only stepped over.
"""

from __future__ import annotations

import mmap
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.errors import UsageError

VERSIONS = (2, 3)
STRING, ARRAY = 8, 9
SCALARS = {0: "<B", 1: "<b", 2: "<H", 3: "<h", 4: "<I", 5: "<i", 6: "<f", 7: "<?", 10: "<Q", 11: "<q", 12: "<d"}
"""GGUF's number of each kind of value, and how `struct` reads it."""
KEPT = 4096
"""Longest array of numbers that is kept; of longer ones, and of texts, only the length."""
MOST = 1 << 24
"""More entries than this has no honest file."""
MOST_DIMENSIONS = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Header:
    """`metadata` by key: numbers, texts, lists of numbers, and for other arrays their length. `tensors`: name -> shape.

    Shapes are columns first, as the file has them. `bytes` is the size of the whole file.
    """

    metadata: dict[str, Any]
    tensors: dict[str, tuple[int, ...]]
    bytes: int


def read_header(path: Path) -> Header:
    """The header of the GGUF at `path`; UsageError, with the place, where it is none or is damaged."""
    try:
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            return _Reader(path, data).header()
    except OSError as error:
        raise UsageError(error.strerror or "cannot be read", where=str(path), remedy="name a GGUF file") from error
    except ValueError as error:  # mmap of an empty file
        raise UsageError("is empty", where=str(path), remedy="copy the file again") from error


class _Reader:
    """A cursor over the file."""

    def __init__(self, path: Path, data: mmap.mmap):
        self._path, self._data, self._at = path, data, 0

    def header(self) -> Header:
        if self._take(4) != b"GGUF":
            raise self._damaged("is no GGUF", "it does not begin with the letters GGUF")
        version = self._number("<I")
        if version not in VERSIONS:
            raise self._damaged(f"is a GGUF of version {version}", "versions 2 and 3 are read; byte orders are not")
        tensors, pairs = self._count(), self._count()
        metadata = {}
        for _ in range(pairs):
            key = self._text()
            metadata[key] = self._value(self._number("<I"))
        shapes = {}
        for _ in range(tensors):
            name, shape = self._tensor()
            shapes[name] = shape
        return Header(metadata=metadata, tensors=shapes, bytes=len(self._data))

    def _tensor(self) -> tuple[str, tuple[int, ...]]:
        name, dimensions = self._text(), self._number("<I")
        if not 0 < dimensions <= MOST_DIMENSIONS:
            raise self._damaged("is damaged", f"tensor {name!r} has {dimensions} dimensions")
        shape = tuple(self._number("<Q") for _ in range(dimensions))
        self._take(4 + 8)  # type and offset: the runtime's affair
        return name, shape

    def _value(self, kind: int) -> Any:
        if kind in SCALARS:
            return self._number(SCALARS[kind])
        if kind == STRING:
            return self._text()
        if kind != ARRAY:
            raise self._damaged("is damaged", f"there is no kind of value {kind}")
        inner, count = self._number("<I"), self._count()
        if inner in SCALARS:
            width = struct.calcsize(SCALARS[inner])
            raw = self._take(width * count)
            return [each[0] for each in struct.iter_unpack(SCALARS[inner], raw)] if count <= KEPT else count
        if inner != STRING:
            raise self._damaged("is damaged", "arrays of arrays are not read")
        for _ in range(count):
            self._skip(self._number("<Q"))
        return count

    def _text(self) -> str:
        return self._take(self._number("<Q")).decode(errors="replace")

    def _count(self) -> int:
        count: int = self._number("<Q")
        if count > MOST:
            raise self._damaged("is damaged", f"{count} entries are announced")
        return count

    def _number(self, form: str) -> Any:
        return struct.unpack(form, self._take(struct.calcsize(form)))[0]

    def _skip(self, size: int) -> None:
        if size > len(self._data) - self._at:
            raise self._damaged("is truncated or damaged", f"{size} bytes are announced where the file ends")
        self._at += size

    def _take(self, size: int) -> bytes:
        start = self._at
        self._skip(size)
        return self._data[start : self._at]

    def _damaged(self, what: str, cause: str) -> UsageError:
        return UsageError(what, where=f"{self._path}, byte {self._at}", cause=cause, remedy="copy or download it again")
