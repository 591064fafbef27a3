"""Checks of the adapter itself, before anything is opened: name, signatures, import, probe, support, files."""

from __future__ import annotations

import inspect
import math
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

from bench import measure
from bench.api import Backend, Session
from bench.conformance.check import Check, Failure, Gap, demand
from bench.conformance.models import CAPACITY, SCHEMES, Variant
from bench.conformance.subject import Subject
from bench.errors import BenchError, UsageError
from bench.types import Case, LoadGroup, Prepared, Workload

_FOR_EVERY_SCHEME = tuple(Variant(scheme=scheme) for scheme in SCHEMES)


def the_name_is_the_registered_one(subject: Subject) -> None:
    """The adapter's `name` equals its entry point's; version and options have their kinds."""
    backend = subject.backend
    demand(":" in subject.name or backend.name == subject.name, f"{backend.name!r} is registered as {subject.name!r}")
    demand(isinstance(backend.builder, int) and backend.builder > 0, f"builder is {backend.builder!r}")
    for name, option in backend.options.items():
        fits = option.default is None or isinstance(option.default, option.kind)
        demand(fits, f"option {name}: default {option.default!r} is no {option.kind.__name__}")
        demand(option.help, f"option {name} has no help")


def signatures_are_the_protocols(subject: Subject) -> None:
    """Every method of the adapter takes the parameters that bench.api says, with the same defaults."""
    _demand_signatures(Backend, type(subject.backend))


def session_signatures_are_the_protocols(subject: Subject, variant: Variant) -> None:
    """Every method of its sessions takes the parameters that bench.api says, with the same defaults."""
    with subject.opened(variant) as session:
        _demand_signatures(Session, type(session))


def importing_does_nothing(subject: Subject) -> None:
    """Importing the adapter loads no runtime, starts no thread, prints nothing and changes no environment."""
    found = subject.isolated
    demand(not found["loaded"], f"importing it loads {', '.join(found['loaded'])}")
    demand(not found["changed"], f"importing it changes {', '.join(found['changed'])}")
    demand(not found["printed"], f"importing it prints {found['printed'][:200]!r}")


def probe_explains_an_absent_runtime(subject: Subject) -> None:
    """Without its runtime, probe() raises nothing and tells reason and remedy."""
    found = subject.isolated["probe"]
    demand(found["raised"] is None, f"probe() raises {found['raised']}")
    demand(found["reason"] or not subject.backend.computes, "probe() finds a runtime that cannot be imported")
    demand(found["remedy"] or not found["reason"], f"no remedy is given for: {found['reason']}")


def probe_tells_versions(subject: Subject) -> None:
    """Where it is available, probe() names the version of everything that computes."""
    found = subject.availability
    if not found.ok:
        demand(found.remedy, f"no remedy is given for: {found.reason}")
        raise Gap(f"not here: {found.reason}; {found.remedy}")
    demand(found.versions and all(found.versions.values()), f"versions are {found.versions}")


def requirements_name_packages(subject: Subject) -> None:
    """requirements() names packages for the default, or says in its notes where to get what pip cannot bring; and
    refuses an accelerator it has never heard of by UsageError.
    """
    needed = subject.backend.requirements(None)
    demand(needed.packages or needed.notes or not subject.backend.computes, "nothing to install, and no word of it")
    try:
        packages = subject.backend.requirements("no-such-accelerator").packages
    except UsageError:
        return
    demand(not packages, f"installs {', '.join(packages)} for no-such-accelerator")


def support_is_pure_and_total(subject: Subject) -> None:
    """support() answers every case of the grid without the runtime, twice alike, and gives reason and detail for no."""
    problems = subject.isolated["support"]
    demand(not problems, "; ".join(problems[:3]))


def resident_ratio_is_a_share_of_the_file(subject: Subject) -> None:
    """resident_ratio() gives a finite number for every supported case, above 0 where something is computed."""
    for variant in _FOR_EVERY_SCHEME:
        case = subject.case(variant)
        if not subject.backend.support(case).ok:
            continue
        ratio = subject.backend.resident_ratio(case)
        demand(0 <= ratio < math.inf, f"resident_ratio() is {ratio} for {variant.scheme}")
        demand(ratio > 0 or not subject.backend.computes, f"resident_ratio() is {ratio} for {variant.scheme}")


def environment_names_variables(subject: Subject) -> None:
    """environment() gives texts by name for every supported case, twice the same, and changes nothing itself."""
    before = dict(os.environ)
    for variant in _FOR_EVERY_SCHEME:
        case = subject.case(variant)
        if not subject.backend.support(case).ok:
            continue
        found = dict(subject.backend.environment(case))
        demand(found == dict(subject.backend.environment(case)), "environment() answers otherwise the second time")
        demand(all(isinstance(each, str) for pair in found.items() for each in pair), f"environment() is {found}")
    demand(dict(os.environ) == before, "environment() changes the environment that it is to be told for")


