"""The parts of a record that sensors fill: energy by phase, the idle baseline, what the device went through."""

from __future__ import annotations

from typing import Annotated, Any

from msgspec import Meta, Struct

Joules = Annotated[float, Meta(ge=0)]
Watts = Annotated[float, Meta(ge=0)]
Seconds = Annotated[float, Meta(ge=0)]
Count = Annotated[int, Meta(ge=0)]


class EnergyUse(Struct, frozen=True, kw_only=True):
    """What one part of one device used in one phase of the case, all windows together; gross.

    `joules` None with the `reason`. `net_j` is gross less the idle baseline. `tokens` is what was fed or generated
    meanwhile, all rows. `own_pass`: the phase was repeated for it, for it is too short beside the sensor's updates.
    `counted` where it belongs to the devices that computed and overlaps nothing else that is counted.
    """

    device: str
    part: str
    phase: str
    counted: bool = False
    joules: Joules | None = None
    net_j: float | None = None
    tokens: Count | None = None
    seconds: Seconds | None = None
    windows: Count = 0
    own_pass: bool = False
    method: str | None = None
    reason: str | None = None
    mean_w: Watts | None = None
    updates: Count = 0
    coverage_ratio: float | None = None
    largest_gap_s: Seconds | None = None
    uncertainty_j: Joules | None = None
    integral_ratio: float | None = None
    flags: list[str] = []


class Idle(Struct, frozen=True, kw_only=True):
    """Power of one part of one device before anything was loaded; None with the reason."""

    device: str
    part: str
    mean_w: Watts | None = None
    sd_w: Watts | None = None
    duration_s: Seconds | None = None
    reason: str | None = None


class Condition(Struct, frozen=True, kw_only=True):
    """What one device went through while the case was measured: by part, as the sensors name them.

    Memory is what was in use on it, by whomever: before the worker began, once it had loaded, after a prefill, and at
    most. `other_processes` used it besides the worker's; `errors` are those that its memory and links counted.
    Of `host`: processors that others kept busy, and the share of the wanted time that a hypervisor gave to others.
    """

    device: str
    clock_mean_hz: dict[str, float] = {}
    clock_lowest_hz: dict[str, float] = {}
    temperature_highest_c: dict[str, float] = {}
    throttle_s: dict[str, float] = {}
    throttled_ratio: dict[str, float] = {}
    memory_before_bytes: float | None = None
    memory_loaded_bytes: float | None = None
    memory_prefilled_bytes: float | None = None
    memory_highest_bytes: float | None = None
    errors: dict[str, float] = {}
    other_processes: Count | None = None
    power_limit_w: Watts | None = None
    others_cores: float | None = None
    steal_ratio: float | None = None

    @property
    def slowed(self) -> list[str]:
        """Reasons for which it was slowed down meanwhile, in their order."""
        told = (self.throttle_s, self.throttled_ratio)
        return sorted({reason for amounts in told for reason, amount in amounts.items() if amount > 0})


class Denied(Struct, frozen=True, kw_only=True):
    """A sensor that is not read, why, and the command that grants it."""

    what: str
    why: str
    remedy: str | None = None


class Collector(Struct, frozen=True, kw_only=True):
    """What watched, at what cost: `cpu_s` and `wall_s` are the sampler's own, `names` and `settings` the devices'."""

    sensors: list[str] = []
    denied: list[Denied] = []
    names: dict[str, str] = {}
    settings: dict[str, dict[str, Any]] = {}
    cpu_s: Seconds | None = None
    wall_s: Seconds | None = None


class Energy(Struct, frozen=True, kw_only=True):
    """Energy of the measured phases; `reason` where no meter reached it. `package_j` is of records before 1.3."""

    package_j: float | None = None
    reason: str | None = None
    uses: list[EnergyUse] = []
    idle: list[Idle] = []
