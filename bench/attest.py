"""It ran where it was asked to, and no faster than the memory can deliver. Pure; standard library only."""

from __future__ import annotations

from dataclasses import dataclass

from bench.facts import SessionFacts
from bench.types import Workload

IMPOSSIBLE_RATIO = 1.1
"""Above this share of the probed read bandwidth a decode rate cannot be true; the probe itself errs by less."""
EXEMPT_LLC_MULTIPLE = 4
"""Smaller weights may be served by caches, so the memory's bandwidth is no ceiling for them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DecodeTraffic:
    """Bytes that one decode step must read, per definition `mbu.v1`; None where the runtime does not tell."""

    weight_bytes: int
    kv_bytes_per_token: int


def misplaced(facts: SessionFacts) -> str | None:
    """Why the placement is not what was asked, or None: everything that computes must be on the asked one."""
    asked = [p for p in facts.placement if p.device == facts.asked_placement]
    elsewhere = [p for p in facts.placement if p.device != facts.asked_placement and p.operations]
    if not facts.placement:
        return "the runtime does not tell where its operations execute"
    if elsewhere:
        place = max(elsewhere, key=lambda p: sum(p.operations.values()))
        kinds = sorted(place.operations.items(), key=lambda item: -item[1])
        named = ", ".join(f"{count} {kind}" for kind, count in kinds[:4]) + (", …" if len(kinds) > 4 else "")
        share = sum(p.matmul_share for p in asked)
        return f"asked for {facts.asked_placement}, but {place.device} executes {named} (matmul share here {share:.0%})"
    if abs(sum(p.matmul_share for p in asked) - 1) > 1e-6:
        return f"{facts.asked_placement} holds only {sum(p.matmul_share for p in asked):.0%} of the matrix products"
    return None


def decode_traffic(facts: SessionFacts) -> DecodeTraffic | None:
    """Weights as the runtime stores them, without a table that is only looked rows up in, and the KV cache."""
    if facts.resident_weight_bytes is None or facts.embedding_bytes is None or facts.kv_bytes_per_token is None:
        return None
    return DecodeTraffic(
        weight_bytes=facts.resident_weight_bytes - facts.embedding_bytes, kv_bytes_per_token=facts.kv_bytes_per_token
    )


def mbu_ratio(
    traffic: DecodeTraffic, workload: Workload, mean_step_s: float, read_bytes_per_s: float, llc_bytes: int | None
) -> float | None:
    """Bytes read per decode step / step time / probed bandwidth; None where caches could serve the weights.

    The KV read is that of the mean position of the workload's decode steps, for every row of the batch.
    """
    if llc_bytes is not None and traffic.weight_bytes < EXEMPT_LLC_MULTIPLE * llc_bytes:
        return None
    mean_length = workload.depth + workload.prompt_tokens + (workload.decode_steps + 1) / 2
    kv_bytes = traffic.kv_bytes_per_token * mean_length * workload.batch
    return (traffic.weight_bytes + kv_bytes) / mean_step_s / read_bytes_per_s


def impossible(ratio: float | None) -> str | None:
    """Why a bandwidth utilization cannot be true, or None."""
    if ratio is None or ratio <= IMPOSSIBLE_RATIO:
        return None
    return f"decode would need {ratio:.2f} times the memory bandwidth that was probed in the same launch"
