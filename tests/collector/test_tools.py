"""Vendors' tools, read from what they print, and the user's meter. Captures name their origin in their first line."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from bench.collector.energy import Window, used
from bench.collector.providers.tools import Meter, Tools, execute
from bench.collector.providers.tools_table import (
    ASCEND,
    CAMBRICON,
    ENFLAME,
    HYGON,
    ILUVATAR,
    KUNLUNXIN,
    METAX,
    MOORE_THREADS,
    TABLE,
    Field,
    Tool,
)
from bench.collector.sensors import Sensor
from bench.collector.series import Series

MIB = 1 << 20


def capture(name: str) -> str:
    """What the tool printed, without the line of its origin."""
    origin, _, output = (Path(__file__).parent / "captures" / name).read_text().partition("\n")
    assert origin.startswith("# ")
    return output


def machine(root: Path, vendor_id: str, *addresses: str, kind: str = "0x120000") -> Path:
    """A root folder whose kernel shows these PCI devices (Documentation/ABI/testing/sysfs-bus-pci)."""
    for address in addresses:
        device = root / "sys/bus/pci/devices" / address
        device.mkdir(parents=True)
        (device / "vendor").write_text(f"{vendor_id}\n")
        (device / "class").write_text(f"{kind}\n")
    return root


class Shell:
    """Answers commands with prepared outputs and notes them; None for all that it does not know."""

    def __init__(self, outputs: Mapping[str, str]):
        self.outputs, self.commands = dict(outputs), list[str]()

    def __call__(self, command: Sequence[str], timeout_s: float) -> str | None:
        assert timeout_s == 10.0
        self.commands.append(" ".join(command))
        return self.outputs.get(command[0])


def readings(tools: Tools) -> dict[str, float | None]:
    sensors = tools.probe().sensors
    return dict(zip((sensor.id for sensor in sensors), tools.read(sensors), strict=True))


def told(card: str, power: float | None, temperature: float, memory: int | None, part: str) -> dict[str, float]:
    values = {"power/card": power, f"temperature/{part}": temperature, "memory-used/card": memory and memory * MIB}
    return {f"pci:{card}/{name}": float(value) for name, value in values.items() if value is not None}


CAPTURES = [
    (ASCEND, "ascend_910_two_chips.txt", "0000:9d:00.0", (171.5, 37, 3516, "chip")),
    (ASCEND, "ascend_910_two_chips.txt", "0000:9f:00.0", (None, 35, 2895, "chip")),
    (ASCEND, "ascend_910b.txt", "0000:c1:00.0", (93.4, 51, 3453, "chip")),
    (ASCEND, "ascend_910b.txt", "0000:01:00.0", (95.0, 48, 45000, "chip")),
    (CAMBRICON, "cambricon.txt", "0000:39:00.0", (107.0, 33, 64, "chip")),
    (HYGON, "hygon.txt", "0000:06:00.0", (91.0, 57, 64169, "junction")),
    (HYGON, "hygon.txt", "0000:2b:00.0", (80.0, 41, 3, "junction")),
    (METAX, "metax.txt", "0000:01:00.0", (31.0, 38, 666, "chip")),
    (METAX, "metax.txt", "0000:21:00.0", (97.0, 34, 858, "chip")),
    (METAX, "metax.txt", "0000:05:00.0", (71.0, 51, 60982, "chip")),
    (MOORE_THREADS, "moore_threads.txt", "0000:2a:00.0", (96.61, 28, 12, "gpu")),
    (ILUVATAR, "iluvatar.txt", "0000:13:00.0", (None, 32, 116, "chip")),
    (ILUVATAR, "iluvatar.txt", "0000:16:00.0", (94.0, 31, 64, "chip")),
    (KUNLUNXIN, "kunlunxin.txt", "0000:03:00.0", (86.0, 36, 90440, "chip")),
    (ENFLAME, "enflame.txt", "0000:2d:00.0", (69.0, 36, None, "chip")),
    (ENFLAME, "enflame.txt", "0000:2e:00.0", (None, 34, None, "chip")),
    (ENFLAME, "enflame.txt", "0000:01:00.0", (105.0, 39, None, "chip")),
]


@pytest.mark.parametrize(("tool", "file", "card", "values"), CAPTURES)
def test_a_capture_is_read_in_base_units(
    tmp_path: Path, tool: Tool, file: str, card: str, values: tuple[float | None, float, int | None, str]
) -> None:
    shell = Shell({tool.programs[0]: capture(file)})
    tools = Tools(root=machine(tmp_path, tool.vendor_id, card), execute=shell)
    assert readings(tools) == told(card, *values)


def test_every_row_has_a_capture_and_is_experimental_until_it_is_a_real_one() -> None:
    assert {id(tool) for tool, *_ in CAPTURES} == {id(tool) for tool in TABLE}
    assert all(tool.experimental for tool in TABLE)


def test_no_memory_used_is_a_number(tmp_path: Path) -> None:
    shell = Shell({"cnmon": capture("cambricon.txt")})
    tools = Tools(root=machine(tmp_path, "0xcabc", "0000:3d:00.0"), execute=shell)
    assert readings(tools)["pci:0000:3d:00.0/memory-used/card"] == 0.0


def test_two_chips_at_one_address_are_not_told_apart(tmp_path: Path) -> None:
    tools = Tools(
        root=machine(tmp_path, "0x19e5", "0000:01:00.0"), execute=Shell({"npu-smi": capture("ascend_310p.txt")})
    )
    found = tools.probe()
    assert not found.sensors
    assert [denied.what for denied in found.denied] == ["power of pci:0000:01:00.0"]


def test_a_card_without_power_keeps_its_other_sensors_and_says_so(tmp_path: Path) -> None:
    shell = Shell({"mthreads-gmi": capture("moore_threads.txt")})
    found = Tools(root=machine(tmp_path, "0x1ed5", "0000:3a:00.0"), execute=shell).probe()
    assert {sensor.quantity for sensor in found.sensors} == {"temperature", "memory-used"}
    assert [denied.what for denied in found.denied] == ["power of pci:0000:3a:00.0"]


@pytest.mark.parametrize("said", ["93400", "0.0934", "-93.4", "nan", "inf", "1e2", "93,4", "N/A", "", "9" * 400, "0"])
def test_a_power_that_cannot_be_is_no_reading(tmp_path: Path, said: str) -> None:
    """Milliwatts read as watts, watts as milliwatts, and whatever is no plain number."""
    shell = Shell({"npu-smi": capture("ascend_910b.txt")})
    tools = Tools(root=machine(tmp_path, "0x19e5", "0000:c1:00.0"), execute=shell)
    sensors = [sensor for sensor in tools.probe().sensors if sensor.quantity == "power"]
    shell.outputs["npu-smi"] = shell.outputs["npu-smi"].replace("| 93.4 ", f"| {said} ")
    assert (len(sensors), tools.read(sensors)) == (1, [None])


@pytest.mark.parametrize(("said", "value"), [("93400", 93.4), ("93", None), ("93400000", None)])
def test_milliwatts_become_watts_and_nothing_else_does(said: str, value: float | None) -> None:
    field = Field(quantity="power", pattern=re.compile(r"P (?P<value>\d+)"), sound=(1.0, 2000.0), scale=1e-3)
    assert field.value(f"P {said}") == (None if value is None else pytest.approx(value))


INTEL = (  # made up after `xpu-smi dump -m 0,1` in intel/xpumanager #69
    "Timestamp, DeviceId, GPU Utilization (%), GPU Power (W)\n18:38:50.000,    0,     , 43.72\n"
)
K200 = (  # made up after a public sampler's notes: the ninth column of a K200 is in mW
    '00000000:03:00.0 0 0 00 45 0 0 0 68012 900 900 900 900 900 900 2 16 4353 8064 0 1.0 "K200" 0\n'
)
MOFFETT = "| 0       S30                    | 0000:01:00.0        | 0% |\n| 38C     31W / 225W  | 666/65536 MiB |\n"
OLD_CNMON = """\
| CNMON v4.20.11                                                               |
| 0     /   MLU370-X4    v1.1.6 | On          v4.20.11 | 0%          N/A       |
|  0%   32C         30 W/ 150 W |     0 MiB/ 23308 MiB | 10240 MiB/1048576 MiB |
"""  # PaddlePaddle's guide for cntoolkit 3.0: no PCI address


@pytest.mark.parametrize(
    ("tool", "output"),
    [(KUNLUNXIN, INTEL), (KUNLUNXIN, K200), (METAX, MOFFETT), (CAMBRICON, OLD_CNMON), (ASCEND, ""), (HYGON, "{}")],
)
def test_a_namesake_or_an_unknown_form_tells_nothing(tmp_path: Path, tool: Tool, output: str) -> None:
    root = machine(tmp_path, tool.vendor_id, "0000:03:00.0", "0000:01:00.0")
    found = Tools(root=root, execute=Shell({tool.programs[0]: output})).probe()
    assert not found.sensors
    assert [denied.remedy for denied in found.denied] == ["open an issue with what it printed"]


def test_devices_of_another_vendor_are_not_believed(tmp_path: Path) -> None:
    """The output is in the right form, and the kernel knows that address as somebody else's."""
    machine(tmp_path, "0x8086", "0000:03:00.0", "0000:05:00.0", kind="0x030000")
    root = machine(tmp_path, "0x1d22", "0000:66:00.0")
    assert not Tools(root=root, execute=Shell({"xpu_smi": capture("kunlunxin.txt")})).probe().sensors


