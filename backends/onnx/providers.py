"""Execution providers and devices: which are present, and sessions on one of them by name.

Nothing here falls back: a provider or device that is not there is a PrerequisiteError. Nodes that a provider leaves to
the CPU are no reason to refuse: which they are is read from the session afterwards.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort

from backends.onnx import absent, asking, plugins
from backends.onnx.failures import plain, refused
from backends.onnx.known import CPU, known
from bench.errors import PrerequisiteError, UsageError
from bench.facts import Evidence
from bench.types import Case, Device

LOG_ERRORS, LOG_FATAL = 3, 4
LEVELS = {
    "basic": ort.GraphOptimizationLevel.ORT_ENABLE_BASIC,
    "extended": ort.GraphOptimizationLevel.ORT_ENABLE_EXTENDED,
    "all": ort.GraphOptimizationLevel.ORT_ENABLE_ALL,
}
RENAMING = ["MatMulAddFusion"]
"""Optimizers that make other nodes of products before these are given to a provider: the names tell what was given."""
NO_FALLBACK = "session.disable_cpu_ep_fallback"
LEFT_TO_CPU = "fallback to CPU EP has been explicitly disabled"
"""In what the runtime says where a session is refused because a provider does not take every node."""
MEMORY_KINDS = ("cuda", "dml", "cann", "webgpu")
"""Of the memories that Python can allocate in, as the runtime's names of them begin."""

ort.disable_telemetry_events()


@dataclass(frozen=True, slots=True, kw_only=True)
class Opened:
    """A session, the device it is on, and how it was asked for.

    `options` are those that the provider was given, `config` entries of the session for it. `fallback_disabled`: the
    runtime itself vouches that no node is on the CPU; False where it had to be created with fallback, None on the CPU.
    `plugin` is its library and version.
    """

    session: Any
    device: Device
    options: Mapping[str, str]
    config: Mapping[str, str]
    fallback_disabled: bool | None = None
    plugin: str | None = None

    @property
    def evidence(self) -> tuple[Evidence, ...]:
        """What a record tells of it."""
        told = []
        if self.fallback_disabled:
            told.append((NO_FALLBACK, "created with it: no node is on the CPU"))
        elif self.fallback_disabled is not None:
            told.append((NO_FALLBACK, "refused with it, for nodes stay on the CPU; created without"))
        if self.options:
            told.append(("options of the provider", _pairs(self.options)))
        if self.config:
            told.append(("SessionOptions.add_session_config_entry", _pairs(self.config)))
        if self.plugin:
            told.append(("plugin", self.plugin))
        return tuple(Evidence(source=source, claim=claim) for source, claim in told)


@dataclass(frozen=True, slots=True, kw_only=True)
class KvMemory:
    """Where a KV cache can be bound: `kind` and `index` as Python calls a device, and what a record tells of it."""

    kind: str
    index: int
    told: str


def version() -> str:
    """Version of the runtime."""
    return str(ort.__version__)


def devices(only: str | None = None) -> tuple[Device, ...]:
    """The devices that the runtime can tell of, or those of one provider; one of older design tells of none."""
    counts: Counter[str] = Counter()
    found = []
    for entry in plugins.entries():
        if only in (None, entry.ep_name):
            found.append(_device(entry, counts[entry.ep_name]))
            counts[entry.ep_name] += 1
    return tuple(found)


def open_session(graph: Path | bytes, case: Case, dims: Mapping[str, int] | None = None) -> Opened:
    """The graph in a file, or serialized, on the provider and device of `case`, its symbolic `dims` fixed.

    Raises PrerequisiteError where either is not there, UsageError for a device that no provider could have, CaseError
    where the provider refuses its options or the graph, and whatever else the runtime raises while loading.
    """
    provider = case.provider or CPU
    library = case.options.get("plugin")
    kind, index = asking.kind_and_index(case.device)
    entries = _entries(provider, library)
    here = [entry for entry in entries if kind in (None, _kind(entry))]
    one = known(provider).lists_one and len(entries) == 1
    if entries and not one and index >= len(here):
        raise absent.device(provider, case.device, len(here))
    entry = entries[0] if one else here[index] if entries else None
    # once it is registered a plugin is listed among the built-in ones too, and asked as one of them it is passed over
    as_plugin = entry is not None and bool(library or plugins.path_of(entry))
    given = asking.provider_options(provider, case, listed=entry is not None and not one, threads=_threads(case))
    config = dict(known(provider).exact_config) if case.fidelity == "exact" else {}

    def created(without_fallback: bool) -> Any:
        options = _session_options(case, config, dims or {}, without_fallback)
        asked: list[Any] | None = None
        if as_plugin:
            options.add_provider_for_devices([entry], given)
        else:
            asked = [(provider, given)] if given else [provider]
        source = graph if isinstance(graph, bytes) else str(graph)
        return ort.InferenceSession(source, options, providers=asked, enable_fallback=0, disabled_optimizers=RENAMING)

    session, disabled = _created(created, provider, given)
    if provider not in session.get_providers():
        raise PrerequisiteError(
            f"{provider} did not start",
            cause="its driver or a library is missing; the log says which",
            where=graph.name if isinstance(graph, Path) else None,
        )
    number = int(given["device_id"]) if given.get("device_id", "").isdecimal() else index
    return Opened(
        session=session,
        device=_device(entry, number) if entry is not None else Device(kind=provider, name=provider, index=number),
        options=given,
        config=config,
        fallback_disabled=disabled,
        plugin=_plugin(entry, library) if as_plugin else None,
    )


