"""Where the store is: --results, $BENCH_RESULTS, this project's checkout, the user's data folder."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from pathlib import Path

import platformdirs

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib


def locate_store(flag: str | Path | None = None, *, environ: Mapping[str, str] | None = None) -> Path:
    """The folder of the store, whether it exists or not.

    The first that applies: `flag`, $BENCH_RESULTS, `results` of the checkout of this project that the working folder
    lies in, the XDG data folder.
    """
    if flag:
        return Path(flag).expanduser().absolute()
    if named := (os.environ if environ is None else environ).get("BENCH_RESULTS"):
        return Path(named).expanduser().absolute()
    here = Path.cwd()
    for folder in (here, *here.parents):
        if _is_checkout(folder):
            return folder / "results"
    return platformdirs.user_data_path("evenbench") / "results"


def _is_checkout(folder: Path) -> bool:
    try:
        text = (folder / "pyproject.toml").read_text(encoding="utf-8")
        project = tomllib.loads(text).get("project")
    except (OSError, ValueError):
        return False  # somebody else's folder: whatever is wrong in it is not our business
    return isinstance(project, dict) and project.get("name") == "evenbench"