@pytest.mark.parametrize("kind", ["0x020000", "0x030000", "0x010802"])
def test_a_vendors_network_graphics_and_storage_chips_call_no_tool(tmp_path: Path, kind: str) -> None:
    """Huawei's network cards, the graphics of its BMC, its disks (pci.ids, vendor 19e5)."""
    shell = Shell({})
    found = Tools(root=machine(tmp_path, "0x19e5", "0000:07:00.0", kind=kind), execute=shell).probe()
    assert (found.sensors, found.denied, shell.commands) == ([], [], [])


@pytest.mark.parametrize("broken", ["vendor", "class"])
def test_a_device_whose_files_cannot_be_read_is_nobodys(tmp_path: Path, broken: str) -> None:
    root = machine(tmp_path, "0x19e5", "0000:c1:00.0")
    file = root / "sys/bus/pci/devices/0000:c1:00.0" / broken
    file.unlink()
    file.mkdir()  # reading it is an OSError
    assert Tools(root=root, execute=Shell({})).probe().denied == []


def test_no_pci_devices_at_all_are_no_error(tmp_path: Path) -> None:
    assert Tools(root=tmp_path, execute=Shell({})).probe().sensors == []


def test_a_missing_tool_is_said_where_there_is_a_card(tmp_path: Path) -> None:
    shell = Shell({})
    found = Tools(root=machine(tmp_path, "0x1d94", "0000:06:00.0", kind="0x0b4000"), execute=shell).probe()
    assert [command.split()[0] for command in shell.commands] == list(HYGON.programs)
    assert "hy-smi is not there" in found.denied[0].why


