"""Which installed packages a process has imported, and their versions. Standard library only: asked in the worker."""

from __future__ import annotations

import sys
from importlib import metadata


def imported_packages() -> dict[str, str]:
    """Distribution -> version of everything that was imported so far and whose installation tells; sorted by name.

    Takes up to seconds in a large environment: it is asked after everything is measured.
    """
    owners = metadata.packages_distributions()
    files = {getattr(module, "__file__", None) for module in list(sys.modules.values())}
    found = {}
    for name in {name.partition(".")[0] for name in list(sys.modules)} & owners.keys():
        candidates = set(owners[name])
        for distribution in candidates:
            if len(candidates) == 1 or _owns_one_of(distribution, files):  # several packages share a namespace
                found[distribution] = metadata.version(distribution)
    return dict(sorted(found.items()))


def _owns_one_of(distribution: str, files: set[str | None]) -> bool:
    return any(str(file.locate()) in files for file in metadata.files(distribution) or ())
