"""The graph that really executes, seen node by node through llama.cpp's own callback, in a context of its own.

The callback is asked about every node before it is computed: operation, type, where its result and its weights lie. It
may also ask to see one node's numbers: that is how a product's rounding is found in the model itself.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np

from backends.llamacpp.batch import Batch
from backends.llamacpp.library import Library
from backends.llamacpp.model import Context, Model
from backends.llamacpp.tensors import Tensor, floats, sources, tensor_at
from bench.errors import CaseError
from bench.types import Float32

PRODUCT = "MUL_MAT"
BOOKKEEPING = ("NONE", "VIEW", "RESHAPE", "PERMUTE", "TRANSPOSE", "CONT", "CPY", "SET_ROWS", "GET_ROWS")
"""Nodes that compute nothing: they only move or re-label numbers."""
WEIGHTS = (".weight", ".bias")


@dataclass(frozen=True, slots=True, kw_only=True)
class Node:
    """One node: what it does, its result and its inputs."""

    operation: str
    result: Tensor
    inputs: tuple[Tensor, ...]

    @property
    def weights(self) -> tuple[Tensor, ...]:
        """Those of its inputs that come from the file."""
        return tuple(each for each in self.inputs if each.name.endswith(WEIGHTS))

    @property
    def multiplies(self) -> bool:
        """A product with weights, not one of attention's."""
        return self.operation == PRODUCT and bool(self.weights)


@dataclass(frozen=True, slots=True, kw_only=True)
class Product:
    """Input [tokens, columns] and output [tokens, rows] of the product with the weight that was asked for."""

    inputs: Float32
    outputs: Float32


class Watch:
    """What the callback sees. `wanted` names the weight whose product is to be shown."""

    def __init__(self, lib: Library, wanted: str):
        self._lib, self._wanted = lib, wanted
        self.nodes: list[Node] = []
        self.shown: Product | None = None
        self.error: Exception | None = None
        self.callback = lib.api.ggml_backend_sched_eval_callback(self._seen)

    def _seen(self, at: int, ask: bool, _: object) -> bool:
        """The library's question whether a node's numbers are wanted (`ask`), or the answer to a yes."""
        try:  # an exception cannot pass through the library
            if ask:
                node = self._node(at)
                self.nodes.append(node)
                return node.multiplies and node.weights[0].name == self._wanted
            read = [floats(self._lib, tensor_at(self._lib, each)) for each in (sources(at)[1], at)]
            self.shown = Product(inputs=_rows(read[0]), outputs=_rows(read[1]))
        except Exception as error:
            self.error = self.error or error
        return not ask

    def _node(self, at: int) -> Node:
        return Node(
            operation=self._lib.ggml_op_desc(at).decode(),
            result=tensor_at(self._lib, at),
            inputs=tuple(tensor_at(self._lib, source) for source in sources(at)),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """The graph of one step, and the product that was asked for where it was computed."""

    nodes: tuple[Node, ...]
    product: Product | None


@contextmanager
def watched(model: Model, capacity: int, wanted: str) -> Iterator[Watched]:
    """Steps on a cache of their own whose graphs are seen; the session's stays as it is."""
    watch = Watch(model.lib, wanted)
    context = model.context(capacity, 1, watch.callback)
    try:
        yield Watched(context, watch)
    finally:
        context.close()


class Watched:
    """Executes steps of some tokens and tells what executed."""

    def __init__(self, context: Context, watch: Watch):
        self._context, self._watch = context, watch
        self._batch = Batch(context.n_batch)
        self._length = 0

    def step(self, tokens: Sequence[int]) -> Seen:
        """The graph of one step over `tokens`, appended to what was fed before."""
        self._watch.nodes, self._watch.shown = [], None
        self._batch.fill(np.array([tokens], np.int32), self._length, every=False)
        code = self._context.lib.api.llama_decode(self._context.at, self._batch.struct)
        if self._watch.error is not None:
            raise self._watch.error
        if code:
            raise CaseError(f"llama_decode returned {code}", phase="facts", where="llama.cpp")
        self._length += len(tokens)
        return Seen(nodes=tuple(self._watch.nodes), product=self._watch.shown)


def _rows(values: Float32) -> Float32:
    flat: Float32 = values.reshape(-1, values.shape[-1])
    return flat
