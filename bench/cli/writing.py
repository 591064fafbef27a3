"""Files that the user names, written whole or not at all."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from bench.errors import UsageError
from bench.results.durable import publish, write_new


def write_whole(path: Path, data: bytes) -> None:
    """`path` holds `data` afterwards, or what it held before where that fails (UsageError); its mode stays.

    Where it is a link, the file that it leads to is replaced.
    """
    final = Path(os.path.realpath(path))
    aside = final.with_name(f".{final.name}.{os.getpid()}.partial")
    try:
        write_new(aside, data)
        if final.exists():
            shutil.copymode(final, aside)
        publish(aside, final)
    except OSError as error:
        raise UsageError(f"cannot be written: {error.strerror or error}", where=str(path)) from error
    finally:
        aside.unlink(missing_ok=True)
