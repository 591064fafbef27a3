"""What a session tells of itself: effective precision, placement, memory, each with where it was read.

None means "not known"; never 0, never a guess.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from bench.types import Device


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """One claim and where it was read: an API call, a log line, a file."""

    source: str
    claim: str


PATH_ROWS = 16
"""Tokens a step feeds on the gate's path, after one token alone; no runtime changes its kernels just there."""

Activations = Literal["f32", "f16", "bf16", "a8-g32", "a8-g256", "a8-token", "a8-tensor"]
Compute = Literal["f32", "f16", "bf16"]


@dataclass(frozen=True, slots=True, kw_only=True)
class PhaseFacts:
    """Effective precision of one phase: what the inputs of the matrix products are rounded to, and the arithmetic.

    `kernels` maps a kind of work ("matmul", "attention", "embedding") to the kernel that does it. `attention_sums` is
    the type that attention adds weighted values up in, position by position, where it is another than `compute`.
    """

    activations: Activations
    compute: Compute
    kernels: dict[str, str] = field(default_factory=dict)
    attention_sums: Literal["f16"] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Placement:
    """What the runtime put on one device: the share of the matrix products and the computing operations by kind.

    Host bookkeeping (shapes, indices) that a runtime always keeps on the CPU does not belong into `operations`; the
    adapter names it in its evidence.
    """

    device: str
    matmul_share: float
    operations: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionFacts:
    """What a session really does, read back from the runtime; each item's origin stands in `evidence`.

    `path` is for steps of 2 to PATH_ROWS tokens of one row, where they compute otherwise than larger ones (`prefill`).
    `devices` are the ones that compute. `asked_placement` is the name that `placement` must carry for everything that
    computes. `resident_weight_bytes` is all weights as this runtime holds them; `embedding_bytes` the part that a
    decode step only looks rows up in (0 when the table serves as lm_head too). Both None where they cannot be known.
    `isa` is the instruction set that the runtime's kernels may use, in its own words: it can be less than the
    processor has.
    """

    weights: str
    prefill: PhaseFacts
    decode: PhaseFacts
    kv_cache: str
    devices: tuple[Device, ...]
    asked_placement: str
    placement: tuple[Placement, ...]
    threads: int | None
    resident_weight_bytes: int | None
    embedding_bytes: int | None
    kv_bytes_per_token: int | None
    path: PhaseFacts | None = None
    isa: str | None = None
    evidence: tuple[Evidence, ...] = ()

    @property
    def precision_classes(self) -> tuple[str, ...]:
        """Ids of all phases' classes, each once, sorted."""
        phases = (self.prefill, self.decode, self.path or self.prefill)
        return tuple(sorted({precision_class(phase, self.kv_cache) for phase in phases}))


@dataclass(frozen=True, slots=True, kw_only=True)
class MemoryUse:
    """Memory of one device as the runtime's allocator counts it; None = cannot be known.

    `device_delta_bytes` is what it holds there now over what it held before the model was loaded.
    """

    device: str
    weights_bytes: int | None = None
    kv_bytes: int | None = None
    allocator_peak_bytes: int | None = None
    device_delta_bytes: int | None = None


def precision_class(phase: PhaseFacts, kv_cache: str) -> str:
    """The id of the error that a phase's declared precision predicts: `a8-g32`, `f32+kv8`, `a8-g32+bf16+kv8`, ..."""
    base: str = phase.compute if phase.activations == "f32" else phase.activations
    if phase.activations in ("f16", "bf16") and phase.compute == "f32":
        base = f"a16-{phase.activations}"
    if base == "a16-f16" and phase.attention_sums == "f16":  # beside all other roundings it does not show
        base += "+sum16"
    half = f"+{phase.compute}" if base.startswith("a8-") and phase.compute != "f32" else ""
    return base + half + ("+kv8" if kv_cache in ("u8", "i8", "q8_0") else "")
