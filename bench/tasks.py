"""What a worker does with a job: prepare, certify, measure, export.

Each task ends by itself; its results are its events.
"""

from __future__ import annotations

import errno
import platform
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from bench import attest, gate, sustain
from bench import measure as timed
from bench.api import Backend, Exporter, Session
from bench.artifacts.imported import Weights
from bench.artifacts.reader import open_artifact
from bench.artifacts.sample import load_sample
from bench.artifacts.stored_reference import Reference, load_reference
from bench.ceiling import ReadProbe, measure_device
from bench.errors import BenchError, CaseError, InvalidMeasurement, PrerequisiteError
from bench.facts import SessionFacts
from bench.packages import imported_packages
from bench.protocol import Events, Job, describe
from bench.types import LoadGroup, Prepared


def prepare(backend: Backend, job: Job, events: Events) -> None:
    """Let the adapter write its files into the folder the parent made."""
    assert job.group and job.artifact and job.prepared_folder
    with _phase("prepare", events):
        case, path = job.group.first, Path(job.artifact)
        artifact = Weights(gguf=path, scheme=case.scheme, arch=case.arch) if case.from_file else open_artifact(path)
        view = artifact.cut(job.layers) if job.layers else artifact
        prepared = backend.prepare(job.group.first, view, Path(job.prepared_folder), events.progress)
    events("prepared", prepared=prepared)


def export(backend: Backend, job: Job, events: Events) -> None:
    """Let the adapter write what it hands to others into the folder the parent made."""
    assert job.group and job.artifact and job.prepared_folder and job.reference and isinstance(backend, Exporter)
    with _phase("export", events):
        artifact, sample = open_artifact(Path(job.artifact)), load_sample(Path(job.reference))
        backend.export(job.group.first, artifact, sample, Path(job.prepared_folder), events.progress)
    events("exported")


def certify(backend: Backend, job: Job, events: Events) -> None:
    """The exact configuration against the reference."""
    assert job.group and job.reference
    layers = job.layers or job.group.first.arch.layers
    with _opened(backend, job, events) as session, _phase("certify", events):
        certificate = gate.certify(session, load_reference(Path(job.reference)), layers)
        facts = session.facts()
        share = attest.elsewhere_share(facts)
        events(
            "certificate",
            certificate=replace(certificate, elsewhere=attest.misplaced(facts), elsewhere_share=share),
        )


def measure(backend: Backend, job: Job, events: Events) -> None:
    """Load, attest, gate, then time each case of the group in the order given; probe the memory before and after each.

    On shared machines the memory's limit moves within minutes: a probe must lie beside what it is held against.
    """
    assert job.group
    events("interpreter", version=platform.python_version())
    probe = ReadProbe()
    _probe(probe, backend, job.group, events)
    with _opened(backend, job, events) as session:
        _first_step(session, job.group, events)
        facts, reference = _proven(backend, session, job, events)
        _probe(probe, backend, job.group, events)
        for index, case in enumerate(job.group.cases):
            try:
                samples = _case(session, index, job, facts, reference, events)
            except BenchError as error:
                events("case-error", case=index, label=case.label, **describe(error))
                if not isinstance(error, InvalidMeasurement):
                    raise
            else:
                _executed(session, index, job, samples, events)  # what fails in it takes no timing with it
            _probe(probe, backend, job.group, events)
        events("memory", at="end", uses=session.memory())
    _probe(probe, backend, job.group, events)
    events("imported", packages=imported_packages())
    events("done")


def _probe(host: ReadProbe, backend: Backend, group: LoadGroup, events: Events) -> None:
    """The memory that the group's device computes from: its own where it has any, else the host's."""
    with _phase("ceiling", events):
        mover = backend.mover(group.first)
        events("ceiling", ceiling=measure_device(mover, time.monotonic_ns) if mover else host.measure())


def _proven(backend: Backend, session: Session, job: Job, events: Events) -> tuple[SessionFacts, Reference | None]:
    """Facts and gate, before any timing; raises InvalidMeasurement where either says no."""
    if not backend.computes or job.reference is None:
        facts = session.facts()
        events("facts", facts=facts)
        if backend.computes and (doubt := attest.misplaced(facts, job.allow_fallback)):
            raise InvalidMeasurement(doubt, remedy=attest.how_to_allow(facts))
        return facts, None
    with _phase("gate", events):
        reference = load_reference(Path(job.reference))
        facts, checks = gate.native(session, reference, events.progress)
    events("facts", facts=facts)
    events("gate", checks=checks)
    misplaced = attest.misplaced(facts, job.allow_fallback)
    doubts = [misplaced or job.certified_elsewhere, *(check.reason for check in checks)]
    if job.compare_fed and job.artifact:
        with _phase("read-back", events):
            fed = gate.compare_fed(session, open_artifact(Path(job.artifact)), events.progress)
        events("fed", fed=fed)
        doubts.append(fed.reason)
    if reasons := [doubt for doubt in doubts if doubt]:
        remedy = attest.how_to_allow(facts) if reasons == [misplaced] else None
        raise InvalidMeasurement("; ".join(reasons), remedy=remedy)
    return facts, reference


