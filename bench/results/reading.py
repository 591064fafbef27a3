"""Records wherever they lie: a store, the file of one record, or JSON lines as `--json` prints them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

from bench.errors import StoreError, UsageError
from bench.results.record import Record, decode
from bench.results.store import Store

MOST_BYTES = 256 << 20
"""Of a file. A record has 10 to 50 kB."""


def records_at(path: Path, unreadable: Callable[[StoreError], None]) -> Iterator[Record]:
    """All records at `path`; one that cannot be read is handed to `unreadable`, and the others follow.

    UsageError where `path` is no store and no file, or is too large.
    """
    if path.is_dir():
        if not (path / "launches").is_dir():
            raise UsageError("holds no results", where=str(path), cause="there is no folder `launches` in it")
        yield from Store(path).records(unreadable=unreadable)
        return
    data = _read(path)
    for number, line in _parts(data):
        try:
            # of a line the place, of a whole file the file
            yield decode(line, path.with_name(f"{path.name}:{number}") if number else path)
        except StoreError as error:
            unreadable(error)


def _parts(data: bytes) -> Iterator[tuple[int, bytes]]:
    """The lines with their numbers, or the whole as number 0 where no line of several is an object: it is indented."""
    lines = [(number, line) for number, line in enumerate(data.splitlines(), 1) if line.strip()]
    if len(lines) > 1 and any(line.startswith(b'{"') and line.endswith(b"}") for _, line in lines):
        yield from lines
    else:
        yield 0, data


def _read(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            data = file.read(MOST_BYTES + 1)
    except OSError as error:
        raise UsageError(f"cannot be read: {error.strerror or error}", where=str(path)) from error
    if len(data) > MOST_BYTES:
        raise UsageError(f"larger than {MOST_BYTES >> 20} MiB", where=str(path), remedy="give the store it came from")
    return data
