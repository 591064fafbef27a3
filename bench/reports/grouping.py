"""Which rows may be ranked among each other, and what their group is called. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any, cast

import msgspec

from bench.attest import elsewhere_text
from bench.facts import PhaseFacts, precision_class
from bench.results.keys import PRECISION
from bench.results.record import Record
from bench.results.schema import Facts, Phase

NOT_KNOWN = "precision not known"
NATIVE = "native"


def precision(record: Record) -> str | None:
    """What the session rounded: the class of each phase and the format of its KV cache; None where it told nothing.

    By effective facts, not by what was asked for; f16 results of products are told where the class does not tell them.
    How a runtime lays its weights out is left out: their codes are the scheme's, and read back.
    """
    if record.facts is None:
        return None
    # a record's phase has the fields of a session's, whatever words a newer version puts into them
    phases = (cast(PhaseFacts, phase) for phase in _phases(record.facts).values())
    classes = dict.fromkeys(_rounded(phase, record.facts.kv_cache) for phase in phases)
    return f"{'/'.join(classes)}, KV {record.facts.kv_cache}"


def must_be_equal(record: Record) -> dict[str, Any]:
    """All that records of one ranking have in common, by name: work, coding, fidelity, precision, way of measuring.

    So is what was executed elsewhere than asked: such a rate is of two devices, and what each did decides it. Of a
    record without facts nothing can be ranked, so the digests that it may have got to do not matter.
    """
    identity = record.identity
    proof: dict[str, Any] = {}
    if record.facts:
        proof = {"weights": identity.weights.digest, "definition": identity.definition, "method": identity.method}
        for name, phase in _phases(record.facts).items():
            proof[name] = "/".join(filter(None, (_told(part, getattr(phase, part)) for part in PRECISION)))
    return {
        "model": identity.model,
        "scheme": identity.scheme,
        "fidelity": identity.fidelity,
        "precision": precision(record),
        "elsewhere": elsewhere_text(record.facts) if record.facts else None,
        **{f"workload {name}": value for name, value in msgspec.to_builtins(identity.workload).items()},
        **proof,
    }


def headings(groups: Iterable[Mapping[str, Any]]) -> list[str]:
    """What each of the different `groups` (of `must_be_equal`) is called, with what tells it from its namesakes."""
    all_groups = list(groups)
    plain = [_plain(group) for group in all_groups]
    alike = Counter(plain)
    return [
        text if alike[text] == 1 else ", ".join([text, *_details(group, [g for g in all_groups if _plain(g) == text])])
        for text, group in zip(plain, all_groups, strict=True)
    ]


def _plain(group: Mapping[str, Any]) -> str:
    fidelity = "" if group["fidelity"] == NATIVE else f", {group['fidelity']}"
    name = f"{group['model']}-{group['scheme']} {group['workload name']}"
    elsewhere = f", {group['elsewhere']}" if group["elsewhere"] else ""
    return f"{name}{fidelity}, {group['precision'] or NOT_KNOWN}{elsewhere}"


def _details(group: Mapping[str, Any], namesakes: Iterable[Mapping[str, Any]]) -> list[str]:
    others = list(namesakes)
    return [
        f"{name.removeprefix('workload ')} {'not known' if value is None else value}"
        for name, value in group.items()
        if any(other.get(name) != value for other in others)
    ]


def _rounded(phase: PhaseFacts, kv_cache: str) -> str:
    name = precision_class(phase, kv_cache)
    return name if not phase.product_results or "+out16" in name else f"{name} with {phase.product_results} results"


def _told(part: str, value: str | None) -> str | None:
    """What is told only where it is odd says which of both it is: sums and results may both be `f16`."""
    return f"{part.replace('_', ' ')} {value}" if value and part not in PRECISION[:2] else value


def _phases(facts: Facts) -> dict[str, Phase]:
    return {"prefill": facts.prefill, "decode": facts.decode, "path": facts.path or facts.prefill}
