"""Checks of how a session behaves: facts, memory, refusals, closing, and what it leaves behind."""

from __future__ import annotations

import gc
import json
import os
import threading
import time
from contextlib import suppress
from dataclasses import fields, replace
from pathlib import Path
from typing import Any, get_args

import numpy as np

from bench import protocol
from bench.conformance.check import Check, Failure, demand
from bench.conformance.models import Variant, both
from bench.conformance.subject import Subject
from bench.errors import BenchError, CaseError, PrerequisiteError
from bench.facts import Activations, MemoryUse, SessionFacts
from bench.types import LoadGroup

NOWHERE = ("nowhere:97", "nowhere", "97")
KINDS = ("cpu", "gpu", "npu")
NOBODY = "NoSuchExecutionProvider"
WATCHED_S, BUSY_TICKS = 0.4, 5
"""Of forty of the kernel's usual ticks a thread that spins gets so many however busy the machine is."""


def facts_are_complete(subject: Subject, variant: Variant) -> None:
    """facts() names precision, placement, threads and bytes, each with evidence; what it cannot know is None."""
    with subject.opened(variant) as session:
        session.step(subject.rows(variant))
        facts = session.facts()
    told = protocol.encode(facts)
    demand(protocol.decode(SessionFacts, told) == facts, "facts do not survive JSON")
    demand(facts.evidence and all(e.source and e.claim for e in facts.evidence), "facts give no evidence")
    for phase in (facts.prefill, facts.decode):
        demand(phase.activations in get_args(Activations), f"{phase.activations!r} is no kind of activations")
    for name in ("threads", "resident_weight_bytes", "kv_bytes_per_token"):
        value = getattr(facts, name)
        demand(value is None or value > 0, f"{name} is {value}: None means not known, 0 is never true")
    if subject.backend.computes:
        _demand_placement(facts)


def memory_is_positive_or_none(subject: Subject, variant: Variant) -> None:
    """memory() gives for each device positive numbers of bytes, and None for what cannot be known."""
    with subject.opened(variant) as session:
        session.step(subject.rows(variant))
        uses = session.memory()
    protocol.encode({"uses": uses})
    demand(isinstance(uses, list) and all(isinstance(use, MemoryUse) for use in uses), f"memory() returned {uses!r}")
    demand(uses or not subject.backend.computes, "memory() names no device")
    for use in uses:
        demand(use.device, "a device without a name")
        for field in fields(use)[1:]:
            value = getattr(use, field.name)
            demand(value is None or (isinstance(value, int) and value > 0), f"{use.device}: {field.name} is {value!r}")


def a_prompt_beyond_the_cache_is_refused(subject: Subject, variant: Variant) -> None:
    """More tokens or rows than the cache holds raise CaseError, and the session closes in order after that."""
    rows = subject.rows(variant)
    full = np.resize(rows, (variant.batch, variant.capacity)).astype(np.int32)
    for prompt, beyond in ((full, rows[:, :1]), (rows[:, :1], np.repeat(rows[:, :1], 2, axis=0)), (full, full)):
        with subject.opened(variant) as session:
            session.step(prompt)
            try:
                session.step(beyond)
            except CaseError:
                pass
            else:
                raise Failure(f"{beyond.shape} tokens after {prompt.shape[1]} in a cache of {full.shape} were accepted")
            session.close()


def closing_twice_does_nothing(subject: Subject, variant: Variant) -> None:
    """close() may be called again."""
    with subject.opened(variant) as session:
        session.step(subject.rows(variant))
        session.close()
        session.close()


def an_absent_device_is_refused(subject: Subject, variant: Variant) -> None:
    """A device that is not there is a PrerequisiteError with a remedy; nothing else takes its place."""
    present = {device.kind for device in subject.availability.devices}
    for device in (*NOWHERE, *(kind for kind in KINDS if present and kind not in present)):
        _demand_refused(subject, variant, device=device)


def an_absent_provider_is_refused(subject: Subject, variant: Variant) -> None:
    """A provider that is not there is a PrerequisiteError with a remedy; nothing else takes its place."""
    _demand_refused(subject, variant, provider=NOBODY)


