"""From the bytes of a foreign file to text, and what a file is that holds no row. Nothing here trusts its input."""

from __future__ import annotations

import codecs
import re

from bench.errors import UsageError

MOST_BYTES = 64 << 20
"""Of one file: about 50 000 rows of llama-bench. Memory stays bounded, whatever is handed in."""

AGAIN = "execute llama-bench with -o jsonl"

_MAGIC = (
    (b"\x1f\x8b", "it is compressed by gzip", "decompress it with gunzip"),
    (b"PK\x03\x04", "it is a ZIP archive or a spreadsheet", "give the JSON or CSV inside it"),
    (b"\x28\xb5\x2f\xfd", "it is compressed by zstd", "decompress it with zstd -d"),
    (b"\xfd7zXZ", "it is compressed by xz", "decompress it with unxz"),
    (b"SQLite format 3", "it is an SQLite database", AGAIN),
    (b"GGUF", "it is a model, not a result", "give what llama-bench printed about it"),
)
_MARKS = ((codecs.BOM_UTF8, "utf-8-sig"), (codecs.BOM_UTF16_LE, "utf-16"), (codecs.BOM_UTF16_BE, "utf-16"))
"""PowerShell's `>` writes UTF-16 with a mark."""

_HTML = re.compile(r"\s*<(?:!doctype|html|\?xml)", re.I)
_FOREIGN = (
    (r"^[ \t]*(?:CREATE TABLE|INSERT INTO)\b", "SQL", "it was made with -o sql"),
    (r"^\| *model *\|", "a Markdown table", "it rounds its numbers and leaves out fields"),
    (r"^\"?build_commit\"?[;\t]", "a table whose separator is no comma", "a spreadsheet wrote it"),
)


def decoded(data: bytes, name: str) -> str:
    """`data` as text: UTF-8, or UTF-16 with its mark. UsageError naming `name` for anything that is no text."""
    if len(data) > MOST_BYTES:
        raise UsageError(
            f"larger than {MOST_BYTES >> 20} MiB", where=name, remedy="split it: every line of JSONL stands for itself"
        )
    for magic, what, remedy in _MAGIC:
        if data.startswith(magic):
            raise UsageError(what, where=name, remedy=remedy)
    encoding = next((encoding for mark, encoding in _MARKS if data.startswith(mark)), "utf-8")
    try:
        text = data.decode(encoding)
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        what = "not UTF-8 text" if encoding != "utf-16" else "damaged UTF-16 text"
        raise UsageError(what, where=f"{name}:{line}", cause="binary, or of another encoding", remedy=AGAIN) from None
    if "\0" in text:
        line = text.count("\n", 0, text.index("\0")) + 1
        raise UsageError("binary data", where=f"{name}:{line}", remedy="give what llama-bench printed")
    if not text.strip():
        raise UsageError("empty", where=name, cause="llama-bench was ended before its first test", remedy=AGAIN)
    if _HTML.match(text):
        raise UsageError(
            "an HTML page", where=name, cause="an error or a login was saved", remedy="download the file itself"
        )
    return text


def no_rows(text: str, name: str, cut: bool) -> UsageError:
    """Why there is no row in `text`."""
    for pattern, what, cause in _FOREIGN:
        if re.search(pattern, text, re.I | re.M):
            return UsageError(f"{what}, not rows of llama-bench", where=name, cause=cause, remedy=AGAIN)
    cause = "it ends before its first row is complete" if cut else "neither JSON, JSONL nor CSV of llama-bench"
    return UsageError("no row of llama-bench in it", where=name, cause=cause, remedy=AGAIN)
