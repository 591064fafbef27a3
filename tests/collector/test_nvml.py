"""NVML's provider, through the real binding, against a library of our own (fake_nvml.c; answers made up after nvml.h).

Codes of errors are nvmlReturn_t's: 2 invalid argument, 3 not supported, 4 no permission, 7 insufficient size, 9 driver
not loaded, 12 library not found, 13 function not found, 15 GPU is lost, 18 versions of driver and library differ, 999
unknown.
"""

from __future__ import annotations

import importlib
import shutil
import sys
from pathlib import Path

import pynvml
import pytest

from bench.collector.providers.nvml import MIG, SUPERCHIP, Nvml
from tests.collector.fake_nvml import FakeNvml, Without, built, cut_off

DEVICE = "pci:0000:3b:00.0"
ALL_ONES = 2**64 - 1
PROCESSES = "nvmlDeviceGetComputeRunningProcesses"
SECOND = {"count": 2, "1.bus_id": "00010000:AF:00.1", "1.uuid": "GPU-5"}


@pytest.fixture(scope="session")
def library(tmp_path_factory):
    if shutil.which("cc") is None:
        pytest.skip("no C compiler: the fake NVML cannot be built")
    return built(tmp_path_factory.mktemp("nvml"))


@pytest.fixture
def nvml(library, tmp_path, monkeypatch):
    monkeypatch.setenv("FAKE_NVML", str(tmp_path / "answers"))
    cut_off(monkeypatch)
    fake = FakeNvml(library, tmp_path / "answers")
    monkeypatch.setattr(pynvml, "CDLL", lambda name: fake.library)
    return fake


@pytest.fixture
def no_library(monkeypatch):
    def missing(name):
        raise OSError(f"{name}: cannot open shared object file")

    cut_off(monkeypatch)
    monkeypatch.setattr(pynvml, "CDLL", missing)


def tree(root: Path, vendor: str = "0x10de", kind: str = "0x030200") -> Path:
    """One PCI device, after Documentation/ABI/testing/sysfs-bus-pci."""
    device = root / "bus/pci/devices/0000:3b:00.0"
    device.mkdir(parents=True)
    (device / "vendor").write_text(f"{vendor}\n")
    (device / "class").write_text(f"{kind}\n")
    return root


def probed(root: Path):
    provider = Nvml(root=root)
    return provider, provider.probe()


def readings(provider, found) -> dict[str, float | None]:
    values = provider.read(found.sensors)
    return {sensor.id.removeprefix(f"{DEVICE}/"): value for sensor, value in zip(found.sensors, values, strict=True)}


def test_every_sensor_of_a_card_is_read_in_base_units(nvml, tmp_path):
    provider, found = probed(tmp_path)
    assert readings(provider, found) == {
        "energy/card": pytest.approx(123456.789),
        "power/card": pytest.approx(70.5),
        "power-limit/card": 700.0,
        "temperature/gpu": 35.0,
        "temperature/memory": 44.0,
        "clock/sm": 1.98e9,
        "clock/memory": 3.201e9,
        "utilization/gpu": 0.57,
        "throttle-time/power": 2.5,
        "throttle-time/thermal": 0.0,
        "throttled/power-cap": 1.0,
        "throttled/hw-slowdown": 0.0,
        "throttled/sw-thermal": 1.0,
        "throttled/hw-thermal": 0.0,
        "throttled/power-brake": 0.0,
        "memory-used/card": float(2**30),
        "processes/compute": 2.0,
        "errors/ecc-corrected": 3.0,
        "errors/ecc-uncorrected": 0.0,
        "errors/pcie-replay": 5.0,
    }
    assert found.denied == []
    assert (found.names, found.uuids) == (
        {DEVICE: "NVIDIA H200"},
        {DEVICE: "GPU-00000000-1111-2222-3333-444444444444"},
    )