def what_support_refuses_does_not_execute(subject: Subject) -> None:
    """A case that support() refuses raises BenchError when it is executed all the same: gaps are real."""
    for variant in _FOR_EVERY_SCHEME:
        for batch, chunk, depth in ((1, 64, 0), (1, 8, 0), (2, 64, 0), (2, 8, 0), (2, 64, 16)):
            workload = Workload(name="grid", prompt_tokens=16, new_tokens=1, depth=depth, batch=batch, chunk=chunk)
            case = subject.case(replace(variant, batch=batch, capacity=CAPACITY), workload)
            support = subject.backend.support(case)
            if support.ok or support.reason == "MEMORY":
                continue
            if not subject.availability.ok:
                raise Gap(f"not here: {subject.availability.reason}")
            try:
                _execute(subject, variant, case)
            except BenchError:
                continue
            raise Failure(f"{support.reason} is said of {variant.scheme}, {workload}, but it executes: say yes")


def preparing_twice_gives_the_same_bytes(subject: Subject, variant: Variant) -> None:
    """prepare() writes the files that it names into the folder it is given, the same bytes every time."""
    case, artifact = subject.case(variant), subject.artifact(variant)
    subject.require(case)
    first, second = subject.prepare(case, artifact), subject.prepare(case, artifact)
    demand(first.files, "prepare() names no files")
    demand((first.files, first.notes) == (second.files, second.notes), "files or notes differ the second time")
    for name in first.files:
        demand(Path(name).name == name, f"file {name!r} is not directly in the folder")
        demand(Path(first.path, name).read_bytes() == Path(second.path, name).read_bytes(), f"{name} differs")
    here = {path.name for path in Path(first.path).iterdir()}
    demand(here == set(first.files), f"prepare() left {sorted(here - set(first.files))}, which it does not name")


def an_interrupted_prepare_ends(subject: Subject, variant: Variant) -> None:
    """What interrupts prepare() is not swallowed, and progress is told along the way."""
    case, artifact = subject.case(variant), subject.artifact(variant)
    subject.require(case)

    class Stop(Exception):
        pass

    def stop(done: int, total: int) -> None:
        raise Stop

    folder = subject.scratch / f"{subject.backend.name}-interrupted-{variant}"
    folder.mkdir(exist_ok=True)
    try:
        subject.backend.prepare(case, artifact, folder, stop)
    except Stop:
        return
    raise Failure("prepare() never tells its progress, or goes on when interrupted")


def _execute(subject: Subject, variant: Variant, case: Case) -> None:
    prepared = subject.prepared(variant) if subject.backend.computes else Prepared(path="", files=())
    session = subject.backend.open(LoadGroup(cases=(case,)), prepared)
    try:
        ids = measure.token_ids(case.workload, case.arch.vocab, 0, 0)
        measure.repetition(session, case.workload, ids, lambda: 0, at_depth=False)
    finally:
        session.close()


def _demand_signatures(protocol: type, kind: type) -> None:
    for name, wanted in vars(protocol).items():
        if name.startswith("_") or not inspect.isfunction(wanted):
            continue
        found: Any = getattr(kind, name, None)
        demand(callable(found), f"{kind.__name__} has no {name}()")
        demand(_shape(found) == _shape(wanted), f"{kind.__name__}.{name}{inspect.signature(found)} differs")


def _shape(function: Any) -> list[tuple[str, Any, Any]]:
    return [(p.name, p.kind, p.default) for p in inspect.signature(function).parameters.values()]


_ONE = (Variant(fidelity="native"),)

CHECKS = (
    Check(the_name_is_the_registered_one, computing=False),
    Check(signatures_are_the_protocols, computing=False),
    Check(importing_does_nothing, computing=False),
    Check(probe_explains_an_absent_runtime, computing=False),
    Check(probe_tells_versions, computing=False),
    Check(requirements_name_packages, computing=False),
    Check(support_is_pure_and_total, computing=False),
    Check(resident_ratio_is_a_share_of_the_file, computing=False),
    Check(environment_names_variables, computing=False),
    Check(what_support_refuses_does_not_execute),
    Check(session_signatures_are_the_protocols, _ONE, computing=False),
    Check(preparing_twice_gives_the_same_bytes, _FOR_EVERY_SCHEME),
    Check(an_interrupted_prepare_ends, _ONE),
)
