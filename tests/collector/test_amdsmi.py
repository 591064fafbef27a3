"""AMD SMI through a strict fake: it has what amdsmi 7.0.2's python interface has and is asked for, and nothing else."""

from __future__ import annotations

import importlib
import math
import sys
from collections.abc import Callable
from enum import IntEnum
from pathlib import Path
from typing import Any

import pytest

from bench.collector.providers.amdsmi import AmdSmi
from bench.collector.sensors import Found, Sensor

CARD, OTHER = "0000:03:00.0", "0000:83:00.0"
POWER = f"pci:{CARD}/power/chip"
ENERGY = f"pci:{CARD}/energy/chip"
ERRORS = f"pci:{CARD}/errors/ecc-corrected"


class Failed(Exception):
    """What the binding raises: AmdSmiLibraryException, "Error code:\\n\\t2 | AMDSMI_STATUS_NOT_SUPPORTED - …"."""


class Time:
    """A clock that stands still but for its sleeps."""

    def __init__(self) -> None:
        self.now_s = 1000.0

    def __call__(self) -> float:
        return self.now_s

    def sleep(self, seconds: float) -> None:
        self.now_s += seconds


class Library:
    """Module `amdsmi`; handles are PCI addresses. Any other name is an AttributeError, as in an older version."""

    AmdSmiException = Failed

    class AmdSmiTemperatureType(IntEnum):
        EDGE, HOTSPOT, JUNCTION, VRAM = 0, 1, 1, 2

    class AmdSmiTemperatureMetric(IntEnum):
        CURRENT = 0

    def __init__(self, clock: Time, *cards: str) -> None:
        self.clock, self.cards, self.calls = clock, cards, list[str]()
        self.power: dict[str, Any] = {"socket_power": 100, "current_socket_power": "N/A", "average_socket_power": 100}
        self.ticks = lambda seconds: int(seconds * 100 / 15.3e-6)
        self.ticks_name, self.resolution = "energy_accumulator", 15.3
        self.degrees: dict[int, Any] = {0: 45, 1: 52, 2: 61}
        self.memory: dict[str, Any] = {"vram_total": 65520, "vram_used": 1024}
        self.violations: dict[str, Any] | None = None
        self.ecc_blocks: Any = 0x2001
        self.ecc: Any = {"correctable_count": 3, "uncorrectable_count": 0, "deferred_count": 1}
        self.broken: dict[str, Exception] = {}

    def _call(self, name: str) -> None:
        self.calls.append(name)
        if name in self.broken:
            raise self.broken[name]

    def amdsmi_init(self) -> None:
        print("made ready")
        self._call("amdsmi_init")

    def amdsmi_shut_down(self) -> None:
        self._call("amdsmi_shut_down")

    def amdsmi_get_processor_handles(self) -> list[str]:
        self._call("amdsmi_get_processor_handles")
        return list(self.cards)

    def amdsmi_get_gpu_device_bdf(self, handle: str) -> str:
        self._call("amdsmi_get_gpu_device_bdf")
        return handle.upper()

    def amdsmi_get_gpu_device_uuid(self, handle: str) -> str:
        self._call("amdsmi_get_gpu_device_uuid")
        return f"uuid of {handle}"

    def amdsmi_get_gpu_asic_info(self, handle: str) -> dict[str, Any]:
        self._call("amdsmi_get_gpu_asic_info")
        return {"market_name": "AMD Instinct MI300X"}

    def amdsmi_get_power_info(self, handle: str) -> dict[str, Any]:
        self._call("amdsmi_get_power_info")
        return self.power

    def amdsmi_get_energy_count(self, handle: str) -> dict[str, Any]:
        self._call("amdsmi_get_energy_count")
        return {self.ticks_name: self.ticks(self.clock()), "counter_resolution": self.resolution, "timestamp": 1}

    def amdsmi_get_temp_metric(self, handle: str, kind: int, metric: int) -> int:
        assert isinstance(kind, self.AmdSmiTemperatureType) and isinstance(metric, self.AmdSmiTemperatureMetric)
        self._call("amdsmi_get_temp_metric")
        if kind not in self.degrees:
            raise Failed("not supported")
        return self.degrees[kind]

    def amdsmi_get_gpu_vram_usage(self, handle: str) -> dict[str, Any]:
        self._call("amdsmi_get_gpu_vram_usage")
        return self.memory

    def amdsmi_get_gpu_ecc_enabled(self, handle: str) -> Any:
        self._call("amdsmi_get_gpu_ecc_enabled")
        return self.ecc_blocks

    def amdsmi_get_gpu_total_ecc_count(self, handle: str) -> Any:
        self._call("amdsmi_get_gpu_total_ecc_count")
        return self.ecc

    def amdsmi_get_violation_status(self, handle: str) -> dict[str, Any]:
        self._call("amdsmi_get_violation_status")
        if self.violations is None:
            raise Failed("not supported")
        return self.violations


