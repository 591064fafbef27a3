"""Adapters that break their contract in one way each: what the conformance suite is there to see."""

from __future__ import annotations

import hashlib
import os
import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np

from backends.null import Null, NullSession
from backends.onnx import Onnx
from backends.onnx.session import OnnxSession
from bench.api import Artifact, Codes, Progress
from bench.artifacts.layout import inv_freq
from bench.errors import CaseError
from bench.facts import MemoryUse, SessionFacts
from bench.types import Availability, Case, Float32, Int32, LoadGroup, Prepared, Support


class OtherSignature(Null):
    def support(self, case: Case, strict: bool = True) -> Support:
        return Support(ok=True)


class NoVersions(Null):
    def probe(self) -> Availability:
        return Availability()


class RaisingProbe(Null):
    def probe(self) -> Availability:
        raise RuntimeError("no driver")


class NoDetail(Null):
    def support(self, case: Case) -> Support:
        return Support(ok=case.workload.batch < 64, reason="NEVER")


class FickleSupport(Null):
    asked: ClassVar[list[Case]] = []

    def support(self, case: Case) -> Support:
        self.asked.append(case)
        return Support(ok=False, reason="NEVER", detail=str(len(self.asked)))


class HoldsNothing(Onnx):
    def resident_ratio(self, case: Case) -> float:
        return 0.0


class WithSession(Null):
    session: type[NullSession]

    def open(self, group: LoadGroup, prepared: Prepared) -> NullSession:
        return self.session(group)


class WideIds(WithSession):
    class session(NullSession):
        def step(self, token_ids: Int32, want: Literal["last", "all"] = "last") -> Int32:
            wide: Any = super().step(token_ids, want).astype(np.int64)
            return wide


class OtherLogits(WithSession):
    class session(NullSession):
        def logits(self) -> Float32:
            return np.roll(super().logits(), 1, axis=-1)


class Forgetful(WithSession):
    class session(NullSession):
        count = 0

        def logits(self) -> Float32:
            self.count += 1
            return super().logits() + self.count * np.linspace(0, 0.001, self._vocab, dtype=np.float32)


class NoEvidence(WithSession):
    class session(NullSession):
        def facts(self) -> SessionFacts:
            return replace(super().facts(), evidence=())


class ZeroThreads(WithSession):
    class session(NullSession):
        def facts(self) -> SessionFacts:
            return replace(super().facts(), threads=0)


class ZeroBytes(WithSession):
    class session(NullSession):
        def memory(self) -> list[MemoryUse]:
            return [MemoryUse(device="cpu", kv_bytes=0)]


class ClosesOnce(WithSession):
    class session(NullSession):
        closed = False

        def close(self) -> None:
            if self.closed:
                raise RuntimeError("already closed")
            self.closed = True


class ChangesEnvironment(WithSession):
    class session(NullSession):
        def step(self, token_ids: Int32, want: Literal["last", "all"] = "last") -> Int32:
            os.environ["BROKEN_STEPS"] = str(int(os.environ.get("BROKEN_STEPS", "0")) + 1)
            return super().step(token_ids, want)


class LeavesThreads(WithSession):
    class session(NullSession):
        def close(self) -> None:
            threading.Thread(target=_work, args=(time.monotonic() + 5,), daemon=True).start()


def _work(until_s: float) -> None:
    """As a runtime's thread does: without the interpreter's lock, so that nobody else waits for it."""
    much = bytes(1 << 24)
    while time.monotonic() < until_s:
        hashlib.sha256(much)


class DropsRopeScaling(Onnx):
    def prepare(self, case: Case, artifact: Artifact, into: Path, progress: Progress) -> Prepared:
        prepared = super().prepare(case, artifact, into, progress)
        plain = inv_freq(replace(artifact.arch, rope_scaling=None)).tolist()
        return replace(prepared, notes={**prepared.notes, "inv_freq": plain})


class WritesTheTime(Onnx):
    written: ClassVar[list[Path]] = []

    def prepare(self, case: Case, artifact: Artifact, into: Path, progress: Progress) -> Prepared:
        prepared = super().prepare(case, artifact, into, progress)
        self.written.append(into)
        (into / "stamp").write_text(str(len(self.written)))
        return replace(prepared, files=(*prepared.files, "stamp"))


class SwallowsInterrupts(Onnx):
    def prepare(self, case: Case, artifact: Artifact, into: Path, progress: Progress) -> Prepared:
        return super().prepare(case, artifact, into, lambda done, total: None)


class RefusesWhatItCan(Onnx):
    def support(self, case: Case) -> Support:
        if case.workload.batch == 2 and case.workload.chunk == 64 and not case.workload.depth:
            return Support(ok=False, reason="NOT_UPSTREAM", detail="batches")
        return super().support(case)


class FallsBack(Onnx):
    def open(self, group: LoadGroup, prepared: Prepared) -> OnnxSession:
        return super().open(
            LoadGroup(cases=tuple(replace(c, provider="CPUExecutionProvider", device=None) for c in group.cases)),
            prepared,
        )


class WithOnnxSession(Onnx):
    session: type[OnnxSession]

    def open(self, group: LoadGroup, prepared: Prepared) -> OnnxSession:
        return self.session(group, prepared)


class FeedsOtherCodes(WithOnnxSession):
    class session(OnnxSession):
        def fed(self, tensor: str) -> Codes | None:
            return super().fed(tensor.replace("attn_k.", "attn_v.")) if "no_such" not in tensor else None


class MixesRows(WithOnnxSession):
    class session(OnnxSession):
        def logits(self) -> Float32:
            logits = super().logits()
            return logits if len(logits) == 1 else logits[::-1]


class RewindsToZeroOnly(WithOnnxSession):
    class session(OnnxSession):
        def rewind(self, length: int) -> bool:
            super().rewind(0 if length == 0 else self._length)
            return True


class AcceptsAnything(WithOnnxSession):
    class session(OnnxSession):
        def step(self, token_ids: Int32, want: Literal["last", "all"] = "last") -> Int32:
            try:
                return super().step(token_ids, want)
            except CaseError:
                return np.zeros(len(token_ids), np.int32)


class HalfPlaced(WithOnnxSession):
    class session(OnnxSession):
        def facts(self) -> SessionFacts:
            facts = super().facts()
            return replace(facts, placement=tuple(replace(p, matmul_share=0.5) for p in facts.placement))


class SaysExact(WithOnnxSession):
    class session(OnnxSession):
        def facts(self) -> SessionFacts:
            facts = super().facts()
            phase = replace(facts.prefill, activations="f32")
            return replace(facts, prefill=phase, decode=phase)


class NeverExact(WithOnnxSession):
    def open(self, group: LoadGroup, prepared: Prepared) -> OnnxSession:
        return OnnxSession(LoadGroup(cases=tuple(replace(c, fidelity="native") for c in group.cases)), prepared)
