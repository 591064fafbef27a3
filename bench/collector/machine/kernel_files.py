"""Small files of /proc and /sys as text and numbers: whatever is missing, unreadable or nonsense is None."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

MOST_BYTES = 65536
"""Of one file: enough for every file read here, and for the first of the processors in a long /proc/cpuinfo."""
MOST_CHARACTERS = 100
MOST_CPUS = 65536
MOST_LIST = 4096
"""Characters of a list of processors."""
_INTEGER = re.compile(r"-?[0-9]{1,18}")
_CPU_LIST = re.compile(r"[0-9]{1,5}(-[0-9]{1,5})?(,[0-9]{1,5}(-[0-9]{1,5})?)*")


def raw(path: Path) -> bytes | None:
    """The first 64 KiB; None where it cannot be read. A path with a zero byte, made of what a file said, is none."""
    try:
        with path.open("rb") as file:
            return file.read(MOST_BYTES)
    except (OSError, ValueError):
        return None


def lines(path: Path) -> list[str]:
    """Its lines, stripped; none where it cannot be read."""
    content = raw(path) or b""
    return [line.strip() for line in content.decode("utf-8", "replace").split("\n")]


def line(path: Path) -> str | None:
    """Its first line, stripped, '' for an empty file; None where it cannot be read."""
    content = raw(path)
    return None if content is None else content.decode("utf-8", "replace").partition("\n")[0].strip()


def word(path: Path) -> str | None:
    """The one line that the file holds; None where that is empty, longer than a name or not printable."""
    told = lines(path)
    return plain(told[0]) if told and not any(told[1:]) else None


def plain(text: str) -> str | None:
    """`text` stripped; None where it is empty, longer than a name or not printable."""
    text = text.strip()
    sound = text.isprintable() and "\ufffd" not in text
    return text if sound and 0 < len(text) <= MOST_CHARACTERS else None


def number(text: str | None) -> int | None:
    """A decimal number; None for anything else (`int` itself takes underscores and the digits of other scripts)."""
    return int(text) if text is not None and _INTEGER.fullmatch(text) else None


def integer(path: Path, least: int = 0, most: int = 2**60) -> int | None:
    """The number that the file holds; None outside of `least` to `most`."""
    value = number(word(path))
    return value if value is not None and least <= value <= most else None


def switch(path: Path) -> bool | None:
    """A file of 0 or 1."""
    return {"0": False, "1": True}.get(word(path) or "")


def entries(folder: Path, pattern: str) -> list[Path]:
    """What of `folder` is named like the regular expression `pattern`, sorted; none where it cannot be listed."""
    try:
        names = [path.name for path in folder.iterdir()]
    except OSError:
        return []
    return [folder / name for name in sorted(names) if re.fullmatch(pattern, name)]


def cpu_list(text: str | None) -> str | None:
    """`text` if it is a list of processors as the kernel writes it (`0-3,8`), else None; the empty list is ''."""
    return text if text == "" or cpus(text) else None


def cpus(text: str | None) -> frozenset[int] | None:
    """The processors of such a list; None for anything else and for more than there are in any machine."""
    if text is None or len(text) > MOST_LIST or (text and not _CPU_LIST.fullmatch(text)):
        return None
    ends = [[int(end) for end in part.split("-")] for part in text.split(",") if part]
    if any(part[0] > part[-1] for part in ends) or sum(part[-1] - part[0] for part in ends) > MOST_CPUS:
        return None
    return frozenset(cpu for part in ends for cpu in range(part[0], part[-1] + 1))


def field(told: Iterable[str], name: str, separator: str = ":") -> str | None:
    """What stands behind the first `name` that is followed by the separator, stripped; None where there is none."""
    for line in told:
        key, found, value = line.partition(separator)
        if found and key.strip() == name:
            return value.strip()
    return None


def kilobytes(told: Iterable[str], name: str) -> int | None:
    """Bytes of a line such as `MemTotal:  16384 kB` (proc_meminfo(5); its kB are 1024 bytes)."""
    amount, _, unit = (field(told, name) or "").partition(" ")
    value = number(amount)
    return value * 1024 if unit == "kB" and value is not None and 0 <= value < 2**50 else None