def machine(root: Path, *addresses: str, vendor: str = "0x1002", kind: str = "0x038000") -> Path:
    """A /sys with these PCI devices (Documentation/ABI/testing/sysfs-bus-pci)."""
    for address in addresses:
        device = root / "bus/pci/devices" / address
        device.mkdir(parents=True)
        (device / "vendor").write_text(f"{vendor}\n")
        (device / "class").write_text(f"{kind}\n")
    return root


class Here:
    """One provider over a fake library and a fake clock."""

    def __init__(self, root: Path) -> None:
        self.clock = Time()
        self.library = Library(self.clock, CARD)
        self.provider = AmdSmi(self.library, machine(root, CARD), self.clock.sleep, self.clock)

    def found(self) -> dict[str, Sensor]:
        return {sensor.id: sensor for sensor in self.provider.probe().sensors}

    def value(self, sensor: Sensor) -> float | None:
        return self.provider.read([sensor])[0]


@pytest.fixture
def here(tmp_path: Path) -> Here:
    return Here(tmp_path)


def test_everything_is_in_base_units(here: Here) -> None:
    sensors = list(here.found().values())
    values = dict(zip((sensor.id for sensor in sensors), here.provider.read(sensors), strict=True))
    assert values.pop(ENERGY) == pytest.approx(100 * here.clock())
    assert values == {
        POWER: 100.0,
        f"pci:{CARD}/memory-used/vram": 1024 * 2**20,
        f"pci:{CARD}/temperature/edge": 45.0,
        f"pci:{CARD}/temperature/junction": 52.0,
        f"pci:{CARD}/temperature/mem": 61.0,
        ERRORS: 3.0,
        f"pci:{CARD}/errors/ecc-uncorrected": 0.0,
        f"pci:{CARD}/errors/ecc-deferred": 1.0,
    }


def test_names_are_the_vendors_and_nothing_is_printed(here: Here, capsys: pytest.CaptureFixture[str]) -> None:
    found = here.provider.probe()
    assert (found.names, found.uuids) == (
        {f"pci:{CARD}": "AMD Instinct MI300X"},
        {f"pci:{CARD}": f"uuid of {CARD}"},
    )
    assert capsys.readouterr().out == ""


def test_before_rocm_6_2_1_ticks_were_called_power(here: Here) -> None:
    """ROCm/amdsmi, py-interface before 6.2.1: the key was `power`."""
    here.library.ticks_name = "power"
    assert here.value(here.found()[ENERGY]) == pytest.approx(100 * here.clock())


@pytest.mark.parametrize(
    ("ticks", "why"),
    [
        (lambda seconds: 7_000_000, "counter stands still (ROCm/amdsmi #38)"),
        (lambda seconds: 0, "counter stands still (ROCm/amdsmi #38)"),
        (lambda seconds: int(1e12 - seconds * 1e6), "counter vanishes, runs back or tells what no GPU can use"),
        (lambda seconds: int(seconds * 1e12), "counter vanishes, runs back or tells what no GPU can use"),
        (lambda seconds: 5 if seconds == 1000.0 else "N/A", "counter vanishes, runs back or tells what no GPU can use"),
    ],
)
def test_a_counter_that_fails_its_test_is_no_sensor(here: Here, ticks: Callable[[float], Any], why: str) -> None:
    """ROCm/amdsmi #38 (frozen on MI100), rocm_smi_lib #180 (constant on MI210), #115 (backwards)."""
    here.library.ticks = ticks
    found = here.provider.probe()
    assert ENERGY not in {sensor.id for sensor in found.sensors}
    assert [(denied.what, denied.why) for denied in found.denied] == [(f"energy of pci:{CARD}", why)]