def test_counters_gauges_and_paces_are_told_apart(nvml, tmp_path):
    _, found = probed(tmp_path)
    by_quantity = {sensor.quantity: sensor for sensor in found.sensors}
    assert {name for name, each in by_quantity.items() if each.kind == "counter"} == {
        "energy",
        "throttle-time",
        "errors",
    }
    assert {name for name, each in by_quantity.items() if each.pace == "power"} == {"energy", "power"}
    assert {name for name, each in by_quantity.items() if each.pace == "edges"} == {
        "power-limit",
        "throttle-time",
        "processes",
        "errors",
        "utilization",
    }
    assert by_quantity["power"].most == 1050.0
    assert "186" in by_quantity["power"].source


@pytest.mark.parametrize(
    ("answer", "value"),
    [
        ("energy", ALL_ONES),
        ("violation.0", ALL_ONES),
        ("field.186", 2**32 - 1),
        ("field.186", 3_690_000_000_000_000),  # 3.69 TW: intel/compute-runtime #938, as another vendor's driver did
        ("field.186", 0),  # asked too often: ml-energy/zeus
        ("field.186", 700),  # watts for milliwatts
        ("field.186", 1_050_001),
        ("limit", 700),
        ("limit", 2**32 - 1),
        ("temperature.0", 2**32 - 1),
        ("temperature.0", 0),
        ("field.82", 35_000),  # thousandths of a degree
        ("clock.1", 2**32 - 1),
        ("clock.1", 1_980_000_000),  # hertz for megahertz
        ("utilization", 101),
        ("memory_used", 2**62),
        ("memory_used", ALL_ONES),
        ("errors.0.0", ALL_ONES),
        ("errors.1.0", ALL_ONES),
        ("pcie_replay", 2**32 - 1),
        ("error.nvmlDeviceGetPcieReplayCounter", 999),
        (f"error.{PROCESSES}_v2", 7),  # more of them at each call than there was room for
    ],
)
def test_nonsense_is_none_and_only_there(nvml, tmp_path, answer, value):
    provider, found = probed(tmp_path)
    nvml.tell({"field.186.type": 3, answer: value})
    values = readings(provider, found)
    assert [name for name, each in values.items() if each is None] == [WHERE[answer]]


WHERE = {
    "energy": "energy/card",
    "violation.0": "throttle-time/power",
    "field.186": "power/card",
    "limit": "power-limit/card",
    "temperature.0": "temperature/gpu",
    "field.82": "temperature/memory",
    "clock.1": "clock/sm",
    "utilization": "utilization/gpu",
    "memory_used": "memory-used/card",
    "errors.0.0": "errors/ecc-corrected",
    "errors.1.0": "errors/ecc-uncorrected",
    "pcie_replay": "errors/pcie-replay",
    "error.nvmlDeviceGetPcieReplayCounter": "errors/pcie-replay",
    f"error.{PROCESSES}_v2": "processes/compute",
}


@pytest.mark.parametrize(
    ("kind", "text", "power_w"),
    [
        (0, "70500.5", 70.5005),
        (0, "nan", None),
        (0, "inf", None),
        (1, "70500", 70.5),
        (4, "70500", 70.5),
        (4, "-70500", None),
        (5, "-1", None),
        (6, "40000", 40.0),
        (7, "70500", None),  # NVML_VALUE_TYPE_COUNT is no type
    ],
)
def test_a_field_is_read_by_its_type(nvml, tmp_path, kind, text, power_w):
    provider, found = probed(tmp_path)
    nvml.tell({"field.186.type": kind, "field.186": text})
    assert readings(provider, found)["power/card"] == power_w


def test_a_field_that_fails_in_a_call_that_succeeds_is_none(nvml, tmp_path):
    provider, found = probed(tmp_path)
    nvml.tell({"field.186.error": 15})
    values = readings(provider, found)
    assert values["power/card"] is None
    assert values["temperature/memory"] == 44.0


@pytest.mark.parametrize("energy_mj", [123456788, 0, 123456789, 2**64 - 2])
def test_a_counter_is_told_as_it_stands_backwards_and_reset_too(nvml, tmp_path, energy_mj):
    provider, found = probed(tmp_path)
    nvml.tell({"energy": energy_mj})
    assert readings(provider, found)["energy/card"] == pytest.approx(energy_mj / 1e3)


