"""Whether a machine, as it is at this moment, is fit for measuring; and the command that mends it."""

from __future__ import annotations

import math
import re
import sys
import textwrap
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import psutil

from bench.collector.machine import Machine, NumaNode
from bench.collector.machine import kernel_files as files
from bench.units import render_bytes

BUSY_LOAD_SHARE = 0.2
STOLEN_SHARE = 0.01
HOT_C = 80.0
LITTLE_SWAP_BYTES = 64 << 20
"""Pages of programs that sleep; what a machine swaps while it measures is more."""
INDENT, NO_BREAK = " " * 6, "\N{NO-BREAK SPACE}"
LINE = 74
"""Characters of `what: found` and of a remedy, so that with its mark each fits 80 columns."""
PROCESSORS = ("coretemp", "k10temp", "zenpower", "cpu_thermal", "soc_thermal")
"""Drivers of processors' temperatures, by their names in hwmon and thermal zones."""
MOST_C = 150.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """What was looked at, whether it is fit for measuring, and what to execute if it could be better.

    `fit` is None of a fact that is neither. What is typed stands in backquotes in a `remedy` that says more than that.
    """

    what: str
    found: str
    fit: bool | None = True
    remedy: str | None = None

    def lines(self, width: int | None = None) -> list[str]:
        """For people, within so many columns; what is typed is never broken, nor is anything without a width."""
        mark = "--" if self.fit is None else "ok" if self.fit else "!!"
        wrap = partial(textwrap.wrap, width=width or sys.maxsize, break_long_words=False, break_on_hyphens=False)
        typed = re.sub("`[^`]*`" if "`" in (self.remedy or "") else ".+", _whole, self.remedy or "")
        said = wrap(f"{mark}  {self.what}: {self.found}", subsequent_indent=INDENT)
        said += wrap(typed, initial_indent=INDENT, subsequent_indent=INDENT)
        return [line.replace(NO_BREAK, " ") for line in said]


@dataclass(frozen=True, slots=True, kw_only=True)
class Moment:
    """What changes from one moment to the next.

    `load1` is the mean of the last minute, `runnable` what executes or waits for a processor just now (both of the
    whole machine). `steal_ratio` is the share of time that a hypervisor gave to others while this was read,
    `pressure_cpu_avg10` the share of the last 10 s in which some task waited for a processor.
    """

    load1: float | None = None
    runnable: int | None = None
    swap_used_bytes: int | None = None
    temperature_c: float | None = None
    steal_ratio: float | None = None
    pressure_cpu_avg10: float | None = None
    on_battery: bool | None = None


def moment(
    root: Path = Path("/"), system: Any = psutil, wait: Callable[[float], None] = time.sleep, span_s: float = 0.5
) -> Moment:
    """This moment; never raises. Takes `span_s`: the kernel counts stolen time since the start of the machine.

    proc_loadavg(5), proc_stat(5), proc_meminfo(5), Documentation/accounting/psi.rst; temperatures and battery from
    psutil.
    """
    before = _ticks(root)
    wait(span_s)
    steal = _steal(before, _ticks(root))
    load = [*(files.word(root / "proc/loadavg") or "").split(), "", "", "", ""]
    meminfo = files.lines(root / "proc/meminfo")
    total, free = files.kilobytes(meminfo, "SwapTotal"), files.kilobytes(meminfo, "SwapFree")
    return Moment(
        load1=_decimal(load[0]),
        runnable=_natural(load[3].partition("/")[0]),
        swap_used_bytes=total - free if total is not None and free is not None and free <= total else None,
        temperature_c=_temperature_c(system),
        steal_ratio=steal,
        pressure_cpu_avg10=_pressure(root),
        on_battery=_on_battery(system),
    )


