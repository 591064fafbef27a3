"""Managed environments: one folder a backend, made by `bench setup`, with its runtime, its log and what it holds.

ROOT/NAME/{environment.json, setup.log, venv/, pip-cache/ while something is compiled}
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import msgspec
import platformdirs

from bench.artifacts.folders import folder_lock_if_free, remove_folder, remove_leftovers
from bench.environments.interpreter import Interpreter
from bench.errors import BusyError, PrerequisiteError, unknown_name
from bench.results.durable import write_new

TOLD = "environment.json"


class Told(msgspec.Struct, frozen=True, kw_only=True):
    """What an environment is for and, once it is `ready`, what it holds.

    `fingerprint` covers everything asked for that decides what is installed; `pins` are the committed versions of what
    was installed, `versions` what the adapter found.
    """

    backend: str
    fingerprint: str
    accelerator: str | None = None
    python_version: str | None = None
    ready: bool = False
    versions: dict[str, str] = {}
    installed: dict[str, str] = {}
    pins: list[str] = []


@dataclass(frozen=True, slots=True)
class Environment:
    """The folder of one backend's environment, whether it exists or not."""

    path: Path

    @property
    def name(self) -> str:
        return self.path.name

    @property
    def python(self) -> Path:
        return self.path / "venv" / "bin" / "python"

    @property
    def log(self) -> Path:
        return self.path / "setup.log"

    @property
    def pip_cache(self) -> Path:
        return self.path / "pip-cache"

    @property
    def taken(self) -> bool:
        """Whether something else lies in its place."""
        return self.path.exists() and not (self.path / TOLD).exists() and any(self.path.iterdir())

    @property
    def told(self) -> Told | None:
        """None where nothing was begun, or where what was written cannot be read."""
        try:
            return msgspec.json.decode((self.path / TOLD).read_bytes(), type=Told)
        except (OSError, msgspec.MsgspecError):
            return None

    def tell(self, told: Told) -> None:
        """Replace what is told, whole or not at all."""
        aside = self.path / f".{TOLD}"
        aside.unlink(missing_ok=True)
        write_new(aside, msgspec.json.format(msgspec.json.encode(told)))
        aside.replace(self.path / TOLD)

    def size_bytes(self) -> int:
        """Bytes of all its files."""
        return sum(file.lstat().st_size for file in self.path.rglob("*") if file.is_file() and not file.is_symlink())


def root() -> Path:
    """$BENCH_ENVIRONMENTS, or `environments` in the user's data folder; not created."""
    given = os.environ.get("BENCH_ENVIRONMENTS")
    if given:
        return Path(given).expanduser().absolute()
    return platformdirs.user_data_path("evenbench") / "environments"


def environment(name: str) -> Environment:
    """Of the backend `name`, whether it exists or not."""
    return Environment(root() / name)


def environments() -> list[Environment]:
    """All that were begun, by name; other folders that lie there are none of ours."""
    return [Environment(file.parent) for file in sorted(root().glob(f"[!.]*/{TOLD}"))]


def managed_interpreter(name: str) -> Interpreter | None:
    """The interpreter of a backend's environment; None where it is not ready."""
    found = environment(name)
    told = found.told
    if told is None or not told.ready:
        return None
    return Interpreter(
        python=str(found.python),
        origin="managed environment",
        build=told.fingerprint,
        remedy=f"`bench setup --remove {name}`, then `bench setup {name}`",
    )


def remove(name: str) -> Environment:
    """Delete an environment; UsageError where there is none, BusyError while it is being made."""
    known = [each.name for each in environments()]
    if name not in known:
        raise unknown_name("environment", name, known, remedy="`bench setup --list` shows them")
    found = environment(name)
    with held(found):
        remove_folder(found.path)
        remove_leftovers(found.path)
    return found


@contextmanager
def held(found: Environment) -> Iterator[None]:
    """The right to change an environment; BusyError where another process has it."""
    check_writable()
    with folder_lock_if_free(found.path) as free:
        if not free:
            raise BusyError(
                "another process is at work on it", where=str(found.path), remedy="wait until it ends, then try again"
            )
        yield


def check_writable() -> None:
    """Make the folder of all environments; PrerequisiteError where nothing can be written there."""
    why: str | None = "permission denied"
    try:
        root().mkdir(parents=True, exist_ok=True)
        if os.access(root(), os.W_OK):
            return
    except OSError as error:
        why = error.strerror
    raise PrerequisiteError(
        f"cannot be written: {why}", where=str(root()), remedy="set BENCH_ENVIRONMENTS to a folder that can"
    )
