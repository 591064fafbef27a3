"""The least that decodes a prepared graph: onnxruntime, one IO binding, argmax; `scripts/overhead` compares with it."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import onnxruntime as ort


class BareLoop:
    """Batch 1, decode steps from an empty cache, over a loaded InferenceSession and the notes of its prepared files."""

    def __init__(self, session: ort.InferenceSession, notes: dict[str, Any], capacity: int):
        self.session, arch = session, notes["arch"]
        angles = np.arange(capacity)[:, None] * np.array(notes["inv_freq"])
        self.ids = np.zeros((1, 1), np.int32)
        self.last_key = np.zeros(1, np.int32)
        self.key_count = np.zeros((), np.int32)
        self.logits = np.zeros((1, 1, arch["vocab"]), np.float32)
        inputs = {
            "input_ids": self.ids,
            "last_key": self.last_key,
            "key_count": self.key_count,
            "head_positions": np.zeros(1, np.int64),
            "cos": np.cos(angles).astype(np.float32),
            "sin": np.sin(angles).astype(np.float32),
        }
        self.values = {name: ort.OrtValue.ortvalue_from_numpy(array) for name, array in inputs.items()}
        self.binding = self.session.io_binding()
        for name, value in self.values.items():
            self.binding.bind_ortvalue_input(name, value)
        self.output = ort.OrtValue.ortvalue_from_numpy(self.logits)
        self.binding.bind_ortvalue_output("logits", self.output)
        shape = (1, arch["kv_heads"], capacity, arch["head_dim"])
        self.caches = []
        for layer in range(arch["layers"]):
            for kind in ("key", "value"):
                cache = ort.OrtValue.ortvalue_from_numpy(np.zeros(shape, np.float32))
                self.caches.append(cache)
                self.binding.bind_ortvalue_input(f"past.{layer}.{kind}", cache)
                self.binding.bind_ortvalue_output(f"present.{layer}.{kind}", cache)

    def decode(self, ids: np.ndarray) -> float:
        """Seconds for one step per id of `ids` [n]."""
        started = time.perf_counter_ns()
        for length, token in enumerate(ids):
            self.ids[0, 0] = token
            self.last_key[0] = length
            self.key_count[...] = length + 1
            self.session.run_with_iobinding(self.binding)
            self.logits[0, 0].argmax()
        return (time.perf_counter_ns() - started) / 1e9
