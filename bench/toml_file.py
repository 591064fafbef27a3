"""Reading TOML that people write: what is wrong is said with its file and line."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any

from bench.errors import UsageError

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib


def read_toml(path: Path, *, remedy: str) -> tuple[str, dict[str, Any]]:
    """The text of `path` and its tables; UsageError where it is missing, unreadable or malformed."""
    try:
        text = path.read_text(encoding="utf-8")
        return text, tomllib.loads(text)
    except FileNotFoundError as error:
        raise UsageError("no such file", where=str(path), remedy=remedy) from error
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
        raise UsageError(f"cannot be read: {why}", where=str(path), remedy=remedy) from error
    except tomllib.TOMLDecodeError as error:
        line = re.search(r"at line (\d+)", str(error))
        where = f"{path}:{line[1]}" if line else str(path)
        raise UsageError(f"malformed TOML: {error}", where=where, remedy="correct that line") from error
    except (ValueError, RecursionError) as error:  # a number of thousands of digits, thousands of brackets
        raise UsageError(f"malformed TOML: {error}", where=str(path), remedy=remedy) from error


def line_of(text: str, table: str, key: str | None) -> int | None:
    """Line number of `key` in `[table]`, or of the table's header; None where it is written in another way."""
    lines = text.splitlines()
    header = re.compile(rf"\s*\[\s*[\"']?{re.escape(table)}[\"']?\s*\]")
    start = next((number for number, line in enumerate(lines, 1) if header.match(line)), None)
    if start is None or key is None:
        return start
    for number, line in enumerate(lines[start:], start + 1):
        if line.lstrip().startswith("["):
            break
        if re.match(rf"\s*[\"']?{re.escape(key)}[\"']?\s*[.=]", line):
            return number
    return start
