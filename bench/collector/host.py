"""What this machine is: the facts that identify it and those that merely vary."""

from __future__ import annotations

import hashlib
import platform
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil

from bench.ceiling import usable_cpus

MACHINE_ID = Path("/etc/machine-id")


def host_id(machine_id: Path = MACHINE_ID) -> str:
    """A stable name for this machine that does not reveal which it is: 16 hex digits.

    A digest of the machine id (machine-id(5) asks not to publish the id itself), else of processor and node.
    """
    try:
        secret = machine_id.read_text().strip()
    except OSError:
        secret = ""
    if secret in ("", "uninitialized"):  # containers and images: the same on every machine
        secret = f"{platform.node()} {cpu_name()}"
    return hashlib.sha256(f"evenbench {secret}".encode()).hexdigest()[:16]


def cpu_name(root: Path = Path("/proc")) -> str:
    """The processor as the kernel names it."""
    return _cpuinfo(root, "model name") or platform.processor() or platform.machine()


def processor(root: Path = Path("/proc")) -> dict[str, str | None]:
    """What decides which kernels a runtime chooses: the processor's name and its instruction sets."""
    flags = _cpuinfo(root, "flags", "Features")
    return {"machine": platform.machine(), "name": cpu_name(root), "flags": flags}


def _cpuinfo(root: Path, *keys: str) -> str | None:
    """The first value under one of `keys` in /proc/cpuinfo; None where there is none."""
    try:
        lines = (root / "cpuinfo").read_text().splitlines()
    except OSError:
        return None
    return next((line.partition(":")[2].strip() for line in lines if line.startswith(keys)), None)


def cores_usable() -> int:
    """Logical processors this process may use."""
    return len(usable_cpus())


def governor(root: Path = Path("/sys/devices/system/cpu/cpu0/cpufreq")) -> str | None:
    """cpu0's frequency governor; None where the kernel shows none (most virtual machines)."""
    try:
        return (root / "scaling_governor").read_text().strip()
    except OSError:
        return None


def memory_available_bytes(root: Path = Path("/")) -> int:
    """What may still be allocated: the machine's available memory, or what a control group leaves if that is less.

    All groups from this process's own up to the root count; their page cache can be dropped and does not.
    """
    available: int = psutil.virtual_memory().available
    return min([available, *(left for group in _memory_groups(root) if (left := _group_left(group)) is not None)])


def _memory_groups(root: Path) -> Iterator[Path]:
    """Folders of this process's memory control groups (cgroups(7)), version 1 or 2; as a container sees them."""
    try:
        lines = (root / "proc/self/cgroup").read_text().splitlines()
    except OSError:
        return
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers in ("", "memory"):
            top = root / "sys/fs/cgroup" / controllers
            own = top / path.lstrip("/")
            yield from (folder for folder in (own, *own.parents) if folder.is_relative_to(top) and folder.is_dir())


def _group_left(group: Path) -> int | None:
    """Limit − use + page cache of one group; None where it has no limit."""
    for limit, used, cached in (
        ("memory.max", "memory.current", ("inactive_file", "active_file")),
        ("memory.limit_in_bytes", "memory.usage_in_bytes", ("total_inactive_file", "total_active_file")),
    ):
        try:
            limit_bytes = int((group / limit).read_text())
            used_bytes = int((group / used).read_text())
            stat = dict(line.split() for line in (group / "memory.stat").read_text().splitlines())
        except (OSError, ValueError):  # no such file, or "max"
            continue
        return max(0, limit_bytes - used_bytes + sum(int(stat.get(name, 0)) for name in cached))
    return None


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
    status = git("status", "--porcelain", "--", "bench", "backends", "models.toml", "scripts")
    return git("rev-parse", "HEAD"), None if status is None else bool(status)
