"""A loaded graph with its KV cache: buffers bound once, one verb."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import onnxruntime as ort

from backends.onnx import providers
from backends.onnx.failures import translated
from backends.onnx.known import CPU
from bench.api import Codes, check_step
from bench.errors import CaseError
from bench.facts import Evidence, MemoryUse, SessionFacts
from bench.types import Arch, Float32, Int32, LoadGroup, Prepared

MOST_BINDINGS = 8
"""Shapes kept bound; a workload has three: a full chunk, its last chunk, and one token."""


class OnnxSession:
    """One model on one provider. Its KV cache is float32, allocated once for the load group's batch and capacity."""

    def __init__(self, group: LoadGroup, prepared: Prepared):
        self._bindings: dict[tuple[int, int, bool], _Binding] = {}
        self._last: _Binding | None = None
        self._length = 0
        self._capacity, self._batch = group.kv_capacity, group.batch
        self._arch = Arch.from_json(prepared.notes["arch"])
        self._path = Path(prepared.path) / f"{group.first.fidelity}.onnx"
        self._asked = group.first.provider or CPU
        try:
            opened = providers.open_session(self._path, group.first)
            self._session, self._device, self._told = opened.session, opened.device, opened.evidence
            self._kv_memory = providers.kv_memory(self._session)
            self._where = (self._kv_memory.kind, self._kv_memory.index)
            self._caches = self._allocated()
        except Exception as error:
            raise translated(error, "open") from error
        self._rope = [_value(table) for table in _rope_tables(prepared.notes["inv_freq"], self._capacity)]
        self._one_logit = np.empty((self._batch, 1, self._arch.vocab), np.float32)

    def step(self, token_ids: Int32, want: Literal["last", "all"] = "last") -> Int32:
        rows, count = token_ids.shape
        total = self._length + count
        bound = self._bindings.get((rows, count, want == "all"))
        if bound is None or total > self._capacity:
            bound = self._bind(rows, count, want == "all")
        bound.ids[...] = token_ids
        bound.last_key.fill(total - 1)
        bound.key_count.fill(total)
        try:
            self._session.run_with_iobinding(bound.io)
        except Exception as error:
            raise translated(error, "step") from error
        self._length = total
        self._last = bound
        ids: Int32 = bound.logits[:, -1].argmax(axis=-1).astype(np.int32)
        return ids

    def logits(self) -> Float32:
        """Of the last step; a view of a buffer that the next step writes again."""
        if self._last is None:
            raise CaseError("no step has been executed", phase="step")
        return self._last.logits if self._last.all_positions else self._last.logits[:, 0]

    def rewind(self, length: int) -> bool:
        """Always possible: what lies beyond the length in the cache is never read."""
        if length > self._length:
            return False
        self._length = length
        return True

    def facts(self) -> SessionFacts:
        from backends.onnx.facts import facts

        found = facts(self._session, self._path, self._asked, self._device, self._arch, self._where[0])
        kept = Evidence(source="InferenceSession.get_input_memory_infos", claim=self._kv_memory.told)
        return replace(found, evidence=(*found.evidence, *self._told, kept))

    def memory(self) -> list[MemoryUse]:
        """The runtime offers no allocator statistics to Python: the peak is not known."""
        kv_bytes = sum(cache.tensor_size_in_bytes() for cache in self._caches.values())
        return [
            MemoryUse(device=self._device.kind, weights_bytes=self.facts().resident_weight_bytes, kv_bytes=kv_bytes)
        ]

    def fed(self, tensor: str) -> Codes | None:
        """Read from the file and places that the graph's initializers name."""
        from backends.onnx import graph, weights

        stored = graph.stored_in(graph.load(self._path))
        return weights.read_back(stored, self._path.with_name(weights.WEIGHTS_FILE), self._arch, tensor)

    def close(self) -> None:
        self._bindings.clear()
        self._caches = {}
        self._last = self._session = None

    def _allocated(self) -> dict[str, Any]:
        shape = (self._batch, self._arch.kv_heads, self._capacity, self._arch.head_dim)
        names = [f"{layer}.{kind}" for layer in range(self._arch.layers) for kind in ("key", "value")]
        if self._where[0] == "cpu":
            return {name: _value(np.zeros(shape, np.float32)) for name in names}
        return {name: ort.OrtValue.ortvalue_from_shape_and_type(shape, np.float32, *self._where) for name in names}

    def _bind(self, rows: int, count: int, all_positions: bool) -> _Binding:
        """Buffers of a new shape, bound; refuses what does not fit the session."""
        if self._session is None:
            raise CaseError("the session is closed", phase="step")
        check_step((rows, count), self._length, self._batch, self._capacity)
        if len(self._bindings) >= MOST_BINDINGS or all_positions:
            self._bindings.clear()  # logits of all positions are large: one such buffer at a time
        bound = self._bindings[rows, count, all_positions] = _Binding(self, rows, count, all_positions)
        return bound


class _Binding:
    """Host buffers of one shape and the caches' leading rows, bound for good."""

    def __init__(self, session: OnnxSession, rows: int, count: int, all_positions: bool):
        self.all_positions = all_positions
        self.ids: Int32 = np.empty((rows, count), np.int32)
        self.last_key: Int32 = np.empty(rows, np.int32)
        self.key_count: Int32 = np.empty((), np.int32)
        positions = np.arange(count) if all_positions else np.array([count - 1])
        vocab = session._arch.vocab
        self.logits: Float32 = (
            np.empty((rows, count, vocab), np.float32) if all_positions else session._one_logit[:rows]
        )
        self.io = session._session.io_binding()
        inputs: dict[str, npt.NDArray[Any]] = {
            "input_ids": self.ids,
            "last_key": self.last_key,
            "key_count": self.key_count,
            "head_positions": positions.astype(np.int64),
        }
        self._values = [_value(array) for array in inputs.values()]  # a binding need not keep what it is given alive
        for name, value in zip(inputs, self._values, strict=True):
            self.io.bind_ortvalue_input(name, value)
        for name, table in zip(("cos", "sin"), session._rope, strict=True):
            self.io.bind_ortvalue_input(name, table)
        self.io.bind_ortvalue_output("logits", _value(self.logits))
        for name, cache in session._caches.items():
            self._bind_cache(name, cache, rows, session._where)

    def _bind_cache(self, name: str, cache: Any, rows: int, where: tuple[str, int]) -> None:
        """Past and present are the same buffer, so a step writes its keys in place and copies nothing."""
        shape = (rows, *cache.shape()[1:])
        if shape == tuple(cache.shape()):
            self.io.bind_ortvalue_input(f"past.{name}", cache)
            self.io.bind_ortvalue_output(f"present.{name}", cache)
            return
        self.io.bind_input(f"past.{name}", *where, np.float32, shape, cache.data_ptr())
        self.io.bind_output(f"present.{name}", *where, np.float32, shape, cache.data_ptr())


def _value(array: npt.NDArray[Any]) -> Any:
    """`array` as the runtime's value over the same host memory."""
    return ort.OrtValue.ortvalue_from_numpy(array)


def _rope_tables(inv_freq: list[float], capacity: int) -> tuple[Float32, Float32]:
    """cos and sin [capacity, head_dim / 2], computed in float64: float32 angles are wrong at long contexts."""
    angles = np.arange(capacity)[:, None] * np.array(inv_freq, np.float64)
    return np.cos(angles).astype(np.float32), np.sin(angles).astype(np.float32)
