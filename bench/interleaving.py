"""Two sweeps by turns on one machine, so that whatever drifts there meets both alike.

Pairs come in twos, A B B A or B A A B: a drift that is straight over four launches then takes as much from either.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from bench.runner import Sweep


def abba(pairs: int, seed: int) -> list[str]:
    """For each pair whether A or B is executed first, "AB" or "BA"; equal arguments give an equal order."""
    draw = random.Random(f"{seed} order")
    blocks = [draw.choice((("AB", "BA"), ("BA", "AB"))) for _ in range((pairs + 1) // 2)]
    return [pair for block in blocks for pair in block][:pairs]


@dataclass(frozen=True, slots=True)
class Interleaved:
    """Two sweeps; the launches of pair n are both sweeps' launch n."""

    a: Sweep
    b: Sweep

    def begin(self) -> None:
        """Once, before any pair."""
        for sweep in (self.a, self.b):
            sweep.begin()

    def execute(self, pairs: Iterable[int], order: Sequence[str]) -> None:
        """Execute what is missing of these pairs, each in its `order`."""
        for index in pairs:
            for side in order[index]:
                (self.a if side == "A" else self.b).launch(index)

    def finish(self) -> None:
        """No further pair will be executed: neither sweep is offered for resuming any more."""
        for sweep in (self.a, self.b):
            sweep.journal.finish()
