"""Clocks, temperatures and throttling of processors: whose they are, and what is refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from bench.collector.providers import cpu_state
from bench.collector.providers.cpu_state import CpuState
from tests.collector.trees import UNREADABLE, tree

CPUS = "sys/devices/system/cpu"
HWMON = "sys/class/hwmon"


def cpu(index: int, package: str | int = 0, khz: str | int = 2_000_000, throttled_ms: int = 0) -> dict[str, str | int]:
    """One logical processor, as cpufreq.rst and intel_thermal_throttle.rst describe its files."""
    return {
        f"{CPUS}/cpu{index}/topology/physical_package_id": package,
        f"{CPUS}/cpu{index}/cpufreq/scaling_cur_freq": khz,
        f"{CPUS}/cpu{index}/thermal_throttle/package_throttle_total_time_ms": throttled_ms,
    }


def hwmon(index: int, name: str, **labelled: str | int) -> dict[str, str | int]:
    """One hwmon with a temperature for each label; `_` in a label stands for a space."""
    files: dict[str, str | int] = {f"{HWMON}/hwmon{index}/name": name}
    for at, (label, said) in enumerate(labelled.items(), start=1):
        files[f"{HWMON}/hwmon{index}/temp{at}_label"] = label.replace("_", " ")
        files[f"{HWMON}/hwmon{index}/temp{at}_input"] = said
    return files


def values(root: Path) -> dict[str, float | None]:
    provider = CpuState(root)
    sensors = provider.probe().sensors
    return dict(zip([each.id for each in sensors], provider.read(sensors), strict=True))


def test_a_desktop_tells_clocks_temperature_and_throttling(tmp_path: Path) -> None:
    # made up after coretemp.rst, cpufreq.rst and intel_thermal_throttle.rst; the folder cpufreq is no processor
    files = {
        **cpu(0, khz=800_000, throttled_ms=1500),
        **cpu(1, khz=4_200_000, throttled_ms=1498),
        **hwmon(2, "coretemp", Package_id_0=61000, Core_0=59000),
        f"{CPUS}/cpufreq/boost": 1,
    }
    assert values(tree(tmp_path, files)) == pytest.approx(
        {
            "cpu:0/clock/core-mean": 2.5e9,
            "cpu:0/clock/core-lowest": 8e8,
            "cpu:0/throttle-time/thermal": 1.5,
            "cpu:0/temperature/package": 61.0,
        }
    )


def test_quantities_have_their_pace_and_kind(tmp_path: Path) -> None:
    sensors = CpuState(tree(tmp_path, {**cpu(0), **hwmon(0, "coretemp", Package_id_0=50000)})).probe().sensors
    assert {(each.quantity, each.kind, each.pace) for each in sensors} == {
        ("clock", "gauge", "state"),
        ("temperature", "gauge", "state"),
        ("throttle-time", "counter", "edges"),
    }


def test_each_package_has_its_own(tmp_path: Path) -> None:
    files = {**cpu(0, 0, 1_000_000, 7), **cpu(1, 1, 3_000_000, 9000), **cpu(2, 1, 2_000_000, 8999)}
    files |= hwmon(0, "coretemp", Package_id_1=70000)
    said = values(tree(tmp_path, files))
    assert said["cpu:0/clock/core-mean"] == pytest.approx(1e9)
    assert said["cpu:1/clock/core-mean"] == pytest.approx(2.5e9)
    assert said["cpu:1/throttle-time/thermal"] == pytest.approx(9.0)
    assert said["cpu:1/temperature/package"] == pytest.approx(70.0)
    assert "cpu:0/temperature/package" not in said


@pytest.mark.parametrize("package", ["", "-1", UNREADABLE])
def test_a_package_that_is_not_told_is_the_only_one(tmp_path: Path, package: str) -> None:
    assert values(tree(tmp_path, cpu(0, package)))["cpu:0/clock/core-mean"] == pytest.approx(2e9)


def test_tctl_and_tdie_are_kept_apart_and_the_dies_parts_left_out(tmp_path: Path) -> None:
    # labels as in Ta180m/zenpower3#5 and k10temp.c
    said = values(tree(tmp_path, {**cpu(0), **hwmon(3, "k10temp", Tctl=82500, Tdie=55500, Tccd1=51000)}))
    assert said["cpu:0/temperature/tctl"] == pytest.approx(82.5)
    assert said["cpu:0/temperature/tdie"] == pytest.approx(55.5)
    assert len([each for each in said if "temperature" in each]) == 2


def test_k10temps_belong_to_packages_in_the_order_of_their_pci_functions(tmp_path: Path) -> None:
    # made up: node 0 is 0000:00:18.3, node 1 is 0000:00:19.3, and hwmon's own numbers go the other way
    files = {**cpu(0, 0), **cpu(1, 1), **hwmon(0, "k10temp", Tctl=40000), **hwmon(1, "k10temp", Tctl=60000)}
    links = {f"{HWMON}/hwmon0/device": "sys/pci/0000:00:19.3", f"{HWMON}/hwmon1/device": "sys/pci/0000:00:18.3"}
    said = values(tree(tmp_path, files, links))
    assert (said["cpu:0/temperature/tctl"], said["cpu:1/temperature/tctl"]) == pytest.approx((60.0, 40.0))


def test_temperatures_of_nobody_knows_which_package_are_not_shown(tmp_path: Path) -> None:
    files = {**cpu(0), **hwmon(0, "k10temp", Tctl=40000), **hwmon(1, "k10temp", Tctl=60000)}
    assert not [each for each in values(tree(tmp_path, files)) if "temperature" in each]


@pytest.mark.parametrize("said", ["", "hot", "-40000", "0", "61", "255000", UNREADABLE])
def test_a_temperature_that_cannot_be_is_none(tmp_path: Path, said: str) -> None:
    found = values(tree(tmp_path, hwmon(0, "coretemp", Package_id_0=said)))
    assert found == {"cpu:0/temperature/package": None}


@pytest.mark.parametrize("khz", ["", "<unsupported>", "-1", "0", "3", "4200000000", UNREADABLE])
def test_a_clock_that_cannot_be_is_left_out_of_mean_and_lowest(tmp_path: Path, khz: str) -> None:
    said = values(tree(tmp_path, {**cpu(0, khz=3_000_000), **cpu(1, khz=khz)}))
    assert (said["cpu:0/clock/core-mean"], said["cpu:0/clock/core-lowest"]) == pytest.approx((3e9, 3e9))


@pytest.mark.parametrize("khz", ["", "0", UNREADABLE])
def test_where_no_clock_is_sound_none_is_told(tmp_path: Path, khz: str) -> None:
    said = values(tree(tmp_path, cpu(0, khz=khz)))
    assert (said["cpu:0/clock/core-mean"], said["cpu:0/clock/core-lowest"]) == (None, None)


def test_processors_that_go_offline_are_left_out(tmp_path: Path) -> None:
    provider = CpuState(tree(tmp_path, {**cpu(0, khz=1_000_000), **cpu(1, khz=3_000_000)}))
    sensors = [each for each in provider.probe().sensors if each.part == "core-mean"]
    for index, left in ((0, pytest.approx(3e9)), (1, None)):
        (tmp_path / f"{CPUS}/cpu{index}/cpufreq/scaling_cur_freq").unlink()
        assert provider.read(sensors) == [left]


def test_mean_and_lowest_are_of_one_reading(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    provider = CpuState(tree(tmp_path, cpu(0)))
    sensors = [each for each in provider.probe().sensors if each.quantity == "clock"]
    told = iter([1_000_000, 2_000_000])
    monkeypatch.setattr(cpu_state, "number", lambda path: next(told))
    assert provider.read(sensors) == pytest.approx([1e9, 1e9])


def test_a_machine_that_shows_nothing_says_so_in_one_line(tmp_path: Path) -> None:
    # a virtual machine: topology, no cpufreq, no hwmon
    found = CpuState(tree(tmp_path, {f"{CPUS}/cpu0/topology/physical_package_id": 0})).probe()
    assert not found.sensors
    assert [(each.what, each.why) for each in found.denied] == [("clocks", "not shown by this kernel")]


def test_a_sensor_of_somebody_else_says_nothing(tmp_path: Path) -> None:
    sensors = CpuState(tree(tmp_path, cpu(0))).probe().sensors
    assert set(CpuState(tmp_path).read(sensors)) == {None}


def test_a_failure_while_looking_is_denied(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(path: Path) -> int:
        raise OSError(19, "No such device")

    monkeypatch.setattr(cpu_state, "number", fails)
    assert ["No such device" in each.why for each in CpuState(tree(tmp_path, cpu(0))).probe().denied] == [True]
