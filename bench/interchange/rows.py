"""From text to rows: JSON, JSON lines or CSV, told apart by what stands there. One row at a time, none trusted."""

from __future__ import annotations

import csv
import json
import math
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from bench.errors import UsageError
from bench.interchange.checks import check, from_text
from bench.interchange.llama_bench import MARKS, Row
from bench.interchange.text import decoded, no_rows


@dataclass
class Scan:
    """What was seen beside the rows: complete once all rows are taken.

    `skipped_lines` held other text, such as progress or a runtime's log. `cut_line` is where a file ends in the middle
    of something; None if it is whole.
    """

    rows: int = 0
    skipped_lines: int = 0
    cut_line: int | None = None


def read_rows(data: bytes, name: str, scan: Scan) -> Iterator[Row]:
    """The rows of a file called `name`, in order; `scan` is filled meanwhile.

    UsageError with file and line for the first row that is damaged, and for a file without any. Only an incomplete
    last row is left out, which is what a crash leaves; then `scan.cut_line` says so.
    """
    text = decoded(data, name)
    has_header = _has_header(text)
    found = _csv(text, name, scan) if has_header else _json(text, name, scan)
    for line, notation, fields in found:
        scan.rows += 1
        yield Row(fields=check(fields, f"{name}:{line}"), line=line, notation=notation)
    if not scan.rows:
        raise no_rows(text, name, has_header or scan.cut_line is not None)


_Raw = Iterator[tuple[int, str, dict[str, Any]]]
"""Line, notation, fields."""

# Each of these reads a text once, whatever it is: no two repetitions in a row can take the same characters.
_OBJECT = re.compile(r'\{\s*"\w+"\s*:')
_BETWEEN = re.compile(r"[\s,]+")
_OPENS = re.compile(r"\[(?=\s*(?:[{\]]|\Z))")
_BARE = re.compile(r"[:,\[]\s*-?(?:nan|inf)\b")
_STRING = r'"[^"\\]*(?:\\.[^"\\]*)*"'
_STRING_OR_BARE = re.compile(_STRING + r"|-?\b(?:nan|inf)\b", re.S)
_STRING_OR_BRACE = re.compile(_STRING + r"|[{}]", re.S)
_ROW_BEGINS = re.compile(r"^[ \t,\[]*\{", re.M)


def _has_header(text: str) -> bool:
    """Whether it is CSV. Where JSON was written to the same file, that is read: it has the samples."""
    position = text.find(MARKS[-1])
    if position < 0 or _OBJECT.search(text):
        return False
    return set(MARKS) <= set(_cells(text[text.rfind("\n", 0, position) + 1 : _end_of_line(text, position)].strip()))


def _json(text: str, name: str, scan: Scan) -> _Raw:
    """Objects one after the other, whatever stands between them: an array's brackets, line ends, other output."""
    text = _with_known_constants(text)
    decoder = json.JSONDecoder(object_pairs_hook=_unique, parse_int=_bounded_int, parse_constant=lambda _: math.nan)
    position, line, array = 0, 1, False
    while position < len(text):
        begin = position
        if between := _BETWEEN.match(text, position):
            position = between.end()
        elif text[position] == "]":
            position, array = position + 1, False
        elif opens := _OPENS.match(text, position):
            position, array = opens.end(), True
        elif text[position] == "{":
            try:
                fields, position = decoder.raw_decode(text, position)
            except (ValueError, RecursionError) as error:
                if _is_cut(text, begin):
                    scan.cut_line = text.count("\n") + 1
                    return
                # a row of JSON lines is damaged in the line where it begins, wherever that is noticed
                at = error.lineno if array and isinstance(error, json.JSONDecodeError) else line
                raise _malformed(error, f"{name}:{at}") from None
            yield line, "json" if array else "jsonl", fields
        else:
            position = _end_of_line(text, position)
            _check_noise(text[begin:position], f"{name}:{line}")
            scan.skipped_lines += 1
        line += text.count("\n", begin, position)
    if array:
        scan.cut_line = line


def _end_of_line(text: str, position: int) -> int:
    end = text.find("\n", position)
    return len(text) if end < 0 else end


def _with_known_constants(text: str) -> str:
    """C prints nan, -nan and inf where a rate has no value; JSON knows none of them. The length stays the same."""
    if not _BARE.search(text):
        return text
    return _STRING_OR_BARE.sub(lambda m: m[0] if m[0][0] == '"' else "NaN".rjust(len(m[0])), text)


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    fields = dict(pairs)
    if len(fields) != len(pairs):
        raise ValueError(f"the key {_most_frequent(name for name, _ in pairs)} stands there twice")
    return fields


def _most_frequent(names: Iterable[str]) -> str:
    (name, _), *_ = Counter(names).most_common(1)
    return ascii(name[:60])


def _bounded_int(digits: str) -> int:
    if len(digits) > 40:
        raise ValueError(f"a number of {len(digits)} digits")
    return int(digits)


def _is_cut(text: str, begin: int) -> bool:
    """Whether the object at `begin` is the last and never closes: a crash's end, not damage."""
    end = text.rstrip().removesuffix("]").rstrip()
    if end.endswith("}") or _ROW_BEGINS.search(text, _end_of_line(text, begin)):
        return False
    depth = 0
    for found in _STRING_OR_BRACE.finditer(text, begin):
        depth += {"{": 1, "}": -1}.get(found[0], 0)
        if not depth and found[0] == "}":
            return False
    return True


def _malformed(error: Exception, where: str) -> UsageError:
    what = error.msg if isinstance(error, json.JSONDecodeError) else str(error)
    what = "nested too deeply" if isinstance(error, RecursionError) else what
    cause = "it was edited, or two processes wrote to one file"
    return UsageError(f"malformed JSON: {what}", where=where, cause=cause)


def _check_noise(text: str, where: str) -> None:
    """Other output may stand between rows; what is left of a damaged row must not pass as such."""
    if any(f'"{mark}"' in text for mark in MARKS):
        raise UsageError("a row that does not begin with {", where=where, cause="its beginning is lost")


def _csv(text: str, name: str, scan: Scan) -> _Raw:
    """One row a line, as llama-bench writes them: a lost quote damages one row and swallows no other."""
    header: list[str] = []
    for number, line, ended in _lines(text):
        where = f"{name}:{number}"
        cells = _cells(line)
        if set(MARKS) <= set(cells):
            header = cells
            if len(set(cells)) < len(cells):
                raise UsageError(f"the column {_most_frequent(cells)} stands there twice", where=where)
        elif header and len(cells) == len(header):
            yield number, "csv", from_text(dict(zip(header, cells, strict=True)), where)
        elif not header or (len(cells) < len(header) // 2 and not line.startswith('"')):
            scan.skipped_lines += 1
        elif not ended and len(cells) < len(header):
            scan.cut_line = number
        else:
            what = f"{len(cells)} values for {len(header)} columns" if cells else "quotes that do not match"
            raise UsageError(what, where=where, cause="the line is damaged")


def _lines(text: str) -> Iterator[tuple[int, str, bool]]:
    """Number, text, and whether it is ended, of each line that is not blank."""
    position, number = 0, 0
    while position < len(text):
        end, number = _end_of_line(text, position), number + 1
        if line := text[position:end].strip("\r \t"):
            yield number, line, end < len(text)
        position = end + 1


def _cells(line: str) -> list[str]:
    """Empty where the quotes of a line do not match."""
    try:
        return next(csv.reader([line], strict=True))
    except csv.Error:
        return []