def kv_memory(session: Any) -> KvMemory:
    """The provider's own memory where the session wants its KV cache there and Python can allocate in it; else host
    buffers, which the runtime copies from and to if it must.
    """
    names = [value.name for value in session.get_inputs()]
    memory = session.get_input_memory_infos()[names.index("past.0.key")]
    name, index = str(memory.name), int(memory.device_id)
    if name.lower() == "cpu":
        return KvMemory(kind="cpu", index=0, told="host buffers, which are the provider's own memory")
    for kind in MEMORY_KINDS:
        if not name.lower().startswith(kind):
            continue
        try:
            ort.OrtValue.ortvalue_from_shape_and_type((1,), np.float32, kind, index)
        except Exception as error:  # this build of the Python package has no allocator for it
            return KvMemory(
                kind="cpu", index=0, told=f"host buffers: none can be made in {name} memory: {plain(error)}"
            )
        return KvMemory(kind=kind, index=index, told=f"buffers in {name} memory of device {index}")
    return KvMemory(kind="cpu", index=0, told=f"host buffers: Python has no name for {name} memory")


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


def cpu_info() -> dict[str, str]:
    """The first processor's lines of /proc/cpuinfo; empty where there is none."""
    try:
        first = Path("/proc/cpuinfo").read_text().split("\n\n", 1)[0]
    except OSError:
        return {}
    return {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in first.splitlines())}


def _created(created: Callable[[bool], Any], provider: str, given: Mapping[str, str]) -> tuple[Any, bool | None]:
    """A session, without fallback to the CPU where the provider takes every node, and which of the two it is."""
    try:
        if provider == CPU:
            return created(False), None  # alone it fails with fallback disabled, always
        try:
            return created(True), True
        except Exception as error:
            if LEFT_TO_CPU not in str(error):
                raise
        return created(False), False
    except Exception as error:
        raise refused(error, provider, given) from error


def _threads(case: Case) -> int:
    return int(case.options.get("threads") or physical_cores())


def _session_options(case: Case, config: Mapping[str, str], dims: Mapping[str, int], without_fallback: bool) -> Any:
    options = ort.SessionOptions()
    options.log_severity_level = LOG_FATAL if without_fallback else LOG_ERRORS  # what is tried first may be refused
    options.intra_op_num_threads = _threads(case)
    options.inter_op_num_threads = 1
    options.graph_optimization_level = LEVELS[case.options.get("graph_optimization", "all")]
    spinning = case.options.get("allow_spinning", True)
    options.add_session_config_entry("session.intra_op.allow_spinning", "1" if spinning else "0")
    options.add_session_config_entry("session.record_ep_graph_assignment_info", "1")
    if without_fallback:
        options.add_session_config_entry(NO_FALLBACK, "1")
    for name, value in config.items():
        options.add_session_config_entry(name, value)
    for name, size in dims.items():
        options.add_free_dimension_override_by_name(name, size)
    return options


def _entries(provider: str, library: str | None) -> list[Any]:
    """What the runtime lists of `provider`; empty for one of older design, PrerequisiteError where it is not there."""
    if library is not None and provider == CPU:
        raise UsageError(
            "is given without a provider", where="option plugin", remedy="--provider NAME says whose it is"
        )
    if library is None:
        if provider not in ort.get_available_providers() and provider not in plugins.present():
            raise absent.provider(provider)
        return [entry for entry in plugins.entries() if entry.ep_name == provider]
    plugins.register_library(library, provider)
    listed = plugins.of_library(library)
    found = [entry for entry in listed if entry.ep_name == provider]
    if found:
        return found
    raise absent.from_library(library, provider, {entry.ep_name for entry in listed})


def _kind(entry: Any) -> str:
    """`cpu`, `gpu`, `npu`, or what the provider's devices are where the runtime calls them by another's kind."""
    told = known(entry.ep_name).kind
    return told or str(getattr(entry.device, "type", "unknown")).rpartition(".")[2].lower()


def _device(entry: Any, index: int) -> Device:
    kind = _kind(entry)
    told: Mapping[str, str] = getattr(entry.device, "metadata", None) or {}
    name = told.get("Description") or (cpu_info().get("model name") if kind == "cpu" else None)
    vendor = getattr(entry, "ep_vendor", "") if known(entry.ep_name).kind else getattr(entry.device, "vendor", "")
    return Device(kind=kind, name=name or f"{vendor} {kind}".strip(), index=index, pci=told.get("pci_bus_id"))


def _plugin(entry: Any, library: str | None) -> str:
    path = library or plugins.path_of(entry)
    name = Path(path).name if path else entry.ep_name
    return " ".join(filter(None, (name, plugins.version_of(entry))))


def _pairs(options: Mapping[str, str]) -> str:
    return ", ".join(f"{name}={value}" for name, value in sorted(options.items()))