def _case(
    session: Session, index: int, job: Job, facts: SessionFacts, reference: Reference | None, events: Events
) -> list[timed.Sample]:
    """One case: consistent at its own shape, warmed up, timed."""
    assert job.group
    case = job.group.cases[index]
    vocab, workload, clock = case.arch.vocab, case.workload, time.monotonic_ns
    if reference is not None:
        with _phase("consistency", events, case=index, label=case.label):
            check = gate.self_consistency(session, workload, vocab, job.seed, facts, reference, events.progress)
        events("shape", case=index, check=check)
        if check.reason:
            raise InvalidMeasurement(check.reason)
    with _phase("warm-up", events, case=index, label=case.label):
        timed.warm_up(session, workload, vocab, job.seed, clock)
    with _phase("measure", events, case=index, label=case.label):
        taken = timed.samples(
            session, workload, vocab, repetitions=job.repetitions, budget_s=job.budget_s, seed=job.seed, clock=clock
        )
        started, samples = time.monotonic(), []
        for count, sample in enumerate(taken, 1):
            samples.append(sample)
            events("sample", case=index, sample=sample)
            share = min(count / job.repetitions, (time.monotonic() - started) / (job.budget_s or 1e-9))
            events.progress(round(1000 * min(share, 1.0)), 1000)
        timed.check_last_logits(session)
    events("memory", at="case", case=index, uses=session.memory())
    events("case-done", case=index)
    return samples


def _executed(session: Session, index: int, job: Job, samples: Sequence[timed.Sample], events: Events) -> None:
    """When the phases were executed; each once more where it is too short for the sensors that are read."""
    assert job.group
    case = job.group.cases[index]
    workload, vocab = case.workload, case.arch.vocab
    for phase in sustain.PHASES:
        if not sustain.tokens_of(workload, phase):
            continue
        executed = sustain.timed(samples, workload, phase)
        if job.energy_s is not None and not sustain.long_enough(executed, job.energy_s):
            with _phase("energy", events, case=index, label=f"{phase} of {case.label}"):
                ids = timed.token_ids(workload, vocab, job.seed, timed.ENERGY_REPETITION)
                executed = sustain.sustained(
                    session, workload, ids, phase, least_s=job.energy_s, clock=time.monotonic_ns
                )
        events("executed", case=index, executed=executed)


def _first_step(session: Session, group: LoadGroup, events: Events) -> None:
    """Time the first decode step apart: many runtimes compile or pack weights in it."""
    started = time.monotonic_ns()
    with _phase("first-step", events):
        ids = timed.token_ids(group.first.workload, group.first.arch.vocab, 0, 0)[:, :1].copy()
        session.step(ids)
        session.rewind(0)
    events("first-step", seconds=(time.monotonic_ns() - started) / 1e9)


@contextmanager
def _opened(backend: Backend, job: Job, events: Events) -> Iterator[Session]:
    """Open and, whatever happens, close."""
    assert job.group and (job.prepared or not backend.computes)
    started = time.monotonic_ns()
    with _phase("open", events):
        session = backend.open(job.group, job.prepared or Prepared(path="", files=()))
    events("opened", seconds=(time.monotonic_ns() - started) / 1e9)
    try:
        yield session
    finally:
        session.close()


@contextmanager
def _phase(name: str, events: Events, **fields: object) -> Iterator[None]:
    """Mark begin and end, and name the phase in errors that do not say where they happened."""
    events("phase", name=name, **fields)
    try:
        yield
    except CaseError as error:
        error.phase = error.phase or name
        raise
    except BenchError:
        raise
    except MemoryError as error:
        raise CaseError("out of memory", phase=name, cause=str(error) or None) from error
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise CaseError(str(error), phase=name, cause="see the launch's log") from error
        raise PrerequisiteError(
            "disk full",
            where=error.filename or f"while executing {name}",
            remedy="bench cache prune, or name another folder with BENCH_CACHE",
        ) from error
    except Exception as error:
        raise CaseError(f"{type(error).__name__}: {error}", phase=name, cause="see the launch's log") from error
