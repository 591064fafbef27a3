"""It ran where it was asked to, and no faster than the memory can deliver. Pure; standard library only."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from bench.facts import SessionFacts
from bench.types import Workload
from bench.units import SHARE_NOISE, render_share

IMPOSSIBLE_RATIO = 1.1
"""Above this share of the probed read bandwidth a decode rate cannot be true; the probe itself errs by less."""
EXEMPT_LLC_MULTIPLE = 4
"""Smaller weights may be served by caches, so the memory's bandwidth is no ceiling for them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DecodeTraffic:
    """Bytes that one decode step must read, per definition `mbu.v1`; None where the runtime does not tell."""

    weight_bytes: int
    kv_bytes_per_token: int


class Place(Protocol):
    """What one device was given: a session's Placement, or a record's."""

    @property
    def device(self) -> str: ...
    @property
    def matmul_share(self) -> float | None: ...
    @property
    def operations(self) -> Mapping[str, int]: ...


class Placed(Protocol):
    """Facts of a session, or of a record."""

    @property
    def asked_placement(self) -> str | None: ...
    @property
    def placement(self) -> Sequence[Place]: ...


def elsewhere(facts: Placed) -> list[Place]:
    """The devices that compute something though another was asked for, the one with most of the work first."""
    found = [
        place for place in facts.placement if place.device != facts.asked_placement and (_share(place) or _count(place))
    ]
    return sorted(found, key=lambda place: (-_share(place), -_count(place), place.device))


def elsewhere_share(facts: Placed) -> float | None:
    """The share of the matrix products that is not on the placement asked for; 0 where only other operations are not.

    None where all that computes is there, or where it is not known: a runtime that does not tell is never believed.
    """
    if not facts.placement or facts.asked_placement is None:
        return None
    share = abs(1 - sum(_share(place) for place in facts.placement if place.device == facts.asked_placement))
    if share < SHARE_NOISE:
        return 0.0 if elsewhere(facts) else None
    return min(share, 1.0)


def elsewhere_text(facts: Placed) -> str | None:
    """`3 % on CPU` for headings and comparisons; None where nothing is known to be elsewhere."""
    share = elsewhere_share(facts)
    if share is None:
        return None
    devices = ", ".join(sorted(place.device for place in elsewhere(facts))) or "what is not told"
    return f"{render_share(share)} on {devices}" if share else f"other operations on {devices}"


def misplaced(facts: Placed, allowed: float | None = None) -> str | None:
    """Why the placement is not what was asked, or None: everything that computes must be on the asked one.

    Where a share is `allowed`, so much of the matrix products may be elsewhere, and any other operation too.
    """
    asked, share = facts.asked_placement, elsewhere_share(facts)
    if not facts.placement:
        return "the runtime does not tell where its operations execute"
    if share is None or (allowed is not None and share <= allowed + SHARE_NOISE):
        return None
    if not elsewhere(facts):
        return f"{asked} holds only {render_share(1 - share)} of the matrix products"
    bound = "" if allowed is None else f", {render_share(allowed)} may be"
    products = (
        f"{render_share(share)} of the matrix products are there" if share else "all matrix products are as asked"
    )
    return f"asked for {asked}, but {executed_elsewhere(facts)}: {products}{bound}"


def passed(facts: Placed, allowed: float | None) -> str | None:
    """What was executed elsewhere than asked and is believed, because so much of it was allowed; None: nothing."""
    share = elsewhere_share(facts)
    if share is None or misplaced(facts, allowed):
        return None
    named = executed_elsewhere(facts)
    said = f"{render_share(share)} of the matrix products not on {facts.asked_placement}"
    return f"{said}, {render_share(allowed or 0.0)} allowed" + (f": {named}" if named else "")


def certified_elsewhere(certificate: Mapping[str, Any] | None, allowed: float | None) -> str | None:
    """Why a certificate is not of the place that was asked for, where more than `allowed` of it is of another."""
    told = certificate or {}
    if not told.get("elsewhere") or (allowed is not None and (told["elsewhere_share"] or 0.0) <= allowed):
        return None
    return f"the exact configuration, which certifies the files, was {told['elsewhere']}"


def executed_elsewhere(facts: Placed) -> str:
    """`CPU executes 30 Softmax, 2 Add`: the most frequent kinds of each device that was not asked for."""
    return " and ".join(f"{place.device} executes {_kinds(place)}" for place in elsewhere(facts))


def how_to_allow(facts: Placed) -> str | None:
    """What to type to have this placement accepted: whole per cents where they do; None where no share would."""
    share = elsewhere_share(facts)
    if share is None:
        return None
    for digits in (2, 3, 4):
        least = max(math.ceil(share * 10**digits - SHARE_NOISE), 1) / 10**digits
        if least < 1:
            return f"`--allow-fallback {least:.{digits}f}` accepts it"
    return None


def _kinds(place: Place) -> str:
    kinds = sorted(place.operations.items(), key=lambda item: -item[1])
    return ", ".join(f"{count} {kind}" for kind, count in kinds[:4]) + (", …" if len(kinds) > 4 else "")


def _share(place: Place) -> float:
    return place.matmul_share or 0.0


def _count(place: Place) -> int:
    return sum(place.operations.values())


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
