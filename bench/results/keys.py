"""The three keys of a record: which series it belongs to, which row of a table, and at which precision. Pure."""

from __future__ import annotations

import hashlib
import json
from typing import Any

import msgspec

PRECISION = ("activations", "compute", "attention_sums", "product_results")
"""What of a phase decides its numbers; what is not told is not hashed, as in records from before it was."""


def canonical_json(value: Any) -> bytes:
    """The one spelling of `value` that is hashed: keys sorted, no spaces, UTF-8, no NaN (ValueError)."""
    plain = msgspec.to_builtins(value)
    return json.dumps(plain, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode()


def series_key(identity: Any) -> str:
    """Hex SHA-256 of the whole identity (a Struct or its mapping): records with equal keys are one series.

    A device's PCI address is left out where its UUID is known, which it keeps in another slot; and where it is None,
    as in records from before it was.
    """
    plain: dict[str, Any] = msgspec.to_builtins(identity)
    devices = [
        _without(device, () if device.get("pci") and not device.get("uuid") else ("pci",))
        for device in plain.get("devices", [])
    ]
    return _digest({**plain, "devices": devices})


def config_key(identity: Any) -> str:
    """Hex SHA-256 of the identity without the host and the physical device: equal on another machine of its kind."""
    plain: dict[str, Any] = msgspec.to_builtins(identity)
    devices = [_without(device, ("uuid", "index", "pci")) for device in plain.get("devices", [])]
    return _digest({**_without(plain, ("host_id",)), "devices": devices})


def precision_key(facts: Any) -> str | None:
    """Hex SHA-256 of the effective precision; None where nothing is known.

    Weights, activations and arithmetic of each phase, KV cache, and the instruction set where the runtime tells it:
    when a runtime changes its defaults, or is allowed less than before, a new segment starts. Kernel names and
    evidence are left out, for they change without the numbers changing. Where something that computes was executed
    elsewhere than asked, its share, its devices and its kinds are hashed too: it is never one row with what was not.
    """
    if facts is None:
        return None
    plain: dict[str, Any] = msgspec.to_builtins(facts)
    phases = {
        phase: {name: plain[phase][name] for name in PRECISION if plain[phase].get(name)}
        for phase in ("prefill", "decode", "path")
        if plain.get(phase)
    }
    isa = {"isa": plain["isa"]} if plain.get("isa") else {}
    return _digest({"weights": plain["weights"], "kv_cache": plain["kv_cache"], **phases, **isa, **_elsewhere(plain)})


def _elsewhere(facts: dict[str, Any]) -> dict[str, Any]:
    """What was executed elsewhere than asked; empty where nothing was, as in records from before that was told."""
    if facts.get("elsewhere_share") is None:
        return {}
    devices = {
        place["device"]: sorted(place.get("operations", {}))
        for place in facts.get("placement", [])
        if place["device"] != facts.get("asked_placement") and (place.get("operations") or place.get("matmul_share"))
    }
    return {"elsewhere": {"share": f"{facts['elsewhere_share']:.4f}", "devices": devices}}


def _without(fields: dict[str, Any], names: tuple[str, ...]) -> dict[str, Any]:
    return {name: value for name, value in fields.items() if name not in names}


def _digest(value: Any) -> str:
    return hashlib.sha256(canonical_json(value)).hexdigest()
