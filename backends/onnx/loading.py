"""From prepared files to a loaded graph: sessions, and one KV cache for the load group's batch and capacity."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
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

    `decode` executes steps of one token and, where shapes are dynamic, all others; `prompts` are its likes for each
    number of tokens that a step of the group's cases feeds, where they are static. `prompt_rows` are the most of them,
    or 16.
    """

    case: Case
    arch: Arch
    notes: Mapping[str, Any]
    path: Path
    opened: Opened
    prompts: Mapping[int, Any]
    prompt_rows: int
    caches: Mapping[str, Any]
    memory: KvMemory
    tables: tuple[Float32, Float32]

    @property
    def decode(self) -> Any:
        """The session of steps of one token."""
        return self.opened.session

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
        """A tensor of the artifact, read from the file and the places that the graph's initializers name.

        Where weights are float16 these are code times scale, and the scales are read from beside them.
        """
        stored, file = graph.stored_in(graph.load(self.path)), self.path.with_name(weights.WEIGHTS_FILE)
        if self.dialect == "contrib":
            return weights.read_back(stored, file, self.arch, tensor)
        beside = standard_weights.beside(self.notes)
        return standard_weights.read_back({**beside, **stored}, file, self.arch, tensor)

    def bound(self, session: Any) -> Bound:
        """What every binding of `session`, one of its own, needs."""
        return Bound(
            session=session,
            caches=self.caches,
            where=self.where,
            cos=self.tables[0],
            sin=self.tables[1],
            again=_copied(session, self.where),
        )


def load(group: LoadGroup, prepared: Prepared) -> Loaded:
    """Load the graph of the group's fidelity; raises PrerequisiteError and whatever the runtime raises."""
    case = group.first
    arch = Arch.from_json(prepared.notes["arch"])
    path = Path(prepared.path) / f"{case.fidelity}.onnx"
    sizes, prompts = _prompt_sizes(group), {}
    fixed = {"batch": group.batch, "capacity": group.kv_capacity}
    if case.options.get("shapes") == STATIC:
        opened = providers.open_session(path, case, {**fixed, "n": 1, "k": 1})
        also = {size: providers.open_session(path, case, {**fixed, "n": size, "k": PATH_ROWS}) for size in sizes}
        prompts = {size: other.session for size, other in also.items()}
        if not all(other.fallback_disabled for other in also.values()) and opened.fallback_disabled:
            opened = replace(opened, fallback_disabled=False)
    else:
        opened = providers.open_session(path, case)
    memory = providers.kv_memory(opened.session)
    return Loaded(
        case=case,
        arch=arch,
        notes=prepared.notes,
        path=path,
        opened=opened,
        prompts=prompts,
        prompt_rows=max(sizes),
        caches=_allocated(opened.session, fixed, (memory.kind, memory.index)),
        memory=memory,
        tables=_rope_tables(prepared.notes["inv_freq"], group.kv_capacity),
    )


def _prompt_sizes(group: LoadGroup) -> tuple[int, ...]:
    """Numbers of tokens above one that steps of the group's cases feed: each has a graph of its own where shapes are
    fixed, so that what a case executes does not depend on the cases beside it. One of PATH_ROWS or more is among them.
    """
    sizes = set()
    for each in group.cases:
        for tokens in (each.workload.depth, each.workload.prompt_tokens):
            sizes |= {min(each.workload.chunk, tokens), tokens % each.workload.chunk}
    several = {size for size in sizes if size > 1}
    return tuple(sorted(several if max(several, default=0) >= PATH_ROWS else several | {PATH_ROWS}))


def _allocated(session: Any, fixed: Mapping[str, int], where: tuple[str, int]) -> dict[str, Any]:
    """The caches that the graph takes, by their names in it without `past.`; `fixed` are its symbolic dimensions."""
    caches = {}
    for taken in session.get_inputs():
        if taken.name.startswith("past."):
            shape = [fixed.get(size, size) for size in taken.shape]
            kind = np.float16 if "16" in taken.type else np.float32
            name = taken.name.removeprefix("past.")
            if where == HOST:
                caches[name] = value_of(np.zeros(shape, kind))
            else:
                # zeros, for the standard graph multiplies with what no token has written yet, by weights of zero
                caches[name] = ort.OrtValue.ortvalue_from_numpy(np.zeros(shape, kind), *where)
    return caches


def _copied(session: Any, where: tuple[str, int]) -> frozenset[str]:
    """Inputs that a binding would copy: all that the provider does not take from where they lie."""
    found = set()
    for taken, memory in zip(session.get_inputs(), session.get_input_memory_infos(), strict=True):
        on_host = where == HOST or not taken.name.startswith("past.")
        if on_host != (memory.name == "Cpu"):
            found.add(taken.name)
    return frozenset(found)


def _rope_tables(inv_freq: list[float], capacity: int) -> tuple[Float32, Float32]:
    """cos and sin [capacity, head_dim / 2], computed in float64: float32 angles are wrong at long contexts."""
    angles = np.arange(capacity)[:, None] * np.array(inv_freq, np.float64)
    return np.cos(angles).astype(np.float32), np.sin(angles).astype(np.float32)
