"""From prepared files to a loaded graph: sessions, and one KV cache for the load group's batch and capacity."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort

from backends.onnx import graph, providers, standard_weights, weights
from backends.onnx.bindings import HOST, Bound, value_of
from backends.onnx.known import CPU
from backends.onnx.providers import KvMemory, Opened
from bench.api import Codes
from bench.facts import PATH_ROWS
from bench.types import Arch, Case, Device, Float32, LoadGroup, Prepared

STATIC = "static"


@dataclass(frozen=True, slots=True, kw_only=True)
class Loaded:
    """One model on one provider.

    `decode` executes steps of one token and, where shapes are dynamic, all others; `prompt` is its like for steps of
    `prompt_rows` tokens where they are static, else None. `prompt_rows` are the most that a step will feed, or 16.
    """

    case: Case
    arch: Arch
    notes: Mapping[str, Any]
    path: Path
    opened: Opened
    decode: Any
    prompt: Any | None
    prompt_rows: int
    caches: Mapping[str, Any]
    memory: KvMemory
    tables: tuple[Float32, Float32]

    @property
    def device(self) -> Device:
        """That the provider computes on."""
        return self.opened.device

    @property
    def where(self) -> tuple[str, int]:
        """Device and index of the caches' memory, as Python calls them."""
        return self.memory.kind, self.memory.index

    @property
    def dialect(self) -> str:
        return str(self.notes["dialect"])

    @property
    def provider(self) -> str:
        """The one that was asked for."""
        return self.case.provider or CPU

    @property
    def halved(self) -> bool:
        """Products and cache are float16 as the graph is written."""
        return any("16" in taken.type for taken in self.decode.get_inputs() if taken.name.startswith("past."))

    @property
    def capacity(self) -> int:
        return self.case.kv_capacity

    def codes(self, tensor: str) -> Codes | None:
        """A tensor of the artifact, read from the file and the places that the graph's initializers name."""
        stored, file = graph.stored_in(graph.load(self.path)), self.path.with_name(weights.WEIGHTS_FILE)
        if self.dialect == "contrib":
            return weights.read_back(stored, file, self.arch, tensor)
        beside = standard_weights.beside(self.notes)
        return standard_weights.read_back({**beside, **stored}, file, self.arch, tensor)

    def bound(self, session: Any) -> Bound:
        """What every binding of `session`, one of the two, needs."""
        return Bound(
            session=session,
            caches=self.caches,
            where=self.where,
            cos=self.tables[0],
            sin=self.tables[1],
            elsewhere=_elsewhere(session, self.where),
        )


def load(group: LoadGroup, prepared: Prepared) -> Loaded:
    """Load the graph of the group's fidelity; raises PrerequisiteError and whatever the runtime raises."""
    case = group.first
    arch = Arch.from_json(prepared.notes["arch"])
    path = Path(prepared.path) / f"{case.fidelity}.onnx"
    rows = max(PATH_ROWS, *(each.workload.most_at_once for each in group.cases))
    prompt = None
    if case.options.get("shapes") == STATIC:
        fixed = {"batch": group.batch, "capacity": group.kv_capacity}
        opened = providers.open_session(path, case, {**fixed, "n": 1, "k": 1})
        prompt = providers.open_session(path, case, {**fixed, "n": rows, "k": PATH_ROWS}).session
    else:
        opened = providers.open_session(path, case)
    memory = providers.kv_memory(opened.session)
    return Loaded(
        case=case,
        arch=arch,
        notes=prepared.notes,
        path=path,
        opened=opened,
        decode=opened.session,
        prompt=prompt,
        prompt_rows=rows,
        caches=_allocated(opened.session, group, (memory.kind, memory.index)),
        memory=memory,
        tables=_rope_tables(prepared.notes["inv_freq"], group.kv_capacity),
    )


def _allocated(session: Any, group: LoadGroup, where: tuple[str, int]) -> dict[str, Any]:
    """The caches that the graph takes, by their names in it without `past.`."""
    fixed = {"batch": group.batch, "capacity": group.kv_capacity}
    caches = {}
    for taken in session.get_inputs():
        if taken.name.startswith("past."):
            shape = [fixed.get(size, size) for size in taken.shape]
            kind = np.float16 if "16" in taken.type else np.float32
            name = taken.name.removeprefix("past.")
            if where == HOST:
                caches[name] = value_of(np.zeros(shape, kind))
            else:
                caches[name] = ort.OrtValue.ortvalue_from_shape_and_type(shape, kind, *where)
    return caches


def _elsewhere(session: Any, where: tuple[str, int]) -> frozenset[str]:
    """Inputs that a binding would copy: all that the provider does not take from where they lie."""
    found = set()
    for taken, memory in zip(session.get_inputs(), session.get_input_memory_infos(), strict=True):
        lies_on_device = taken.name.startswith("past.") and where != HOST
        if memory.name != "Cpu" and not lies_on_device:
            found.add(taken.name)
    return frozenset(found)


def _rope_tables(inv_freq: list[float], capacity: int) -> tuple[Float32, Float32]:
    """cos and sin [capacity, head_dim / 2], computed in float64: float32 angles are wrong at long contexts."""
    angles = np.arange(capacity)[:, None] * np.array(inv_freq, np.float64)
    return np.cos(angles).astype(np.float32), np.sin(angles).astype(np.float32)
