"""A loaded decoder with its KV cache, and one verb."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch

from backends.pytorch import devices, facts, isa, libraries, numerics
from backends.pytorch.compiling import compiled
from backends.pytorch.decoder import Where
from backends.pytorch.failures import translated
from backends.pytorch.kinds import CPU, Kind
from backends.pytorch.loading import Loaded, Loader
from backends.pytorch.recipes import EXACT, native
from bench.api import Codes, check_same_rows, check_step
from bench.errors import CaseError
from bench.facts import MemoryUse, SessionFacts
from bench.types import Float32, Int32, LoadGroup, Prepared


class TorchSession:
    """One model on one device."""

    def __init__(self, kind: Kind, group: LoadGroup, prepared: Prepared):
        case = group.first
        self._kind, self._capacity, self._batch = kind, group.kv_capacity, group.batch
        self._prefill_rows = max(case.workload.batch * case.workload.most_at_once for case in group.cases)
        self._length = self._rows = 0
        self._logits: torch.Tensor | None = None
        self._told: SessionFacts | None = None
        try:
            self._device = devices.chosen(kind, case.device)
            devices.settle(kind, self._device)
            self._free_before = devices.free_bytes(self._device)
            self._switches = numerics.set_exact()
            if case.options.get("ipex"):
                self._switches["intel_extension_for_pytorch"] = (
                    f"{devices.use_ipex()} is imported, and may replace kernels"
                )
            if kind is CPU:
                isa.check(case.options["isa"], libraries.instruction_set())
            devices.use_threads(case.options.get("threads"))
            exact = case.fidelity == "exact"
            recipe = EXACT if exact else native(case.scheme, on_processor=kind is CPU)
            with torch.inference_mode():
                loader = Loader(prepared, self._device, recipe, resident=kind is CPU and recipe.in_place)
                self._loaded: Loaded | None = loader.load(group)
                self._positions = torch.arange(self._capacity, device=self._device)
            self._decode = compiled(kind, self._loaded, case)
        except Exception as error:
            raise translated(error, "open") from error

    def step(self, token_ids: Int32, want: Literal["last", "all"] = "last") -> Int32:
        rows, count = token_ids.shape
        check_step((rows, count), self._length, self._batch, self._capacity)
        check_same_rows(rows, self._rows, self._length)
        try:
            with torch.inference_mode():
                logits = self._forward(torch.from_numpy(token_ids).to(self._device), want == "all")
                ids: Int32 = logits[:, -1].argmax(dim=-1).to(torch.int32).cpu().numpy()
        except Exception as error:
            raise translated(error, "step") from error
        self._length, self._rows = self._length + count, rows
        self._logits = logits if want == "all" else logits[:, 0]
        return ids

    def _forward(self, ids: torch.Tensor, every: bool) -> torch.Tensor:
        """Logits after `ids`, at the next positions. What is compiled has one shape: all of the cache, and masks."""
        decoder, stop = self._alive().decoder, self._length + ids.shape[1]
        where: Where = slice(self._length, stop)
        if ids.shape[1] > 1 or self._decode is None:
            return decoder(ids, where, stop, every)
        return self._decode(ids, self._positions[where], self._capacity)

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
            here = facts.Here(self._kind, self._device, self._switches, self._compiled_step())
            self._told = facts.read(loaded, here, self._prefill_rows)
        return self._told

    def _compiled_step(self) -> Callable[[], object] | None:
        """Executes the compiled step at the next position, which a real one fills again; None where there is none."""
        decode, next_one = self._decode, self._positions[self._length : self._length + 1]
        if decode is None or not len(next_one):
            return None
        ids = torch.zeros((self._rows or 1, 1), dtype=torch.int32, device=self._device)
        return lambda: decode(ids, next_one, self._capacity)

    def memory(self) -> list[MemoryUse]:
        """Weights and the whole cache, which is allocated at once."""
        loaded, free = self._alive(), devices.free_bytes(self._device)
        before = self._free_before
        return [
            MemoryUse(
                device=str(self._device),
                weights_bytes=loaded.weight_bytes,
                kv_bytes=loaded.cache_bytes,
                allocator_peak_bytes=devices.peak_bytes(self._device),
                device_delta_bytes=None if before is None or free is None else before - free,
            )
        ]

    def fed(self, tensor: str) -> Codes | None:
        """Read from the tensors that the products read."""
        return self._alive().codes(tensor)

    def close(self) -> None:
        self._logits = self._loaded = self._decode = None

    def _alive(self) -> Loaded:
        if self._loaded is None:
            raise CaseError("the session is closed", phase="step")
        return self._loaded
