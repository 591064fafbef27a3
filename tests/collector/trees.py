"""Small trees of files like those of /sys, for providers that take a root."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

UNREADABLE, ROOTS = "\0unreadable", "\0root's"
"""In place of a file's text: a folder, so that reading it fails for root too; ROOTS is not for others, by its mode."""


def tree(root: Path, files: Mapping[str, str | int], links: Mapping[str, str] | None = None) -> Path:
    """Write `files` (path → text) and `links` (path → path within the tree) below `root`, which is returned.

    A file that is there already is replaced: so values change between readings.
    """
    for name, said in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if said in (UNREADABLE, ROOTS):
            path.unlink(missing_ok=True)
            path.mkdir()
            path.chmod(0o755 if said == UNREADABLE else 0o700)
        else:
            path.write_text(f"{said}\n")
    for name, target in (links or {}).items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).symlink_to(root / target)
    return root


def write(root: Path, tree: dict[str, Any]) -> Path:
    """The same with every byte as told; a content of None is a folder in the file's place, which cannot be read."""
    for name, content in tree.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if content is None:
            path.mkdir()
        else:
            path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return root
