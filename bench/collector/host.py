"""What this machine is: the facts that identify it and those that merely vary."""

from __future__ import annotations

import hashlib
import os
import platform
import subprocess
from pathlib import Path
from typing import Any

import psutil

MACHINE_ID = Path("/etc/machine-id")


def host_id(machine_id: Path = MACHINE_ID) -> str:
    """A stable name for this machine that does not reveal which it is: 16 hex digits.

    A digest of the machine id (machine-id(5) asks not to publish the id itself), else of processor and node.
    """
    try:
        secret = machine_id.read_text().strip()
    except OSError:
        secret = f"{platform.node()} {cpu_name()}"
    return hashlib.sha256(f"evenbench {secret}".encode()).hexdigest()[:16]


def cpu_name(root: Path = Path("/proc")) -> str:
    """The processor as the kernel names it."""
    try:
        for line in (root / "cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def cores_usable() -> int:
    """Logical processors this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def governor(root: Path = Path("/sys/devices/system/cpu/cpu0/cpufreq")) -> str | None:
    """cpu0's frequency governor; None where the kernel shows none (most virtual machines)."""
    try:
        return (root / "scaling_governor").read_text().strip()
    except OSError:
        return None


def memory_available_bytes(cgroup: Path = Path("/sys/fs/cgroup")) -> int:
    """What may still be allocated: the machine's available memory, or this control group's limit if that is less."""
    available = psutil.virtual_memory().available
    for limit_name, used_name in (
        ("memory.max", "memory.current"),
        ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes"),
    ):
        try:
            limit = int((cgroup / limit_name).read_text())
            used = int((cgroup / used_name).read_text())
        except (OSError, ValueError):  # "max" is no number
            continue
        available = min(available, max(0, limit - used))
    return int(available)


def facts() -> dict[str, Any]:
    """For the record's `info.host`: no host name, no serial number, no user."""
    return {
        "cpu": cpu_name(),
        "cores_usable": cores_usable(),
        "cores_physical": psutil.cpu_count(logical=False),
        "memory_bytes": psutil.virtual_memory().total,
        "os": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
    }


def code_version(root: Path = Path(__file__).parents[2]) -> tuple[str | None, bool | None]:
    """(commit, whether files differ from it) of the checkout this is imported from; None outside of one."""

    def git(*words: str) -> str | None:
        try:
            done = subprocess.run(
                ["git", "-C", str(root), *words], capture_output=True, text=True, timeout=10, check=True
            )
        except (OSError, subprocess.SubprocessError):
            return None
        return done.stdout.strip()

    if not (root / ".git").exists():
        return None, None
    status = git("status", "--porcelain", "--untracked-files=no")
    return git("rev-parse", "HEAD"), None if status is None else bool(status)
