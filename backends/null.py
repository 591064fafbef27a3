"""`null`: returns deterministic ids and computes nothing. It measures the harness itself."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Literal

import numpy as np

from bench.api import Artifact, Codes, Progress
from bench.errors import unknown_name
from bench.facts import Evidence, MemoryUse, PhaseFacts, SessionFacts
from bench.types import Availability, Case, Float32, Int32, LoadGroup, Option, Prepared, Requirements, Support

_NOTHING = PhaseFacts(activations="f32", compute="f32")


class Null:
    name = "null"
    builder = 1
    computes = False
    provider = None
    options: Mapping[str, Option] = {}

    def probe(self) -> Availability:
        return Availability(versions={"numpy": np.__version__})

    def requirements(self, accelerator: str | None) -> Requirements:
        if accelerator is not None:
            raise unknown_name("accelerator", accelerator, (), where="backend null")
        return Requirements(packages=())

    def support(self, case: Case) -> Support:
        return Support(ok=True)

    def resident_ratio(self, case: Case) -> float:
        return 0.0

    def environment(self, case: Case) -> Mapping[str, str]:
        return {}

    def prepare(self, case: Case, artifact: Artifact, into: Path, progress: Progress) -> Prepared:
        return Prepared(path=str(into), files=())

    def open(self, group: LoadGroup, prepared: Prepared) -> NullSession:
        return NullSession(group)

    def mover(self, case: Case) -> None:
        return None


class NullSession:
    """Counts tokens. The next id is a function of the last one and the position."""

    def __init__(self, group: LoadGroup):
        self._vocab = group.first.arch.vocab
        self._capacity = group.kv_capacity
        self._length = 0
        self._ids: Int32 = np.zeros(group.batch, np.int32)
        self._shape: tuple[int, ...] = (group.batch,)

    def step(self, token_ids: Int32, want: Literal["last", "all"] = "last") -> Int32:
        rows, count = token_ids.shape
        self._length += count
        self._ids = (token_ids[:, -1] + self._length) % self._vocab
        self._shape = (rows, count) if want == "all" else (rows,)
        return self._ids

    def logits(self) -> Float32:
        """One-hot at the next id: finite, not constant, and meaningless."""
        logits = np.zeros((*self._shape, self._vocab), np.float32)
        np.put_along_axis(logits, self._ids.reshape(-1, *[1] * len(self._shape)), 1.0, axis=-1)
        return logits

    def rewind(self, length: int) -> bool:
        self._length = length
        return True

    def facts(self) -> SessionFacts:
        return SessionFacts(
            weights="none",
            prefill=_NOTHING,
            decode=_NOTHING,
            kv_cache="none",
            devices=(),
            asked_placement="none",
            placement=(),
            threads=None,
            resident_weight_bytes=None,
            embedding_bytes=None,
            kv_bytes_per_token=None,
            evidence=(Evidence(source="backends/null.py", claim="no model is executed"),),
        )

    def memory(self) -> list[MemoryUse]:
        return []

    def fed(self, tensor: str) -> Codes | None:
        return None

    def close(self) -> None:
        pass
