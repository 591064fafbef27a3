"""A sampler over the files of a machine that this one need not be: what collector_cost puts beside a session.

The providers are those of `bench run`; only the files are made up, after the documents that the providers name, and of
these not /proc, in which all processes are looked at for those that hold a card. It also looks at the session's memory
as the parent of a worker does while that is timed.
"""

from __future__ import annotations

import os
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from pathlib import Path

from bench.child import SELDOM_S
from bench.collector.host_memory import HostMemory
from bench.collector.providers.cpu_state import CpuState
from bench.collector.providers.drm_clients import DrmClients
from bench.collector.providers.gpu_hwmon import GpuHwmon
from bench.collector.providers.powercap import Powercap
from bench.collector.providers.together import Together
from bench.collector.providers.tools import Meter
from bench.collector.sampler import sample_to_stdout
from bench.collector.sensors import Provider

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
        files |= {f"{cpu}/thermal_throttle/package_throttle_total_time_ms": "1250"}
    return files


AMDGPU = {
    "hwmon/hwmon4/name": "amdgpu",
    "hwmon/hwmon4/power1_average": "212000000",
    "hwmon/hwmon4/power1_cap": "303000000",
    "hwmon/hwmon4/freq1_input": "2100000000",
    **{f"hwmon/hwmon4/temp{number}_label": label for number, label in enumerate(("edge", "junction", "mem"), 1)},
    **{f"hwmon/hwmon4/temp{number}_input": f"{55 + number}000" for number in (1, 2, 3)},
    "gpu_busy_percent": "97",
    "mem_info_vram_used": "9000000000",
    "mem_info_vram_total": "17163091968",
}
XE = {
    "hwmon/hwmon5/name": "xe",
    **{f"hwmon/hwmon5/energy{number}_label": label for number, label in enumerate(("card", "pkg"), 1)},
    **{f"hwmon/hwmon5/energy{number}_input": f"{7 - number}1052000000" for number in (1, 2)},
    **{f"hwmon/hwmon5/temp{number}_label": label for number, label in ((2, "pkg"), (3, "vram"))},
    **{f"hwmon/hwmon5/temp{number}_input": f"{55 + number}000" for number in (2, 3)},
    "hwmon/hwmon5/power1_cap": "230000000",
    **{f"tile0/gt{number}/freq0/act_freq": "2400" for number in (0, 1)},
    **{
        f"tile0/gt{number}/freq0/throttle/reason_{reason}": "0"
        for number in (0, 1)
        for reason in ("status", "pl1", "pl2", "pl4", "prochot", "ratl", "thermal", "vr_tdc", "vr_thermalert")
    },
}
CARDS = {"0000:03:00.0": ("amdgpu", AMDGPU), "0000:04:00.0": ("xe", XE)}


def write(root: Path) -> Path:
    devices = root / "sys/devices/pci0000:00"
    of_cards = {f"{devices / at}/{name}": said for at, (_, files) in CARDS.items() for name, said in files.items()}
    for name, said in {**packages(), **of_cards}.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{said}\n")
    for index, (at, (driver, _)) in enumerate(CARDS.items()):
        card = root / f"sys/class/drm/card{index}"
        card.mkdir(parents=True)
        (card / "device").symlink_to(devices / at)
        (devices / at / "driver").symlink_to(root / f"sys/bus/pci/drivers/{driver}")
    (root / "proc").symlink_to("/proc")
    return root


def watched(root: Path) -> Sequence[Provider]:
    """As `bench run` has them, over a tree of `write`."""
    files = Together(Powercap(root / "sys"), CpuState(root), GpuHwmon(root / "sys"))
    return [Meter(METER), files, DrmClients(root)]


def look_at(pid: int) -> None:
    memory = HostMemory()
    memory.watch(pid)
    while True:
        memory.sample()
        time.sleep(SELDOM_S)


if __name__ == "__main__":
    threading.Thread(target=look_at, args=(os.getppid(),), daemon=True).start()
    with tempfile.TemporaryDirectory() as folder:
        sys.exit(sample_to_stdout(watched(write(Path(folder)))))