def findings(machine: Machine, now: Moment) -> list[Finding]:
    """What was looked at, in the order in which to print it; what is not known is left out, but for the governor.

    Pure. What only could be better is fit and still has a remedy.
    """
    parts = (_clocks(machine), _sharing(machine, now), _state(now), _layout(machine))
    return [_short(finding) for part in parts for finding in part]


def _clocks(machine: Machine) -> Iterator[Finding]:
    processor = machine.processor
    steady = processor.governor in (None, "performance")
    how = ", ".join(word for word in (processor.driver, processor.energy_performance_preference) if word)
    named = f"{processor.governor} ({how})" if how else str(processor.governor)
    yield Finding(
        what="governor",
        found=named if processor.governor else "not shown by this kernel (usual in virtual machines)",
        fit=steady,
        remedy=None if steady else "sudo cpupower frequency-set -g performance",
    )
    if processor.turbo is not None:
        on = "on: clocks depend on temperature and on the cores in use"
        yield Finding(what="turbo", found=on if processor.turbo else "off")
    if processor.smt is not None:
        yield Finding(
            what="SMT",
            found="on: two threads of a core share its units" if processor.smt else "off",
            remedy="echo off | sudo tee /sys/devices/system/cpu/smt/control" if processor.smt else None,
        )


def _sharing(machine: Machine, now: Moment) -> Iterator[Finding]:
    """Who else takes time of the processors; no finding of load where it is not known how many those are."""
    usable = _usable(machine)
    if now.load1 is not None and usable:
        busy = now.load1 > BUSY_LOAD_SHARE * usable
        pressure = "" if now.pressure_cpu_avg10 is None else f", pressure {now.pressure_cpu_avg10:.1%}"
        yield Finding(
            what="load",
            found=f"{now.load1:.2f} over the last minute on {usable} processors{pressure}",
            fit=not busy,
            remedy="end what `top -o %CPU` shows, or wait: it shares the memory bandwidth" if busy else None,
        )
    if now.steal_ratio is not None:
        stolen = now.steal_ratio > STOLEN_SHARE
        yield Finding(
            what="steal",
            found=f"{now.steal_ratio:.1%} of the time went to other virtual machines",
            fit=not stolen,
            remedy="ask the provider for dedicated cores; watch `st` in: vmstat 1" if stolen else None,
        )
    quota = machine.platform.cpu_quota_cores
    if quota is not None and usable:
        yield Finding(
            what="CPU quota",
            found=f"{quota:.3g} of {usable} processors",
            fit=quota >= usable,
            remedy=None if quota >= usable else f"docker update --cpus {usable} CONTAINER, or resources.limits.cpu",
        )


def _state(now: Moment) -> Iterator[Finding]:
    if now.swap_used_bytes is not None:
        swapped = now.swap_used_bytes > LITTLE_SWAP_BYTES
        yield Finding(
            what="swap",
            found=f"{render_bytes(now.swap_used_bytes)} in use",
            fit=not swapped,
            remedy="sudo swapoff -a && sudo swapon -a" if swapped else None,
        )
    if now.temperature_c is not None:
        hot = now.temperature_c > HOT_C
        yield Finding(
            what="temperature",
            found=f"{now.temperature_c:.0f} °C before anything is measured",
            fit=not hot,
            remedy="wait until it is cooler: watch -n 1 sensors" if hot else None,
        )
    if now.on_battery is not None:
        yield Finding(
            what="power",
            found="battery" if now.on_battery else "plugged in",
            fit=not now.on_battery,
            remedy="plug it in: upower -i /org/freedesktop/UPower/devices/DisplayDevice" if now.on_battery else None,
        )