@pytest.mark.parametrize("code", [4, 15, 999, 12345])
def test_a_device_that_is_lost_while_reading_is_none_everywhere(nvml, tmp_path, code):
    provider, found = probed(tmp_path)
    for function in {sensor.source.split()[1] for sensor in found.sensors} - {"field"} | {"nvmlDeviceGetFieldValues"}:
        nvml.fail(function, code)
    assert set(readings(provider, found).values()) == {None}


def test_bits_of_one_number_are_asked_for_once(nvml, tmp_path, monkeypatch):
    provider, found = probed(tmp_path)
    asked = []
    real = pynvml.nvmlDeviceGetCurrentClocksEventReasons
    monkeypatch.setattr(
        pynvml, "nvmlDeviceGetCurrentClocksEventReasons", lambda handle: asked.append(handle) or real(handle)
    )
    provider.read(found.sensors)
    assert len(asked) == 1


@pytest.mark.parametrize(
    ("architecture", "ids", "averaging_s"),
    [
        ("9", "0x233510de", 1.0),
        ("7", "0x220410de", 1.0),  # GA102
        ("7", "0x20b210de", 0.0),  # GA100
        ("6", "0x1e0410de", 0.0),
        (None, "0x233510de", 1.0),
    ],
)
def test_without_the_instant_field_power_is_an_average_but_on_old_cards(nvml, tmp_path, architecture, ids, averaging_s):
    nvml.tell({"field.186": None, "architecture": architecture, "pci_ids": ids})
    provider, found = probed(tmp_path)
    power = next(sensor for sensor in found.sensors if sensor.quantity == "power")
    assert (power.source, power.averaging_s) == ("NVML nvmlDeviceGetPowerUsage", averaging_s)
    assert readings(provider, found)["power/card"] == 71.5


@pytest.mark.parametrize(
    ("limit_most", "most_w"), [(None, 3000.0), (700, 3000.0), (2**32 - 1, 3000.0), (450_000, 675.0)]
)
def test_the_most_that_power_can_be_is_of_the_card_if_it_is_plausible(nvml, tmp_path, limit_most, most_w):
    nvml.tell({"limit_most": limit_most})
    _, found = probed(tmp_path)
    assert [sensor.most for sensor in found.sensors if sensor.quantity == "power"] == [most_w]


def test_what_a_card_has_not_is_no_sensor_and_only_power_is_missed(nvml, tmp_path):
    nvml.tell(dict.fromkeys(["field.82", "energy", "memory_total", "violation.1", "clock.2"]))
    _, found = probed(tmp_path)
    ids = {sensor.id.removeprefix(f"{DEVICE}/") for sensor in found.sensors}
    absent = {"temperature/memory", "energy/card", "memory-used/card", "throttle-time/thermal", "clock/memory"}
    assert not ids & absent
    assert len(ids) == 15
    assert [(each.what, each.why) for each in found.denied] == [(f"{DEVICE}: energy card", "NVML: Not Supported")]


def test_sensors_that_are_refused_are_told_together_with_the_reason(nvml, tmp_path):
    nvml.fail("nvmlDeviceGetClockInfo", 4)
    _, found = probed(tmp_path)
    assert [(each.what, each.why) for each in found.denied] == [
        (f"{DEVICE}: clock sm, clock memory", "NVML: Insufficient Permissions")
    ]


def test_old_drivers_tell_the_reasons_by_their_old_name(nvml, tmp_path):
    nvml.tell({"error.nvmlDeviceGetCurrentClocksEventReasons": 13, "old_reasons": "0x40"})
    provider, found = probed(tmp_path)
    values = readings(provider, found)
    assert [name for name, value in values.items() if name.startswith("throttled/") and value] == [
        "throttled/hw-thermal"
    ]


def test_drivers_to_come_tell_the_temperature_by_its_new_name(nvml, tmp_path):
    nvml.tell({"error.nvmlDeviceGetTemperature": 13, "temperature_v": 61})
    provider, found = probed(tmp_path)
    assert readings(provider, found)["temperature/gpu"] == 61.0


def test_a_mig_instance_has_neither_energy_nor_power_whatever_the_card_tells(nvml, tmp_path):
    nvml.tell({"mig": 1})
    _, found = probed(tmp_path)
    assert not {"energy", "power", "processes"} & {sensor.quantity for sensor in found.sensors}
    assert [(each.why, each.remedy) for each in found.denied] == [(MIG, "sudo nvidia-smi -i 0000:3b:00.0 -mig 0")]


