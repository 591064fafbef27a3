"""What executes a night: the sweeps of a plan, and by turns the last good environment and tonight's."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

from bench import registry
from bench.cli.asked import understood
from bench.cli.display import Lines, Terminal
from bench.cli.planned import check_plan, default_timeout_s, due_of
from bench.cli.run import say
from bench.cli.turns import Turns, by_turns
from bench.errors import PrerequisiteError
from bench.nightly.diary import Diary
from bench.nightly.night import Suspect
from bench.nightly.plan import Entry
from bench.plan import case_key
from bench.reports.metrics import headline
from bench.reports.summary import summarize
from bench.results.journal import Journal
from bench.results.record import Record
from bench.results.store import Store
from bench.runner import Sweep, planned_keys
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
        told = {**self.shared, "request": asdict(entry.request), "python": entry.python, "budget_s": None}
        asked = understood(told)
        keys = planned_keys(asked.plan, asked.settings)
        if sweep_id := self.diary.sweep_of(entry):
            journal = Journal.open(self.store, sweep_id)
        else:
            check_plan(due_of(asked.plan, asked.adapters, asked.settings, set(keys)))
            self.store.check_writable()
            journal = Journal.create(self.store, {**told, "night_id": self.diary.night_id}, keys)
            self.diary.began(entry, journal.sweep_id)
        with journal.held():
            if not journal.finished:
                due = due_of(asked.plan, asked.adapters, asked.settings, set(journal.missing()))
                settings = replace(asked.settings, timeout_s=told["timeout_s"] or default_timeout_s(due))
                Sweep(
                    plan=asked.plan,
                    settings=settings,
                    store=self.store,
                    journal=journal,
                    watcher=self.watcher,
                    observe=lambda record: say(self.watcher, record, self.store),
                    command=told["command"],
                    adapters=asked.adapters,
                ).execute()
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
        told = {**self.shared, "request": self._request(series), "python": series.entry.python, "budget_s": None}
        before = {**told, "python": None, "interpreter": {"python": good.python, "prefix": good.prefix}}
        turns = by_turns((before, told), self.store, self.watcher, (series.pairs,), lambda look, turns: True)
        ratios = _ratios(turns)
        self.diary.confirmed(series.series.key, ratios)
        return ratios

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
        told = {**self.shared, "request": asdict(entry.request), "python": entry.python, "budget_s": None}
        wanted = (record.info.case_key or "").partition("/")[0]
        for group in understood(told).plan.groups:
            for case in group.cases:
                if case_key(case) == wanted:
                    return case
        raise PrerequisiteError(
            "its case is not in the plan any more", where=entry.where, remedy="execute the plan again"
        )


def _ratios(turns: Turns) -> list[float]:
    """B / A of each pair of which both sides were measured."""
    a, b = ({each.info.launch_index: value for each in of if (value := _value(each))} for of in (turns.a, turns.b))
    return [b[index] / a[index] for index in sorted(a.keys() & b.keys(), key=lambda index: index or 0)]


def _value(record: Record) -> float | None:
    return summarize(record)[headline(record.identity.workload)].value if record.status in ("ok", "unproven") else None
