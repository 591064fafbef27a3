"""The sampler: a process of its own that reads this machine's sensors, a thread for each provider.

It is started before any runtime, so that a vendor's library is initialized apart from the runtime's, and one that
hangs or fails takes nothing else with it. It writes to standard output: what it found, then one line for each reading,
then what it cost. Each line that comes in on standard input asks for one more reading of everything: where a phase
begins or ends. It ends when standard input does.
"""

from __future__ import annotations

import json
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from statistics import median
from typing import Any

from bench.collector.providers import providers
from bench.collector.providers.together import asked, failed, found_by
from bench.collector.sensors import Found, Pace, Provider, Sensor

ANSWER_S = 12.0
"""For a provider to say what is there: a tool whose first program hangs, which takes 10 s, still has its second."""
MOST_SHARE = 0.01
"""Of its time a provider may spend reading: who answers slowly is asked more seldom."""
STATE_S, SELDOM_S = 0.5, 3600.0
TRIALS, TRIALS_S = 5, 1.0
SLOW_S, SLOW_CALLS = 1.0, 5
WATCHED: tuple[Pace, ...] = ("power", "state")


@dataclass
class Cost:
    """What a provider's readings took."""

    reads: int = 0
    seconds: float = 0.0
    longest_s: float = 0.0

    def add(self, seconds: float) -> None:
        self.reads += 1
        self.seconds += seconds
        self.longest_s = max(self.longest_s, seconds)


@dataclass
class Watch:
    """One provider and when to read which of its sensors. `say` gets (first index, readings of those due)."""

    provider: Provider
    sensors: Sequence[Sensor]
    first: int
    period_s: float
    say: Callable[[dict[str, Any]], None]
    clock: Callable[[], int] = time.monotonic_ns
    cost: Cost = field(default_factory=Cost)
    edge: threading.Event = field(default_factory=threading.Event)
    ended: bool = False

    def __post_init__(self) -> None:
        self._numbers = {id(sensor): str(self.first + index) for index, sensor in enumerate(self.sensors)}

    def run(self) -> None:
        """Read until `end`; an edge reads everything at once."""
        paces = {sensor.pace for sensor in self.sensors}
        next_ns = {pace: self.clock() for pace in WATCHED if pace in paces}
        self.read(self.sensors)
        while not self.ended:
            wait_ns = max(0, min(next_ns.values()) - self.clock()) if next_ns else None
            asked = self.edge.wait(None if wait_ns is None else wait_ns / 1e9)
            self.edge.clear()
            if self.ended:
                break
            now = self.clock()
            soon = now + round(1e9 * min(self.period_s, STATE_S) / 2)  # one waking serves both
            due = [pace for pace, at_ns in next_ns.items() if soon >= at_ns]
            took_s = self.read(self.sensors if asked else [s for s in self.sensors if s.pace in due])
            for pace in due:
                period_s = self.period_s if pace == "power" else max(STATE_S, took_s / MOST_SHARE)
                next_ns[pace] = now + round(1e9 * period_s)
        self.read(self.sensors)
        self.provider.close()

    def read(self, sensors: Sequence[Sensor]) -> float:
        """One reading of `sensors`, said; returns the seconds that it took."""
        if not sensors:
            return 0.0
        began_ns = self.clock()
        values = self.provider.read(sensors)
        ended_ns = self.clock()
        told = {self._numbers[id(sensor)]: value for sensor, value in zip(sensors, values, strict=True)}
        self.say({"at_ns": [began_ns, ended_ns], "values": told})
        self.cost.add((ended_ns - began_ns) / 1e9)
        return (ended_ns - began_ns) / 1e9

    def end(self) -> None:
        self.ended = True
        self.edge.set()


def sample(watched: Sequence[Provider], lines: Iterator[str], say: Callable[[dict[str, Any]], None]) -> None:
    """Probe, read until `lines` end, tell the cost. `say` is called from several threads, a whole line at a time."""
    began_s = time.monotonic()
    told: list[Found] = []
    watches, first = [], 0
    for provider, found in zip(watched, found_by(watched, ANSWER_S), strict=True):
        [period_s] = asked([partial(affordable_s, provider, found.sensors)], ANSWER_S)  # one by one, since it is timed
        if isinstance(period_s, Exception):
            found = failed(provider, period_s)
        elif found.sensors:
            watches.append(Watch(provider, found.sensors, first, period_s, say))
            found = replace(found, sensors=[replace(each, period_s=_paced(each, period_s)) for each in found.sensors])
        told.append(found)
        first += len(found.sensors)
    say({"found": asdict(Found.of(told))})
    if watches:
        threads = [threading.Thread(target=watch.run, name=watch.provider.name, daemon=True) for watch in watches]
        for thread in threads:
            thread.start()
        for _ in lines:
            for watch in watches:
                watch.edge.set()
        for watch in watches:
            watch.end()
        for thread in threads:
            thread.join(timeout=5.0)
    used = os.times()
    say(
        {
            "cost": {
                "wall_s": time.monotonic() - began_s,
                "cpu_s": used.user + used.system + used.children_user + used.children_system,
                "providers": {watch.provider.name: asdict(watch.cost) for watch in watches},
            }
        }
    )


def affordable_s(provider: Provider, sensors: Sequence[Sensor]) -> float:
    """How often energy and power are read: as often as the quickest sensor asks, or as reading is worth, by a trial."""
    paced = [sensor for sensor in sensors if sensor.pace == "power"]
    if not paced:
        return SELDOM_S
    took_s: list[float] = []
    while len(took_s) < TRIALS and sum(took_s) < TRIALS_S:
        began_s = time.monotonic()
        provider.read(paced)
        took_s.append(time.monotonic() - began_s)
    asked_s, call_s = min(sensor.period_s for sensor in paced), median(took_s)
    if asked_s >= SLOW_S and asked_s >= SLOW_CALLS * call_s:  # a tool that is started for each reading knows itself
        return asked_s
    return max(asked_s, call_s / MOST_SHARE)


def _paced(sensor: Sensor, period_s: float) -> float:
    """The period that a sensor is read or updated with, whichever is longer."""
    return max(sensor.period_s, period_s) if sensor.pace == "power" else sensor.period_s


def main() -> int:
    """Sample with the providers of this machine; arguments are the command of an external meter."""
    return sample_to_stdout(providers(meter=sys.argv[1:]))


def sample_to_stdout(watched: Sequence[Provider]) -> int:
    """Sample until standard input ends, a line a reading; what libraries print goes to standard error."""
    lock = threading.Lock()
    descriptor = os.dup(1)
    os.set_inheritable(descriptor, False)
    os.dup2(2, 1)

    def say(line: dict[str, Any]) -> None:
        data = json.dumps(line, separators=(",", ":"), allow_nan=False).encode() + b"\n"
        with lock:
            while data:
                data = data[os.write(descriptor, data) :]

    try:
        sample(watched, iter(sys.stdin.readline, ""), say)
    except BrokenPipeError:
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
