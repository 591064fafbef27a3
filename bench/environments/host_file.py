"""The host file: how this machine executes the workers of a backend. TOML, written by hand.

    meter = ["/usr/local/bin/wall-plug", "--watts"]

    [backends.NAME]
    command = ["docker", "run", "--rm", "-i", "--cidfile", "{cidfile}", "-v", "/data/bench:/bench", "IMAGE"]
    python = "python3"
    environment = { LD_LIBRARY_PATH = "/opt/vendor/lib" }
    paths = { "/data/bench" = "/bench" }

`meter` is a command that prints watts, a number a line, as long as it lives. The file is named by `--host` or
$BENCH_HOST, else it is `host.toml` in the user's configuration folder; what executes code is never taken from the
working folder.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec
import platformdirs

from bench import registry
from bench.environments.interpreter import CIDFILE, Interpreter
from bench.errors import UsageError, unknown_name
from bench.toml_file import line_of, read_toml

REMEDY = "docs/environments.md shows a host file"
METER = "meter"


class Entry(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`[backends.NAME]` as written."""

    command: list[str] = []
    python: str | None = None
    environment: dict[str, str] = {}
    paths: dict[str, str] = {}


def locate_host_file(flag: Path | None = None) -> Path | None:
    """`flag`, $BENCH_HOST, or the user's host.toml if there is one; None where there is none."""
    if named := flag or os.environ.get("BENCH_HOST"):
        return Path(named).expanduser().absolute()
    users = platformdirs.user_config_path("evenbench") / "host.toml"
    return users if users.is_file() else None


def read_host_file(path: Path | None) -> dict[str, Interpreter]:
    """Interpreters by backend, as registered or `module:Attribute`; UsageError with file, line and key."""
    if path is None:
        return {}
    text, tables = read_toml(path, remedy=REMEDY)
    _known_keys(path, text, "", tables, ["backends", METER])
    backends = tables.get("backends", {})
    if not isinstance(backends, dict):
        raise UsageError("`backends` is no table", where=str(path), remedy=REMEDY)
    known = registry.names()
    return {name: _interpreter(path, text, name, table, known) for name, table in backends.items()}


def read_meter(path: Path | None) -> tuple[str, ...]:
    """The command of the external meter; empty where the file, or None, names none. UsageError with file and line."""
    if path is None:
        return ()
    text, tables = read_toml(path, remedy=REMEDY)
    told = tables.get(METER, [])
    if not isinstance(told, list) or not all(isinstance(word, str) and word for word in told):
        where = _where(path, text, "", METER)
        raise UsageError("is no list of words", where=where, cause='as in ["sh", "-c", "…"]', remedy=REMEDY)
    return tuple(told)


def _interpreter(path: Path, text: str, name: str, table: Any, known: tuple[str, ...]) -> Interpreter:
    where = _where(path, text, f"backends.{name}")
    if name not in known and ":" not in name:
        error = unknown_name("backend", name, known)
        raise UsageError(error.what, where=where, cause=error.cause, remedy="`bench list backends` shows all")
    if not isinstance(table, dict):
        raise UsageError("is no table", where=where, remedy=REMEDY)
    fields = [field.name for field in msgspec.structs.fields(Entry)]
    _known_keys(path, text, f"backends.{name}", table, fields)
    try:
        entry = msgspec.convert(table, Entry)
    except msgspec.ValidationError as error:
        at = re.search(r"`\$\.(\w+)", str(error))
        where = _where(path, text, f"backends.{name}", at[1] if at else None)
        raise UsageError(str(error), where=where, remedy=REMEDY) from error
    for key, problem in _problems(entry):
        raise UsageError(problem, where=_where(path, text, f"backends.{name}", key), remedy=REMEDY)
    python = entry.python or ("python3" if entry.command else sys.executable)
    return Interpreter(
        python=python if entry.command else str(Path(python).expanduser()),
        origin="host file",
        prefix=tuple(entry.command),
        environment=entry.environment,
        paths={os.path.normpath(Path(here).expanduser()): inside for here, inside in entry.paths.items()},
        remedy=f"correct it in {where}",
    )


def _problems(entry: Entry) -> list[tuple[str, str]]:
    """(key, what is wrong) of what has the right types and cannot work."""
    found = []
    if any(CIDFILE in word for word in entry.command) and "run" not in entry.command[1:]:
        found.append(("command", f"{CIDFILE} stands in a command without `run`: the engine that ends it is not told"))
    found += [
        ("environment", f"{name!r} is no name of a variable")
        for name in entry.environment
        if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name)
    ]
    found += [
        ("paths", f"{folder!r} is not absolute")
        for folder in [*(os.path.expanduser(here) for here in entry.paths), *entry.paths.values()]  # noqa: PTH111 (text)
        if not Path(folder).is_absolute()
    ]
    return found


def _known_keys(path: Path, text: str, table: str, found: Mapping[str, Any], known: list[str]) -> None:
    for key in found:
        if key not in known:
            error = unknown_name("key", key, known)
            cause = f"known: {', '.join(known)}"
            raise UsageError(error.what, where=_where(path, text, table, key), cause=cause, remedy=REMEDY)


def _where(path: Path, text: str, table: str, key: str | None = None) -> str:
    """`FILE:LINE: [table] key`, without the line where it is written in another way."""
    line = line_of(text, table, key) if table else line_of(text, key or "", None)
    named = " ".join(part for part in (f"[{table}]" if table else "", key or "") if part)
    return f"{path}:{line}: {named}" if line else f"{path}: {named}"
