"""Adapters whose sessions declare another precision class than the one that executes, or another placement."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from backends.onnx import Onnx
from backends.onnx.session import OnnxSession
from bench.facts import Activations, Placement, SessionFacts
from bench.types import LoadGroup, Prepared


class Liar(Onnx):
    """Executes the graph of `executes`, whatever is asked for in native fidelity, and declares `declares`."""

    declares: Activations
    executes: str = "native"

    def open(self, group: LoadGroup, prepared: Prepared) -> OnnxSession:
        cases = group.cases
        if group.first.fidelity == "native" and self.executes == "exact":
            cases = tuple(replace(case, fidelity="exact") for case in cases)
        return LyingSession(LoadGroup(cases=cases), prepared, self.declares)


class LyingSession(OnnxSession):
    def __init__(self, group: LoadGroup, prepared: Prepared, declares: Activations):
        super().__init__(group, prepared)
        self._declares = declares

    def facts(self) -> SessionFacts:
        facts: Any = super().facts()
        phase = replace(facts.prefill, activations=self._declares)
        told: SessionFacts = replace(facts, prefill=phase, decode=phase)
        return told


class LeavesSomeElsewhere(Onnx):
    """Computes what is right and says that 3 % of the matrix products were executed somewhere else."""

    def open(self, group: LoadGroup, prepared: Prepared) -> OnnxSession:
        return PartlyElsewhere(group, prepared)


class PartlyElsewhere(OnnxSession):
    def facts(self) -> SessionFacts:
        facts: Any = super().facts()
        (place,) = facts.placement
        here = replace(place, matmul_share=0.97)
        there = Placement(device="SpareExecutionProvider", matmul_share=0.03, operations={"Attention": 2, "Add": 1})
        told: SessionFacts = replace(facts, placement=(here, there))
        return told


class SaysInt8ComputesFloat(Liar):
    declares, executes = "a8-g32", "exact"


class SaysFloatComputesInt8(Liar):
    declares = "f32"


class SaysHalfComputesInt8(Liar):
    declares = "f16"


class SaysPerTokenComputesPerGroup(Liar):
    declares = "a8-token"
