"""A loaded graph and one verb: buffers bound once for each shape of step."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

import numpy as np

from backends.onnx.bindings import Binding, ContribBinding, StandardBinding
from backends.onnx.failures import translated
from backends.onnx.loading import Loaded, load
from bench.api import Codes, check_step
from bench.errors import CaseError
from bench.facts import PATH_ROWS, MemoryUse, SessionFacts
from bench.types import Float32, Int32, LoadGroup, Prepared

MOST_BINDINGS = 8
"""Shapes kept bound; a workload has three: a full chunk, its last chunk, and one token."""


class OnnxSession:
    """One model on one provider, with shapes of any length."""

    def __init__(self, group: LoadGroup, prepared: Prepared):
        self._length = 0
        self._capacity, self._batch = group.kv_capacity, group.batch
        self._facts: SessionFacts | None = None
        self._logits: Float32 | None = None
        self._bindings: dict[tuple[int, int, bool], Binding] = {}
        with _translating("open"):
            self._loaded: Loaded | None = load(group, prepared)
        self._one_logit = np.empty((self._batch, 1, self._loaded.arch.vocab), np.float32)

    def step(self, token_ids: Int32, want: Literal["last", "all"] = "last") -> Int32:
        rows, count = token_ids.shape
        bound = self._bindings.get((rows, count, want == "all"))
        if bound is None or self._length + count > self._capacity:
            bound = self._bind(rows, count, want == "all")
        self._run(bound, token_ids, self._length)
        self._length += count
        self._logits = bound.logits if want == "all" else bound.logits[:, 0]
        ids: Int32 = bound.logits[:, -1].argmax(axis=-1).astype(np.int32)
        return ids

    def logits(self) -> Float32:
        """Of the last step; a view of a buffer that the next step writes again."""
        if self._logits is None:
            raise CaseError("no step has been executed", phase="step")
        return self._logits

    def rewind(self, length: int) -> bool:
        """Always possible: what lies beyond the length in the cache counts for nothing."""
        if length > self._length:
            return False
        self._length = length
        return True

    def facts(self) -> SessionFacts:
        """Read from the graph and asked of the provider once."""
        from backends.onnx.facts import facts

        if self._facts is None:
            self._facts = facts(self._open())
        return self._facts

    def memory(self) -> list[MemoryUse]:
        """The runtime offers no allocator statistics to Python: the peak is not known."""
        loaded, held = self._open(), self.facts().resident_weight_bytes
        kv_bytes = sum(cache.tensor_size_in_bytes() for cache in loaded.caches.values())
        return [MemoryUse(device=loaded.device.kind, weights_bytes=held, kv_bytes=kv_bytes)]

    def fed(self, tensor: str) -> Codes | None:
        """Read from the file and places that the graph's initializers name."""
        return self._open().codes(tensor)

    def close(self) -> None:
        self._bindings.clear()
        self._logits = self._loaded = None

    def _open(self) -> Loaded:
        if self._loaded is None:
            raise CaseError("the session is closed", phase="step")
        return self._loaded

    def _bind(self, rows: int, count: int, all_positions: bool) -> Binding:
        """Buffers of a new shape, bound; refuses what does not fit the session."""
        loaded = self._open()
        check_step((rows, count), self._length, self._batch, self._capacity)
        if len(self._bindings) >= MOST_BINDINGS or all_positions:
            self._bindings.clear()  # logits of all positions are large: one such buffer at a time
        heads, logits = 1, self._one_logit[:rows]
        if all_positions:
            heads, logits = count, np.empty((rows, count, loaded.arch.vocab), np.float32)
        kind = ContribBinding if loaded.dialect == "contrib" else StandardBinding
        with _translating("step"):
            bound = kind(loaded.bound(loaded.decode), rows, count, heads, logits)
        self._bindings[rows, count, all_positions] = bound
        return bound

    def _run(self, bound: Binding, token_ids: Int32, start: int) -> None:
        try:
            bound.run(token_ids, start)
        except Exception as error:
            raise translated(error, "step") from error


class StaticSession(OnnxSession):
    """The same with fixed shapes: one token, or as many as a step of the group's cases feeds.

    Steps of another number take the next larger graph and repeat their last token to fill it up: a repeated token
    writes the same key and value into the same slot once more. A prompt's graph gives logits of PATH_ROWS positions;
    where more are wanted it is executed again, which changes nothing in the cache.
    """

    def __init__(self, group: LoadGroup, prepared: Prepared):
        super().__init__(group, prepared)
        loaded = self._open()
        several = np.empty((self._batch, PATH_ROWS, loaded.arch.vocab), np.float32)
        shapes = {1: (loaded.decode, 1, self._one_logit)}
        shapes |= {size: (session, PATH_ROWS, several) for size, session in loaded.prompts.items()}
        with _translating("open"):
            self._shapes: dict[int, Binding] = {
                size: StandardBinding(loaded.bound(session), self._batch, size, heads, logits)
                for size, (session, heads, logits) in shapes.items()
            }

    def step(self, token_ids: Int32, want: Literal["last", "all"] = "last") -> Int32:
        self._open()
        rows, count = token_ids.shape
        check_step((rows, count), self._length, self._batch, self._capacity)
        if count == 1:
            self._run(self._shapes[1], token_ids, self._length)
            found = self._shapes[1].logits[:rows]
        else:
            most = max(self._shapes)
            pieces = [
                self._prompt(token_ids[:, start : start + most], self._length + start, want == "all")
                for start in range(0, count, most)
            ]
            found = np.concatenate(pieces, axis=1) if want == "all" else pieces[-1]
        self._length += count
        self._logits = found if want == "all" else found[:, -1]
        ids: Int32 = found[:, -1].argmax(axis=-1).astype(np.int32)
        return ids

    def close(self) -> None:
        super().close()
        self._shapes = {}

    def _prompt(self, token_ids: Int32, start: int, all_positions: bool) -> Float32:
        """Logits [rows, n or 1, vocab] of the tokens of one execution."""
        rows, count = token_ids.shape
        bound = self._shapes[min(size for size in self._shapes if size >= max(count, 2))]
        parts = []
        for first in range(0, count, PATH_ROWS) if all_positions else [count - 1]:
            positions = np.arange(first, min(count, first + PATH_ROWS))
            bound.head_positions.fill(count - 1)
            bound.head_positions[: len(positions)] = positions
            self._run(bound, token_ids, start)
            parts.append(bound.logits[:rows, : len(positions)])
            if all_positions:
                parts[-1] = parts[-1].copy()  # the next execution writes over it
        return np.concatenate(parts, axis=1) if all_positions else parts[0]


@contextmanager
def _translating(phase: str) -> Iterator[None]:
    """What the runtime raises meanwhile becomes an error of ours."""
    try:
        yield
    except Exception as error:
        raise translated(error, phase) from error
