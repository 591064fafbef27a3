"""Sensors that only a command tells: vendors' command line tools, and a command of the user's that prints watts."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Collection, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from bench.collector.providers.sysfs import text
from bench.collector.providers.tools_table import TABLE, Field, Tool
from bench.collector.sensors import Denied, Found, Sensor

TIMEOUT_S = 10.0
LEAST_PERIOD_S = 1.0
CALLS_PER_PERIOD = 5.0
"""A sensor's period is so many times what a call takes: a tool keeps a processor, and often a lock of the driver."""
TWO_LINES_S = 6.0
"""Meters print a number a second, more or less; two of them tell how often."""
END_S = 2.0
MOST_WALL_W = 50_000.0
"""No machine on one meter draws more; a number above is in another unit."""

Execute = Callable[[Sequence[str], float], "str | None"]
"""A command and a time limit in seconds to its standard output; None where it cannot be started, fails or takes longer.
"""


def execute(command: Sequence[str], timeout_s: float) -> str | None:
    """What `command` prints, in no language but C's; None where it is missing, fails, or is ended after `timeout_s`."""
    try:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env={**os.environ, "LC_ALL": "C"},
            start_new_session=True,
        )
    except (OSError, ValueError):  # ValueError: a NUL in a word
        return None
    with process:
        try:
            output, _ = process.communicate(timeout=timeout_s)
        except subprocess.TimeoutExpired:
            _signal_group(process, signal.SIGKILL)
            return None
    return output.decode(errors="replace") if process.returncode == 0 else None


def _signal_group(process: subprocess.Popen[bytes], number: signal.Signals) -> None:
    """Send a signal to the group that `process` leads. It must not have been waited for: its id may be another's."""
    with suppress(OSError):  # all of it has ended
        os.killpg(process.pid, number)


def pci_addresses(devices: Path, vendor_id: str, classes: Collection[str]) -> frozenset[str]:
    """Addresses of a vendor's devices in `devices` (/sys/bus/pci/devices) whose class begins with one of `classes`.

    Documentation/ABI/testing/sysfs-bus-pci; readable by everybody, and there without the vendor's driver.
    """
    return frozenset(
        device.name
        for device in devices.glob("*")
        if text(device / "vendor") == vendor_id and (text(device / "class") or "").startswith(tuple(classes))
    )


@dataclass(frozen=True, slots=True)
class Asked:
    """A tool that answered: the command that did, and the devices that it may tell of."""

    tool: Tool
    command: tuple[str, ...]
    addresses: frozenset[str]


class Tools:
    """Reads what vendors' tools print, one call for all sensors of a tool.

    A tool is called only where the kernel shows a device of its vendor. A sensor is what told a sound number when it
    was looked for; `pace` is "power" for all of them, so that temperatures cost no calls of their own.
    """

    name: ClassVar[str] = "tools"

    def __init__(
        self,
        table: Sequence[Tool] = TABLE,
        root: Path = Path("/"),
        execute: Execute = execute,
        clock: Callable[[], float] = time.monotonic,
    ):
        self._table, self._devices, self._execute, self._clock = table, root / "sys/bus/pci/devices", execute, clock
        self._asked: dict[str, Asked] = {}

    def probe(self) -> Found:
        """What the tools of the vendors that are here tell of their devices; what is here and tells nothing is denied.

        Takes as long as the tools do: seconds, at most 10 for each program.
        """
        sensors: list[Sensor] = []
        denied: list[Denied] = []
        self._asked.clear()
        for tool in self._table:
            addresses = pci_addresses(self._devices, tool.vendor_id, tool.classes)
            if addresses:
                found = self._probed(tool, addresses)
                sensors += found.sensors
                denied += found.denied
        return Found(sensors=sensors, denied=denied)

    def read(self, sensors: Sequence[Sensor]) -> list[float | None]:
        """Of each, now; each tool among them is called once."""
        asked = dict.fromkeys(self._asked[sensor.id] for sensor in sensors if sensor.id in self._asked)
        values: dict[str, float | None] = {}
        for each in asked:
            output = self._execute(each.command, TIMEOUT_S)
            told = each.tool.told(output, each.addresses) if output is not None else {}
            values.update({_id(address, field): value for (address, field), value in told.items()})
        return [values.get(sensor.id) for sensor in sensors]

    def close(self) -> None:
        """Nothing is open between calls."""

    def _probed(self, tool: Tool, addresses: frozenset[str]) -> Found:
        what = f"power of {tool.vendor}"
        for program in tool.programs:
            command = (program, *tool.arguments)
            began_s = self._clock()
            output = self._execute(command, TIMEOUT_S)
            if output is not None:
                break
        else:
            why = f"{tool.programs[0]} is not there, fails, or takes more than {TIMEOUT_S:.0f} s"
            remedy = f"install the driver's tools, or put {tool.programs[0]} on the PATH"
            return Found(denied=[Denied(what=what, why=why, remedy=remedy)])
        period_s = max(LEAST_PERIOD_S, CALLS_PER_PERIOD * (self._clock() - began_s))
        told = tool.told(output, addresses)
        if not told:
            why = f"`{' '.join(command)}` printed nothing of these devices in a form that is known here"
            return Found(denied=[Denied(what=what, why=why, remedy="open an issue with what it printed")])
        asked = Asked(tool, command, addresses)
        sensors = []
        for (address, field), value in told.items():
            if value is not None:
                sensors.append(_sensor(asked, address, field, period_s))
                self._asked[sensors[-1].id] = asked
        denied = [
            Denied(what=f"power of pci:{address}", why=f"{command[0]} tells none of it, or no sound one")
            for (address, field), value in told.items()
            if value is None and field.quantity == "power"
        ]
        return Found(sensors=sensors, denied=denied)


