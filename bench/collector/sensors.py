"""What a sensor is: one quantity of one device, and how it is to be read; and who reads it.

Sensors tell base units (J, W, °C, Hz, bytes, seconds, shares of 1). None is "could not be read now"; never 0 for it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol

Quantity = Literal[
    "energy",
    "power",
    "power-limit",
    "temperature",
    "clock",
    "utilization",
    "memory-used",
    "throttle-time",
    "throttled",
    "processes",
    "errors",
]
"""`throttle-time` is a counter of seconds, `throttled` 1 or 0; both have their reason in `part`. `processes` is how
many hold something on the device, whoever they are; `errors` counts those of its memories or its link, as its part
says."""
Kind = Literal["counter", "gauge"]
"""A counter only grows, until it wraps or is reset; a gauge is of a moment, or of the last `averaging_s`."""
Pace = Literal["power", "state", "edges"]
"""How often it is read: energy and power; clocks, temperatures and the like; only where a phase begins or ends."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sensor:
    """One quantity of one device.

    `device` is a name that tells it from all others of this machine and is the same for all its sensors:
    `cpu:0` (a package), `platform`, `pci:0000:03:00.0`, `wall`. `part` is what of it is measured: a scope of energy
    and power (package, dram, psys, card, chip, module, wall), a place of a temperature, a domain of a clock, a reason
    of throttling. `wraps_at` is the number at which a counter begins anew at 0, in its unit; None where it does not.
    `most` is what no sound reading can reach, in the unit. `source` is where the number comes from, for people.
    """

    device: str
    quantity: Quantity
    part: str
    kind: Kind
    source: str
    pace: Pace = "power"
    period_s: float = 0.2
    averaging_s: float = 0.0
    wraps_at: float | None = None
    most: float | None = None
    experimental: bool = False

    @property
    def id(self) -> str:
        """Unique within a machine."""
        return f"{self.device}/{self.quantity}/{self.part}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Denied:
    """A sensor that is there and cannot be read, or could be there: why not, and the command that grants it.

    `of_energy` where it is why no energy is known.
    """

    what: str
    why: str
    remedy: str | None = None
    of_energy: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """What a provider found on this machine, by `Sensor.device`: `names` and `uuids` as the vendor has them.

    `settings` say what a device is and how it is set: `driver`, `vbios`, `power_limit_w`, `pcie_width`, …
    """

    sensors: Sequence[Sensor] = ()
    denied: Sequence[Denied] = ()
    names: Mapping[str, str] = field(default_factory=dict)
    uuids: Mapping[str, str] = field(default_factory=dict)
    settings: Mapping[str, Mapping[str, str | float | bool | None]] = field(default_factory=dict)

    @property
    def without_energy(self) -> str:
        """Why there is no sensor of energy, of all that were denied; empty where nobody says."""
        return "; ".join(dict.fromkeys(f"{each.what}: {each.why}" for each in self.denied if each.of_energy))

    @classmethod
    def of(cls, found: Sequence[Found]) -> Found:
        """What several found together, in their order."""
        return cls(
            sensors=[sensor for each in found for sensor in each.sensors],
            denied=[denied for each in found for denied in each.denied],
            names={device: name for each in found for device, name in each.names.items()},
            uuids={device: uuid for each in found for device, uuid in each.uuids.items()},
            settings={device: told for each in found for device, told in each.settings.items()},
        )


class Provider(Protocol):
    """Reads the sensors of one source, called by one thread at a time.

    Nothing that a library does may escape but its readings.
    """

    @property
    def name(self) -> str:
        """For people and for the list of what reading cost."""

    def probe(self) -> Found:
        """What is here; takes at most a second or two, changes nothing. One that raises or hangs is denied."""

    def read(self, sensors: Sequence[Sensor]) -> list[float | None]:
        """Of each, now, in base units; None where it cannot be read or says nonsense. Never raises."""

    def close(self) -> None:
        """Let go of libraries and processes; nothing is read afterwards."""