def the_environment_is_untouched(subject: Subject, variant: Variant) -> None:
    """A session changes neither environment nor working folder, and leaves no thread at work and no file open."""

    def use() -> None:
        with subject.opened(variant) as session:
            session.step(subject.rows(variant))
            session.facts()
        gc.collect()

    use()  # what a runtime sets up once per process is its own affair
    before, threads = _surroundings(), set(_processor_ticks())
    use()
    left = _at_work(threads)
    after = _surroundings()
    changed = [name for name in before if before[name] != after[name]]
    left += [
        f"{name}: {before[name]} became {after[name]}"
        for name in changed
        if not (isinstance(before[name], int) and after[name] < before[name])
    ]
    demand(not left, "; ".join(left)[:500])


def _demand_placement(facts: SessionFacts) -> None:
    share = sum(place.matmul_share for place in facts.placement)
    demand(abs(share - 1) < 1e-6, f"the placement's shares of the matrix products add up to {share}")
    demand(facts.asked_placement, "facts do not say which placement was asked for")
    demand(any(place.operations for place in facts.placement), "the placement counts no operations")
    demand(facts.devices and all(d.kind and d.name for d in facts.devices), "facts name no device")
    demand(facts.weights and facts.kv_cache, "facts do not say how weights and KV cache are stored")
    for phase in (facts.prefill, facts.decode):
        demand({"matmul", "attention"} <= set(phase.kernels), f"kernels are named for {sorted(phase.kernels)} only")
    json.dumps([dict(place.operations) for place in facts.placement])


def _demand_refused(subject: Subject, variant: Variant, **changes: Any) -> None:
    case = replace(subject.case(variant), **changes)
    subject.require(subject.case(variant))
    if not subject.backend.support(case).ok:
        return
    what = " ".join(changes.values())
    try:
        session = subject.backend.open(LoadGroup(cases=(case,)), subject.prepared(variant))
    except PrerequisiteError as error:
        demand(error.remedy, f"{what}: refused without a remedy: {error}")
    except BenchError as error:
        raise Failure(f"{what}: {type(error).__name__} instead of PrerequisiteError: {error}") from error
    else:
        device = session.facts().devices
        session.close()
        raise Failure(f"{what} was asked for and {', '.join(d.name for d in device)} took its place")


def _surroundings() -> dict[str, Any]:
    here: dict[str, Any] = {"environment": dict(os.environ), "working folder": str(Path.cwd())}
    if Path("/proc/self/task").exists():
        here["open files"] = len(list(Path("/proc/self/fd").iterdir()))
    return here


def _at_work(known: set[str]) -> list[str]:
    """Of the threads that are not `known`, those that use a processor while nothing is asked of them.

    Threads that sleep do not count: some runtimes keep one for each model that they have ever loaded.
    """
    before = _processor_ticks()
    time.sleep(WATCHED_S)
    after = _processor_ticks()
    busy = [name for name in after if name not in known and after[name] - before.get(name, 0) >= BUSY_TICKS]
    return [f"threads left at work: {len(busy)}"] if busy else []


def _processor_ticks() -> dict[str, int]:
    """By thread, its user and system time (fields 14 and 15 of /proc/PID/stat); without the calling one."""
    ticks: dict[str, int] = {}
    for task in Path("/proc/self/task").glob("*"):
        with suppress(OSError):  # a thread that ends meanwhile is not at work
            fields = (task / "stat").read_text().rpartition(")")[2].split()
            ticks[task.name] = int(fields[11]) + int(fields[12])
    ticks.pop(str(threading.get_native_id()), None)
    return ticks


_ONE = (Variant(fidelity="native"),)

CHECKS = (
    Check(facts_are_complete, both(), computing=False),
    Check(memory_is_positive_or_none, _ONE, computing=False),
    Check(a_prompt_beyond_the_cache_is_refused, _ONE),
    Check(closing_twice_does_nothing, _ONE, computing=False),
    Check(an_absent_device_is_refused, _ONE),
    Check(an_absent_provider_is_refused, _ONE),
    Check(the_environment_is_untouched, _ONE, computing=False),
)