@pytest.mark.parametrize("resolution", [0, -15.3, math.nan, math.inf, "N/A", None])
def test_ticks_of_no_known_size_are_no_energy(here: Here, resolution: Any) -> None:
    here.library.resolution = resolution
    assert ENERGY not in here.found()


@pytest.mark.parametrize(
    ("power", "watts"),
    [
        ({"socket_power": 71, "current_socket_power": 70, "average_socket_power": 69}, 71.0),
        ({"socket_power": "N/A", "current_socket_power": 70, "average_socket_power": "N/A"}, 70.0),
        ({"current_socket_power": 0, "average_socket_power": 69}, 69.0),
        ({"average_socket_power": 69.5}, 69.5),
        ({"socket_power": "N/A", "current_socket_power": "N/A", "average_socket_power": "N/A"}, None),
        ({"socket_power": 0xFFFF}, None),
        ({"socket_power": 70_000_000}, None),
        ({"socket_power": -1}, None),
        ({"socket_power": math.nan}, None),
        ({"socket_power": True}, None),
        ({}, None),
        (None, None),
    ],
)
def test_power_goes_by_the_first_name_that_tells_any(here: Here, power: Any, watts: float | None) -> None:
    sensor = here.found()[POWER]
    here.library.power = power
    assert here.value(sensor) == watts


def test_a_card_that_tells_no_power_has_no_such_sensor(here: Here) -> None:
    """The odd die of an MI250: N/A in all names."""
    here.library.power = dict.fromkeys(here.library.power, "N/A")
    assert POWER not in here.found()


@pytest.mark.parametrize(
    ("told", "degrees"), [(52, 52.0), (52000, 52.0), (0, None), (-5, None), (151, None), (2**31, None), ("N/A", None)]
)
def test_millidegrees_are_told_from_degrees_by_their_size(here: Here, told: Any, degrees: float | None) -> None:
    sensor = here.found()[f"pci:{CARD}/temperature/junction"]
    here.library.degrees[1] = told
    assert here.value(sensor) == degrees


@pytest.mark.parametrize(
    ("memory", "used"),
    [
        ({"vram_total": 10, "vram_used": 0}, 0.0),
        ({"vram_total": 10, "vram_used": 11}, None),
        ({"vram_total": 10, "vram_used": 0xFFFFFFFF}, None),
        ({"vram_total": "N/A", "vram_used": 3}, None),
        ({}, None),
    ],
)
def test_more_memory_than_there_is_cannot_be_used(here: Here, memory: dict[str, Any], used: float | None) -> None:
    sensor = here.found()[f"pci:{CARD}/memory-used/vram"]
    here.library.memory = memory
    assert here.value(sensor) == used


@pytest.mark.parametrize(
    ("ecc", "count"),
    [
        ({"correctable_count": 0}, 0.0),
        ({"correctable_count": 2**40}, float(2**40)),
        ({"correctable_count": 2**64 - 1}, None),
        ({"correctable_count": -1}, None),
        ({"correctable_count": "N/A"}, None),
        ({"uncorrectable_count": 3}, None),
        (None, None),
    ],
)
def test_errors_are_counted_where_they_are_told(here: Here, ecc: Any, count: float | None) -> None:
    sensor = here.found()[ERRORS]
    here.library.ecc = ecc
    assert here.value(sensor) == count
    assert (sensor.kind, sensor.pace) == ("counter", "edges")


@pytest.mark.parametrize("blocks", [0, "N/A", None])
def test_a_gpu_that_corrects_nothing_counts_no_errors(here: Here, blocks: Any) -> None:
    """amd_smi.cc adds up the enabled blocks only, and tells 0 of none."""
    here.library.ecc_blocks = blocks
    found = here.provider.probe()
    assert "errors" not in {sensor.quantity for sensor in found.sensors}
    assert found.denied == []


@pytest.mark.parametrize(
    ("call", "quantity"),
    [
        ("gpu_ecc_enabled", "errors"),  # guests of virtual machines, says ROCm's documentation
        ("gpu_total_ecc_count", "errors"),
    ],
)
def test_what_a_gpu_does_not_support_is_no_sensor(here: Here, call: str, quantity: str) -> None:
    here.library.broken = {f"amdsmi_get_{call}": Failed("Error code:\n\t2 | AMDSMI_STATUS_NOT_SUPPORTED")}
    found = here.provider.probe()
    quantities = {sensor.quantity for sensor in found.sensors}
    assert quantities == {"energy", "power", "memory-used", "temperature", "errors"} - {quantity}
    assert found.denied == []


