"""A loaded decoder with its KV cache, and one verb."""

from __future__ import annotations

from typing import Literal

import torch

from backends.pytorch import devices, facts
from backends.pytorch.failures import translated
from backends.pytorch.loading import Loaded, Loader
from backends.pytorch.products import EXACT, native
from bench.api import Codes, check_same_rows, check_step
from bench.errors import CaseError
from bench.facts import MemoryUse, SessionFacts
from bench.types import Float32, Int32, LoadGroup, Prepared


class TorchSession:
    """One model on the processor."""

    def __init__(self, group: LoadGroup, prepared: Prepared):
        case = group.first
        self._capacity, self._batch = group.kv_capacity, group.batch
        self._prefill_rows = max(case.workload.batch * case.workload.most_at_once for case in group.cases)
        self._length = self._rows = 0
        self._logits: torch.Tensor | None = None
        self._told: SessionFacts | None = None
        try:
            self._device = devices.chosen(case.device)
            devices.use_threads(case.options["threads"])
            recipe = EXACT if case.fidelity == "exact" else native(case.scheme)
            with torch.inference_mode():
                self._loaded: Loaded | None = Loader(prepared, self._device, recipe).load(group)
        except Exception as error:
            raise translated(error, "open") from error

    def step(self, token_ids: Int32, want: Literal["last", "all"] = "last") -> Int32:
        rows, count = token_ids.shape
        decoder = self._alive().decoder
        check_step((rows, count), self._length, self._batch, self._capacity)
        check_same_rows(rows, self._rows, self._length)
        try:
            with torch.inference_mode():
                logits = decoder(torch.from_numpy(token_ids).to(self._device), self._length, want == "all")
                ids: Int32 = logits[:, -1].argmax(dim=-1).to(torch.int32).cpu().numpy()
        except Exception as error:
            raise translated(error, "step") from error
        self._length, self._rows = self._length + count, rows
        self._logits = logits if want == "all" else logits[:, 0]
        return ids

    def logits(self) -> Float32:
        """Of the last step, on the host."""
        if self._logits is None:
            raise CaseError("no step has been executed", phase="step")
        found: Float32 = self._logits.float().cpu().numpy()
        return found

    def rewind(self, length: int) -> bool:
        """The cache keeps its numbers: what lies behind `length` is written again before it is read."""
        self._alive()
        if length > self._length:
            return False
        self._length = length
        return True

    def facts(self) -> SessionFacts:
        """Executes some tokens on a cache of their own, the first time."""
        loaded = self._alive()
        if self._told is None:
            self._told = facts.read(loaded, self._prefill_rows)
        return self._told

    def memory(self) -> list[MemoryUse]:
        """Weights, most of them pages of the prepared file, and the whole cache, which is allocated at once."""
        loaded = self._alive()
        return [MemoryUse(device=devices.CPU, weights_bytes=loaded.weight_bytes, kv_bytes=loaded.cache_bytes)]

    def fed(self, tensor: str) -> Codes | None:
        """Read from the tensors that the products read."""
        return self._alive().codes(tensor)

    def close(self) -> None:
        self._logits = self._loaded = None

    def _alive(self) -> Loaded:
        if self._loaded is None:
            raise CaseError("the session is closed", phase="step")
        return self._loaded
