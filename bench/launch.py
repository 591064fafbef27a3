"""One launch as the parent sees it: what it was given, and what its worker has said so far."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from bench import protocol
from bench.collector.contention import Contention
from bench.collector.host_memory import HostMemory
from bench.collector.sampling import Recording
from bench.environments.interpreter import Interpreter
from bench.errors import BenchError
from bench.facts import SessionFacts


@dataclass(frozen=True, slots=True)
class Timed:
    """When a sample was taken, on the monotonic clock of worker and parent; `prefilled_ns` None without a prompt."""

    began_ns: int
    prefilled_ns: int | None
    ended_ns: int

    @classmethod
    def of(cls, sample: dict[str, Any]) -> Timed:
        began_ns, prefill_s = sample["began_ns"], sample["prefill_s"]
        ended_ns = began_ns + round(1e9 * ((prefill_s or 0.0) + sum(sample["step_s"])))
        return cls(began_ns, None if prefill_s is None else began_ns + round(1e9 * prefill_s), ended_ns)


@dataclass(kw_only=True)
class Heard:
    """What the worker of one launch has said, by kind of event; lists are per case of the group."""

    facts: SessionFacts | None = None
    checks: list[dict[str, Any]] = field(default_factory=list)
    shapes: dict[int, dict[str, Any]] = field(default_factory=dict)
    samples: dict[int, list[dict[str, Any]]] = field(default_factory=dict)
    timed_ns: dict[int, list[Timed]] = field(default_factory=dict)
    executed: dict[int, list[dict[str, Any]]] = field(default_factory=dict)
    uses: dict[int | None, list[dict[str, Any]]] = field(default_factory=dict)
    ceilings: list[dict[str, Any]] = field(default_factory=list)
    probed_before: dict[int, int] = field(default_factory=dict)
    python_version: str | None = None
    packages: dict[str, str] = field(default_factory=dict)
    load_s: float | None = None
    first_step_s: float | None = None
    done: set[int] = field(default_factory=set)
    errors: dict[int, BenchError] = field(default_factory=dict)
    error: BenchError | None = None
    fed: dict[str, Any] | None = None
    current: int | None = None

    def told(self, cases: int) -> list[int]:
        """Positions of the cases whose fate is known; the others of the group need another launch.

        What ends a worker while it executes a case is that case's failure; before any case, it is everybody's.
        """
        known = self.done | set(self.errors)
        if self.error is not None and self.current is None:
            return list(range(cases))
        if self.current is not None:
            known = known | {self.current}
        return sorted(known) or list(range(cases))

    def error_of(self, case: int) -> BenchError | None:
        """What ended this case; what ended the worker after the case was done is not its error."""
        return self.errors.get(case) or (self.error if case not in self.done else None)

    def uses_of(self, case: int) -> list[dict[str, Any]]:
        """Memory as the session told it right after a case, else at its end."""
        return self.uses.get(case) or self.uses.get(None, [])

    def prefilled_ns(self, case: int) -> list[int]:
        """When the prefills of a case's samples ended."""
        return [each.prefilled_ns for each in self.timed_ns.get(case, []) if each.prefilled_ns is not None]

    def beside(self, case: int) -> list[dict[str, Any]]:
        """The probes right before and right after a case's samples."""
        first = self.probed_before.get(case, 0)
        return self.ceilings[max(0, first) : first + 2]

    def hear(self, event: dict[str, Any]) -> None:
        """Take in one event; kinds that no record needs are ignored."""
        match event["event"]:
            case "phase":
                self.current = event.get("case", self.current)
            case "fed":
                self.fed = event["fed"]
            case "facts":
                self.facts = protocol.revive(SessionFacts, event["facts"])
            case "gate":
                self.checks = event["checks"]
            case "shape":
                self.shapes[event["case"]] = event["check"]
            case "sample":
                self.probed_before.setdefault(event["case"], len(self.ceilings) - 1)
                told = {key: value for key, value in event["sample"].items() if key != "began_ns"}
                self.samples.setdefault(event["case"], []).append(told)
                self.timed_ns.setdefault(event["case"], []).append(Timed.of(event["sample"]))
            case "executed":
                self.executed.setdefault(event["case"], []).append(event["executed"])
            case "memory":
                self.uses[event.get("case")] = event["uses"]
            case "ceiling":
                self.ceilings.append(event["ceiling"])
            case "interpreter":
                self.python_version = event["version"]
            case "imported":
                self.packages = event["packages"]
            case "opened":
                self.load_s = event["seconds"]
            case "first-step":
                self.first_step_s = event["seconds"]
            case "case-done":
                self.done.add(event["case"])
            case "case-error":
                self.errors[event["case"]] = protocol.rebuild(event)
            case "error":
                self.error = protocol.rebuild(event)


@dataclass(kw_only=True)
class Launch:
    """One launch as the parent saw it."""

    launch_id: str
    index: int
    started_at_utc: str
    versions: dict[str, str]
    builder: int
    interpreter: Interpreter | None = None
    digest: str | None = None
    prepare_s: float | None = None
    page_cache: str | None = None
    certificate: dict[str, Any] | None = None
    computes: bool = True
    memory: HostMemory = field(default_factory=HostMemory)
    contention: Contention = field(default_factory=Contention)
    sensed: Recording | None = None
    idle: Recording | None = None
    heard: Heard = field(default_factory=Heard)