@pytest.mark.parametrize(
    ("pids", "count"),
    [("", 0.0), ("7", 1.0), ("7 8 7", 2.0), ("4294967295 0", 2.0), (" ".join(map(str, range(40))), 40.0)],
)
def test_processes_are_told_apart_by_their_number(nvml, tmp_path, pids, count):
    nvml.tell({"processes": pids})
    provider, found = probed(tmp_path)
    assert readings(provider, found)["processes/compute"] == count


@pytest.mark.parametrize(
    ("missing", "count"),
    [
        ((), 2.0),
        ((f"{PROCESSES}_v3",), 2.0),  # driver 535.98: XuehaiPan/nvitop #89
        ((f"{PROCESSES}_v2",), 3.0),
        ((f"{PROCESSES}_v2", f"{PROCESSES}_v3"), None),  # 450.36.06: wookayin/gpustat #138
    ],
)
def test_processes_are_asked_for_by_the_version_that_there_is(nvml, tmp_path, monkeypatch, missing, count):
    nvml.tell({"processes_v3": "1 2 3"})
    monkeypatch.setattr(pynvml, "CDLL", lambda name: Without(nvml.library, *missing))
    provider, found = probed(tmp_path)
    assert (readings(provider, found).get("processes/compute"), found.denied) == (count, [])


@pytest.mark.parametrize(
    ("symbol", "gone"),
    [
        ("nvmlDeviceGetTotalEccErrors", {"errors/ecc-corrected", "errors/ecc-uncorrected"}),
        ("nvmlDeviceGetPcieReplayCounter", {"errors/pcie-replay"}),
    ],
)
@pytest.mark.parametrize("how", ["missing", "not supported", "invalid argument"])
def test_a_card_that_counts_no_errors_has_no_such_sensor(nvml, tmp_path, monkeypatch, symbol, gone, how):
    if how == "missing":
        monkeypatch.setattr(pynvml, "CDLL", lambda name: Without(nvml.library, symbol))
    else:
        nvml.fail(symbol, 3 if how == "not supported" else 2)
    _, found = probed(tmp_path)
    ids = {sensor.id.removeprefix(f"{DEVICE}/") for sensor in found.sensors}
    assert (len(ids), ids & gone, found.denied) == (20 - len(gone), set(), [])


@pytest.mark.parametrize("code", [2, 3])
def test_a_card_that_lists_no_processes_has_no_such_sensor(nvml, tmp_path, code):
    nvml.fail(f"{PROCESSES}_v2", code)
    _, found = probed(tmp_path)
    assert (len(found.sensors), found.denied) == (19, [])


def test_who_may_not_see_processes_and_errors_is_told(nvml, tmp_path):
    nvml.fail(f"{PROCESSES}_v2", 4)
    nvml.fail("nvmlDeviceGetTotalEccErrors", 4)
    _, found = probed(tmp_path)
    assert [(each.what, each.why) for each in found.denied] == [
        (f"{DEVICE}: errors ecc-corrected, errors ecc-uncorrected, processes compute", "NVML: Insufficient Permissions")
    ]


@pytest.mark.parametrize("count", [0, 2**32, 2**64 - 2])
def test_counted_errors_are_told_as_they_stand_reset_too(nvml, tmp_path, count):
    provider, found = probed(tmp_path)
    nvml.tell({"errors.0.0": count})
    assert readings(provider, found)["errors/ecc-corrected"] == float(count)


@pytest.mark.parametrize(
    ("answers", "parts", "reasons"),
    [
        ({"field.186": None, "field.186.1": 530_000}, [("energy", "module"), ("power", "module")], []),  # zeus #172
        ({"field.186.1": 2_900_000}, [("power", "card")], [SUPERCHIP]),
        ({"field.186": None}, [], [SUPERCHIP, "NVML: Not Supported"]),
    ],
)
def test_a_superchip_has_what_is_surely_its_own(nvml, tmp_path, answers, parts, reasons):
    nvml.tell({"c2c": 1, **answers})
    _, found = probed(tmp_path)
    assert [(each.quantity, each.part) for each in found.sensors if each.quantity in ("energy", "power")] == parts
    assert [each.why for each in found.denied] == reasons