def test_the_second_program_is_tried(tmp_path: Path) -> None:
    shell = Shell({"/opt/hyhal/bin/hy-smi": capture("hygon.txt")})
    tools = Tools(root=machine(tmp_path, "0x1d94", "0000:06:00.0"), execute=shell)
    sensors = tools.probe().sensors
    assert tools.read(sensors)[0] == 91.0
    assert shell.commands[-1] == sensors[0].source == " ".join(("/opt/hyhal/bin/hy-smi", *HYGON.arguments))


def test_one_call_serves_all_sensors_of_a_tool(tmp_path: Path) -> None:
    shell = Shell({"mx-smi": capture("metax.txt"), "cnmon": capture("cambricon.txt")})
    root = machine(tmp_path, "0x9999", "0000:01:00.0", "0000:21:00.0")
    tools = Tools(root=machine(root, "0xcabc", "0000:39:00.0"), execute=shell)
    sensors = tools.probe().sensors
    shell.commands.clear()
    assert None not in tools.read(sensors)
    assert sorted(shell.commands) == ["cnmon", "mx-smi"]


@pytest.mark.parametrize("after", [None, "", "| npu-smi 25.2.1   Version: 25.2.1 |\n", "\x00\xff no table"])
def test_what_vanishes_halfway_is_none(tmp_path: Path, after: str | None) -> None:
    shell = Shell({"npu-smi": capture("ascend_910b.txt")})
    tools = Tools(root=machine(tmp_path, "0x19e5", "0000:c1:00.0", "0000:01:00.0"), execute=shell)
    sensors = tools.probe().sensors
    shell.outputs = {} if after is None else {"npu-smi": after}
    assert tools.read(sensors) == [None] * 6


def test_a_card_that_falls_off_the_bus_leaves_the_other(tmp_path: Path) -> None:
    shell = Shell({"npu-smi": capture("ascend_910b.txt")})
    tools = Tools(root=machine(tmp_path, "0x19e5", "0000:c1:00.0", "0000:01:00.0"), execute=shell)
    sensors = tools.probe().sensors
    shell.outputs["npu-smi"] = re.sub(r"\| 0 .*\n\| 0 .*C1.*\n", "", shell.outputs["npu-smi"])
    assert tools.read(sensors) == [None] * 3 + [95.0, 48.0, 45000.0 * MIB]


