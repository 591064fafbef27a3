"""Execution providers and devices: which are present, and session options that ask for one of them by name.

Nothing here falls back: a provider or device that is not there is a PrerequisiteError.
"""

from __future__ import annotations

import importlib
import os
import pkgutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import onnxruntime as ort

from backends.onnx.packages import CPU, package_of
from bench.errors import PrerequisiteError, UsageError
from bench.types import Case, Device

PLUGIN_PREFIXES = ("onnxruntime_ep_", "onnxruntime_qnn", "onnxruntime_musa")
"""Modules that may offer a plugin provider: `get_library_path()`, and mostly `get_ep_name()`."""

LOG_ERRORS = 3
RENAMING = ["MatMulAddFusion"]
"""Optimizers that make other nodes of products before these are given to a provider: the names tell what was given."""
LEVELS = {
    "basic": ort.GraphOptimizationLevel.ORT_ENABLE_BASIC,
    "extended": ort.GraphOptimizationLevel.ORT_ENABLE_EXTENDED,
    "all": ort.GraphOptimizationLevel.ORT_ENABLE_ALL,
}

_plugins: dict[str, str | None] = {}
"""Plugin modules that were registered; a string says why one could not be."""

ort.disable_telemetry_events()


def version() -> str:
    """Version of the runtime."""
    return str(ort.__version__)


def present() -> set[str]:
    """Names of all providers that can be asked for, plugins included."""
    _register_plugins()
    return set(ort.get_available_providers()) | {device.ep_name for device in ort.get_ep_devices()}


def devices() -> tuple[Device, ...]:
    """The devices that the runtime can tell of; built-in providers of older design tell of none."""
    counts: dict[str, int] = {}
    found = []
    for entry in ort.get_ep_devices():
        index = counts[entry.ep_name] = counts.get(entry.ep_name, -1) + 1
        found.append(_device(entry, index))
    return tuple(found)


def open_session(path: Path | bytes, case: Case, dims: Mapping[str, int] | None = None) -> tuple[Any, Device]:
    """The graph in `path` on the provider and device of `case`, and that device.

    Raises PrerequisiteError where either is not there, and whatever the runtime raises while loading.
    """
    provider = case.provider or CPU
    if provider not in ort.get_available_providers() and provider not in present():
        raise _missing(provider)
    kind, index = _kind_and_index(case.device)
    entries = [entry for entry in ort.get_ep_devices() if entry.ep_name == provider]
    told = bool(entries)  # built-in providers of older design tell of no device
    entries = [entry for entry in entries if kind in (None, _kind(entry))]
    if told and index >= len(entries):
        raise _no_device(provider, case.device, len(entries))
    options = _session_options(case)
    for name, size in (dims or {}).items():
        options.add_free_dimension_override_by_name(name, size)
    if case.fidelity == "exact":
        options.add_session_config_entry("session.qdq_matmulnbits_accuracy_level", "0")
    asked: list[Any] | None = None
    if provider in ort.get_available_providers():
        asked = [provider] if provider == CPU else [(provider, {"device_id": str(index)} if case.device else {})]
    else:
        options.add_provider_for_devices([entries[index]], {})
    session = ort.InferenceSession(
        path if isinstance(path, bytes) else str(path),
        options,
        providers=asked,
        enable_fallback=0,
        disabled_optimizers=RENAMING,
    )
    if provider not in session.get_providers():
        raise PrerequisiteError(
            f"{provider} did not start", cause="its driver or a library is missing; the log says which", where=provider
        )
    device = _device(entries[index], index) if entries else Device(kind=provider, name=provider, index=index)
    return session, device


def kv_memory(session: Any) -> tuple[str, int]:
    """(device type, device index) of the memory where `session` wants its KV cache."""
    names = [value.name for value in session.get_inputs()]
    memory = session.get_input_memory_infos()[names.index("past.0.key")]
    for kind in ("cpu", "cuda", "dml", "cann", "webgpu"):
        if str(memory.name).lower().startswith(kind):
            return kind, int(memory.device_id)
    raise PrerequisiteError(
        f"no way to allocate a KV cache in {memory.name!r} memory from Python",
        cause="this provider has no device allocator here",
    )