def test_power_of_a_module_is_read_by_its_scope(nvml, tmp_path):
    nvml.tell({"c2c": 1, "field.186": None, "field.186.1": 530_000})
    provider, found = probed(tmp_path)
    assert readings(provider, found)["power/module"] == 530.0


def test_several_cards_are_told_apart_by_the_kernels_addresses(nvml, tmp_path):
    nvml.tell({**SECOND, "1.field.186": 300_000})
    provider, found = probed(tmp_path)
    power = {each.device: each for each in found.sensors if each.quantity == "power"}
    assert list(power) == [DEVICE, "pci:10000:af:00.1"]
    assert provider.read(list(power.values())) == [70.5, 300.0]
    assert len({sensor.id for sensor in found.sensors}) == len(found.sensors) == 40


@pytest.mark.parametrize("function", ["nvmlDeviceGetHandleByIndex_v2", "nvmlDeviceGetPciInfo_v3"])
def test_a_device_that_fails_leaves_the_others(nvml, tmp_path, function):
    nvml.tell(SECOND)
    nvml.fail(function, 15, device=0)
    _, found = probed(tmp_path)
    assert {sensor.device for sensor in found.sensors} == {"pci:10000:af:00.1"}
    assert [(each.what, each.why) for each in found.denied] == [("NVML device 0", "GPU is lost")]


@pytest.mark.parametrize("bus_id", ["", "3B:00.0", "GPU-0", "00000000:3B:00.9"])
def test_a_device_whose_address_is_none_is_denied(nvml, tmp_path, bus_id):
    nvml.tell({"bus_id": bus_id})
    _, found = probed(tmp_path)
    assert (len(found.sensors), len(found.denied)) == (0, 1)


def test_names_that_are_missing_are_left_out(nvml, tmp_path):
    nvml.tell({"name": None, "uuid": None})
    _, found = probed(tmp_path)
    assert (found.names, found.uuids, len(found.sensors)) == ({}, {}, 20)


@pytest.mark.parametrize(
    ("code", "text", "remedy"),
    [
        (4, "Insufficient Permissions", "ls -l /dev/nvidia*"),
        (9, "Driver Not Loaded", "sudo modprobe nvidia"),
        (18, "NVML/RM version mismatch", "reboot"),
        (999, "Unknown Error", None),
    ],
)
def test_who_cannot_be_initialized_is_denied_by_nvmls_own_text(nvml, tmp_path, code, text, remedy):
    nvml.fail("nvmlInitWithFlags", code)
    provider, found = probed(tree(tmp_path))
    (denied,) = found.denied
    assert text in denied.why
    assert denied.remedy is None if remedy is None else denied.remedy.startswith(remedy)
    provider.close()
    assert nvml.calls == (0, 0)


def test_a_count_that_fails_is_denied(nvml, tmp_path):
    nvml.fail("nvmlDeviceGetCount_v2", 18)
    _, found = probed(tmp_path)
    assert ["version mismatch" in each.why for each in found.denied] == [True]


def test_no_device_is_nothing(nvml, tmp_path):
    nvml.tell({"count": 0})
    _, found = probed(tmp_path)
    assert (found.sensors, found.denied) == ([], [])


HERE = [
    ({}, True),
    ({"kind": "0x030000"}, True),
    ({"vendor": "0x1002"}, False),
    ({"kind": "0x040300"}, False),  # a card's sound function
    ({"vendor": "", "kind": ""}, False),
]


@pytest.mark.parametrize(("device", "told"), HERE)
def test_a_missing_library_is_told_only_where_there_is_a_device(no_library, tmp_path, device, told):
    _, found = probed(tree(tmp_path, **device))
    assert ["Shared Library Not Found" in each.why for each in found.denied] == [True] * told


@pytest.mark.parametrize(("device", "told"), HERE)
def test_a_missing_binding_is_told_only_where_there_is_a_device(monkeypatch, tmp_path, device, told):
    monkeypatch.setitem(sys.modules, "pynvml", None)
    _, found = probed(tree(tmp_path, **device))
    assert [each.remedy for each in found.denied] == [f"{sys.executable} -m pip install nvidia-ml-py"] * told


