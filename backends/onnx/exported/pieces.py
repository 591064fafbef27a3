"""From one file of weights to pieces that readers with 32-bit offsets take, without twice the disk."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from backends.onnx.weights import PAGE_BYTES, Stored
from bench.errors import CaseError
from bench.units import render_bytes

COPY_BYTES = 16 << 20
Places = dict[str, tuple[str, int]]
"""Name of a tensor -> file and offset."""


def check_sizes(stored: Mapping[str, Stored], limit: int) -> None:
    """CaseError where a tensor is larger than a piece may be."""
    for name, entry in stored.items():
        if entry.size_bytes > limit:
            raise CaseError(
                f"{name} has {render_bytes(entry.size_bytes)}, a piece {render_bytes(limit)} at most",
                phase="export",
                cause="a tensor cannot be cut",
                remedy="choose a dialect or scheme with smaller numbers",
            )


def cut(path: Path, stored: Mapping[str, Stored], limit: int) -> Places:
    """Move the tensors `stored` of the file `path` into `weights-N.bin` beside it, each at most `limit` bytes long.

    From the end on, what was copied is cut off: at most one piece lies on the disk twice. Tensors of `path` that are
    not `stored` are gone with it.
    """
    pieces = _pieces(stored, limit)
    places: Places = {}
    with path.open("r+b") as source:
        for number, names in reversed(list(enumerate(pieces, 1))):
            piece = path.with_name(f"weights-{number}.bin")
            with piece.open("wb") as file:
                for name in names:
                    file.write(bytes(-file.tell() % PAGE_BYTES))
                    places[name] = piece.name, file.tell()
                    source.seek(stored[name].offset)
                    left = stored[name].size_bytes
                    while left:
                        left -= file.write(source.read(min(left, COPY_BYTES)))
            source.truncate(stored[names[0]].offset)
    path.unlink()
    return places


def _pieces(stored: Mapping[str, Stored], limit: int) -> list[list[str]]:
    """Names by piece, in the order of the file."""
    pieces: list[list[str]] = [[]]
    end = 0
    for name in sorted(stored, key=lambda name: stored[name].offset):
        start = -(-end // PAGE_BYTES) * PAGE_BYTES
        if pieces[-1] and start + stored[name].size_bytes > limit:
            pieces.append([])
            start = 0
        pieces[-1].append(name)
        end = start + stored[name].size_bytes
    return pieces
