"""Sessions and clocks that do exactly as they are told."""

from __future__ import annotations

from typing import Any

import numpy as np

from backends.null import NullSession
from bench.facts import PhaseFacts, Placement, SessionFacts
from bench.types import Arch, Case, Device, Float32, Int32, LoadGroup, Prepared, Workload
from tests.tiny import tiny_arch

NOTHING = Prepared(path="", files=())


class Clock:
    """Nanoseconds that pass only when somebody works."""

    def __init__(self) -> None:
        self.now_ns = 0

    def __call__(self) -> int:
        return self.now_ns


def case(workload: Workload, **changes: Any) -> Case:
    """A case on a tiny model."""
    given: dict[str, Any] = {
        "model": "tiny",
        "scheme": "int8",
        "weights": "synthetic",
        "arch": tiny_arch("llama"),
        "backend": "fake",
        "device": None,
        "provider": None,
        "fidelity": "native",
        "workload": workload,
        "kv_capacity": 1024,
    }
    return Case(**{**given, **changes})


class TimedSession(NullSession):
    """Each step takes 1 ms and 0.1 ms a token on its clock; every call is written down."""

    def __init__(self, workload: Workload, clock: Clock, *, can_rewind: bool = True):
        super().__init__(LoadGroup(cases=(case(workload),)))
        self.clock, self.can_rewind = clock, can_rewind
        self.calls: list[tuple[Any, ...]] = []
        self.fed_ids: list[Int32] = []

    @property
    def length(self) -> int:
        return self._length

    def step(self, token_ids: Int32, want: Any = "last") -> Int32:
        self.clock.now_ns += 1_000_000 + 100_000 * token_ids.shape[1]
        self.calls.append(("step", *token_ids.shape))
        self.fed_ids.append(token_ids.copy())
        return super().step(token_ids, want)

    def rewind(self, length: int) -> bool:
        self.calls.append(("rewind", length))
        return super().rewind(length) if self.can_rewind or length == 0 else False


class Noisy:
    """Logits of a fixed table by (id, position), with an error of the size asked for, other for every call shape.

    From `broken_from_rows` rows × tokens a step on the logits are wrong, as a broken kernel's would be. `directions`
    are added to the noise of ids before it is brought to size.
    """

    def __init__(self, table: Float32, error: float, batch: int = 1, broken_from_rows: int | None = None):
        self.table, self.error, self.batch, self.broken_from_rows = table, error, batch, broken_from_rows
        self.length = 0
        self.shown: Float32 = table[:1]
        self.random = np.random.default_rng(1)
        self.declared = PhaseFacts(activations="a8-g32", compute="f32")
        self.directions: dict[int, Float32] = {}

    def step(self, token_ids: Int32, want: Any = "last") -> Int32:
        rows, count = token_ids.shape
        self.length += count
        clean = self.table[token_ids]
        noise = self.random.standard_normal(clean.shape).astype(np.float32)
        for position, token in enumerate(token_ids[0]):
            noise[:, position] += self.directions.get(int(token), np.float32(0))
        scale = np.linalg.norm(clean - clean.mean(-1, keepdims=True), axis=-1, keepdims=True)
        shown = clean + noise / np.linalg.norm(noise, axis=-1, keepdims=True) * scale * self.error
        if self.broken_from_rows is not None and rows * count >= self.broken_from_rows:
            shown = shown[..., ::-1]
        self.shown = shown if want == "all" else shown[:, -1]
        return self.shown.reshape(rows, -1, shown.shape[-1])[:, -1].argmax(-1).astype(np.int32)

    def logits(self) -> Float32:
        return self.shown

    def rewind(self, length: int) -> bool:
        self.length = length
        return True

    def facts(self) -> SessionFacts:
        return facts(self.declared)


def facts(phase: PhaseFacts, **changes: Any) -> SessionFacts:
    """What an honest session on one CPU says."""
    given: dict[str, Any] = {
        "weights": "int8 row",
        "prefill": phase,
        "decode": phase,
        "kv_cache": "f32",
        "devices": (Device(kind="cpu", name="fake"),),
        "asked_placement": "CPU",
        "placement": (Placement(device="CPU", matmul_share=1.0, operations={"MatMul": 3}),),
        "threads": 2,
        "resident_weight_bytes": 10**9,
        "embedding_bytes": 10**8,
        "kv_bytes_per_token": 1000,
    }
    return SessionFacts(**{**given, **changes})


__all__ = ["NOTHING", "Arch", "Clock", "Noisy", "TimedSession", "case", "facts"]