def test_devices_that_cannot_be_looked_at_are_none(no_library, tmp_path):
    (tmp_path / "bus/pci/devices/0000:3b:00.0/vendor").mkdir(parents=True)
    assert probed(tmp_path)[1].denied == []
    assert probed(tmp_path / "nowhere")[1].denied == []


@pytest.mark.parametrize(
    ("function", "left"),
    [
        ("nvmlDeviceGetCurrentClocksEventReasons", 15),
        ("nvmlDeviceGetFieldValues", 19),
        ("nvmlDeviceGetTotalEccErrors", 18),
        (f"{PROCESSES}_v2", 19),
    ],
)
def test_a_binding_older_than_a_function_has_its_sensors_not(nvml, tmp_path, monkeypatch, function, left):
    monkeypatch.delattr(pynvml, function)
    provider, found = probed(tmp_path)
    assert len(found.sensors) == left
    assert None not in readings(provider, found).values()


def test_nvml_is_initialized_once_and_shut_down_once(nvml, tmp_path):
    provider, found = probed(tmp_path)
    provider.read(found.sensors)
    assert nvml.calls == (1, 0)
    provider.close()
    provider.close()
    assert nvml.calls == (1, 1)
    assert set(provider.read(found.sensors)) == {None}
    assert provider.identity() == {}


def test_closing_who_was_never_opened_or_fails_to_close_is_silent(nvml, tmp_path):
    Nvml(root=tmp_path).close()
    provider, _ = probed(tmp_path)
    nvml.fail("nvmlShutdown", 999)
    provider.close()
    assert nvml.calls == (1, 1)


def test_the_module_alone_imports_no_binding(monkeypatch):
    monkeypatch.delitem(sys.modules, "bench.collector.providers.nvml")
    monkeypatch.setitem(sys.modules, "pynvml", None)
    assert importlib.import_module("bench.collector.providers.nvml").Nvml.name == "nvml"


def test_identity_tells_how_a_card_is_set(nvml, tmp_path):
    provider, _ = probed(tmp_path)
    assert provider.identity() == {
        DEVICE: {
            "driver": "570.86.15",
            "vbios": "96.00.A0.00.01",
            "power_limit_w": 700.0,
            "power_limit_default_w": 700.0,
            "pcie_generation": 5,
            "pcie_generation_max": 5,
            "pcie_width": 16,
            "pcie_width_max": 16,
            "ecc": True,
            "persistence": True,
            "bar1_bytes": 274877906944,
            "memory_bytes": 150754820096,
            "resizable_bar": True,
        }
    }


@pytest.mark.parametrize(
    ("answers", "field", "value"),
    [
        ({"bar1": 2**28}, "resizable_bar", False),
        ({"bar1": None}, "resizable_bar", None),
        ({"memory_total": ALL_ONES}, "resizable_bar", None),
        ({"ecc": 0}, "ecc", False),
        ({"ecc": 7}, "ecc", None),
        ({"width": 0}, "pcie_width", None),
        ({"generation": 2**32 - 1}, "pcie_generation", None),
        ({"limit_default": 2**32 - 1}, "power_limit_default_w", None),
        ({"error.nvmlDeviceGetVbiosVersion": 4}, "vbios", None),
        ({"error.nvmlSystemGetDriverVersion": 999}, "driver", None),
    ],
)
def test_a_field_of_identity_that_is_missing_or_nonsense_is_none(nvml, tmp_path, answers, field, value):
    nvml.tell(answers)
    provider, _ = probed(tmp_path)
    assert provider.identity()[DEVICE][field] is value


def test_a_second_probe_begins_anew(nvml, tmp_path):
    provider, _ = probed(tmp_path)
    nvml.tell({"bus_id": "00000000:5E:00.0"})
    assert {sensor.device for sensor in provider.probe().sensors} == {"pci:0000:5e:00.0"}
    assert (nvml.calls, list(provider.identity())) == ((2, 1), ["pci:0000:5e:00.0"])