def test_before_rocm_6_1_1_deferred_errors_were_not_told(here: Here) -> None:
    here.library.ecc = {"correctable_count": 0, "uncorrectable_count": 0}
    parts = [sensor.part for sensor in here.found().values() if sensor.quantity == "errors"]
    assert parts == ["ecc-corrected", "ecc-uncorrected"]


def violated(of: Any, **ticks: Any) -> dict[str, Any]:
    """What amdsmi_get_violation_status returns of counters; "N/A" where the GPU has none."""
    keys = ("acc_prochot_thrm", "acc_ppt_pwr", "acc_socket_thrm", "acc_vr_thrm", "acc_hbm_thrm")
    return {**dict.fromkeys(keys, "N/A"), "acc_counter": of, "acc_gfx_clk_below_host_limit": 9, **ticks}


def throttling(here: Here, *at: tuple[float, dict[str, Any] | None]) -> list[float | None]:
    """Readings of the power reason: after so many seconds, these counts."""
    here.library.violations = violated(5000, acc_ppt_pwr=300)
    sensor = here.found()[f"pci:{CARD}/throttle-time/power"]
    values = []
    for seconds, told in at:
        here.clock.sleep(seconds)
        here.library.violations = told
        values.append(here.value(sensor))
    return values


def test_throttling_is_the_share_of_ticks_times_the_time(here: Here) -> None:
    counts = [(0.0, violated(5000, acc_ppt_pwr=300)), (10.0, violated(15000, acc_ppt_pwr=2800))]
    assert throttling(here, *counts, (10.0, violated(25000, acc_ppt_pwr=2800))) == [0.0, 2.5, 2.5]


def test_the_time_without_a_new_count_is_shared_out_later(here: Here) -> None:
    first = violated(5000, acc_ppt_pwr=300)
    assert throttling(here, (0.0, first), (1.0, first), (1.0, violated(6000, acc_ppt_pwr=800))) == [0.0, 0.0, 1.0]


@pytest.mark.parametrize(
    "nonsense",
    [violated(10, acc_ppt_pwr=5), violated(9000, acc_ppt_pwr=200), violated(6001, acc_ppt_pwr=802)],
    ids=["reset", "backwards", "more than all"],
)
def test_counts_that_contradict_each_other_begin_anew_at_0(here: Here, nonsense: dict[str, Any]) -> None:
    """A counter that went back to 0 is known for reset; one that went on would hide what was lost."""
    counts = [(0.0, violated(5000, acc_ppt_pwr=300)), (4.0, violated(6000, acc_ppt_pwr=800)), (1.0, nonsense)]
    of, ticks = nonsense["acc_counter"] + 1000, nonsense["acc_ppt_pwr"] + 500
    assert throttling(here, *counts, (1.0, violated(of, acc_ppt_pwr=ticks))) == [0.0, 2.0, None, 0.5]


@pytest.mark.parametrize(
    "gone", [None, violated("N/A", acc_ppt_pwr=400), violated(6000), violated(6000, acc_ppt_pwr=-1)]
)
def test_counts_that_are_not_told_are_none_and_lose_nothing(here: Here, gone: dict[str, Any] | None) -> None:
    counts = [(0.0, violated(5000, acc_ppt_pwr=300)), (1.0, gone), (1.0, violated(7000, acc_ppt_pwr=1300))]
    assert throttling(here, *counts) == [0.0, None, 1.0]


def test_reasons_without_counts_are_no_sensors_and_one_call_serves_the_others(here: Here) -> None:
    here.library.violations = violated(5000, acc_ppt_pwr=300, acc_hbm_thrm=0)
    found = {sensor.id: sensor for sensor in here.found().values() if sensor.quantity == "throttle-time"}
    assert list(found) == [f"pci:{CARD}/throttle-time/{part}" for part in ("power", "memory-thermal")]
    assert {(sensor.kind, sensor.pace) for sensor in found.values()} == {("counter", "edges")}
    here.library.calls.clear()
    here.provider.read(list(found.values()))
    assert here.library.calls == ["amdsmi_get_violation_status"]