def test_a_sensor_that_was_not_found_here_is_none(tmp_path: Path) -> None:
    other = Sensor(device="wall", quantity="power", part="wall", kind="gauge", source="")
    assert Tools(root=tmp_path, execute=Shell({})).read([other]) == [None]


@pytest.mark.parametrize(("took_s", "period_s"), [(0.01, 1.0), (0.2, 1.0), (0.8, 4.0)])
def test_the_period_is_five_calls_and_at_least_a_second(tmp_path: Path, took_s: float, period_s: float) -> None:
    times = iter([7.0, 7.0 + took_s])
    shell = Shell({"npu-smi": capture("ascend_910b.txt")})
    root = machine(tmp_path, "0x19e5", "0000:c1:00.0")
    sensors = Tools(root=root, execute=shell, clock=lambda: next(times)).probe().sensors
    assert [sensor.period_s for sensor in sensors] == [pytest.approx(period_s)] * 3


def test_a_row_of_anothers_table_is_read_as_it_says(tmp_path: Path) -> None:
    tool = replace(ASCEND, vendor_id="0xabcd", programs=("other-smi",), experimental=False)
    shell = Shell({"other-smi": capture("ascend_910b.txt")})
    found = Tools([tool], root=machine(tmp_path, "0xabcd", "0000:c1:00.0"), execute=shell).probe()
    assert (found.sensors[0].experimental, found.sensors[0].most) == (False, 2000.0)


def python(code: str) -> list[str]:
    return [sys.executable, "-S", "-c", code]


def test_a_command_speaks_c_and_its_errors_are_not_heard() -> None:
    code = "import os, sys; print(os.environ['LC_ALL']); print('no', file=sys.stderr); assert not sys.stdin.read()"
    assert execute(python(code), 60.0) == "C\n"


@pytest.mark.parametrize(
    "command", [python("print(1); raise SystemExit(3)"), ["/nonexistent/npu-smi"], ["npu\0smi"], ["/"]]
)
def test_a_command_that_fails_or_is_missing_tells_nothing(command: list[str]) -> None:
    assert execute(command, 60.0) is None


def test_a_command_that_hangs_is_ended_with_what_it_started(tmp_path: Path) -> None:
    child = tmp_path / "child"
    assert execute(["sh", "-c", f"sleep 600 & echo $! > {child}; wait"], 2.0) is None
    until(lambda: gone(int(child.read_text())))


def gone(process: int) -> bool:
    """Whether it has ended; one that nobody has waited for yet has."""
    try:
        return psutil.Process(process).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def until(true: Callable[[], bool]) -> None:
    """Wait for another process or thread; the time limit is for broken code only."""
    end_s = time.monotonic() + 30.0
    while not true():
        assert time.monotonic() < end_s
        time.sleep(0.01)


class Clock:
    def __init__(self) -> None:
        self.now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


def lines(*said: str, then: str = "exec sleep 600") -> list[str]:
    return ["sh", "-c", f'printf "%s\\n" "$@"; {then}', "meter.sh", *said]


def test_a_meter_tells_each_number_once() -> None:
    meter = Meter(lines("230.5", "231.25"), clock=Clock())
    try:
        (sensor,) = meter.probe().sensors
        until(lambda: meter.read([sensor, sensor]) == [231.25, 231.25])
        assert meter.read([sensor]) == [None], "nothing is known of the time since"
    finally:
        meter.close()
    assert (sensor.id, sensor.kind, meter.ignored) == ("wall/power/wall", "gauge", 0)


class Plug:
    """A meter that prints what the test says, when it says so, on the test's clock."""

    def __init__(self, fifo: Path):
        os.mkfifo(fifo)
        self.clock = Clock()
        self.meter = Meter(["sh", "-c", f"exec cat {fifo}"], clock=self.clock)
        self._looking = threading.Thread(target=self._look)
        self._looking.start()
        self._lines = fifo.open("w")

    def _look(self) -> None:
        (self.sensor,) = self.meter.probe().sensors

    def says(self, watts: float) -> float | None:
        """The reading once it has been heard."""
        self._lines.write(f"{watts}\n")
        self._lines.flush()
        read: list[float | None] = []
        until(lambda: bool(read.extend(self.meter.read([SENSOR])) or read[-1]))
        return read[-1]

    def found(self) -> Sensor:
        self._looking.join()
        return self.sensor

    def close(self) -> None:
        self._lines.close()
        self.meter.close()


SENSOR = Sensor(device="wall", quantity="power", part="wall", kind="gauge", source="")


