"""What holds for a whole sweep: the machine, its settings, the code, the command line."""

from __future__ import annotations

import platform
from dataclasses import dataclass, field
from typing import Any

from bench.collector import host, machine


@dataclass(frozen=True, slots=True)
class Part:
    """One side, `a` or `b`, of two sweeps that are executed by turns; `ab_id` names the two."""

    ab_id: str
    side: str


@dataclass(kw_only=True)
class Situation:
    """What holds for a whole sweep: machine, its settings, code, command line."""

    host_id: str
    host: dict[str, Any]
    kernel: str | None
    governor: str | None
    commit: str | None
    dirty: bool | None
    command: str
    settings: dict[str, Any] = field(default_factory=dict)
    sweep_id: str | None = None
    seed: int | None = None
    repetitions: int | None = None
    budget_s: float | None = None
    allow_fallback: float | None = None
    part: Part | None = None


def situation(
    command: str,
    sweep_id: str | None,
    seed: int,
    repetitions: int,
    budget_s: float | None,
    allow_fallback: float | None = None,
    part: Part | None = None,
) -> Situation:
    """What holds now, on this machine, for this checkout."""
    commit, dirty = host.code_version()
    settings, hardware = machine.split(machine.facts())
    return Situation(
        host_id=host.host_id(),
        host={**host.facts(), **hardware},
        settings={name: value for name, value in settings.items() if value is not None},
        kernel=platform.release(),
        governor=host.governor(),
        commit=commit,
        dirty=dirty,
        command=command,
        sweep_id=sweep_id,
        seed=seed,
        repetitions=repetitions,
        budget_s=budget_s,
        allow_fallback=allow_fallback,
        part=part,
    )