def _id(address: str, field: Field) -> str:
    return f"pci:{address}/{field.quantity}/{field.part}"


def _sensor(asked: Asked, address: str, field: Field, period_s: float) -> Sensor:
    return Sensor(
        device=f"pci:{address}",
        quantity=field.quantity,
        part=field.part,
        kind="gauge",
        source=" ".join(asked.command),
        period_s=period_s,
        most=field.sound[1],
        experimental=asked.tool.experimental,
    )


class Meter:
    """Reads a command that goes on printing watts, one number a line, of the whole machine: a plug, a BMC.

    It must not hold its lines back (many programs do when they print into a pipe: `stdbuf -oL`, `print(…,
    flush=True)`). Each number is told once: between two lines nothing is known. `ignored` counts lines that are no
    power: not a plain number, 0, or more than a machine can draw.
    """

    name: ClassVar[str] = "meter"

    def __init__(self, command: Sequence[str], part: str = "wall", clock: Callable[[], float] = time.monotonic):
        self._command, self._part, self._clock = tuple(command), part, clock
        self._process: subprocess.Popen[bytes] | None = None
        self._guard: subprocess.Popen[bytes] | None = None
        self._reader: threading.Thread | None = None
        self._newest: tuple[float, float] | None = None
        self._told: tuple[float, float] | None = None
        self._apart_s: float | None = None
        self._ended = False
        self._heard = threading.Event()
        self.ignored = 0

    def probe(self) -> Found:
        """The meter, once its command has been started and goes on; denied where it ends before it tells a number.

        Waits at most 6 s for two numbers, which tell the period; a slower one is believed to have that.
        """
        try:
            self._process = subprocess.Popen(
                self._command,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                start_new_session=True,
            )
        except (OSError, ValueError, IndexError) as error:  # IndexError: no words at all
            return self._denied(str(error))
        self._guard = _guarding(self._process.pid)
        self._reader = threading.Thread(target=self._listen, args=(self._process,), name="meter lines", daemon=True)
        self._reader.start()
        self._heard.wait(TWO_LINES_S)
        if self._ended and self._newest is None:
            self.close()
            return self._denied(f"it ended, or closed its output, before it told watts ({self.ignored} other lines)")
        # not its arguments: they may hold an address or a password, and a record tells the source
        source = f"command: {Path(self._command[0]).name}"
        sensor = Sensor(
            device="wall",
            quantity="power",
            part=self._part,
            kind="gauge",
            source=source,
            period_s=max(LEAST_PERIOD_S, TWO_LINES_S if self._apart_s is None else self._apart_s),
            most=MOST_WALL_W,
        )
        return Found(sensors=[sensor])

    def read(self, sensors: Sequence[Sensor]) -> list[float | None]:
        """The newest number, in W; None where it has been told before, or the command has ended."""
        newest, told = self._newest, self._told
        self._told = newest
        new_w = newest[0] if newest is not None and newest is not told and not self._ended else None
        return [new_w for _ in sensors]

    def close(self) -> None:
        """End the command and all that it started: asked first, after 2 s killed."""
        process, self._process, self._ended = self._process, None, True
        if process is None:
            return
        if self._guard is not None:
            self._guard.kill()
            self._guard.communicate()
        _signal_group(process, signal.SIGTERM)
        if self._reader is not None:
            self._reader.join(END_S)
        _signal_group(process, signal.SIGKILL)
        process.wait()
        if self._reader is not None:
            self._reader.join(END_S)
            if not self._reader.is_alive() and process.stdout is not None:
                process.stdout.close()

    def _listen(self, process: subprocess.Popen[bytes]) -> None:
        """Keep the newest number until the output ends."""
        assert process.stdout is not None
        for line in process.stdout:
            value = _watts(line)
            if value is None:
                self.ignored += 1
            else:
                before, self._newest = self._newest, (value, self._clock())
                if before is not None:
                    self._apart_s = self._newest[1] - before[1]
                    self._heard.set()
        self._ended = True
        self._heard.set()

    def _denied(self, why: str) -> Found:
        remedy = "give a command that goes on printing watts, one number a line"
        return Found(denied=[Denied(what="external meter", why=why, remedy=remedy)])


def _guarding(group: int) -> subprocess.Popen[bytes] | None:
    """A shell that kills a group of processes once this one has ended, however: then its standard input does."""
    command = ("sh", "-c", 'read _; kill -s KILL -- "-$0"', str(group))
    try:
        return subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
        )
    except OSError:  # a system without a shell
        return None


def _watts(line: bytes) -> float | None:
    """The number that a line is; None of all else, and of 0 W: this machine is on."""
    said = line.strip()
    if not re.fullmatch(rb"[0-9]{1,12}(?:\.[0-9]{1,12})?", said):
        return None
    value = float(said)
    return value if 0 < value <= MOST_WALL_W else None
