"""Facts about processor, memory, platform and accelerators that identify a machine or explain its rates.

They come from small files of the kernel: no process is started, nothing needs root, and what this system does not
show is None. Names of hosts, serial numbers and UUIDs are never read.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from bench.collector.machine import kernel_files as files
from bench.collector.machine.accelerators import Accelerator, accelerators
from bench.collector.machine.memory_modules import Modules, modules
from bench.collector.machine.platform_facts import Platform, platform

ISA = (
    *("avx2", "avx512f", "avx512_vnni", "avx512_bf16", "avx512_fp16", "avx_vnni", "avx_vnni_int8"),
    *("amx_tile", "amx_int8", "amx_bf16", "amx_fp16", "asimddp", "i8mm", "bf16", "sve", "sve2", "sme"),
)
"""As /proc/cpuinfo calls them, and whatever begins with avx10. A kernel need not name every one that there is."""
LEAST_HZ, MOST_HZ = 10**7, 2 * 10**10


@dataclass(frozen=True, slots=True, kw_only=True)
class NumaNode:
    """A part of the memory and the processors next to it, as the kernel lists them (`0-3,8`)."""

    number: int
    cpus: str | None
    memory_bytes: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Processor:
    """`threads` are those online. Frequencies are the limits of the governor's; governors that differ: `a, b`.

    On Arm `vendor` is the implementer's and `model` the part's number. `isa` is sorted, and what the kernel names:
    that a runtime may use it (AMX asks for a permission) is not said.
    """

    name: str | None
    vendor: str | None
    family: int | None
    model: int | None
    stepping: int | None
    microcode: str | None
    isa: tuple[str, ...] | None
    sockets: int | None
    cores: int | None
    threads: int | None
    smt: bool | None
    numa_nodes: tuple[NumaNode, ...] | None
    governor: str | None
    driver: str | None
    energy_performance_preference: str | None
    frequency_min_hz: int | None
    frequency_max_hz: int | None
    turbo: bool | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Memory:
    """`huge_pages` is the mode of the transparent ones; `numa_balancing` 0 (off), 1 or 2 as in sysctl/kernel.rst."""

    total_bytes: int | None
    swap_total_bytes: int | None
    huge_pages: str | None
    numa_balancing: int | None
    modules: Modules | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """All of it; `dataclasses.asdict` of it is JSON."""

    processor: Processor
    memory: Memory
    platform: Platform
    accelerators: tuple[Accelerator, ...]


def facts(root: Path = Path("/")) -> Machine:
    """What this machine shows of itself; never raises. Some milliseconds, more with hundreds of processors."""
    cpuinfo = files.lines(root / "proc/cpuinfo")  # its first 64 KiB: those of hundreds of processors take long
    return Machine(
        processor=_processor(root, cpuinfo),
        memory=_memory(root),
        platform=platform(root, cpuinfo),
        accelerators=accelerators(root),
    )


def split(machine: Machine) -> tuple[dict[str, Any], dict[str, Any]]:
    """(covariates, info): what changes a rate though nobody changed the hardware, and the rest. Both are JSON.

    Their keys are fixed. Of a link the lanes are a covariate: fewer than yesterday is a card that sits badly. Its rate
    is not: it falls when a card idles, and every launch would stand in a row of its own.
    """
    info: dict[str, Any] = json.loads(json.dumps(asdict(machine)))  # lists, as they come back from a record
    moved = {
        "processor": (
            *("microcode", "smt", "governor", "energy_performance_preference"),
            *("frequency_min_hz", "frequency_max_hz", "turbo"),
        ),
        "memory": ("huge_pages", "numa_balancing"),
        "platform": ("cpus_usable", "cpu_quota_cores", "isolated_cpus", "kernel_options"),
    }
    covariates: dict[str, Any] = {name: info[part].pop(name) for part, names in moved.items() for name in names}
    covariates["link_lanes"] = {card["address"]: card.pop("link_lanes") for card in info["accelerators"]}
    return covariates, info


def _processor(root: Path, cpuinfo: list[str]) -> Processor:
    system = root / "sys/devices/system"
    cpu = system / "cpu"
    policies = files.entries(cpu / "cpufreq", r"policy\d+")
    flags = files.field(cpuinfo, "flags") or files.field(cpuinfo, "Features")
    sockets, cores = _topology(cpu)
    online = files.cpus(files.line(cpu / "online"))
    no_turbo = files.switch(cpu / "intel_pstate/no_turbo")
    nodes = tuple(_node(folder) for folder in files.entries(system / "node", r"node\d{1,4}"))
    return Processor(
        name=files.plain(files.field(cpuinfo, "model name") or ""),
        vendor=files.plain(files.field(cpuinfo, "vendor_id") or files.field(cpuinfo, "CPU implementer") or ""),
        family=_part(cpuinfo, "cpu family", "CPU architecture"),
        model=_part(cpuinfo, "model", "CPU part"),
        stepping=_part(cpuinfo, "stepping", "CPU revision"),
        microcode=_hexadecimal(files.field(cpuinfo, "microcode")),
        isa=None if flags is None else tuple(sorted({f for f in flags.split() if f in ISA or _is_avx10(f)})),
        sockets=sockets,
        cores=cores,
        threads=len(online) if online else None,
        smt=files.switch(cpu / "smt/active"),
        numa_nodes=nodes or None,
        governor=_together(policies, "scaling_governor"),
        driver=_together(policies[:1], "scaling_driver"),
        energy_performance_preference=_together(policies, "energy_performance_preference"),
        frequency_min_hz=min(_frequencies(policies, "scaling_min_freq"), default=None),
        frequency_max_hz=max(_frequencies(policies, "scaling_max_freq"), default=None),
        turbo=files.switch(cpu / "cpufreq/boost") if no_turbo is None else not no_turbo,
    )


def _is_avx10(flag: str) -> bool:
    return re.fullmatch(r"avx10[._0-9]{0,8}", flag) is not None


def _part(cpuinfo: list[str], *names: str) -> int | None:
    """The first of these fields; Arm's are hexadecimal."""
    text = next((told for name in names if (told := files.field(cpuinfo, name)) is not None), None)
    code = _hexadecimal(text)
    value = files.number(text) if code is None else int(code, 16)
    return value if value is not None and 0 <= value < 2**16 else None


