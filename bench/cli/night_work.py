"""What executes a night: the sweeps of a plan, and by turns the last good environment and tonight's."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from bench import registry
from bench.cli.asked import understood
from bench.cli.display import Lines, Terminal
from bench.cli.planned import check_plan
from bench.cli.run import say
from bench.cli.turns import by_turns
from bench.errors import PrerequisiteError
from bench.nightly.diary import Diary
from bench.nightly.night import Suspect
from bench.nightly.plan import Entry
from bench.plan import case_key
from bench.results.journal import Journal
from bench.results.record import Record
from bench.results.store import Store
from bench.types import Case


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """The `Executor` of this machine. `shared` is what a journal is told of all entries: waiting, host file, models."""

    store: Store
    diary: Diary
    watcher: Terminal | Lines
    shared: Mapping[str, Any]

    def execute(self, entry: Entry) -> list[Record]:
        """Tonight's records of `entry`; what an interrupted night had begun is gone on with."""
        asked = understood(self._told(entry, asdict(entry.request)))
        sweep_id = self.diary.sweep_of(entry)
        journal = Journal.open(self.store, sweep_id) if sweep_id else None
        due = asked.due(journal.missing() if journal else asked.keys)
        if journal is None:
            check_plan(due)
            self.store.check_writable()
            journal = Journal.create(self.store, {**asked.told, "night_id": self.diary.night_id}, asked.keys)
            self.diary.began(entry, journal.sweep_id)
        with journal.held():
            if not journal.finished:
                asked.sweep(due, self.store, journal, self.watcher, self._observe).execute()
            return journal.records()

    def confirm(self, series: Suspect) -> list[float]:
        """Rates of interleaved pairs, tonight's environment / the last good one; PrerequisiteError without that."""
        if (known := self.diary.ratios(series.series.key)) is not None:
            return known
        good, now = series.good.newest.info.interpreter, series.series.tonight.newest.info.interpreter
        if good is None or now is None or (good.python, good.prefix) == (now.python, now.prefix):
            raise PrerequisiteError(
                "the last good environment is not there any more",
                cause="it was changed in place, or the machine was",
                remedy="keep the old one beside the new (`bench setup`, the host file's python and prefix)",
            )
        told = self._told(series.entry, self._request(series))
        before = {**told, "python": None, "interpreter": {"python": good.python, "prefix": good.prefix}}
        turns = by_turns((before, told), self.store, self.watcher, (series.pairs,), lambda look, turns: True)
        ratios = [new / old for row in turns.compared().rows for old, new in zip(row.a, row.b, strict=True)]
        self.diary.confirmed(series.series.key, ratios)
        return ratios

    def _told(self, entry: Entry, request: dict[str, Any]) -> dict[str, Any]:
        """What the journal of `request`, one of `entry`, is told."""
        return {**self.shared, "request": request, "python": entry.python, "budget_s": None}

    def _observe(self, record: Record) -> None:
        say(self.watcher, record, self.store)

    def _request(self, suspect: Suspect) -> dict[str, Any]:
        """The one case of the entry whose record is suspected."""
        entry, record = suspect.entry, suspect.series.tonight.newest
        case = self._case(entry, record)
        asked = [name for name in entry.request.backends if registry.load(name).name == case.backend]
        return {
            **asdict(entry.request),
            "backends": tuple(asked),
            "models": (f"{case.model}-{case.scheme}",),
            "workloads": (case.workload.name,),
            "devices": (case.device,),
            "launches": suspect.pairs,
        }

    def _case(self, entry: Entry, record: Record) -> Case:
        wanted = (record.info.case_key or "").partition("/")[0]
        for group in understood(self._told(entry, asdict(entry.request))).plan.groups:
            for case in group.cases:
                if case_key(case) == wanted:
                    return case
        raise PrerequisiteError(
            "its case is not in the plan any more", where=entry.where, remedy="execute the plan again"
        )
