"""What a machine executes on: kernel, firmware, virtual machine or container, and what of it this process may use."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from bench.collector.machine import kernel_files as files

KERNEL_OPTIONS = ("isolcpus", "nohz_full", "mitigations", "intel_pstate", "idle")
PLACEHOLDERS = re.compile(r"(?i)to be filled.*|default string|system (product name|manufacturer)|not specified|none|0+")
"""What boards' makers leave in the firmware's tables."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Platform:
    """`virtual` is `vm`, `container`, `container in vm`, or None where nothing tells of either.

    `cpus_usable` is where this process may execute (cpuset and affinity), `cpu_quota_cores` what a control group
    grants of them, None for no limit. Lists of processors are the kernel's, '' for none.
    """

    kernel: str | None
    distribution: str | None
    virtual: str | None
    vendor: str | None
    product: str | None
    bios_version: str | None
    bios_date: str | None
    clock_source: str | None
    cpus_usable: str | None
    cpu_quota_cores: float | None
    isolated_cpus: str | None
    kernel_options: tuple[str, ...] | None


def platform(root: Path, cpuinfo: list[str]) -> Platform:
    """What the system says of itself; `cpuinfo` are the lines about a processor."""
    dmi = root / "sys/class/dmi/id"
    system = root / "sys/devices/system"
    usable = files.field(files.lines(root / "proc/self/status"), "Cpus_allowed_list")
    return Platform(
        kernel=files.word(root / "proc/sys/kernel/osrelease"),
        distribution=_distribution(root),
        virtual=_virtual(root, cpuinfo),
        vendor=_told(dmi / "sys_vendor"),
        product=_told(dmi / "product_name"),
        bios_version=_told(dmi / "bios_version"),
        bios_date=_told(dmi / "bios_date"),
        clock_source=files.word(system / "clocksource/clocksource0/current_clocksource"),
        cpus_usable=files.cpu_list(usable) or None,
        cpu_quota_cores=min(_quotas(root), default=None),
        isolated_cpus=files.cpu_list(files.line(system / "cpu/isolated")),
        kernel_options=_options(files.line(root / "proc/cmdline")),
    )


def _told(path: Path) -> str | None:
    text = files.word(path)
    return None if text is None or PLACEHOLDERS.fullmatch(text) else text


def _distribution(root: Path) -> str | None:
    """os-release(5): the file under /etc counts where both are there."""
    for path in (root / "etc/os-release", root / "usr/lib/os-release"):
        if name := files.field(files.lines(path), "PRETTY_NAME", "="):
            return files.plain(name.strip("\"'"))
    return None


def _virtual(root: Path, cpuinfo: list[str]) -> str | None:
    """Marks that container engines leave, and the flag that hypervisors set on x86."""
    container = any(_exists(root / mark) for mark in (".dockerenv", "run/.containerenv"))
    vm = "hypervisor" in (files.field(cpuinfo, "flags") or "").split()
    return {(True, True): "container in vm", (True, False): "container", (False, True): "vm"}.get((container, vm))


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except OSError:  # a folder that may not be searched
        return False


def _options(cmdline: str | None) -> tuple[str, ...] | None:
    """Those of the kernel's options that change rates; the others may name disks, hosts and keys."""
    if cmdline is None:
        return None
    words = (files.plain(word) for word in cmdline.split())
    return tuple(word for word in words if word and word.partition("=")[0] in KERNEL_OPTIONS)


def _quotas(root: Path) -> Iterator[float]:
    """Cores that each control group of this process, from its own to the root, grants; none where it has no limit.

    cgroups(7); Documentation/admin-guide/cgroup-v2.rst (cpu.max), Documentation/scheduler/sched-bwc.rst (version 1).
    """
    for line in files.lines(root / "proc/self/cgroup"):
        _, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if not path or (controllers and "cpu" not in controllers.split(",")):
            continue
        top = root / "sys/fs/cgroup" / controllers
        own = top / path.lstrip("/")
        for group in (own, *own.parents):
            if group.is_relative_to(top) and (cores := _quota(group)) is not None:
                yield cores


def _quota(group: Path) -> float | None:
    """Microseconds of processor time over microseconds of time; `max` and -1 are no limit."""
    quota_text, _, period_text = (files.word(group / "cpu.max") or "").partition(" ")
    quota = files.number(quota_text) or files.integer(group / "cpu.cfs_quota_us", least=1)
    period = files.number(period_text) or files.integer(group / "cpu.cfs_period_us", least=1)
    return quota / period if quota and period and 0 < quota / period < files.MOST_CPUS else None