def _hexadecimal(text: str | None) -> str | None:
    return text if text is not None and re.fullmatch(r"0x[0-9a-f]{1,16}", text) else None


def _topology(cpu: Path) -> tuple[int | None, int | None]:
    """(sockets, cores) of the processors online; Documentation/admin-guide/cputopology.rst."""
    packages, siblings = set(), set()
    for folder in files.entries(cpu, r"cpu\d{1,5}"):
        topology = folder / "topology"
        if (package := files.integer(topology / "physical_package_id")) is not None:  # -1: not known
            packages.add(package)
        names = ("core_cpus_list", "thread_siblings_list")  # the second is the name before Linux 5.3
        siblings.add(next((cpus for name in names if (cpus := files.cpus(files.line(topology / name)))), None))
    siblings.discard(None)
    return len(packages) or None, len(siblings) or None


def _node(folder: Path) -> NumaNode:
    told = files.lines(folder / "meminfo")
    name = f"Node {folder.name[4:]} MemTotal"
    near = files.cpu_list(files.line(folder / "cpulist"))
    return NumaNode(number=int(folder.name[4:]), cpus=near, memory_bytes=files.kilobytes(told, name))


def _together(policies: list[Path], name: str) -> str | None:
    """The word under `name` of all policies, or all that occur; a name of the kernel's has no other characters."""
    told = {files.word(policy / name) or "" for policy in policies}
    return ", ".join(sorted(text for text in told if re.fullmatch(r"[a-z0-9_-]{1,32}", text))) or None


def _frequencies(policies: list[Path], name: str) -> Iterator[int]:
    """Hz; the files are in kHz (Documentation/admin-guide/pm/cpufreq.rst)."""
    for policy in policies:
        value = files.integer(policy / name, LEAST_HZ // 1000, MOST_HZ // 1000)
        if value is not None:
            yield value * 1000


def _memory(root: Path) -> Memory:
    meminfo = files.lines(root / "proc/meminfo")
    mode = re.search(
        r"\[(always|madvise|never)\]", files.word(root / "sys/kernel/mm/transparent_hugepage/enabled") or ""
    )
    return Memory(
        total_bytes=files.kilobytes(meminfo, "MemTotal") or None,
        swap_total_bytes=files.kilobytes(meminfo, "SwapTotal"),
        huge_pages=mode[1] if mode else None,
        numa_balancing=files.integer(root / "proc/sys/kernel/numa_balancing", most=3),
        modules=modules(root),
    )
