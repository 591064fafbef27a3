"""Sensors of graphics cards: which file is which quantity, and what is refused."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest

from bench.collector.providers import gpu_hwmon
from bench.collector.providers.gpu_hwmon import GpuHwmon
from bench.collector.sensors import Found
from tests.collector.trees import UNREADABLE, tree

PCI = "devices/pci0000:00/0000:03:00.0"
DRM = "class/drm"
GPU = "pci:0000:03:00.0"


def card(
    root: Path,
    hwmon: Mapping[str, str | int],
    device: Mapping[str, str | int] | None = None,
    own: Mapping[str, str | int] | None = None,
    *,
    at: str = PCI,
    index: int = 0,
    driver: str | None = None,
) -> Path:
    """A card: files of its hwmon, of its device, of its own folder; linked as the kernel links them."""
    files = {f"{at}/hwmon/hwmon{index + 4}/{name}": said for name, said in hwmon.items()}
    files |= {f"{at}/{name}": said for name, said in (device or {}).items()}
    files |= {f"{DRM}/card{index}/{name}": said for name, said in (own or {}).items()}
    links = {f"{DRM}/card{index}/device": at} | ({f"{at}/driver": f"bus/pci/drivers/{driver}"} if driver else {})
    return tree(root, files, links)


def values(root: Path) -> dict[str, float | None]:
    provider = GpuHwmon(root)
    sensors = provider.probe().sensors
    return dict(zip([each.id for each in sensors], provider.read(sensors), strict=True))


# Files and labels of Documentation/gpu/amdgpu/thermal.rst; numbers made up.
AMDGPU = {
    "name": "amdgpu",
    "power1_average": 203_000_000,
    "power1_input": 210_000_000,
    "power1_cap": 263_000_000,
    "temp1_input": 61000,
    "temp1_label": "edge",
    "temp2_input": 78000,
    "temp2_label": "junction",
    "temp3_input": 84000,
    "temp3_label": "mem",
    "freq1_input": 2_482_000_000,
}
AMDGPU_DEVICE = {"gpu_busy_percent": 97, "mem_info_vram_used": 9_000_000_000, "mem_info_vram_total": 17_163_091_968}

# The hwmon of an Arc Pro B70 with kernel 7.0 (aristocratos/btop#1457); temperatures as in Syllo/nvtop#414.
XE = {
    "name": "xe",
    "energy1_label": "card",
    "energy1_input": 710_520_000_000,
    "energy2_label": "pkg",
    "energy2_input": 412_000_000_000,
    "power1_label": "card",
    "power1_cap": 275_000_000,
    "temp2_label": "pkg",
    "temp2_input": 60000,
    "temp3_label": "vram",
    "temp3_input": 62000,
    "temp6_label": "vram_ch_0",
    "temp6_input": 62000,
}
# Paths of xe_gt_freq.c and xe_gt_throttle.c.
XE_DEVICE = {
    "tile0/gt0/freq0/act_freq": 2400,
    "tile0/gt0/freq0/throttle/status": 1,
    "tile0/gt0/freq0/throttle/reason_pl1": 1,
    "tile0/gt0/freq0/throttle/reason_thermal": 0,
    "tile0/gt1/freq0/act_freq": 1200,
    "tile1/gt0/freq0/act_freq": 900,
}
# sysfs-driver-intel-i915-hwmon; the card's own files as in intel_gt_sysfs_pm.c.
I915 = {"name": "i915", "energy1_input": 5_000_000, "power1_max": 190_000_000}
I915_OWN = {
    "gt_act_freq_mhz": 2050,
    "gt/gt0/throttle_reason_status": 0,
    "gt/gt0/throttle_reason_pl2": 0,
    "gt/gt0/throttle_reason_vr_tdc": 1,
}


def test_amdgpu_tells_power_limit_temperatures_clock_load_and_memory(tmp_path: Path) -> None:
    assert values(card(tmp_path, AMDGPU, AMDGPU_DEVICE)) == pytest.approx(
        {
            f"{GPU}/power/chip": 203.0,
            f"{GPU}/power-limit/chip": 263.0,
            f"{GPU}/temperature/edge": 61.0,
            f"{GPU}/temperature/junction": 78.0,
            f"{GPU}/temperature/mem": 84.0,
            f"{GPU}/clock/core": 2.482e9,
            f"{GPU}/utilization/busy": 0.97,
            f"{GPU}/memory-used/vram": 9e9,
        }
    )


def test_xe_tells_energy_by_label_and_clocks_and_throttling_by_engine(tmp_path: Path) -> None:
    assert values(card(tmp_path, XE, XE_DEVICE)) == pytest.approx(
        {
            f"{GPU}/energy/card": 710520.0,
            f"{GPU}/energy/pkg": 412000.0,
            f"{GPU}/power-limit/card": 275.0,
            f"{GPU}/temperature/pkg": 60.0,
            f"{GPU}/temperature/vram": 62.0,
            f"{GPU}/clock/gt0": 2.4e9,
            f"{GPU}/clock/gt1": 1.2e9,
            f"{GPU}/clock/tile1-gt0": 9e8,
            f"{GPU}/throttled/gt0-pl1": 1.0,
            f"{GPU}/throttled/gt0-thermal": 0.0,
        }
    )


def test_i915_tells_the_energy_of_the_card_and_not_that_of_its_parts(tmp_path: Path) -> None:
    parts = {"hwmon/hwmon9/name": "i915_gt0", "hwmon/hwmon9/energy1_input": 3_000_000}
    assert values(card(tmp_path, I915, parts, I915_OWN)) == pytest.approx(
        {
            f"{GPU}/energy/card": 5.0,
            f"{GPU}/power-limit/card": 190.0,
            f"{GPU}/clock/core": 2.05e9,
            f"{GPU}/throttled/gt0-pl2": 0.0,
            f"{GPU}/throttled/gt0-vr_tdc": 1.0,
        }
    )


def test_integrated_graphics_without_hwmon_are_known_by_their_driver(tmp_path: Path) -> None:
    root = card(tmp_path, {}, own={"gt_act_freq_mhz": 1450}, at="devices/pci0000:00/0000:00:02.0", driver="i915")
    assert values(root) == pytest.approx({"pci:0000:00:02.0/clock/core": 1.45e9})


def test_energy_goes_by_label_whatever_its_index(tmp_path: Path) -> None:
    swapped = {**XE, "energy1_label": "pkg", "energy2_label": "card", "energy1_input": 1_000_000}
    said = values(card(tmp_path, swapped))
    assert (said[f"{GPU}/energy/pkg"], said[f"{GPU}/energy/card"]) == pytest.approx((1.0, 412000.0))


@pytest.mark.parametrize("label", ["", "gt", UNREADABLE])
def test_energy_of_an_unknown_scope_is_left_out(tmp_path: Path, label: str) -> None:
    said = values(card(tmp_path, {**XE, "energy1_label": label}))
    assert [each for each in said if "/energy/" in each] == [f"{GPU}/energy/pkg"]


def test_sensors_have_their_kind_pace_and_bounds(tmp_path: Path) -> None:
    sensors = {each.id: each for each in GpuHwmon(card(tmp_path, {**AMDGPU, **XE, "name": "xe"})).probe().sensors}
    energy, limit = sensors[f"{GPU}/energy/card"], sensors[f"{GPU}/power-limit/card"]
    assert (energy.kind, energy.pace, energy.period_s, energy.wraps_at) == ("counter", "power", 0.2, None)
    assert (limit.kind, limit.pace, limit.most) == ("gauge", "edges", 3000.0)
    assert sensors[f"{GPU}/temperature/pkg"].pace == "state"
    found = GpuHwmon(card(tmp_path / "2", AMDGPU, AMDGPU_DEVICE)).probe()
    paces = {each.quantity: each.pace for each in found.sensors}
    assert (paces["memory-used"], paces["utilization"]) == ("state", "edges"), "no record holds utilization"


def test_used_memory_is_bounded_by_all_of_it(tmp_path: Path) -> None:
    said = values(card(tmp_path, AMDGPU, {**AMDGPU_DEVICE, "mem_info_vram_used": 17_163_091_969}))
    assert said[f"{GPU}/memory-used/vram"] is None


def test_instantaneous_power_serves_where_there_is_no_average(tmp_path: Path) -> None:
    without = {name: said for name, said in AMDGPU.items() if name != "power1_average"}
    assert values(card(tmp_path, without))[f"{GPU}/power/chip"] == pytest.approx(210.0)


@pytest.mark.parametrize(
    ("limits", "part", "watts"),
    [  # the Arc Pro B60 of Syllo/nvtop#493 has a cap and a critical limit only; the others are made up after the ABI
        ({"power1_cap": 200_000_000, "power1_crit": 400_000_000}, "card", 200.0),
        ({"power1_max": 190_000_000, "power1_cap": 250_000_000}, "card", 190.0),
        ({"power1_max": 0, "power1_cap": 250_000_000}, "card", 250.0),
        ({"power1_max": 0}, "card", None),
        ({"power1_max": 2**42}, "card", None),
        ({"power2_max": 120_000_000}, "pkg", 120.0),
    ],
)
def test_the_limit_is_the_sustained_one_of_the_card_if_it_has_one(
    tmp_path: Path, limits: dict[str, str | int], part: str, watts: float | None
) -> None:
    said = values(card(tmp_path, {"name": "xe", **limits}))
    assert said == {f"{GPU}/power-limit/{part}": None if watts is None else pytest.approx(watts)}


def test_a_package_that_says_more_than_its_card_makes_both_none(tmp_path: Path) -> None:
    provider = GpuHwmon(card(tmp_path, XE))
    sensors = [each for each in provider.probe().sensors if each.quantity == "energy"]
    tree(tmp_path, {f"{PCI}/hwmon/hwmon4/energy2_input": 977_130_000_000})
    assert provider.read(sensors) == [None, None]


def test_a_card_that_was_doubtful_from_the_start_has_no_energy_and_says_why(tmp_path: Path) -> None:
    # the B570 of Syllo/nvtop#409: card 710.52 MJ, package 977.13 MJ
    found = GpuHwmon(card(tmp_path, {**XE, "energy2_input": 977_130_000_000_000})).probe()
    assert not [each for each in found.sensors if each.quantity == "energy"]
    assert [(each.what, "nvtop#409" in each.why) for each in found.denied] == [(f"energy of {GPU}", True)]
    assert found.sensors


@pytest.mark.parametrize(
    ("file", "said", "sensor"),
    [
        ("power1_average", "", "power/chip"),
        ("power1_average", "-12000000", "power/chip"),
        ("power1_average", "N/A", "power/chip"),
        ("power1_average", "0", "power/chip"),  # a card asleep, or the second half of an MI250
        ("power1_average", "203", "power/chip"),  # W for µW
        ("power1_average", "3690000000000000000", "power/chip"),  # terawatts (intel/compute-runtime#938)
        ("power1_average", UNREADABLE, "power/chip"),
        ("temp1_input", "61", "temperature/edge"),  # °C for m°C
        ("temp1_input", "-273150", "temperature/edge"),
        ("temp1_input", "511000", "temperature/edge"),
        ("freq1_input", "0", "clock/core"),
        ("freq1_input", "2482", "clock/core"),  # MHz for Hz
        ("freq1_input", "2482000000000", "clock/core"),
        ("power1_cap", "0", "power-limit/chip"),
        ("gpu_busy_percent", "255", "utilization/busy"),
        ("mem_info_vram_used", "many", "memory-used/vram"),
    ],
)
def test_a_reading_that_cannot_be_is_none_and_the_others_stay(
    tmp_path: Path, file: str, said: str, sensor: str
) -> None:
    without_a_second = {name: each for name, each in AMDGPU.items() if name != "power1_input"}
    changed = [{**files, file: said} if file in files else files for files in (without_a_second, AMDGPU_DEVICE)]
    found = values(card(tmp_path, *changed))
    assert [name for name, value in found.items() if value is None] == [f"{GPU}/{sensor}"]


@pytest.mark.parametrize("said", ["2", "yes", ""])
def test_a_reason_is_there_or_not_or_unknown(tmp_path: Path, said: str) -> None:
    found = values(card(tmp_path, {"name": "xe"}, {"tile0/gt0/freq0/throttle/reason_pl1": said}))
    assert found == {f"{GPU}/throttled/gt0-pl1": None}


@pytest.mark.parametrize(
    ("energy", "then"),
    [  # stuck, reset and gone backwards are judged by who subtracts, not here
        (5_000_000, 5.0),
        (0, 0.0),
        (4_000_000, 4.0),
        ("4²", None),
        ("4" * 30, None),
        ("4" + " " * 70, None),  # longer than what is read of it
        ("-1", None),
        ("", None),
        (UNREADABLE, None),
    ],
)
def test_a_counter_says_what_it_says_or_nothing(tmp_path: Path, energy: str | int, then: float | None) -> None:
    provider = GpuHwmon(card(tmp_path, I915))
    sensors = [each for each in provider.probe().sensors if each.quantity == "energy"]
    assert provider.read(sensors) == [5.0]
    tree(tmp_path, {f"{PCI}/hwmon/hwmon4/energy1_input": energy})
    assert provider.read(sensors) == [then]


def test_cards_are_kept_apart_and_connectors_and_strangers_left_out(tmp_path: Path) -> None:
    card(tmp_path, I915)
    card(tmp_path, XE, index=1, at="devices/pci0000:00/0000:83:00.0")
    card(tmp_path, {"name": "nouveau", "power1_input": 9_000_000}, index=2, at="devices/pci0000:00/0000:84:00.0")
    card(tmp_path, AMDGPU, index=3, at="devices/platform/amdgpu_xcp_1")
    other = "devices/pci0000:00/0000:85:00.0"
    files = {f"{other}/hwmon/hwmon9/{name}": said for name, said in I915.items()}
    tree(tmp_path, files, {f"{DRM}/{name}/device": other for name in ("card0-DP-1", "renderD128")})
    found = GpuHwmon(tmp_path).probe()
    assert {each.device for each in found.sensors} == {GPU, "pci:0000:83:00.0"}


def test_a_card_that_vanishes_says_nothing(tmp_path: Path) -> None:
    provider = GpuHwmon(card(tmp_path, AMDGPU, AMDGPU_DEVICE))
    sensors = provider.probe().sensors
    (tmp_path / PCI).rename(tmp_path / "gone")
    assert provider.read(sensors) == [None] * 8


@pytest.mark.parametrize("files", [{}, {"class/drm/version": "drm 1.1.0 20060810"}])
def test_a_machine_without_cards_has_nothing_to_say(tmp_path: Path, files: dict[str, str | int]) -> None:
    assert GpuHwmon(tree(tmp_path, files)).probe() == Found(sensors=[], denied=[])


def test_a_sensor_of_somebody_else_says_nothing(tmp_path: Path) -> None:
    sensors = GpuHwmon(card(tmp_path, I915)).probe().sensors
    assert set(GpuHwmon(tmp_path).read(sensors)) == {None}


def test_a_failure_while_looking_is_denied(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(path: Path) -> str:
        raise OSError(19, "No such device")

    monkeypatch.setattr(gpu_hwmon, "text", fails)
    assert ["No such device" in each.why for each in GpuHwmon(card(tmp_path, I915)).probe().denied] == [True]


A770 = {"vendor": "0x8086", "device": "0x56a0", "revision": "0x08"}
"""Documentation/ABI/testing/sysfs-bus-pci; the numbers are those of the A770 whose DEVICE_UUID OpenVINO's log tells."""


@pytest.mark.parametrize(
    ("driver", "device", "uuid"),
    [
        ("xe", A770, "8680a056080000000300000000000000"),
        ("i915", A770, "8680a056080000000300000000000000"),
        ("amdgpu", A770, None),
        ("xe", {**A770, "revision": UNREADABLE}, None),
        ("xe", {**A770, "device": "none"}, None),
        ("xe", {**A770, "device": "0x156a0"}, None),
        ("xe", {}, None),
    ],
)
def test_a_card_has_the_uuid_that_its_runtimes_make(
    tmp_path: Path, driver: str, device: dict[str, str], uuid: str | None
) -> None:
    hwmon = {**XE, "name": driver} if driver == "xe" else {"name": driver, "energy1_input": 5_000_000}
    found = GpuHwmon(card(tmp_path, hwmon, device)).probe()
    assert found.uuids == ({GPU: uuid} if uuid else {})


def test_the_address_is_part_of_the_uuid(tmp_path: Path) -> None:
    found = GpuHwmon(card(tmp_path, XE, A770, at="devices/pci0001:7f/0001:80:1f.2")).probe()
    assert found.uuids == {"pci:0001:80:1f.2": "8680a0560800010080" + "1f02" + "0" * 10}
