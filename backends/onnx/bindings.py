"""Buffers of one shape, bound to a session for good: what a step writes into them before it is executed.

A binding copies an input that lies in another memory than its provider wants at the moment it is bound; such inputs are
bound again before every step.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import onnxruntime as ort

from backends.onnx.standard import BLIND
from bench.types import Float32, Int32

HOST = ("cpu", 0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Bound:
    """What all bindings of a session share: the loaded graph, its caches and where they lie, the angles by position.

    `caches` are values [batch, …] by their names in the graph without `past.` and `present.`; `cos` and `sin` float32
    [capacity, head_dim / 2]; `again` names the inputs that a binding copies, for they lie elsewhere than is wanted.
    """

    session: Any
    caches: Mapping[str, Any]
    where: tuple[str, int]
    cos: Float32
    sin: Float32
    again: frozenset[str]


class Binding(ABC):
    """A step of `rows` rows of `count` tokens that gives logits of `heads` positions a row, into `logits`."""

    def __init__(self, bound: Bound, rows: int, count: int, heads: int, logits: Float32):
        self.rows, self.count, self.logits = rows, count, logits
        self._session, self._io = bound.session, bound.session.io_binding()
        self.ids: Int32 = np.zeros((rows, count), np.int32)
        self.head_positions = np.arange(count - heads, count)
        self._again: dict[str, Any] = {}
        self._values: list[Any] = []  # a binding need not keep what it is given alive
        inputs: dict[str, npt.NDArray[Any]] = {
            "input_ids": self.ids,
            "head_positions": self.head_positions,
            **self.inputs(bound),
        }
        for name, array in inputs.items():
            self._bind(name, value_of(array), bound)
        self._io.bind_ortvalue_output("logits", value_of(logits))
        for name, cache in bound.caches.items():
            self._bind_cache(name, cache, bound)

    constant: frozenset[str] = frozenset()
    """Inputs that no step changes."""

    @abstractmethod
    def inputs(self, bound: Bound) -> dict[str, npt.NDArray[Any]]:
        """The dialect's own inputs, of which `place` writes all but the constant ones."""

    @abstractmethod
    def place(self, start: int, count: int) -> None:
        """`count` tokens follow on `start` in the cache; where the binding takes more the last one repeats."""

    def run(self, token_ids: Int32, start: int) -> None:
        """Append `token_ids` [rows, n]; fewer rows or tokens than the binding has are filled up with the last ones."""
        rows, count = token_ids.shape
        if (rows, count) == self.ids.shape:
            self.ids[...] = token_ids
        else:
            self.ids[...] = token_ids[np.minimum(np.arange(self.rows), rows - 1)][
                :, np.minimum(np.arange(self.count), count - 1)
            ]
        self.place(start, count)
        for name, value in self._again.items():
            self._io.bind_ortvalue_input(name, value)
        self._session.run_with_iobinding(self._io)

    def _bind(self, name: str, value: Any, bound: Bound) -> None:
        self._values.append(value)
        self._io.bind_ortvalue_input(name, value)
        if name in bound.again and name not in self.constant:
            self._again[name] = value

    def _bind_cache(self, name: str, cache: Any, bound: Bound) -> None:
        """Past and present are the same buffer, so a step writes its keys in place and copies nothing."""
        shape = (self.rows, *cache.shape()[1:])
        if shape == tuple(cache.shape()):
            self._bind(f"past.{name}", cache, bound)
            self._io.bind_ortvalue_output(f"present.{name}", cache)
            return
        kind = np.float16 if "16" in cache.data_type() else np.float32
        if f"past.{name}" in bound.again and bound.where == HOST:
            part = value_of(cache.numpy()[: self.rows])
            self._bind(f"past.{name}", part, bound)
            self._io.bind_ortvalue_output(f"present.{name}", part)
            return
        self._io.bind_input(f"past.{name}", *bound.where, kind, shape, cache.data_ptr())
        self._io.bind_output(f"present.{name}", *bound.where, kind, shape, cache.data_ptr())


class ContribBinding(Binding):
    """Of the contrib graph: the attention operator knows by two numbers where the tokens stand."""

    constant = frozenset(("cos", "sin"))

    def inputs(self, bound: Bound) -> dict[str, npt.NDArray[Any]]:
        self.last_key: Int32 = np.empty(self.rows, np.int32)
        self.key_count: Int32 = np.empty((), np.int32)
        return {"last_key": self.last_key, "key_count": self.key_count, "cos": bound.cos, "sin": bound.sin}

    def place(self, start: int, count: int) -> None:
        self.last_key.fill(start + count - 1)
        self.key_count.fill(start + count)


class StandardBinding(Binding):
    """Of the standard graph: slots, mask and angles of the tokens are its inputs."""

    def inputs(self, bound: Bound) -> dict[str, npt.NDArray[Any]]:
        self.tables = bound.cos, bound.sin
        capacity, half = bound.cos.shape
        self.positions = np.zeros((self.rows, self.count), np.int32)
        self.mask: Float32 = np.full((self.count, capacity), BLIND, np.float32)
        self.cos, self.sin = (np.zeros((self.count, half), np.float32) for _ in range(2))
        self.placed = (-1, 0)
        self.causal = np.where(np.tri(self.count, dtype=bool), np.float32(0), np.float32(BLIND))
        return {"positions": self.positions, "mask": self.mask, "cos": self.cos, "sin": self.sin}

    def place(self, start: int, count: int) -> None:
        if self.placed == (start, count):
            return
        token = np.minimum(np.arange(self.count), count - 1)
        self.positions[...] = start + token
        for turned, table in zip((self.cos, self.sin), self.tables, strict=True):
            np.take(table, start + token, axis=0, out=turned)
        before, end = self.placed[0], sum(self.placed)
        self.mask[:, max(before, 0) : start] = 0
        self.mask[:, start : start + count] = self.causal[token, :count]
        self.mask[:, start + count : max(end, 0)] = BLIND
        self.placed = (start, count)


def value_of(array: npt.NDArray[Any]) -> Any:
    """`array` as the runtime's value over the same host memory."""
    return ort.OrtValue.ortvalue_from_numpy(array)
