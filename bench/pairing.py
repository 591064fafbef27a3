"""Which series of one side of a comparison stands against which of the other. Pure.

What both sides have must be equal; what they share no value of is what is compared. So `sweep=X` and `sweep=Y` compare
each backend with itself, `backend=onnx` and `backend=openvino` these two on each machine that both were measured on.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

import msgspec

from bench.attest import elsewhere_text
from bench.results.record import Record
from bench.results.selecting import as_text

ELSEWHERE, NOTHING = "work elsewhere", "nothing"
"""What was executed on another device than asked, and its value where none is known."""

ORDER = (
    *("backend", "provider", "device kind", "device", "machine", "model", "scheme", "workload"),
    *("fidelity", "weights", "definition", "method", ELSEWHERE, "*", "kv_capacity", "device index", "device id"),
    *("precision", "proof"),
)
"""Fields of a series from what decides most to what decides least; `*`: of workload, options, parallel, placement."""

SAME = ("model", "scheme", "workload")
"""Never compared with others: records of another model or workload make another row."""

REFUSED = ("fidelity", "weights", "definition", "method", ELSEWHERE)
"""Where one of these differs, or a field of the workload, there is a row but no verdict."""

BADGED = ("precision", "proof")
"""No part of the identity, but never mixed within a side."""

Fields = Mapping[str, str | None]
"""Text by name; None: not known, or not there."""


@dataclass(frozen=True, slots=True, eq=False)
class Pool:
    """Records of one side that may be summarized together: one series at one precision, all proven or none.

    `fields` are everything that may tell two of them apart, by the names of ORDER.
    """

    records: tuple[Record, ...]
    fields: Fields

    @property
    def first(self) -> Record:
        return self.records[0]

    @property
    def model(self) -> str:
        return f"{self.fields['model']}-{self.fields['scheme']}"

    @property
    def label(self) -> str:
        return f"{self.model} {self.fields['backend']} {self.fields['workload']}"


@dataclass(frozen=True, slots=True)
class Alone:
    """A pool without a partner: the other side has `value` of the field `name` nowhere beside what they agree in."""

    pool: Pool
    name: str
    value: str | None


@dataclass(frozen=True, slots=True)
class Pairs:
    """What stands against each other, and what is left on either side."""

    found: tuple[tuple[Pool, Pool], ...] = ()
    only_a: tuple[Alone, ...] = ()
    only_b: tuple[Alone, ...] = ()


def pools(records: Iterable[Record]) -> list[Pool]:
    """The records by series, precision and proof; one that is there twice counts once."""
    groups: dict[tuple[str, str | None, bool], dict[str, Record]] = {}
    for record in records:
        groups.setdefault((record.series_key, record.precision_key, record.proven), {})[record.record_id] = record
    return [Pool(tuple(group.values()), _fields(tuple(group.values()))) for group in groups.values()]


def paired(a: Sequence[Pool], b: Sequence[Pool]) -> Pairs:
    """Pools that agree in every field of which both sides share a value; several partners are several pairs."""
    names = {name for pool in (*a, *b) for name in pool.fields}
    return _paired(a, b, sorted(names, key=lambda name: (ORDER.index(name if name in ORDER else "*"), name)))


def refused(name: str) -> bool:
    """Whether a difference in this field leaves nothing to compare."""
    return name in REFUSED or name.startswith("workload.")


def flat(prefix: str, fields: Mapping[str, Any]) -> Fields:
    """`fields` as text, by names that begin with `prefix`."""
    return {f"{prefix}.{name}": None if value is None else as_text(value) for name, value in fields.items()}


def _paired(a: Sequence[Pool], b: Sequence[Pool], names: Sequence[str]) -> Pairs:
    if not names:
        return Pairs(found=tuple(product(a, b)))
    name, rest = names[0], names[1:]
    of_a, of_b = _by(name, a), _by(name, b)
    shared = [value for value in of_a if value in of_b]
    if not shared and name not in SAME:
        return _paired(a, b, rest)
    inner = [_paired(of_a[value], of_b[value], rest) for value in shared]
    return Pairs(
        found=tuple(pair for each in inner for pair in each.found),
        only_a=(*_alone(name, of_a, shared), *(each for pairs in inner for each in pairs.only_a)),
        only_b=(*_alone(name, of_b, shared), *(each for pairs in inner for each in pairs.only_b)),
    )


def _by(name: str, all_pools: Sequence[Pool]) -> dict[str | None, list[Pool]]:
    groups: dict[str | None, list[Pool]] = {}
    for pool in all_pools:
        groups.setdefault(pool.fields.get(name), []).append(pool)
    return groups


def _alone(name: str, groups: Mapping[str | None, list[Pool]], shared: Sequence[str | None]) -> list[Alone]:
    return [Alone(pool, name, value) for value, of in groups.items() if value not in shared for pool in of]


def _fields(records: Sequence[Record]) -> dict[str, str | None]:
    first = records[0]
    identity = first.identity
    of_workload: dict[str, Any] = msgspec.to_builtins(identity.workload)
    del of_workload["name"]
    # a redacted record no longer knows which card it was, but others of its series may
    ids = [", ".join(known for d in record.identity.devices if (known := d.uuid or d.pci)) for record in records]
    return {
        "backend": identity.backend,
        "provider": identity.provider,
        "device kind": ", ".join(device.kind for device in identity.devices),
        "device": ", ".join(device.name for device in identity.devices),
        "machine": identity.host_id,
        "model": identity.model,
        "scheme": identity.scheme,
        "workload": identity.workload.name,
        "fidelity": identity.fidelity,
        "weights": identity.weights.digest or f"unknown, of {identity.weights.source}",
        "definition": identity.definition,
        "method": str(identity.method),
        ELSEWHERE: (elsewhere_text(first.facts) if first.facts else None) or NOTHING,
        **flat("workload", of_workload),
        **flat("options", identity.options),
        **flat("parallel", identity.parallel),
        **flat("placement", identity.placement),
        "kv_capacity": None if identity.kv_capacity is None else str(identity.kv_capacity),
        "device index": ", ".join(str(device.index) for device in identity.devices),
        "device id": max(ids) or None,
        "precision": first.precision_key,
        "proof": "proven" if first.proven else "unproven",
    }
