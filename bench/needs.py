"""What a load group needs: disk, memory, minutes; and whether that fits. Pure."""

from __future__ import annotations

import math
from dataclasses import dataclass

from bench.api import Backend
from bench.errors import PrerequisiteError
from bench.spec import layer_parameters
from bench.types import Arch, Case, LoadGroup
from bench.units import MIB, render_bytes

WEIGHT_BITS = {"int8": 8.5, "int4": 4.5, "fp16": 16.0, "bf16": 16.0}
"""Bits of one weight in the canonical file, its share of a float16 scale included."""
TABLE_BITS = {**WEIGHT_BITS, "int4": 8.5}
"""The same for the embedding and lm_head."""

KV_BYTES = 4
"""Bytes of one number in the cache: float32, the widest that a runtime keeps."""
GATE_POSITIONS = 32
"""Positions whose logits a runtime holds at once while it is gated."""
LOAD_SHARE, RUNTIME_BYTES = 1.15, 512 * MIB
"""Host memory beside what is resident: peaks while loading (7B int8: up to 11.3 GB for 9.5), and the rest."""
FILE_BYTES_PER_S = 3e8
"""At which weights are written, converted and loaded; only for the estimated minutes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """What one load group needs, at most about. `host_bytes` is the peak of its worker with everything in host memory.

    `launch_s` is one launch: loading, and the steps of all repetitions at the rates given. `minutes` counts preparing
    and all launches.
    """

    artifact_bytes: int
    prepared_bytes: int
    kv_bytes: int
    logits_bytes: int
    host_bytes: int
    launch_s: float
    minutes: float

    @property
    def disk_bytes(self) -> int:
        return self.artifact_bytes + self.prepared_bytes


def weight_bytes(arch: Arch, scheme: str) -> int:
    """Bytes of all weights of the canonical file, the embedding table included."""
    layers = arch.layers * layer_parameters(arch) * WEIGHT_BITS[scheme]
    return math.ceil((layers + _table_weights(arch) * TABLE_BITS[scheme]) / 8)


def estimate(
    group: LoadGroup,
    backend: Backend,
    *,
    read_bytes_per_s: float,
    flops: float,
    repetitions: int,
    launches: int = 1,
    budget_s: float | None = None,
    file_bytes: int | None = None,
) -> Estimate:
    """What a load group needs, from the read bandwidth and the arithmetic rate of the device.

    A backend that computes nothing needs no weights. Attention's arithmetic is left out. `file_bytes`: the weights are
    in a file of that size, which is neither made nor converted.
    """
    case, arch, least_s = group.first, group.first.arch, budget_s or 0.0
    if not backend.computes:
        idle_s = len(group.cases) * least_s
        return Estimate(
            artifact_bytes=0,
            prepared_bytes=0,
            kv_bytes=0,
            logits_bytes=0,
            host_bytes=RUNTIME_BYTES,
            launch_s=idle_s,
            minutes=launches * idle_s / 60,
        )
    weights = weight_bytes(arch, case.scheme) if file_bytes is None else file_bytes
    kv = 2 * arch.layers * arch.kv_rows * group.kv_capacity * group.batch * KV_BYTES
    logits = GATE_POSITIONS * group.batch * arch.vocab * 4
    file_s = weights / FILE_BYTES_PER_S
    launch_s = file_s + sum(
        max((repetitions + 1) * _seconds(member, file_bytes, read_bytes_per_s, flops), least_s)
        for member in group.cases
    )
    return Estimate(
        artifact_bytes=weights if file_bytes is None else 0,
        prepared_bytes=weights if file_bytes is None else 0,
        kv_bytes=kv,
        logits_bytes=logits,
        host_bytes=math.ceil(weights * backend.resident_ratio(case) * LOAD_SHARE) + kv + logits + RUNTIME_BYTES,
        launch_s=launch_s,
        minutes=(2 * file_s + launches * launch_s) / 60,
    )


def check_disk(needed_bytes: int, free_bytes: int, *, where: str) -> None:
    """PrerequisiteError where the disk cannot hold what is still to be written."""
    if needed_bytes > free_bytes:
        raise PrerequisiteError(
            f"needs {render_bytes(needed_bytes)} of disk, {render_bytes(free_bytes)} are free",
            where=where,
            remedy="`bench cache prune` frees space, BENCH_CACHE names another folder",
        )


def check_memory(needed_bytes: int, available_bytes: int | None, *, where: str) -> None:
    """PrerequisiteError where the host's memory cannot hold a load group; None for what is available: not checked."""
    if available_bytes is not None and needed_bytes > available_bytes:
        raise PrerequisiteError(
            f"needs {render_bytes(needed_bytes)} of memory, {render_bytes(available_bytes)} are available",
            where=where,
            remedy="choose a smaller model, scheme, batch or depth, or end other programs",
        )


def _table_weights(arch: Arch) -> int:
    return arch.vocab * arch.hidden * (1 if arch.tied else 2)


def _seconds(case: Case, file_bytes: int | None, read_bytes_per_s: float, flops: float) -> float:
    """Of one repetition: prefill bound by arithmetic, decode by reading the weights and the filled cache."""
    arch, workload = case.arch, case.workload
    matrices = arch.layers * layer_parameters(arch)
    read: float = file_bytes or 0
    if file_bytes is None:
        read = (matrices * WEIGHT_BITS[case.scheme] + arch.vocab * arch.hidden * TABLE_BITS[case.scheme]) / 8
    filled = 2 * arch.layers * arch.kv_rows * KV_BYTES * workload.positions * workload.batch
    prefill_s = 2 * matrices * workload.batch * (workload.depth + workload.prompt_tokens) / flops
    return prefill_s + workload.decode_steps * (read + filled) / read_bytes_per_s
