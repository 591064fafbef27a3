"""The sampler seen from the parent: started before the worker, ended after it, its readings in the launch's folder."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import TracebackType
from typing import Any

import bench
from bench.collector.sensors import Denied, Found, Sensor
from bench.collector.series import Series

FILE = "sensors.jsonl"
PROBE_S, GRACE_S, POLL_S = 40.0, 5.0, 0.01
"""The first is for a sampler that hangs altogether: its providers have less."""
LINE = 200
MODULE = "bench.collector.sampler"


@dataclass(frozen=True, kw_only=True)
class Recording:
    """What a sampler left. `cost` is its processor and wall time, None where it was ended before it could tell."""

    found: Found = field(default_factory=Found)
    series: Sequence[Series] = ()
    cost: Mapping[str, Any] | None = None


class Sampler:
    """A started sampler that writes into `folder`. Use as a context manager: leaving it ends the process.

    `found` is known once it is entered. A sampler that does not answer is given up: nothing waits for a sensor.
    """

    def __init__(self, folder: Path, meter: Sequence[str] = (), *, name: str = FILE, module: str = MODULE):
        self.path = folder / name
        self._log = self.path.with_suffix(".log")
        self.found = Found()
        self._command = [sys.executable, "-m", module, *meter]

    def __enter__(self) -> Sampler:
        variables = {**os.environ, "PYTHONPATH": _python_path()}
        with self.path.open("wb") as out, self._log.open("wb") as log:
            self._process = subprocess.Popen(
                self._command, stdin=subprocess.PIPE, stdout=out, stderr=log, env=variables, start_new_session=True
            )
        self.found = self._await_found()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.end()

    def edge(self) -> None:
        """Have everything read once more, now: a phase begins or ends."""
        assert self._process.stdin
        with suppress(BrokenPipeError):
            self._process.stdin.write(b"\n")
            self._process.stdin.flush()

    @property
    def pid(self) -> int:
        return self._process.pid

    def hang_up(self) -> None:
        """Close its standard input, as the end of this process would: it ends."""
        assert self._process.stdin
        if not self._process.stdin.closed:
            with suppress(BrokenPipeError):
                self._process.stdin.close()

    def end(self) -> None:
        """End it: by hanging up, then for good. A second call does nothing."""
        self.hang_up()
        try:
            self._process.wait(GRACE_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            with suppress(subprocess.TimeoutExpired):  # a driver may hold it in the kernel
                self._process.wait(GRACE_S)
        if self._log.is_file() and not self._log.stat().st_size:
            self._log.unlink()

    def recording(self) -> Recording:
        """What it has read so far; `found` is what it answered when it was started, else why it did not."""
        return replace(recorded(self.path), found=self.found)

    def forget(self) -> None:
        """Remove its readings: they say nothing that the record does not. A log that says something stays."""
        self.path.unlink(missing_ok=True)

    def _await_found(self) -> Found:
        deadline = time.monotonic() + PROBE_S
        while time.monotonic() < deadline:
            over = self._process.poll() is not None
            line = self.path.read_bytes().partition(b"\n")
            if line[1]:
                return _found(json.loads(line[0])["found"])
            if over:
                return _nothing(f"the sampler ended before it had looked for sensors{self._last_words()}")
            time.sleep(POLL_S)
        self._process.kill()
        return _nothing(f"no answer within {PROBE_S:.0f} s: a driver may hang{self._last_words()}")

    def _last_words(self) -> str:
        """The last line of its log that says something, and where the others are."""
        lines = [line.strip() for line in self._log.read_text(errors="replace").splitlines() if line.strip()]
        return f": {lines[-1][:LINE]} ({self._log.name})" if lines else ""


def recorded(path: Path) -> Recording:
    """What a sampler wrote to `path`, as far as whole lines go; an empty recording where there is none."""
    found, cost = Found(), None
    readings: dict[int, list[tuple[int, float | None]]] = {}
    for line in _lines(path):
        if "found" in line:
            found = _found(line["found"])
        elif "cost" in line:
            cost = line["cost"]
        else:
            began_ns, ended_ns = line["at_ns"]
            for index, value in line["values"].items():
                readings.setdefault(int(index), []).append(((began_ns + ended_ns) // 2, value))
    series = [Series.of(sensor, readings.get(index, [])) for index, sensor in enumerate(found.sensors)]
    return Recording(found=found, series=series, cost=cost)


def _lines(path: Path) -> Iterator[dict[str, Any]]:
    try:
        data = path.read_bytes()
    except OSError:
        return
    for line in data.split(b"\n"):
        with suppress(ValueError):  # the last one of a sampler that was killed
            yield json.loads(line)


def _found(told: Mapping[str, Any]) -> Found:
    return Found(
        sensors=[Sensor(**each) for each in told["sensors"]],
        denied=[Denied(**each) for each in told["denied"]],
        names=told["names"],
        uuids=told["uuids"],
        settings=told["settings"],
    )


def _nothing(why: str) -> Found:
    return Found(denied=[Denied(what="all sensors", why=why)])


def _python_path() -> str:
    """So that the sampler imports this very code, wherever it was imported from."""
    root = str(Path(bench.__file__).resolve().parents[1])
    return os.pathsep.join(filter(None, [root, os.environ.get("PYTHONPATH")]))
