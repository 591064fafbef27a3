"""`--resume`: the sweep to go on with, and whether it is still the one that was planned."""

from __future__ import annotations

import shlex
from collections.abc import Collection, Iterable, Mapping
from dataclasses import asdict
from typing import Any

from bench.errors import UsageError
from bench.plan import Plan, case_key
from bench.results.journal import Journal
from bench.results.store import Store
from bench.types import Case

NAMING = ("model", "scheme", "backend", "device", "workload.name")
"""What tells the cases of a sweep apart, whatever else of them changes."""
MOST_SHOWN = 3
PARTS = ("ab", "night_id")
"""In the plan of a sweep that is a part of something larger: alone it would mean nothing."""


def interrupted_sweep(store: Store) -> Journal:
    """The newest sweep of `bench run` that still misses cases; UsageError if there is none."""
    journal = Journal.open_latest_unfinished(store, lambda plan: plan.keys().isdisjoint(PARTS))
    if journal is None:
        raise UsageError("nothing to resume: no interrupted sweep", where=str(store.root), remedy="leave --resume out")
    return journal


def resume_command(results: str | None) -> str:
    """What to type to go on with a sweep whose store was named by `--results`, or not named."""
    return shlex.join(["bench", "run", "--resume", *(["--results", results] if results else [])])


def cases_told(plan: Plan) -> dict[str, Any]:
    """All cases by their key, for the journal: what `check_same` compares with."""
    return {case_key(case): asdict(case) for case in _cases(plan)}


def check_same(journal: Journal, plan: Plan, keys: Collection[str]) -> None:
    """UsageError, with what changed, where the journal misses cases that are not among the `keys` planned now."""
    lost = [key for key in journal.missing() if key not in keys]
    if not lost:
        return
    then = {key: journal.plan.get("cases", {}).get(key.partition("/")[0]) for key in lost}
    changes = dict.fromkeys(change for case in then.values() if case for change in _changes(case, _cases(plan)))
    said = ", ".join(list(changes)[:MOST_SHOWN]) + (", …" if len(changes) > MOST_SHOWN else "")
    raise UsageError(
        f"what it misses is planned no longer ({len(lost)} of {len(journal.case_keys)} cases)",
        where=f"sweep {journal.sweep_id}",
        cause=said or "a model, an adapter or a default changed since",
        remedy=f"start again without --resume: {journal.plan['command']}",
    )


def _cases(plan: Plan) -> list[Case]:
    return [*(case for group in plan.groups for case in group.cases), *(case for case, _ in plan.refused)]


def _changes(case: Mapping[str, Any], now: Iterable[Case]) -> list[str]:
    """In what a case of the journal differs from the one of the same name."""
    then = _flat(case)
    for planned in map(_flat, map(asdict, now)):
        if all(then.get(name) == planned[name] for name in NAMING):
            return [
                f"{name} was {then.get(name)}, is {planned.get(name)}"
                for name in dict.fromkeys([*then, *planned])
                if then.get(name) != planned.get(name)
            ]
    return []


def _flat(value: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested tables as one, with dotted names."""
    flat: dict[str, Any] = {}
    for name, item in value.items():
        flat |= _flat(item, f"{prefix}{name}.") if isinstance(item, Mapping) else {prefix + name: item}
    return flat
