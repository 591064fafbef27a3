"""Which backends there are, and how to import one. Listing loads nothing.

The entry-point group `bench.backends` decides: this project's own in pyproject.toml, other packages' in theirs. An
adapter under development needs none: `module:Attribute` is a name too.
"""

from __future__ import annotations

import sys
from importlib import import_module, metadata
from pathlib import Path
from typing import Any, cast

from bench.api import Backend
from bench.errors import PrerequisiteError, UsageError, unknown_name

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ENTRY_POINTS = "bench.backends"
DISTRIBUTION = "evenbench"


def names() -> tuple[str, ...]:
    """Names of all registered backends, sorted; imports none of them."""
    return tuple(sorted(_targets()))


def target(name: str) -> str:
    """`module:Attribute` of a backend, for a worker that imports by path; UsageError for an unknown name.

    Refuses a name that two packages register differently, and lists both.
    """
    if ":" in name:
        module, _, attribute = name.partition(":")
        if not all(part.isidentifier() for part in [*module.split("."), attribute]):
            raise UsageError(f"{name!r} names no adapter", remedy="write package.module:Class")
        return name
    registered = _targets()
    if name not in registered:
        raise unknown_name("backend", name, registered, remedy="`bench list backends` shows all")
    claims = registered[name]
    if len(claims) > 1:
        both = " and ".join(f"{value} from {package}" for value, package in sorted(claims.items()))
        raise UsageError(f"backend {name!r} is registered twice", cause=both, remedy="uninstall one of the two")
    return next(iter(claims))


def load(name: str) -> Backend:
    """The adapter of a backend; importing it loads no runtime.

    PrerequisiteError where its module cannot be imported, UsageError where what it names is no adapter of that name.
    """
    path = target(name)
    module, _, attribute = path.partition(":")
    try:
        found: Any = getattr(import_module(module), attribute)
    except ImportError as error:
        raise PrerequisiteError(f"backend {name!r} cannot be imported", where=path, cause=str(error)) from error
    except AttributeError as error:
        raise UsageError(f"module {module} has no {attribute!r}", where=f"backend {name!r}") from error
    backend = found() if isinstance(found, type) else found
    own_name = getattr(backend, "name", None)
    if not isinstance(own_name, str) or not own_name:
        raise UsageError("is no adapter", where=path, cause="it has no name; bench.api.Backend says what it needs")
    if ":" not in name and own_name != name:
        raise UsageError(
            f"registered as {name!r} but calls itself {own_name!r}", where=path, remedy="make the two names equal"
        )
    return cast(Backend, backend)


def _targets() -> dict[str, dict[str, str]]:
    """name -> {`module:Attribute`: package that registers it}."""
    found: dict[str, dict[str, str]] = {}
    packages = set()
    for entry in metadata.entry_points(group=ENTRY_POINTS):
        package = entry.dist.name if entry.dist else "unknown package"
        packages.add(package)
        found.setdefault(entry.name, {}).setdefault(entry.value.replace(" ", ""), package)
    if DISTRIBUTION not in packages:
        for name, path in _own().items():
            found.setdefault(name, {}).setdefault(path, DISTRIBUTION)
    return found


def _own() -> dict[str, str]:
    """This project's entry points where it is imported from a checkout without being installed."""
    pyproject = Path(__file__).parents[1] / "pyproject.toml"
    if not pyproject.is_file():
        return {}
    project = tomllib.loads(pyproject.read_text(encoding="utf-8")).get("project", {})
    return cast("dict[str, str]", project.get("entry-points", {}).get(ENTRY_POINTS, {}))
