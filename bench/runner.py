"""The parent: executes a plan launch by launch and leaves a record of every case, whatever happens to it."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from functools import partial

from bench import attest, protocol, recording
from bench.api import Backend
from bench.child import Child
from bench.collector.locks import held
from bench.collector.page_cache import describe_cache
from bench.collector.sampling import Sampler
from bench.environments.finding import Found, absent, find
from bench.errors import BenchError, BusyError, InvalidMeasurement, PrerequisiteError, UsageError
from bench.launch import Launch
from bench.metering import least_s
from bench.plan import Plan, case_key, shuffled
from bench.preparing import Place, Preparer, Ready, Settings, Watcher, keep_certificate
from bench.protocol import Job
from bench.results.ids import new_uuid7
from bench.results.journal import Journal
from bench.results.record import Record
from bench.results.store import Draft, Store
from bench.situation import Part, situation
from bench.types import Case, LoadGroup, Support, declared
from bench.watching import Sensors

Observe = Callable[[Record], None]
"""Called with each record once it is committed."""


def launch_key(case: Case, launch_index: int) -> str:
    """Names one case of one launch in the journal."""
    return f"{case_key(case)}/{launch_index}"


def planned_keys(plan: Plan, settings: Settings) -> list[str]:
    """All that the journal must see before the sweep is finished, in the order of execution."""
    return [
        *(launch_key(case, 0) for case, _ in plan.refused),
        *(
            launch_key(case, index)
            for index in range(settings.launches)
            for group in plan.groups
            for case in shuffled(group, settings.seed, index).cases
        ),
    ]


@dataclass(kw_only=True)
class Sweep:
    """One invocation. Interrupted at any point, what is committed stays and the journal tells what is missing.

    `sensors` are those of another sweep that is executed by turns with this one, whose baseline holds for both; `part`
    is which of the two this is.
    """

    plan: Plan
    settings: Settings
    store: Store
    journal: Journal
    watcher: Watcher
    observe: Observe
    command: str
    adapters: Mapping[str, Backend]
    sensors: Sensors | None = None
    part: Part | None = None
    _found: dict[str, Found] = field(default_factory=dict)

    def execute(self) -> None:
        """Execute what the journal misses, then mark the sweep finished."""
        self.begin()
        for index in range(self.settings.launches):
            self.launch(index)
        if not self.journal.missing():
            self.journal.finish()

    def begin(self) -> None:
        """Look at the machine and at what is missing; leave records of what is refused. Once, before `launch`."""
        self._sensors = self.sensors or Sensors(self.settings, self.watcher)
        self._preparer = Preparer(self.settings, self.watcher)
        self._situation = situation(
            self.command,
            self.journal.sweep_id,
            self.settings.seed,
            self.settings.repetitions,
            self.settings.budget_s,
            self.settings.allow_fallback,
            self.part,
        )
        self._missing = set(self.journal.missing())
        refused = [(case, support) for case, support in self.plan.refused if launch_key(case, 0) in self._missing]
        if refused:
            self._refuse(refused)

    def launch(self, index: int) -> None:
        """Execute what is missing of one launch of every load group."""
        for group in self.plan.groups:
            cases = shuffled(group, self.settings.seed, index).cases
            pending = [case for case in cases if launch_key(case, index) in self._missing]
            while pending:
                # A worker that died takes none of the others' cases with it: they get a fresh one.
                pending = self._launch(LoadGroup(cases=tuple(pending)), index)

    def _launch(self, group: LoadGroup, index: int) -> list[Case]:
        """One launch, committed; returns the cases that still need one."""
        backend = self.adapters[group.first.backend]
        launch = self._new_launch(backend, index)
        with self.store.launch(launch.launch_id) as draft:
            self.journal.started(launch.launch_id, [launch_key(case, index) for case in group.cases])
            try:
                self._prepare_and_measure(group, backend, launch, draft)
            except BusyError:
                self._commit(draft, [])
                raise
            except BenchError as error:
                launch.heard.error = error
            except KeyboardInterrupt:
                self._keep(group, launch, draft, sorted(launch.heard.done))  # nothing measured is lost
                raise
            told = launch.heard.told(len(group.cases))
            self._keep(group, launch, draft, told)
        return [case for position, case in enumerate(group.cases) if position not in told]

    def _prepare_and_measure(self, group: LoadGroup, backend: Backend, launch: Launch, draft: Draft) -> None:
        found = self._present(group, backend)
        launch.versions, launch.interpreter = found.availability.versions, found.interpreter
        at = Place(found.interpreter.given(backend.environment(group.first)), draft.path / "worker.log")
        ready = self._preparer.ready(group, backend, launch.versions, at)
        launch.digest, launch.prepare_s, launch.certificate = ready.digest, ready.prepare_s, ready.certificate
        if ready.prepared:
            launch.page_cache = describe_cache(ready.prepared)
        if ready.certificate and ready.certificate["reason"]:
            raise InvalidMeasurement(ready.certificate["reason"], where="exact certificate")
        self._measure(group, launch, ready, draft, at)

    def _measure(self, group: LoadGroup, launch: Launch, ready: Ready, draft: Draft, at: Place) -> None:
        """Start the worker and listen until it ends; every event goes into the launch's folder first."""
        with (
            held(self.settings.max_wait_s, self.command, partial(self.watcher.phase, "wait for")) as lock,
            self._sensors.during(launch, draft.path) as sampler,
        ):
            job = self._job(group, ready, least_s(sampler.found) if sampler else None)
            try:
                with Child(at.interpreter, job, at.log, self.settings.timeout_s, keep=(lock,)) as child:
                    self._listen(child, launch, ready, draft, sampler)
            finally:  # what was read back stays known, however the worker ends
                if launch.heard.fed is not None and ready.certificate is not None and ready.certified is not None:
                    launch.certificate = {**ready.certificate, "fed": launch.heard.fed}
                    if not launch.heard.fed["differing"]:
                        keep_certificate(ready.certified, launch.certificate)
        if launch.heard.error is not None:
            raise launch.heard.error

    def _job(self, group: LoadGroup, ready: Ready, energy_s: float | None) -> Job:
        certified = (ready.certificate or {}).get("fed") is not None
        return Job(
            task="measure",
            adapter=self.settings.targets[group.first.backend],
            group=group,
            artifact=str(ready.artifact) if ready.artifact else None,
            prepared=ready.prepared,
            reference=str(ready.reference) if ready.reference else None,
            compare_fed=ready.prepared is not None and not certified,
            repetitions=self.settings.repetitions,
            budget_s=self.settings.budget_s,
            energy_s=energy_s,
            allow_fallback=self.settings.allow_fallback,
            certified_elsewhere=attest.certified_elsewhere(ready.certificate, self.settings.allow_fallback),
            seed=self.settings.seed,
        )

    def _listen(self, child: Child, launch: Launch, ready: Ready, draft: Draft, sampler: Sampler | None) -> None:
        launch.memory, launch.contention = child.memory, child.contention
        if sampler:
            launch.contention.count_as_ours(sampler.pid)
        with (draft.path / "events.jsonl").open("ab", buffering=0) as events:
            for event in child.events():
                if event["event"] == "tick":
                    self._tick(child, ready)
                    continue
                if event["event"] == "progress":
                    self.watcher.progress(event["done"], event["total"])
                    continue
                with self.store.writing():
                    events.write(protocol.encode(event))
                launch.heard.hear(event)
                if sampler and event["event"] in ("phase", "executed"):
                    sampler.edge()
                if event["event"] == "phase":
                    self.watcher.phase(event["name"], event.get("label", ""))

    def _tick(self, child: Child, ready: Ready) -> None:
        """While a runtime loads, its resident memory is the only sign of how far it is."""
        self.watcher.tick()
        if child.phase == "open" and ready.prepared_bytes:
            self.watcher.progress(min(child.memory.last.total_bytes, ready.prepared_bytes), ready.prepared_bytes)

    def _keep(self, group: LoadGroup, launch: Launch, draft: Draft, positions: Iterable[int]) -> None:
        """Write the records of these cases, commit, and say so; without any, the launch leaves nothing."""
        records = [
            recording.case_record(
                group.cases[position],
                position,
                launch_key(group.cases[position], launch.index),
                launch,
                self._situation,
            )
            for position in positions
        ]
        self._commit(draft, records)

    def _refuse(self, refused: list[tuple[Case, Support]]) -> None:
        """Cases that adapters declare unsupported leave records too, in a launch without a worker."""
        launch = self._new_launch(self.adapters[refused[0][0].backend], 0)
        with self.store.launch(launch.launch_id) as draft:
            self.journal.started(launch.launch_id, [launch_key(case, 0) for case, _ in refused])
            self._commit(
                draft,
                [
                    recording.refused_record(case, support, launch_key(case, 0), launch, self._situation)
                    for case, support in refused
                ],
            )

    def _commit(self, draft: Draft, records: list[Record]) -> None:
        if not records:
            draft.discard()
            self.journal.interrupted(draft.launch_id)
            return
        for record in records:
            draft.add(record)
        draft.commit()
        self.journal.committed(draft.launch_id, [record.record_id for record in records])
        for record in records:
            self.observe(record)

    def _new_launch(self, backend: Backend, index: int) -> Launch:
        return Launch(
            launch_id=new_uuid7(),
            index=index,
            started_at_utc=recording.now_utc(),
            versions={},
            builder=backend.builder,
            computes=backend.computes,
        )

    def _present(self, group: LoadGroup, backend: Backend) -> Found:
        """Where the backend is executed; PrerequisiteError, before anything large is prepared, if it cannot be."""
        name, settings, case = backend.name, self.settings, group.first
        brought = any(
            value is not None and (option := declared(backend.options, key)) is not None and option.brings_provider
            for key, value in case.options.items()
        )
        provider = None if brought else case.provider  # what an option brings, `open` looks for
        if name not in self._found:
            self.watcher.phase("probe", name)
            self._found[name] = find(
                backend, settings.targets[name], python=settings.python, host=settings.host, provider=provider
            )
        found = self._found[name]
        if not found.availability.ok:
            raise absent(found, backend)
        if provider and found.availability.providers and provider not in found.availability.providers:
            raise _no_provider(found, backend, provider)
        return found


