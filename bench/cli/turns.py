"""Two sides executed by turns into a store, looked at now and then, until who looks has seen enough."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from bench.cli.asked import Asked, understood
from bench.cli.display import Lines, Terminal
from bench.cli.planned import check_plan, default_timeout_s, due_of
from bench.cli.run import say
from bench.interleaving import Interleaved, abba
from bench.results.ids import new_uuid7
from bench.results.journal import Journal
from bench.results.record import Record
from bench.results.store import Store
from bench.runner import Sweep, planned_keys
from bench.situation import Part
from bench.watching import Sensors


@dataclass(frozen=True, slots=True, kw_only=True)
class Turns:
    """What was executed: the records of both sides, and for each pair which side came first."""

    ab_id: str
    order: Sequence[str]
    a: list[Record] = field(default_factory=list)
    b: list[Record] = field(default_factory=list)


def by_turns(
    told: tuple[Mapping[str, Any], Mapping[str, Any]],
    store: Store,
    watcher: Terminal | Lines,
    looks: Sequence[int],
    enough: Callable[[int, Turns], bool],
) -> Turns:
    """Execute both sides, as a journal is told of them; after each of `looks` (numbers of pairs) `enough` is asked.

    Raises what planning and checking raise before anything is executed.
    """
    sides = [understood(each) for each in told]
    turns = Turns(ab_id=new_uuid7(), order=abba(looks[-1], sides[0].settings.seed))
    store.check_writable()
    sensors = Sensors(sides[0].settings, watcher)
    with ExitStack() as stack:
        sweeps = []
        for name, each, side, records in zip("ab", told, sides, (turns.a, turns.b), strict=True):
            timeout_s, journal = _planned(store, each, side, turns)
            stack.enter_context(journal.held())
            sweeps.append(
                Sweep(
                    plan=side.plan,
                    settings=replace(side.settings, timeout_s=timeout_s),
                    store=store,
                    journal=journal,
                    watcher=watcher,
                    observe=_observer(records, watcher, store),
                    command=each["command"],
                    adapters=side.adapters,
                    sensors=sensors,
                    part=Part(turns.ab_id, name),
                )
            )
        pair, done = Interleaved(*sweeps), 0
        try:
            pair.begin()
            for look in looks:
                pair.execute(range(done, look), turns.order)
                done = look
                if enough(look, turns):
                    break
        except KeyboardInterrupt:
            watcher.say(f"interrupted; what is measured is kept in {store.root}")
            raise
        finally:
            pair.finish()
    return turns


def _planned(store: Store, told: Mapping[str, Any], side: Asked, turns: Turns) -> tuple[float, Journal]:
    """The time limit of a launch, and a new journal, of a side that fits this machine."""
    keys = planned_keys(side.plan, side.settings)
    due = due_of(side.plan, side.adapters, side.settings, set(keys))
    check_plan(due)
    kept = {**told, "request": asdict(side.request), "ab": {"ab_id": turns.ab_id, "order": list(turns.order)}}
    return told["timeout_s"] or default_timeout_s(due), Journal.create(store, kept, keys)


def _observer(records: list[Record], watcher: Terminal | Lines, store: Store) -> Callable[[Record], None]:
    def observe(record: Record) -> None:
        records.append(record)
        say(watcher, record, store)

    return observe
