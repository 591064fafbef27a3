"""A sweep's sensors: the idle baseline before anything is loaded, then a sampler beside each worker that measures."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from bench.collector.sampling import Recording, Sampler, recorded
from bench.collector.sensors import Denied, Found
from bench.errors import PrerequisiteError
from bench.launch import Launch
from bench.metering import hottest_c, least_s
from bench.preparing import Settings, Watcher

IDLE_FILE = "idle.jsonl"
COOL_S, TICK_S = 1.0, 0.05
TAIL_S = 1.5
"""Read on for so long: a counter's next update closes the last window, and an average of 1 s ends later than it."""
VARIABLE = "BENCH_SENSORS"
SWITCHED_OFF = f"{VARIABLE}=off"


class Sensors:
    """What is read beside the workers of one sweep, as its `settings` say: meter, idle time, temperature to begin at.

    Sensors are looked for once. Where there are none, no further sampler is started and nothing is waited for. With
    BENCH_SENSORS=off in the environment none are looked for.
    """

    def __init__(self, settings: Settings, watcher: Watcher, sleep: Callable[[float], None] = time.sleep):
        self._settings, self._watcher, self._sleep = settings, watcher, sleep
        off = os.environ.get(VARIABLE) == "off"
        self._baseline = Recording(found=Found(denied=[Denied(what="all sensors", why=SWITCHED_OFF)])) if off else None

    @contextmanager
    def during(self, launch: Launch, folder: Path) -> Iterator[Sampler | None]:
        """Sample into `folder` while the context lasts; then `launch` holds what was read. None: nothing to read.

        PrerequisiteError where devices are to be cooler than they get, or nothing tells how warm they are.
        """
        if self._baseline is None:
            self._baseline = self._rest(folder)
        launch.idle = self._baseline
        if not self._baseline.found.sensors:
            launch.sensed = Recording(found=self._baseline.found)
            self._cool(None)
            yield None
            return
        with Sampler(folder, self._settings.meter) as sampler:
            try:
                self._cool(sampler)
                yield sampler
                if least_s(sampler.found) is not None:
                    self._sleep(TAIL_S)
            finally:
                sampler.end()
                launch.sensed = recorded(sampler.path)

    def _cool(self, sampler: Sampler | None) -> None:
        """Wait until no device is warmer than asked."""
        most_c = self._settings.cool_to_c
        if most_c is None:
            return
        if sampler is None or all(sensor.quantity != "temperature" for sensor in sampler.found.sensors):
            raise PrerequisiteError(
                "no sensor here tells a temperature", where="--cool-to", remedy="`bench doctor` shows what is read"
            )
        until_s = time.monotonic() + self._settings.max_wait_s
        while (now_c := hottest_c(recorded(sampler.path))) is None or now_c > most_c:
            if time.monotonic() > until_s:
                raise PrerequisiteError(
                    "no temperature could be read" if now_c is None else f"still at {now_c:.0f} °C",
                    where=f"--cool-to {most_c:g}",
                    remedy="raise it, or --max-wait",
                )
            self._watcher.phase("cool", "" if now_c is None else f"{now_c:.0f} °C")
            self._pause(COOL_S)

    def _pause(self, seconds: float) -> None:
        until_s = time.monotonic() + seconds
        while (left_s := until_s - time.monotonic()) > 0:
            self._sleep(min(left_s, TICK_S))
            self._watcher.tick()

    def _rest(self, folder: Path) -> Recording:
        """Look for sensors, and read them while nothing is loaded: the baseline, once for a sweep."""
        with Sampler(folder, self._settings.meter, name=IDLE_FILE) as sampler:
            if least_s(sampler.found) is not None:
                self._watcher.phase("idle", "baseline of power")
                self._pause(self._settings.idle_s)
            sampler.end()
            kept = recorded(sampler.path)
        if not kept.found.sensors:
            sampler.forget()
        return Recording(found=sampler.found, series=kept.series, cost=kept.cost)
