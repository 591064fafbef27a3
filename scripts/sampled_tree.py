"""A sampler over the files of a machine that this one need not be: what collector_cost puts beside a session.

The providers are those of `bench run`; only the files are made up, after the documents that the providers name. It
also looks at the session's memory as the parent of a worker does while that is timed.
"""

from __future__ import annotations

import os
import sys
import tempfile
import threading
import time
from pathlib import Path

from bench.child import SELDOM_S
from bench.collector.host_memory import HostMemory
from bench.collector.providers.cpu_state import CpuState
from bench.collector.providers.gpu_hwmon import GpuHwmon
from bench.collector.providers.powercap import Powercap
from bench.collector.providers.together import Together
from bench.collector.providers.tools import Meter
from bench.collector.sampler import sample_to_stdout

METER = (sys.executable, "-S", "-c", "import time\nwhile True: print(42, flush=True); time.sleep(1)")


def packages() -> dict[str, str]:
    """Two processor packages with memory, clocks of eight cores, two temperatures."""
    files = {}
    for number in (0, 1):
        zone = f"sys/class/powercap/intel-rapl:{number}"
        for folder, name in ((zone, f"package-{number}"), (f"{zone}:0", "dram")):
            files |= {f"{folder}/name": name, f"{folder}/energy_uj": "5000000000"}
            files |= {f"{folder}/max_energy_range_uj": "262143328850"}
        chip = f"sys/class/hwmon/hwmon{number}"
        files |= {f"{chip}/name": "coretemp", f"{chip}/temp1_label": f"Package id {number}"}
        files |= {f"{chip}/temp1_input": "61000"}
    for core in range(8):
        cpu = f"sys/devices/system/cpu/cpu{core}"
        files |= {f"{cpu}/cpufreq/scaling_cur_freq": "3100000"}
        files |= {f"{cpu}/topology/physical_package_id": str(core // 4)}
    return files


def cards() -> dict[str, str]:
    """A card of each of two drivers."""
    found = {}
    for index, (driver, own) in enumerate(
        (
            ("amdgpu", {"power1_average": "212000000", "power1_cap": "303000000", "freq1_input": "2100000000"}),
            ("xe", {"energy1_label": "card", "energy1_input": "71052000000", "energy2_label": "pkg"}),
        )
    ):
        hwmon = f"sys/devices/pci0000:00/0000:0{index + 3}:00.0/hwmon/hwmon{index + 4}"
        told = {"name": driver, **own, "temp1_label": "edge", "temp1_input": "55000", "energy2_input": "61052000000"}
        found |= {f"{hwmon}/{name}": text for name, text in told.items() if driver == "xe" or "energy" not in name}
    return found


def write(root: Path) -> Path:
    for name, text in {**packages(), **cards()}.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{text}\n")
    for index in (0, 1):
        card = root / f"sys/class/drm/card{index}"
        card.mkdir(parents=True)
        (card / "device").symlink_to(root / f"sys/devices/pci0000:00/0000:0{index + 3}:00.0")
    return root


def look_at(pid: int) -> None:
    memory = HostMemory()
    memory.watch(pid)
    while True:
        memory.sample()
        time.sleep(SELDOM_S)


if __name__ == "__main__":
    threading.Thread(target=look_at, args=(os.getppid(),), daemon=True).start()
    with tempfile.TemporaryDirectory() as folder:
        root = write(Path(folder))
        sys.exit(
            sample_to_stdout([Meter(METER), Together(Powercap(root / "sys"), CpuState(root), GpuHwmon(root / "sys"))])
        )
