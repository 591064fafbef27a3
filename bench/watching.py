"""A sweep's sensors: the idle baseline before anything is loaded, then a sampler beside each worker that measures."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from bench.collector.sampling import Recording, Sampler
from bench.collector.sensors import Denied, Found
from bench.errors import PrerequisiteError
from bench.launch import Launch
from bench.metering import least_s
from bench.preparing import Settings, Watcher

IDLE_FILE = "idle.jsonl"
COOL_S, TICK_S = 1.0, 0.05
FRESH_S, FRESH_PERIODS = 5.0, 2
"""How old a temperature may be that says how warm a device is now."""
TAIL_S, TAIL_PERIODS, MOST_TAIL_S = 1.5, 1.5, 10.0
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
        found = self._baseline.found
        launch.idle, launch.sensed = self._baseline, Recording(found=found)
        self._require_temperature(found)
        if not found.sensors:
            yield None
            return
        with Sampler(folder, self._settings.meter) as sampler:
            try:
                self._cool(sampler)
                yield sampler
                self._sleep(_tail_s(sampler.found))
            finally:
                sampler.end()
                launch.sensed = sampler.recording()

    def _require_temperature(self, found: Found) -> None:
        if self._settings.cool_to_c is not None and not _tells_temperature(found):
            raise PrerequisiteError(
                "no sensor here tells a temperature", where="--cool-to", remedy="`bench doctor` shows what is read"
            )

    def _cool(self, sampler: Sampler) -> None:
        """Wait until no device is warmer than asked."""
        most_c, began_c = self._settings.cool_to_c, None
        if most_c is None:
            return
        self._require_temperature(sampler.found)
        until_s = time.monotonic() + self._settings.max_wait_s
        self._watcher.phase("cool", f"to {most_c:g} °C")
        while (now_c := hottest_c(sampler.recording(), time.monotonic_ns())) is None or now_c > most_c:
            if time.monotonic() > until_s:
                raise PrerequisiteError(
                    "no temperature could be read" if now_c is None else f"still at {now_c:.0f} °C",
                    where=f"--cool-to {most_c:g}",
                    remedy="raise it, or --max-wait",
                )
            if now_c is not None:
                began_c = max(now_c, began_c or now_c)
                self._watcher.progress(round(began_c - now_c), math.ceil(began_c - most_c))
            self._pause(COOL_S)

    def _pause(self, seconds: float) -> None:
        until_s = time.monotonic() + seconds
        while (left_s := until_s - time.monotonic()) > 0:
            self._sleep(min(left_s, TICK_S))
            self._watcher.tick()

    def _rest(self, folder: Path) -> Recording:
        """Look for sensors, and read them while nothing is loaded: the baseline, once for a sweep."""
        with Sampler(folder, self._settings.meter, name=IDLE_FILE) as sampler:
            cools = self._settings.cool_to_c is None or _tells_temperature(sampler.found)
            if cools and least_s(sampler.found) is not None:
                self._watcher.phase("idle", "baseline of power")
                self._pause(self._settings.idle_s)
            sampler.end()
            kept = sampler.recording()
        if not kept.found.sensors:
            sampler.forget()
        return kept


def hottest_c(recording: Recording, now_ns: int) -> float | None:
    """The highest of all devices' last temperatures; None where none was read in the last seconds."""
    last = []
    for series in recording.series:
        fresh_s = max(FRESH_S, FRESH_PERIODS * series.sensor.period_s)
        known = ~np.isnan(series.values) & (series.at_ns > now_ns - 1e9 * fresh_s)
        if series.sensor.quantity == "temperature" and known.any():
            last.append(float(series.values[known][-1]))
    return max(last, default=None)


def _tells_temperature(found: Found) -> bool:
    return any(sensor.quantity == "temperature" for sensor in found.sensors)


def _tail_s(found: Found) -> float:
    """How long to read on after a worker: until the slowest sensor of energy or power has been read once more."""
    periods_s = [each.period_s for each in found.sensors if each.quantity in ("energy", "power")]
    return min(MOST_TAIL_S, max(TAIL_S, TAIL_PERIODS * max(periods_s))) if periods_s else 0.0
