"""Plugin providers: libraries that are loaded into a stock ONNX Runtime, from installed packages or by path."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import onnxruntime as ort

from backends.onnx.failures import plain
from backends.onnx.known import PROVIDERS, SUFFIX, known
from bench.errors import PrerequisiteError

PREFIXES = ("onnxruntime_ep_", "onnxruntime_qnn", "onnxruntime_musa")
"""Modules that may offer a plugin provider: `get_library_path()`, and mostly `get_ep_name()`."""
LIBRARY_PATH = "library_path"
"""In what the runtime tells of a plugin's device: the library it comes from."""


@dataclass(frozen=True, slots=True)
class Plugin:
    """An installed package, the provider that it is to bring, and why it could not be loaded, where it could not."""

    module: str
    provider: str
    problem: str | None = None


_installed: dict[str, Plugin] = {}
_libraries: set[str] = set()
"""Paths of those that were registered by it."""


def entries() -> list[Any]:
    """The runtime's pairs of a provider and a device; empty for a runtime that has no such list."""
    told = getattr(ort, "get_ep_devices", None)
    return list(told()) if told else []


def present() -> set[str]:
    """Names of all providers that can be asked for, plugins of installed packages included."""
    register_installed()
    return set(ort.get_available_providers()) | {entry.ep_name for entry in entries()}


def register_installed() -> Mapping[str, Plugin]:
    """All installed packages with a plugin, made known to the runtime once a process; a broken one hides no other."""
    for module in pkgutil.iter_modules():
        if module.name.startswith(PREFIXES) and module.name not in _installed:
            _installed[module.name] = _register(module.name)
    return _installed


def register_library(path: str, provider: str) -> None:
    """Make the plugin in the library `path` known to the runtime as `provider`; PrerequisiteError where it is none."""
    where = "option plugin"
    if not Path(path).is_file():
        raise PrerequisiteError(f"there is no file {path}", where=where, remedy="give the path of the plugin's library")
    if path in _libraries:
        return
    taken = any(plugin.provider == provider and not plugin.problem for plugin in _installed.values())
    try:  # under the provider's name if that is free: some libraries call their provider by it
        ort.register_execution_provider_library(path if taken else provider, path)
    except Exception as error:  # whatever a vendor's library raises
        text = plain(error)
        cause = "it exports no CreateEpFactories: it is no plugin" if "CreateEpFactories" in text else text
        raise PrerequisiteError(
            f"{path} cannot be loaded as a plugin",
            where=where,
            cause=cause,
            remedy="give the path of a library built for this version of ONNX Runtime, with its own libraries in reach",
        ) from error
    _libraries.add(path)


def of_library(path: str) -> list[Any]:
    """What the runtime lists of the plugin in the library `path`."""
    return [entry for entry in entries() if path_of(entry) == path]


def unusable() -> dict[str, str]:
    """Providers of installed plugins that cannot be asked for, each with the reason."""
    listed = {entry.ep_name for entry in entries()}
    found = {}
    for plugin in register_installed().values():
        if plugin.problem:
            found[plugin.provider] = f"{plugin.module} is broken: {plugin.problem}"
        elif plugin.provider not in listed and plugin.provider not in ort.get_available_providers():
            found[plugin.provider] = without_device(plugin.module, plugin.provider)
    return found


def without_device(source: str, provider: str) -> str:
    """What to say of a plugin that is loaded and lists no device."""
    likely = known(provider).no_device
    return f"{source} is there and offers no device here" + (f": {likely}" if likely else "")


def path_of(entry: Any) -> str | None:
    """The library that an entry comes from, where the runtime tells it."""
    return _told(entry).get(LIBRARY_PATH)


def version_of(entry: Any) -> str | None:
    """Version of the plugin that an entry comes from, as it tells it."""
    told = _told(entry).get("version")
    return str(told) if told else None


def versions() -> dict[str, str]:
    """Versions of the installed packages with a plugin that could be loaded."""
    return {
        (name := plugin.module.replace("_", "-")): metadata.version(name)
        for plugin in register_installed().values()
        if not plugin.problem and _is_distribution(plugin.module.replace("_", "-"))
    }


def _is_distribution(name: str) -> bool:
    try:
        metadata.version(name)
    except metadata.PackageNotFoundError:
        return False
    return True


def _register(module: str) -> Plugin:
    named = next((each.name for each in PROVIDERS.values() if each.module == module), None)
    provider = named or module.rpartition("_")[2] + SUFFIX
    try:
        plugin = importlib.import_module(module)
        provider = plugin.get_ep_name() if hasattr(plugin, "get_ep_name") else provider
        ort.register_execution_provider_library(provider, plugin.get_library_path())
    except Exception as error:  # whatever a vendor's package raises
        return Plugin(module, provider, f"{type(error).__name__}: {plain(error)}")
    return Plugin(module, provider)


def _told(entry: Any) -> Mapping[str, str]:
    return getattr(entry, "ep_metadata", None) or {}