@pytest.fixture
def plug(tmp_path: Path) -> Iterator[Plug]:
    made = Plug(tmp_path / "fifo")
    yield made
    made.close()


def test_how_often_a_meter_tells_is_taken_from_its_lines(plug: Plug) -> None:
    plug.says(230)
    plug.clock.now_s += 4
    plug.says(231)
    assert plug.found().period_s == 4.0


def test_of_a_slower_one_the_period_is_what_was_waited(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bench.collector.providers.tools.TWO_LINES_S", 2.0)
    meter = Meter(lines("230"), clock=Clock())
    try:
        assert [sensor.period_s for sensor in meter.probe().sensors] == [2.0]
    finally:
        meter.close()


def test_a_slow_meters_error_lies_within_its_uncertainty(plug: Plug) -> None:
    """A number every 4 s, and 100 W that become 300 W where the window begins: 6000 J in 20 s."""
    readings: list[tuple[int, float | None]] = []
    for second in range(60):
        plug.clock.now_s += 1
        told = plug.says(300 if second > 21 else 100) if second % 4 == 0 else plug.meter.read([SENSOR])[0]
        readings.append((second * 10**9, told))
    series = Series.of(plug.found(), readings)
    found = used(None, series, [Window(21 * 10**9, 41 * 10**9)])
    assert found.updates == 5
    assert found.joules is not None and found.uncertainty_j is not None
    assert abs(found.joules - 6000) <= found.uncertainty_j, found


@pytest.mark.parametrize(
    "said", ["", "N/A", "nan", "inf", "-5", "+5", "0", "0.0", "12,5", "12 W", "1_0", "1e3", "3690000000000", "٣"]
)
def test_a_line_that_is_no_power_is_counted_and_changes_nothing(said: str) -> None:
    meter = Meter(lines("77", said, "78.0"), clock=Clock())
    try:
        sensors = meter.probe().sensors
        until(lambda: meter.read(sensors) == [78.0])
        assert meter.ignored == 1
    finally:
        meter.close()


def test_a_meter_whose_command_dies_tells_nothing_from_then_on(tmp_path: Path) -> None:
    go = tmp_path / "go"
    meter = Meter(lines("76", "77", then=f"until [ -e {go} ]; do sleep 0.01; done"), clock=Clock())
    try:
        sensors = meter.probe().sensors
        assert meter.read(sensors) == [77.0]
        go.touch()
        until(lambda: meter.read(sensors) == [None])
    finally:
        meter.close()


@pytest.mark.parametrize(
    ("command", "why"),
    [
        (["/nonexistent/meter"], "No such file"),
        ([], ""),
        (lines("offline", then="exit 3"), "(1 other lines)"),
    ],
)
def test_a_meter_that_tells_nothing_is_denied(command: list[str], why: str) -> None:
    meter = Meter(command)
    found = meter.probe()
    assert not found.sensors
    assert why in found.denied[0].why
    meter.close()


def test_a_meters_arguments_are_not_told() -> None:
    """They may hold the address of a plug and its password."""
    meter = Meter(lines("5", "6", "secret"))
    try:
        assert meter.probe().sensors[0].source == "command: sh"
    finally:
        meter.close()


@pytest.mark.parametrize("trap", ["", "trap '' TERM;"])
def test_closing_ends_the_command_and_all_that_it_started(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, trap: str
) -> None:
    """A command that ignores the request is killed."""
    monkeypatch.setattr("bench.collector.providers.tools.END_S", 0.2)
    child = tmp_path / "child"
    meter = Meter(["sh", "-c", f"{trap} sleep 600 & echo $! > {child}; echo 5; echo 5; wait; sleep 600"])
    (sensor,) = meter.probe().sensors
    assert meter.read([sensor]) == [5.0]
    meter.close()
    meter.close()
    until(lambda: gone(int(child.read_text())))
    assert meter.read([sensor]) == [None]


def test_nothing_of_a_meter_outlives_a_killed_sampler(tmp_path: Path) -> None:
    """A meter that never prints again gets no SIGPIPE, and one that no longer has a parent hears of nothing."""
    child = tmp_path / "child"
    command = ["sh", "-c", f"echo 5; echo 5; sleep 600 & echo $! > {child}; wait"]
    code = f"from bench.collector.providers.tools import Meter; Meter({command}).probe(); print(flush=True); input()"
    with subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout and process.stdout.readline()
        until(lambda: child.exists() and child.read_text() != "")
        process.send_signal(signal.SIGKILL)
    until(lambda: gone(int(child.read_text())))
