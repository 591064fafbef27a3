"""Processes that hold something on a graphics card or an NPU, as its kernel driver tells in /proc/PID/fdinfo.

Sources: Documentation/gpu/drm-usage-stats.rst (the keys), drm_show_fdinfo in drm_file.c (`drm-pdev` is of PCI devices
only, so panthor and other parts of a system on chip have no sensor), Documentation/filesystems/proc.rst (hidepid),
fs/proc/fd.c and ptrace(2) (who may look). ROCm computes through /dev/kfd: its engine times are not in these files
(Umio-Yasuno/amdgpu_top#49), the memory that it holds is (process_memory_read.cc of AMD SMI's own tests).
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from bench.collector.providers.gpu_hwmon import PCI
from bench.collector.sensors import Denied, Found, Sensor

DRIVERS = ("amdgpu", "amdxdna", "i915", "intel_vpu", "xe")
"""Of PCI devices, with a show_fdinfo in their newest kernel; nvidia-drm has none, and NVML tells of compute there."""
CLASSES = (("sys/class/drm", "/dev/dri/"), ("sys/class/accel", "/dev/accel/"))
FOLDERS = tuple(folder for _, folder in CLASSES)
NODE = re.compile(r"(?:card|renderD|accel)\d+")
ADDRESS = re.compile(rf"^drm-pdev:[ \t]*({PCI.pattern})$", re.MULTILINE)
USE = re.compile(
    r"^drm-(?:total-(?!cycles-)|resident-|memory-|engine-(?!capacity-)|cycles-)\S+:[ \t]*(\d+)(?: \w+)?$",
    re.MULTILINE | re.ASCII,
)
"""Memory held and engine time taken. xe's `drm-total-cycles-` is of all clients, a capacity is how many engines."""
HOST_NAMESPACE = "pid:[4026531836]"
"""PROC_PID_INIT_INO of include/linux/proc_ns.h: the same on every kernel."""
CAPABILITIES = "+sys_ptrace,+dac_read_search"
"""The first for reading fdinfo and for seeing through hidepid, the second for listing a folder of mode 0500."""
REMEDY = (
    "execute as root, or as yourself with two capabilities: `sudo -E setpriv --reuid=$(id -u) --regid=$(id -g) "
    f"--init-groups --inh-caps={CAPABILITIES} --ambient-caps={CAPABILITIES} bench run …` "
    "(a container: `--cap-add=SYS_PTRACE,DAC_READ_SEARCH`)"
)


@dataclass(frozen=True, kw_only=True)
class Look:
    """One look at all processes: by device, those that hold something, and those whose files do not say whether.

    `refused` is whether some could not be looked at.
    """

    holders: Mapping[str, set[str]]
    untold: Mapping[str, set[str]]
    refused: bool

    def count(self, device: str) -> float | None:
        """How many hold something on it; None where a process may and an old driver does not say."""
        holders = self.holders.get(device, set())
        return None if self.untold.get(device, set()) - holders else float(len(holders))


class DrmClients:
    """Provider of how many processes hold memory or have used an engine of `pci:…`, the one that measures included.

    A process counts once, however many files it has open; one that only has a file open does not. Those that it may
    not look at are missing in the number, and `Found.denied` says so.
    """

    name: ClassVar[str] = "drm-clients"

    def __init__(self, root: Path = Path("/")) -> None:
        self._root = root

    def probe(self) -> Found:
        """A sensor for each device that one of DRIVERS drives; never raises."""
        drivers = dict(self._nodes().values())
        if not drivers:
            return Found()
        sensors = [
            Sensor(
                device=device,
                quantity="processes",
                part="drm",
                kind="gauge",
                source=f"{driver} fdinfo",
                pace="edges",
            )
            for device, driver in drivers.items()
        ]
        return Found(sensors=sensors, denied=list(self._missed(", ".join(drivers))))

    def read(self, sensors: Sequence[Sensor]) -> list[float | None]:
        """Processes, from one look for all; None where /proc shows none, a driver does not say, or a device is gone."""
        nodes = self._nodes()
        devices, look = dict(nodes.values()), _look(self._root / "proc", nodes)
        return [look.count(each.device) if look and each.device in devices else None for each in sensors]

    def close(self) -> None:
        """Nothing is held."""

    def _nodes(self) -> dict[str, tuple[str, str]]:
        """(device, driver) by the path of each of its nodes; looked up anew, since devices come and go."""
        nodes: dict[str, tuple[str, str]] = {}
        for name, folder in CLASSES:
            try:
                for node in sorted((self._root / name).iterdir()):
                    device = (node / "device").resolve()
                    address, driver = device.name.lower(), (device / "driver").resolve().name
                    if NODE.fullmatch(node.name) and PCI.fullmatch(address) and driver in DRIVERS:
                        nodes[folder + node.name] = f"pci:{address}", driver
            except OSError:  # this kernel has no device of this class
                continue
        return nodes

    def _missed(self, devices: str) -> Iterator[Denied]:
        """What the count lacks here, and what brings it in."""
        look = _look(self._root / "proc", {})
        if look is None:
            yield Denied(what=f"processes on {devices}", why="/proc shows no process", of_energy=False)
        elif look.refused:
            why = "only its owner may see what a process holds (/proc/PID/fdinfo), and hidepid may hide it altogether"
            yield Denied(what=f"processes of other users on {devices}", why=why, remedy=REMEDY, of_energy=False)
        try:
            namespace = str((self._root / "proc/self/ns/pid").readlink())
        except OSError:
            return
        if namespace != HOST_NAMESPACE:
            why, remedy = "/proc shows this container's own", "`docker run --pid=host …`, or `podman run --pid=host …`"
            yield Denied(
                what=f"processes outside of this container on {devices}", why=why, remedy=remedy, of_energy=False
            )


def _look(proc: Path, nodes: Mapping[str, tuple[str, str]]) -> Look | None:
    """At every process (/proc lists no threads); None where not even this one is listed."""
    try:
        processes = {each.name: each for each in proc.iterdir() if each.name.isdecimal()}
    except OSError:
        return None
    if not processes:
        return None
    holders, untold = defaultdict[str, set[str]](set), defaultdict[str, set[str]](set)
    refused = "1" not in processes  # every namespace has one: hidepid hides it
    for pid, process in processes.items():
        try:
            for node, said in _clients(process):
                address = ADDRESS.search(said)
                device = f"pci:{address[1]}" if address else nodes.get(node, ("", ""))[0]
                uses = USE.findall(said) if address else []
                if any(use.strip("0") for use in uses):
                    holders[device].add(pid)
                elif not uses:
                    untold[device].add(pid)
        except PermissionError:
            refused = True
        except OSError:  # it ended meanwhile
            continue
    return Look(holders=holders, untold=untold, refused=refused)


def _clients(process: Path) -> Iterator[tuple[str, str]]:
    """(node, what is said of it) of each file that a process has open on a device; PermissionError if not allowed."""
    for descriptor in (process / "fd").iterdir():
        try:
            node = str(descriptor.readlink())
            if node.startswith(FOLDERS):
                yield node, (process / "fdinfo" / descriptor.name).read_text(errors="replace")
        except PermissionError:
            raise
        except OSError:  # closed meanwhile
            continue