def test_a_gpu_that_falls_off_the_bus_tells_nothing(here: Here) -> None:
    sensors = list(here.found().values())
    calls = ("energy_count", "power_info", "temp_metric", "gpu_vram_usage", "gpu_total_ecc_count")
    here.library.broken = {f"amdsmi_get_{call}": Failed("Error code:\n\t34 | NO_DATA") for call in calls}
    assert here.provider.read(sensors) == [None] * 9


@pytest.mark.parametrize("name", ["amdsmi_get_gpu_device_uuid", "amdsmi_get_gpu_asic_info", "amdsmi_get_energy_count"])
def test_what_a_version_lacks_leaves_the_rest(tmp_path: Path, name: str) -> None:
    def missing(self: Any, *_: Any) -> None:
        raise AttributeError(name)

    clock = Time()
    older = type("Older", (Library,), {name: missing})(clock, CARD)
    found = AmdSmi(older, machine(tmp_path, CARD), clock.sleep, clock).probe()
    assert POWER in {sensor.id for sensor in found.sensors}


def test_only_gpus_that_the_kernel_lists_are_read_and_each_once(tmp_path: Path) -> None:
    """Partitions of an MI300 have functions that are no PCI devices, or the same address."""
    clock = Time()
    library = Library(clock, CARD, CARD, "0000:03:00.1", OTHER)
    found = AmdSmi(library, machine(tmp_path, CARD, OTHER), clock.sleep, clock).probe()
    powers = [sensor.device for sensor in found.sensors if sensor.quantity == "power"]
    assert powers == [f"pci:{CARD}", f"pci:{OTHER}"]
    assert clock() == 1000.5  # the test of all counters takes half a second


@pytest.mark.parametrize(("vendor", "kind"), [("0x1022", "0x060000"), ("0x1002", "0x040300"), ("0x10de", "0x030000")])
def test_without_an_amd_gpu_nothing_is_asked_or_denied(tmp_path: Path, vendor: str, kind: str) -> None:
    """AMD's bridges and its GPUs' sound functions are no GPUs."""
    library = Library(Time(), CARD)
    assert AmdSmi(library, machine(tmp_path, CARD, vendor=vendor, kind=kind)).probe() == Found()
    assert library.calls == []


@pytest.mark.parametrize("kind", ["0x030000", "0x038000", "0x120000"])
@pytest.mark.parametrize("error", [ImportError, KeyError, AttributeError, OSError])
def test_a_package_that_cannot_be_imported_is_denied_in_silence(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    error: type[Exception],
    kind: str,
) -> None:
    """amdsmi_wrapper.py prints and raises more than ImportError where libamd_smi.so is missing."""

    def broken(name: str) -> None:
        print("Unable to find libamd_smi.so")
        raise error("libamd_smi.so:\nnot found")

    monkeypatch.setattr(importlib, "import_module", broken)
    (denied,) = AmdSmi(root=machine(tmp_path, CARD, kind=kind)).probe().denied
    assert f"{sys.executable} -m pip install /opt/rocm/share/amd_smi" in (denied.remedy or "")
    assert "\n" not in denied.why and error.__name__ in denied.why
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("call", ["amdsmi_init", "amdsmi_get_processor_handles"])
def test_a_library_that_does_not_start_is_denied(here: Here, call: str) -> None:
    here.library.broken = {call: Failed("Error code:\n\t10 | NO_PERM")}
    (denied,) = here.provider.probe().denied
    assert denied.why == "AMD SMI does not start (Failed: Error code: 10 | NO_PERM)"
    here.provider.close()
    assert ("amdsmi_shut_down" in here.library.calls) == (call != "amdsmi_init")


def test_a_handle_without_an_address_is_left_out(here: Here) -> None:
    here.library.broken = {"amdsmi_get_gpu_device_bdf": Failed("no data")}
    assert here.found() == {}


def test_closing_shuts_down_once_and_raises_nothing(here: Here) -> None:
    sensor = here.found()[POWER]
    here.library.broken = {"amdsmi_shut_down": Failed("busy")}
    here.provider.close()
    here.provider.close()
    assert here.library.calls.count("amdsmi_shut_down") == 1
    assert here.value(sensor) is None


def test_a_sensor_that_was_not_found_here_is_none(here: Here) -> None:
    other = Sensor(device="wall", quantity="power", part="wall", kind="gauge", source="")
    assert here.value(other) is None
