"""A compiled model with its state, and one verb."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import numpy as np
import openvino as ov

from backends.openvino import devices, facts, ir
from backends.openvino.compiling import Compiled
from backends.openvino.failures import translated
from bench.api import Codes, check_same_rows, check_step
from bench.errors import CaseError
from bench.facts import MemoryUse, SessionFacts
from bench.types import Arch, Float32, Int32, LoadGroup, Prepared


class OpenVinoSession:
    """One model on one device (or a HETERO of several). Its KV cache is the state of one infer request."""

    def __init__(self, group: LoadGroup, prepared: Prepared):
        self._arch = Arch.from_json(prepared.notes["arch"])
        self._capacity, self._batch = group.kv_capacity, group.batch
        self._prefill_rows = max(case.workload.batch * case.workload.most_at_once for case in group.cases)
        self._length = self._rows = 0
        self._logits: Float32 | None = None
        self._told: SessionFacts | None = None
        folder = Path(prepared.path)
        try:
            core = devices.core()
            self._compiled: Compiled | None = Compiled(core, ir.read(core, folder), group.first, folder)
            self._request = self._compiled.runtime.create_infer_request()  # it holds the cache
        except Exception as error:
            raise translated(error, "open") from error
        self._ones = np.ones(self._batch * self._capacity, np.int64)
        self._positions = np.tile(np.arange(self._capacity, dtype=np.int64), (self._batch, 1))
        self._beams = np.arange(self._batch, dtype=np.int32)

    def step(self, token_ids: Int32, want: Literal["last", "all"] = "last") -> Int32:
        rows, count = token_ids.shape
        total = self._length + count
        self._alive()
        check_step((rows, count), self._length, self._batch, self._capacity)
        check_same_rows(rows, self._rows, self._length)
        inputs = {
            "input_ids": token_ids.astype(np.int64),
            "attention_mask": self._ones[: rows * total].reshape(rows, total),
            "position_ids": np.ascontiguousarray(self._positions[:rows, self._length : total]),
            "beam_idx": self._beams[:rows],
            "head_positions": np.arange(count) if want == "all" else np.array([count - 1]),
        }
        try:
            if self._rows not in (0, rows):
                # An 8-bit cache that held another number of rows gives logits that are not finite (2026.4.1).
                self._request = self._alive().runtime.create_infer_request()
            self._request.infer(inputs, share_inputs=True, share_outputs=True)
        except Exception as error:
            raise translated(error, "step") from error
        self._length, self._rows = total, rows
        logits: Float32 = self._request.get_output_tensor(0).data
        self._logits = logits if want == "all" else logits[:, 0]
        ids: Int32 = logits[:, -1].argmax(axis=-1).astype(np.int32)
        return ids

    def logits(self) -> Float32:
        """Of the last step; a view of a buffer that the next step writes again."""
        if self._logits is None:
            raise CaseError("no step has been executed", phase="step")
        return self._logits

    def rewind(self, length: int) -> bool:
        """Cuts the state of every layer; of the plugins, only the CPU's is known to take a state of another length."""
        compiled = self._alive()
        if length > self._length or (length and compiled.executed != ["CPU"]):
            return False
        if length == self._length:
            return True
        try:
            if length:
                for state in self._request.query_state():
                    state.state = ov.Tensor(np.ascontiguousarray(state.state.data[:, :, :length]))
            else:
                self._request.reset_state()
        except Exception as error:
            raise translated(error, "rewind") from error
        self._length = length
        return True

    def facts(self) -> SessionFacts:
        """Executes some tokens in a request of its own, the first time: the session's own state stays as it is."""
        compiled = self._alive()
        if self._told is None:
            try:
                self._told = facts.read(compiled, self._arch, self._prefill_rows)
            except Exception as error:
                raise translated(error, "facts") from error
        return self._told

    def memory(self) -> list[MemoryUse]:
        """Weights and filled KV cache, by their types; what the device's allocator holds, where the plugin tells."""
        told = self.facts()
        kv_bytes = (told.kv_bytes_per_token or 0) * self._rows * self._length
        return [
            MemoryUse(
                device=told.devices[0].kind,
                weights_bytes=told.resident_weight_bytes,
                kv_bytes=kv_bytes or None,
                device_delta_bytes=self._alive().grown_bytes(),
            )
        ]

    def fed(self, tensor: str) -> Codes | None:
        """Read from the constants of the model that was compiled."""
        return ir.codes(self._alive().constants, self._arch, tensor)

    def close(self) -> None:
        self._logits = self._request = self._compiled = None

    def _alive(self) -> Compiled:
        if self._compiled is None:
            raise CaseError("the session is closed", phase="step")
        return self._compiled