def _layout(machine: Machine) -> Iterator[Finding]:
    mode = machine.memory.huge_pages
    if mode is not None:
        yield Finding(
            what="huge pages",
            found=mode,
            fit=mode != "never",
            remedy="echo madvise | sudo tee /sys/kernel/mm/transparent_hugepage/enabled" if mode == "never" else None,
        )
    nodes = machine.processor.numa_nodes or ()
    usable = files.cpus(machine.platform.cpus_usable)
    if len(nodes) > 1 and usable:
        pinned = any(usable <= cpus for node in nodes if (cpus := files.cpus(node.cpus)))
        best = max(nodes, key=lambda node: _worth(node, usable)).number
        yield Finding(
            what="NUMA",
            found=f"{len(nodes)} nodes, {'pinned to one' if pinned else 'not pinned: memory may lie on another'}",
            remedy=None if pinned else f"numactl --cpunodebind={best} --membind={best} bench run …",
        )


def _worth(node: NumaNode, usable: frozenset[int]) -> tuple[int, int]:
    return len(usable & (files.cpus(node.cpus) or frozenset())), node.memory_bytes or 0


def _usable(machine: Machine) -> int | None:
    """Processors that this process may use, else those online."""
    usable = files.cpus(machine.platform.cpus_usable)
    return len(usable) if usable else machine.processor.threads


def _whole(typed: re.Match[str]) -> str:
    return typed[0].replace(" ", NO_BREAK)


def _short(finding: Finding) -> Finding:
    most = LINE - len(finding.what) - len(": ")
    found = finding.found if len(finding.found) <= most else finding.found[: most - 1] + "…"
    return Finding(what=finding.what, found=found, fit=finding.fit, remedy=finding.remedy)


def _ticks(root: Path) -> list[int] | None:
    """user nice system idle iowait irq softirq steal of all processors; the guests' time is within user and nice."""
    name, *told = (files.line(root / "proc/stat") or "").split() or [""]
    ticks = [value for text in told[:8] if (value := files.number(text)) is not None and value >= 0]
    return ticks if name == "cpu" and len(ticks) == 8 else None


def _steal(before: list[int] | None, after: list[int] | None) -> float | None:
    """The share that was stolen in between; None where a counter ran backwards, which idle and iowait may."""
    if before is None or after is None:
        return None
    spent = [last - first for first, last in zip(before, after, strict=True)]
    return spent[7] / sum(spent) if min(spent) >= 0 and sum(spent) > 0 else None


def _decimal(text: str) -> float | None:
    try:
        value = float(text)
    except ValueError:
        return None
    return value if math.isfinite(value) and 0 <= value < 1e6 else None


def _natural(text: str) -> int | None:
    value = files.number(text)
    return value if value is not None and value >= 0 else None


def _pressure(root: Path) -> float | None:
    """Of a line such as `some avg10=0.12 avg60=…`, in percent."""
    for line in files.lines(root / "proc/pressure/cpu"):
        words = line.split()
        if words[:1] == ["some"]:
            percent = _decimal(files.field(words, "avg10", "=") or "")
            return percent / 100 if percent is not None and percent <= 100 else None
    return None


def _temperature_c(system: Any) -> float | None:
    """The hottest of the processors' sensors; psutil has none of them on some systems.

    `Tctl` is what AMD's fans are controlled by, on some models tens of degrees above `Tdie`: it counts only where
    there is no other (Documentation/hwmon/k10temp.rst).
    """
    try:
        told = system.sensors_temperatures()
    except (AttributeError, OSError, ValueError):  # psutil #1195, #1245, #1323
        return None
    readings = [entry for name, entries in told.items() if name in PROCESSORS for entry in entries]
    readings = [entry for entry in readings if entry.current is not None and 0 < entry.current < MOST_C]
    true = [entry for entry in readings if entry.label != "Tctl"] or readings
    return max((float(entry.current) for entry in true), default=None)


def _on_battery(system: Any) -> bool | None:
    """None where there is no battery, and where it is not known whether it feeds the machine."""
    try:
        battery = system.sensors_battery()
    except (AttributeError, OSError, ValueError):  # psutil #966, #2595
        return None
    plugged = None if battery is None else battery.power_plugged
    return None if plugged is None else not plugged
