"""All providers of sensors, in the order in which they are preferred where two know the same quantity of a device."""

from __future__ import annotations

from collections.abc import Sequence

from bench.collector.providers.amdsmi import AmdSmi
from bench.collector.providers.cpu_state import CpuState
from bench.collector.providers.drm_clients import DrmClients
from bench.collector.providers.gpu_hwmon import GpuHwmon
from bench.collector.providers.nvml import Nvml
from bench.collector.providers.powercap import Powercap
from bench.collector.providers.together import Together
from bench.collector.providers.tools import Meter, Tools
from bench.collector.sensors import Provider


def providers(meter: Sequence[str] = ()) -> list[Provider]:
    """Those of this machine; none has looked for anything yet. `meter` is the command of an external meter."""
    external: list[Provider] = [Meter(meter)] if meter else []
    return [*external, Together(Powercap(), CpuState(), GpuHwmon()), Nvml(), AmdSmi(), DrmClients(), Tools()]
