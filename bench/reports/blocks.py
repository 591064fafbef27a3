"""Blocks of a page that a command fills: what lies between two markers, each alone at the start of a line. Pure.

<!-- bench table --model smollm2-135m -->
<!-- end of bench table -->
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

from bench.errors import UsageError

_MARKER = re.compile(rb"<!--\s*(?P<end>end\s+of\s+)?bench\s+table\b")
_CLOSED = b"-->"
_REMEDY = "write <!-- bench table --> and <!-- end of bench table -->, each on a line of its own"


@dataclass(frozen=True, slots=True)
class Block:
    """What lies between two markers: `start` to `end` of a page's bytes.

    `asked` is what the first marker says, in `line` of the page, which ends in `newline`.
    """

    line: int
    asked: str
    start: int
    end: int
    newline: bytes


def find_blocks(page: bytes, where: str) -> list[Block]:
    """All blocks in order. UsageError that names `where` and the line if a marker is odd or lacks its other half."""
    blocks: list[Block] = []
    begun: Block | None = None
    position = 0
    for number, line in enumerate(page.splitlines(keepends=True), 1):
        before, position = position, position + len(line)
        marker = _MARKER.match(line)
        if not marker:
            continue
        rest, place = line[marker.end() :].strip(), f"{where}:{number}"
        asked = rest.removesuffix(_CLOSED).strip()
        if asked == rest or _CLOSED in asked or (marker["end"] and asked):
            raise UsageError("a marker that is not alone on its line", where=place, remedy=_REMEDY)
        if marker["end"]:
            if not begun:
                raise UsageError("a block ends that did not begin", where=place, remedy=_REMEDY)
            blocks.append(replace(begun, end=before))
            begun = None
        elif begun:
            raise UsageError(f"a block begins inside the one of line {begun.line}", where=place, remedy=_REMEDY)
        else:
            newline = b"\r\n" if line.endswith(b"\r\n") else b"\n"
            begun = Block(number, _decoded(asked, place), position, position, newline)
    if begun:
        raise UsageError("a block begins that does not end", where=f"{where}:{begun.line}", remedy=_REMEDY)
    if not blocks:
        raise UsageError("no block to refresh", where=where, remedy=_REMEDY)
    return blocks


def filled(page: bytes, blocks: Sequence[Block], texts: Sequence[str]) -> bytes:
    """`page` with each block's text, an empty line before and behind it; every other byte as it was."""
    parts, position = [], 0
    for block, text in zip(blocks, texts, strict=True):
        lines = ["", *text.splitlines(), "", ""]
        parts += [page[position : block.start], block.newline.join(line.encode() for line in lines)]
        position = block.end
    return b"".join([*parts, page[position:]])


def _decoded(asked: bytes, where: str) -> str:
    try:
        return asked.decode()
    except UnicodeDecodeError:
        raise UsageError("a marker whose options are not UTF-8", where=where) from None