def physical_cores() -> int:
    """Physical cores among the CPUs that this process may use; all of them where the system does not tell."""
    allowed: Callable[[int], set[int]] | None = getattr(os, "sched_getaffinity", None)
    cpus = allowed(0) if allowed else set(range(os.cpu_count() or 1))
    siblings = Path("/sys/devices/system/cpu")
    cores = set()
    for cpu in cpus:
        try:
            cores.add((siblings / f"cpu{cpu}/topology/thread_siblings_list").read_text().strip())
        except OSError:
            cores.add(str(cpu))
    return len(cores)


def _session_options(case: Case) -> Any:
    options = ort.SessionOptions()
    options.log_severity_level = LOG_ERRORS
    options.intra_op_num_threads = case.options.get("threads") or physical_cores()
    options.inter_op_num_threads = 1
    options.graph_optimization_level = LEVELS[case.options.get("graph_optimization", "all")]
    spinning = case.options.get("allow_spinning", True)
    options.add_session_config_entry("session.intra_op.allow_spinning", "1" if spinning else "0")
    options.add_session_config_entry("session.record_ep_graph_assignment_info", "1")
    return options


def _register_plugins() -> None:
    """Make installed plugin providers known to the runtime, once a process; a broken one must not hide the others."""
    for module in pkgutil.iter_modules():
        if not module.name.startswith(PLUGIN_PREFIXES) or module.name in _plugins:
            continue
        try:
            plugin = importlib.import_module(module.name)
            name = plugin.get_ep_name() if hasattr(plugin, "get_ep_name") else module.name
            ort.register_execution_provider_library(name, plugin.get_library_path())
            _plugins[module.name] = None
        except Exception as error:  # whatever a vendor's package raises; `_missing` tells it
            _plugins[module.name] = f"{type(error).__name__}: {error}"


def _kind_and_index(device: str | None) -> tuple[str | None, int]:
    """`cpu`, `1`, `gpu:1` or None as a kind, where one is named, and an index."""
    kind, _, number = (device or "0").rpartition(":")
    if number.isdecimal():
        return kind or None, int(number)
    if not kind and number.isalpha():
        return number, 0
    raise UsageError(f"device {device!r} is not understood", remedy="write an index (0) or kind and index (gpu:0)")


def _device(entry: Any, index: int) -> Device:
    kind = _kind(entry)
    name = entry.device.metadata.get("Description") or (_cpu_model() if kind == "cpu" else None)
    pci = entry.device.metadata.get("pci_bus_id")
    return Device(kind=kind, name=name or f"{entry.device.vendor} {kind}".strip(), index=index, pci=pci)


def _kind(entry: Any) -> str:
    """`cpu`, `gpu` or `npu`."""
    return str(entry.device.type).rpartition(".")[2].lower()


def _cpu_model() -> str | None:
    return cpu_info().get("model name")


def cpu_info() -> dict[str, str]:
    """The first processor's lines of /proc/cpuinfo; empty where there is none."""
    try:
        first = Path("/proc/cpuinfo").read_text().split("\n\n", 1)[0]
    except OSError:
        return {}
    return {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in first.splitlines())}


def _missing(provider: str) -> PrerequisiteError:
    package = package_of(provider)
    broken = [f"{module} is broken: {reason}" for module, reason in _plugins.items() if reason]
    return PrerequisiteError(
        f"ONNX Runtime {version()} has no {provider} here",
        cause="; ".join(["present: " + ", ".join(sorted(present())), *broken]),
        remedy=f"pip install {package}" if package else "install the vendor's build of ONNX Runtime or its plugin",
    )


def _no_device(provider: str, device: str | None, count: int) -> PrerequisiteError:
    return PrerequisiteError(
        f"{provider} has no device {device}",
        cause=f"it tells of {count}" if count else "it tells of none",
        remedy="`bench list devices` shows what is there",
    )