def _no_provider(found: Found, backend: Backend, provider: str) -> PrerequisiteError:
    """The error for a runtime that is there without the provider asked for: why, or what brings it."""
    here, where = found.availability, f"backend {backend.name}"
    if provider in here.unusable:
        return PrerequisiteError(f"{provider} cannot be used here", where=where, cause=here.unusable[provider])
    present = f"present: {', '.join(here.providers)}"
    what = f"there is no {provider} here"
    try:
        needed = backend.requirements(provider)
    except UsageError:  # no package is known that brings it
        near = dict.fromkeys(backend.providers[name] for name in get_close_matches(provider.lower(), backend.providers))
        cause = f"{present}; nearest known: {', '.join(near)}" if near else present
        remedy = "install the build of the runtime or the plugin that brings it"
        return PrerequisiteError(what, where=where, cause=cause, remedy=remedy)
    cause = f"{present}; {needed.notes}" if needed.notes else present
    if not needed.packages:
        return PrerequisiteError(what, where=where, cause=present, remedy=needed.notes)
    index = ["--index-url", needed.index_url] if needed.index_url else []
    install = shlex.join([found.interpreter.python, "-m", "pip", "install", *index, *needed.packages])
    remedy = f"`bench setup {backend.name} --accelerator {provider}`, or {install}"
    return PrerequisiteError(what, where=where, cause=cause, remedy=remedy)
