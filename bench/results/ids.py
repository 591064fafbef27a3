"""UUIDv7 (RFC 9562): ids that sort by time, need no coordination, and are checked before they become a path."""

from __future__ import annotations

import re
import secrets
import time
from datetime import datetime, timezone

from bench.errors import UsageError

UUID7_PATTERN = "^[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$"
_UUID7 = re.compile(UUID7_PATTERN)


def new_uuid7() -> str:
    """A fresh UUIDv7; the 12 bits after the milliseconds hold their fraction, so ids of one process sort too."""
    milliseconds, rest_ns = divmod(time.time_ns(), 1_000_000)
    fraction = rest_ns * 4096 // 1_000_000
    value = milliseconds << 80 | 0x7 << 76 | fraction << 64 | 0b10 << 62 | secrets.randbits(62)
    text = f"{value:032x}"
    return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"


def check_uuid7(text: str, noun: str = "record") -> str:
    """`text` in lower case if it is a UUIDv7, else UsageError: only what passes here becomes part of a path."""
    lower = text.lower()
    # fullmatch, because `$` alone lets a trailing newline pass
    if not _UUID7.fullmatch(lower):
        article = "an" if noun[0] in "aeiou" else "a"
        raise UsageError(
            f"not {article} {noun} id: {text[:60]!r}",
            cause=f"{article} {noun} id looks like 0193b3f2-6c1a-7d40-9a5e-2f8c01d4e6b7",
            remedy="list what the store holds with `bench table`",
        )
    return lower


def uuid7_time(text: str) -> datetime:
    """When a UUIDv7 was made, in UTC. Raises UsageError for anything else."""
    milliseconds = int(check_uuid7(text).replace("-", "")[:12], 16)
    try:
        return datetime.fromtimestamp(milliseconds / 1000, timezone.utc)
    except (OverflowError, ValueError, OSError):
        raise UsageError(f"not an id of this millennium: {text}") from None
