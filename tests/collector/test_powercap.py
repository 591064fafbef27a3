"""Energy of processors: which zones count, what is refused and why."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from bench.collector.providers import powercap
from bench.collector.providers.powercap import Powercap
from bench.collector.sensors import Found
from tests.collector.trees import ROOTS, UNREADABLE, tree

RANGE_UJ = 262143328850
CLASS = "class/powercap"


def zone(name: str, said: str, energy: str | int = 1_000_000, range_uj: str | int = RANGE_UJ) -> dict[str, str | int]:
    """One zone's files, as Documentation/ABI/testing/sysfs-class-powercap lists them."""
    folder = f"{CLASS}/{name}"
    return {f"{folder}/name": said, f"{folder}/energy_uj": energy, f"{folder}/max_energy_range_uj": range_uj}


SERVER = {
    # made up after powercap.rst and intel_rapl_common.c: two packages, the second zone is the platform
    **zone("intel-rapl:0", "package-0", 5_000_000),
    **zone("intel-rapl:0:0", "core", 3_000_000),
    **zone("intel-rapl:0:1", "uncore", 1_000_000),
    **zone("intel-rapl:0:2", "dram", 2_000_000, 65712999613),
    **zone("intel-rapl:1", "psys", 9_000_000),
    **zone("intel-rapl:2", "package-1", 7_000_000),
    **zone("intel-rapl-mmio:0", "package-0", 5_000_000),
    f"{CLASS}/intel-rapl/enabled": 1,
}
PACKAGE = zone("intel-rapl:0", "package-0")


def probed(root: Path, cpuinfo: str = "flags\t\t: fpu rapl") -> Found:
    (root / "cpuinfo").write_text(cpuinfo + "\n")
    return Powercap(root, root / "cpuinfo").probe()


def read(root: Path, *changes: dict[str, str | int]) -> list[float | None]:
    """What the only sensor says, at first and after each change."""
    provider = Powercap(root)
    sensors = provider.probe().sensors
    (said,) = provider.read(sensors)
    return [said, *(provider.read(sensors)[0] for change in changes if tree(root, change))]


def test_packages_their_memory_and_the_platform_are_read_and_nothing_that_lies_within_them(tmp_path: Path) -> None:
    provider = Powercap(tree(tmp_path, SERVER))
    found = provider.probe()
    values = dict(zip([each.id for each in found.sensors], provider.read(found.sensors), strict=True))
    assert not found.denied
    assert values == pytest.approx(
        {
            "cpu:0/energy/package": 5.0,
            "cpu:0/energy/dram": 2.0,
            "platform/energy/psys": 9.0,
            "cpu:1/energy/package": 7.0,
        }
    )


def test_a_counter_tells_where_it_wraps(tmp_path: Path) -> None:
    wraps = {each.id: each.wraps_at for each in probed(tree(tmp_path, SERVER)).sensors}
    assert wraps["cpu:0/energy/package"] == pytest.approx(262143.32885)
    assert wraps["cpu:0/energy/dram"] == pytest.approx(65712.999613)


@pytest.mark.parametrize("range_uj", ["", "0", "none", UNREADABLE])
def test_a_range_that_is_not_told_is_not_guessed(tmp_path: Path, range_uj: str) -> None:
    (sensor,) = probed(tree(tmp_path, zone("intel-rapl:0", "package-0", range_uj=range_uj))).sensors
    assert (sensor.wraps_at, sensor.most, sensor.kind, sensor.pace) == (None, None, "counter", "power")


def test_dies_are_kept_apart(tmp_path: Path) -> None:
    # names as intel_rapl_common.c writes them (package-%d-die-%d)
    files = {
        **zone("intel-rapl:0", "package-0-die-0"),
        **zone("intel-rapl:1", "package-0-die-1"),
        **zone("intel-rapl:1:0", "dram"),
        **zone("intel-rapl:2", "psys-1"),
    }
    assert [each.id for each in probed(tree(tmp_path, files)).sensors] == [
        "cpu:0/energy/package-die-0",
        "cpu:0/energy/package-die-1",
        "cpu:0/energy/dram-die-1",
        "platform/energy/psys-1",
    ]


def test_a_package_that_is_listed_twice_is_read_once(tmp_path: Path) -> None:
    files = {**PACKAGE, **zone("intel-rapl:1", "package-0", 2)}
    assert read(tree(tmp_path, files)) == [1.0]


