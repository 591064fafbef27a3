"""Two sides executed by turns into a store, looked at now and then, until who looks has seen enough."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

from bench.cli.asked import understood
from bench.cli.display import Lines, Terminal
from bench.cli.planned import check_plan
from bench.cli.run import say
from bench.interleaving import Interleaved, abba
from bench.results.ids import new_uuid7
from bench.results.journal import Journal
from bench.results.record import Record
from bench.results.selecting import left_out
from bench.results.store import Store
from bench.situation import Part
from bench.watching import Sensors

if TYPE_CHECKING:
    from bench.comparing import Sides


@dataclass(frozen=True, slots=True, kw_only=True)
class Turns:
    """What was executed: the records of both sides, and for each pair which side came first."""

    ab_id: str
    order: Sequence[str]
    a: list[Record] = field(default_factory=list)
    b: list[Record] = field(default_factory=list)

    @property
    def counting(self) -> tuple[list[Record], list[Record]]:
        """Those of each side that have something to say; the others were told when they were committed."""
        a, b = ([record for record in of if left_out(record) is None] for of in (self.a, self.b))
        return a, b

    def compared(self, *, margin: float = 0.02, level: float = 0.95) -> Sides:
        """How B stands to A, pair by pair, by `bench.comparing.compared`."""
        from bench.comparing import compared  # scipy, which may be missing, and measuring needs none

        return compared(*self.counting, margin=margin, level=level, in_pairs=True)


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
    dues = [side.due(side.keys) for side in sides]
    for due in dues:
        check_plan(due)
    turns = Turns(ab_id=new_uuid7(), order=abba(looks[-1], sides[0].settings.seed))
    store.check_writable()
    sensors = Sensors(sides[0].settings, watcher)
    with ExitStack() as stack:
        sweeps = []
        for name, side, due, records in zip("ab", sides, dues, (turns.a, turns.b), strict=True):
            pairs = {"ab_id": turns.ab_id, "order": list(turns.order)}
            journal = Journal.create(store, {**side.told, "request": asdict(side.request), "ab": pairs}, side.keys)
            stack.enter_context(journal.held())
            observe = _observer(records, watcher, store)
            part = Part(turns.ab_id, name)
            sweeps.append(side.sweep(due, store, journal, watcher, observe, sensors=sensors, part=part))
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


def _observer(records: list[Record], watcher: Terminal | Lines, store: Store) -> Callable[[Record], None]:
    def observe(record: Record) -> None:
        records.append(record)
        say(watcher, record, store)

    return observe
