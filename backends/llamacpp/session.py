"""A loaded model with its KV cache, and one verb."""

from __future__ import annotations

import ctypes
from pathlib import Path
from typing import Literal

import numpy as np

from backends.llamacpp import devices, tensors
from backends.llamacpp.batch import Batch
from backends.llamacpp.facts import Told, heads_of, read
from backends.llamacpp.library import Library, library
from backends.llamacpp.model import Context, Model
from bench.api import Codes, check_same_rows, check_step
from bench.errors import CaseError
from bench.facts import MemoryUse, SessionFacts
from bench.types import Arch, Float32, Int32, LoadGroup, Prepared


class LlamaCppSession:
    """One model, one context; each row of a batch is a sequence of its own."""

    def __init__(self, group: LoadGroup, prepared: Prepared):
        self._arch = Arch.from_json(prepared.notes["arch"])
        self._capacity, self._batch_rows = group.kv_capacity, group.batch
        self._prefill_rows = max(case.workload.most_at_once for case in group.cases)
        self._length = self._rows = 0
        self._logits: Float32 | None = None
        self._told: Told | None = None
        self._lib = library()
        self._decode = self._lib.api.llama_decode
        path = Path(prepared.path, prepared.files[0])
        self._model: Model | None = Model(self._lib, group.first, path, self._arch.layers)
        try:
            self._context: Context | None = self._model.context(self._capacity, self._batch_rows)
        except Exception:
            self._model.close()
            raise
        self._batch = Batch(self._context.n_batch)
        self._outputs = Outputs(self._lib, self._context, self._arch.vocab)

    def step(self, token_ids: Int32, want: Literal["last", "all"] = "last") -> Int32:
        if token_ids.size == 1 == self._rows and 0 < self._length < self._capacity and want == "last":
            return self._next(token_ids)
        rows, count = token_ids.shape
        context = self._checked(rows, count)
        every = want == "all"
        if rows * count <= context.n_batch:
            logits = self._decoded(context, token_ids, every)
        else:
            logits = self._in_parts(context, token_ids, every)
        self._rows = rows
        self._logits = logits if every else logits[:, 0]
        ids: Int32 = logits[:, -1].argmax(axis=-1).astype(np.int32)
        return ids

    def logits(self) -> Float32:
        """Of the last step; a view of a buffer that the next step may write again."""
        if self._logits is None:
            raise CaseError("no step has been executed", phase="step")
        return self._logits

    def rewind(self, length: int) -> bool:
        """Removes the positions from `length` on of every sequence."""
        context, api = self._alive(), self._lib.api
        if length > self._length:
            return False
        if not length:
            api.llama_memory_clear(context.memory, False)
        elif not all(api.llama_memory_seq_rm(context.memory, row, length, -1) for row in range(self._rows)):
            return False
        self._length = length
        return True

    def facts(self) -> SessionFacts:
        """Executes some tokens in a context of its own, the first time."""
        return self._read().facts

    def memory(self) -> list[MemoryUse]:
        """Weights by device; the cache, which is allocated at once; what a device's own memory has lost since."""
        told, model = self._read(), self._model
        assert model
        per_token = told.facts.kv_bytes_per_token
        positions = self._lib.api.llama_n_ctx(self._alive().at)
        kv_bytes = per_token * positions if per_token else None
        here = {each.name: each for each in model.devices}
        uses = []
        for name in sorted({*told.weight_bytes, told.cache_device}):
            before = model.free_before.get(name)
            now = devices.free_bytes(self._lib, here[name]) if before is not None else None
            uses.append(
                MemoryUse(
                    device=name.lower() if name == devices.CPU else name,
                    weights_bytes=told.weight_bytes.get(name),
                    kv_bytes=kv_bytes if name == told.cache_device else None,
                    device_delta_bytes=(before - now or None) if before is not None and now is not None else None,
                )
            )
        return uses

    def fed(self, tensor: str) -> Codes | None:
        """Read from the memory that the products read; None for widened codes and orders nobody can undo."""
        held = self._read().weights.get(tensor)
        assert self._model
        if held is None or (self._model.exact and len(held.shape) > 1):
            return None
        return tensors.codes(self._lib, held, heads_of(self._arch, tensor))

    def close(self) -> None:
        self._logits = self._told = None
        if self._context is not None:
            self._context.close()
        if self._model is not None:
            self._model.close()
        self._context = self._model = None
        self._length = self._rows = 0

    def _read(self) -> Told:
        context = self._alive()
        if self._told is None:
            assert self._model
            self._told = read(self._model, context, self._arch, self._prefill_rows)
        return self._told

    def _next(self, token_ids: Int32) -> Int32:
        """One more token of one sequence, which is most of what is ever timed, with as little Python as can be.

        It saves 1.2 % of a step of 6 ms: whatever Python touches here lies in no cache (batch.py).
        """
        context = self._alive()
        self._batch.one(token_ids.item(), self._length)
        if code := self._decode(context.at, self._batch.struct):
            raise self._failed(code)
        self._length += 1
        self._logits = logits = self._outputs.read(1, 1)[0]
        return np.array((logits.argmax(),), np.int32)

    def _in_parts(self, context: Context, token_ids: Int32, every: bool) -> Float32:
        """More tokens than one batch holds: some positions of all rows at a time."""
        at_once = context.n_batch // token_ids.shape[0]
        starts = range(0, token_ids.shape[1], at_once)
        parts = (self._decoded(context, token_ids[:, start : start + at_once], every) for start in starts)
        if every:
            return np.concatenate([part.copy() for part in parts], axis=1)
        *_, last = parts
        return last

    def _decoded(self, context: Context, token_ids: Int32, every: bool) -> Float32:
        """[rows, 1 or n, vocab]: a view of the library's buffer."""
        rows, count = token_ids.shape
        self._batch.fill(token_ids, self._length, every)
        if code := self._decode(context.at, self._batch.struct):
            raise self._failed(code)
        self._length += count
        return self._outputs.read(rows, count if every else 1)

    def _failed(self, code: int) -> CaseError:
        cause = "; ".join(self._lib.log.last(3)) or None
        return CaseError(f"llama_decode returned {code}", phase="step", where="llama.cpp", cause=cause)

    def _checked(self, rows: int, count: int) -> Context:
        context = self._alive()
        check_step((rows, count), self._length, self._batch_rows, self._capacity)
        check_same_rows(rows, self._rows, self._length)
        return context

    def _alive(self) -> Context:
        if self._context is None:
            raise CaseError("the session is closed", phase="step")
        return self._context


class Outputs:
    """Logits of a context as an array over the library's own memory, which stays where it is from step to step."""

    def __init__(self, lib: Library, context: Context, vocab: int):
        self._get, self._context, self._vocab = lib.llama_get_logits, context.at, vocab
        self._key: tuple[int, int, int] | None = None

    def read(self, rows: int, count: int) -> Float32:
        """[rows, count, vocab] of the last step, once it is done."""
        key = self._get(self._context), rows, count
        if key != self._key:
            shape = (rows, count, self._vocab)
            self._view: Float32 = np.ctypeslib.as_array(ctypes.cast(key[0], ctypes.POINTER(ctypes.c_float)), shape)
            self._key = key
        return self._view