def test_counters_that_only_root_may_read_are_denied_once_with_the_command_that_grants_them(tmp_path: Path) -> None:
    files = {**zone("intel-rapl:0", "package-0", ROOTS), **zone("intel-rapl:0:0", "dram", ROOTS)}
    found = probed(tree(tmp_path, files))
    (denied,) = found.denied
    assert not found.sensors
    assert denied.what == "energy of cpu:0 package, cpu:0 dram"
    assert "CVE-2020-8694" in denied.why
    assert denied.remedy and denied.remedy.startswith("`sudo chmod a+r /sys/class/powercap/*/energy_uj`")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_file_of_mode_400_is_denied(tmp_path: Path) -> None:
    tree(tmp_path, PACKAGE)
    (tmp_path / CLASS / "intel-rapl:0/energy_uj").chmod(0)
    assert [each.remedy for each in probed(tmp_path).denied] == [powercap.REMEDY]


@pytest.mark.parametrize(
    ("energy", "why"),
    [(UNREADABLE, "cannot be read"), ("", "says ''"), ("n/a", "says 'n/a'"), ("-5", "says '-5'"), ("1.5e9", "1.5e9")],
)
def test_a_counter_that_tells_no_energy_is_denied_and_the_others_stay(tmp_path: Path, energy: str, why: str) -> None:
    found = probed(tree(tmp_path, {**PACKAGE, **zone("intel-rapl:1", "package-1", energy)}))
    assert [each.device for each in found.sensors] == ["cpu:0"]
    assert [(each.what, why in each.why, each.remedy) for each in found.denied] == [
        ("energy of cpu:1 package", True, None)
    ]


@pytest.mark.parametrize(
    ("cpuinfo", "why", "remedy"),
    [  # lines of /proc/cpuinfo, shortened: a cloud machine, a desktop, an Arm server
        ("processor\t: 0\nflags\t\t: fpu vme hypervisor lahf_lm", "virtual machines show none", None),
        ("processor\t: 0\nflags\t\t: fpu vme lahf_lm", "driver is not loaded", "sudo modprobe intel_rapl_msr"),
        ("processor\t: 0\nFeatures\t: fp asimd", "for this processor", None),
    ],
)
def test_where_no_zones_are_it_is_said_why(tmp_path: Path, cpuinfo: str, why: str, remedy: str | None) -> None:
    found = probed(tree(tmp_path, {f"{CLASS}/dtpm/enabled": 0}), cpuinfo)
    assert [(why in each.why, each.remedy) for each in found.denied] == [(True, remedy)]


def test_nothing_at_all_is_denied_too(tmp_path: Path) -> None:
    assert [each.what for each in Powercap(tmp_path, tmp_path / "none").probe().denied] == ["energy of processors"]


def test_zones_that_a_container_hides_are_denied(tmp_path: Path) -> None:
    # links into /sys/devices/virtual/powercap, which Docker and Podman mask (moby GHSA-jq35-85cj-fj4p)
    tree(tmp_path, {}, {f"{CLASS}/intel-rapl:0": "devices/virtual/powercap/intel-rapl/intel-rapl:0"})
    assert ["containers hide" in each.why for each in probed(tmp_path).denied] == [True]


def test_zones_of_nothing_known_are_denied(tmp_path: Path) -> None:
    assert len(probed(tree(tmp_path, zone("intel-rapl:0", "battery"))).denied) == 1


@pytest.mark.parametrize(
    ("energy", "then"),
    [  # a counter that stands still, wraps or is reset is judged by who subtracts, not here
        (1_000_000, 1.0),
        (3, 3e-6),
        (0, 0.0),
        (UNREADABLE, None),
        ("", None),
        ("-1", None),
        ("0x10", None),
        ("1_000", None),
        (RANGE_UJ + 1, None),
        ("9" * 80, None),
    ],
)
def test_a_counter_says_what_it_says_or_nothing(tmp_path: Path, energy: str | int, then: float | None) -> None:
    assert read(tree(tmp_path, PACKAGE), {f"{CLASS}/intel-rapl:0/energy_uj": energy}) == [1.0, then]


def test_a_zone_that_vanishes_says_nothing_and_comes_back(tmp_path: Path) -> None:
    provider = Powercap(tree(tmp_path, PACKAGE))
    sensors = provider.probe().sensors
    (tmp_path / CLASS / "intel-rapl:0/energy_uj").unlink()
    assert provider.read(sensors) == [None]
    tree(tmp_path, PACKAGE)
    assert provider.read(sensors) == [1.0]


def test_a_sensor_of_somebody_else_says_nothing(tmp_path: Path) -> None:
    sensors = probed(tree(tmp_path, PACKAGE)).sensors
    assert Powercap(tmp_path / "elsewhere").read(sensors) == [None]


def test_a_failure_while_looking_is_denied(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(path: Path) -> str:
        raise OSError(19, "No such device")

    monkeypatch.setattr(powercap, "text", fails)
    assert ["No such device" in each.why for each in probed(tree(tmp_path, PACKAGE)).denied] == [True]
