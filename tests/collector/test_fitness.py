"""Whether a machine is fit for measuring: facts made up here, and trees after proc(5) and psi.rst."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.collector.machine import Machine, NumaNode, facts
from bench.collector.machine.fitness import Finding, Moment, findings, moment

QUIET = Moment(load1=0.1, swap_used_bytes=0, temperature_c=40.0, steal_ratio=0.0, on_battery=False)
NODES = (
    NumaNode(number=0, cpus="0-3", memory_bytes=1 << 34),
    NumaNode(number=1, cpus="4-7", memory_bytes=1 << 35),
    NumaNode(number=2, cpus="", memory_bytes=1 << 38),
)


def made(part: str | None = None, **changed: Any) -> Machine:
    """Eight processors that are fit, with changes to one part of the facts."""
    empty = facts(Path("/nowhere"))
    machine = replace(
        empty,
        processor=replace(empty.processor, governor="performance", threads=8),
        platform=replace(empty.platform, cpus_usable="0-7"),
    )
    return replace(machine, **{part: replace(getattr(machine, part), **changed)}) if part else machine


def found(what: str, machine: Machine, now: Moment = QUIET) -> Finding | None:
    return next((finding for finding in findings(machine, now) if finding.what == what), None)


def test_a_quiet_machine_is_fit_and_needs_nothing() -> None:
    told = findings(made(), QUIET)
    assert [finding.what for finding in told] == ["governor", "load", "steal", "swap", "temperature", "power"]
    assert all(finding.fit and finding.remedy is None for finding in told)


def test_what_is_not_known_is_left_out() -> None:
    (told,) = findings(facts(Path("/nowhere")), Moment())
    assert (told.what, told.fit, told.remedy) == ("governor", True, None)
    assert "not shown" in told.found


@pytest.mark.parametrize(
    ("what", "machine", "now", "remedy"),
    [
        ("governor", made("processor", governor="powersave"), QUIET, "cpupower frequency-set -g performance"),
        ("governor", made("processor", governor="performance, powersave"), QUIET, "cpupower"),
        ("load", made(), replace(QUIET, load1=1.7), "top -o %CPU"),
        ("steal", made(), replace(QUIET, steal_ratio=0.02), "vmstat 1"),
        ("swap", made(), replace(QUIET, swap_used_bytes=1 << 30), "swapoff -a"),
        ("temperature", made(), replace(QUIET, temperature_c=80.5), "sensors"),
        ("power", made(), replace(QUIET, on_battery=True), "plug it in"),
        ("huge pages", made("memory", huge_pages="never"), QUIET, "transparent_hugepage/enabled"),
        ("CPU quota", made("platform", cpu_quota_cores=7.5, cpus_usable="0-7"), QUIET, "docker update --cpus 8"),
    ],
)
def test_an_unfit_machine_is_told_what_to_execute(what: str, machine: Machine, now: Moment, remedy: str) -> None:
    told = found(what, machine, now)
    assert told is not None
    assert not told.fit
    assert remedy in (told.remedy or "")
    assert all(other.fit for other in findings(machine, now) if other.what != what)


@pytest.mark.parametrize(
    ("what", "machine", "now"),
    [
        ("load", made(), replace(QUIET, load1=1.6)),
        ("steal", made(), replace(QUIET, steal_ratio=0.01)),
        ("swap", made(), replace(QUIET, swap_used_bytes=1 << 20)),
        ("temperature", made(), replace(QUIET, temperature_c=80.0)),
        ("CPU quota", made("platform", cpu_quota_cores=8.0, cpus_usable="0-7"), QUIET),
        ("huge pages", made("memory", huge_pages="madvise"), QUIET),
        ("turbo", made("processor", turbo=True), QUIET),
        ("SMT", made("processor", smt=False), QUIET),
    ],
)
def test_up_to_the_limit_a_machine_is_fit(what: str, machine: Machine, now: Moment) -> None:
    told = found(what, machine, now)
    assert told is not None
    assert told.fit
    assert told.remedy is None


def test_threads_of_one_core_are_fit_and_can_be_ended() -> None:
    told = found("SMT", made("processor", smt=True))
    assert told is not None
    assert told.fit
    assert told.remedy == "echo off | sudo tee /sys/devices/system/cpu/smt/control"


@pytest.mark.parametrize(
    ("usable", "remedy"),
    [
        ("0-7", "numactl --cpunodebind=1 --membind=1 bench run …"),  # as many processors, more memory
        ("0-5", "numactl --cpunodebind=0 --membind=0 bench run …"),
        ("5-6", None),
    ],
)
def test_on_several_nodes_pinning_is_advised(usable: str, remedy: str | None) -> None:
    machine = made("processor", numa_nodes=NODES)
    told = found("NUMA", replace(machine, platform=replace(machine.platform, cpus_usable=usable)))
    assert told is not None
    assert told.fit
    assert told.remedy == remedy


def test_one_node_needs_no_pinning() -> None:
    assert found("NUMA", made("processor", numa_nodes=NODES[:1])) is None


def test_load_counts_the_usable_processors_only() -> None:
    told = found("load", made("platform", cpus_usable="0"), replace(QUIET, load1=0.3, pressure_cpu_avg10=0.125))
    assert told is not None
    assert not told.fit
    assert told.found == "0.30 over the last minute on 1 processors, pressure 12.5%"


names = st.text("abcdefghijklmnopqrstuvwxyz_, ", min_size=1, max_size=120)
ratios = st.floats(0, 1)


@given(
    governor=names,
    driver=names,
    preference=names,
    load=st.floats(0, 1e5),
    ratio=ratios,
    temperature=st.floats(1, 149),
    swap=st.integers(0, 2**50),
    quota=st.floats(0.01, 65535),
    flag=st.booleans(),
)
def test_every_line_fits_eighty_columns(
    governor: str,
    driver: str,
    preference: str,
    load: float,
    ratio: float,
    temperature: float,
    swap: int,
    quota: float,
    flag: bool,
) -> None:
    machine = made("processor", governor=governor, driver=driver, energy_performance_preference=preference)
    machine = replace(
        machine,
        processor=replace(machine.processor, smt=flag, turbo=flag, numa_nodes=NODES),
        platform=replace(machine.platform, cpu_quota_cores=quota, cpus_usable="0-65535"),
        memory=replace(machine.memory, huge_pages="never"),
    )
    now = Moment(
        load1=load,
        swap_used_bytes=swap,
        temperature_c=temperature,
        steal_ratio=ratio,
        pressure_cpu_avg10=ratio,
        on_battery=flag,
    )
    for finding in findings(machine, now):
        assert len(f"ok  {finding.what}: {finding.found}") <= 80
        assert len(f"      {finding.remedy}") <= 80


class Psutil:
    """What of psutil a moment needs."""

    def __init__(self, temperatures: Any = None, battery: Any = None) -> None:
        self._temperatures, self._battery = temperatures or {}, battery

    def sensors_temperatures(self) -> Any:
        return self._temperatures

    def sensors_battery(self) -> Any:
        return self._battery


class Broken(Psutil):
    """As psutil is where /sys holds nonsense or is not mounted (psutil #1323, #2595)."""

    def sensors_temperatures(self) -> Any:
        raise ValueError("could not convert string to float: ''")

    def sensors_battery(self) -> Any:
        raise FileNotFoundError("/sys/class/power_supply")


def heat(current: Any, label: str = "") -> SimpleNamespace:
    return SimpleNamespace(label=label, current=current, high=None, critical=None)


def write(root: Path, **told: str | None) -> Path:
    """Files of /proc by name; None is a folder in the file's place, which cannot be read."""
    for name, content in told.items():
        path = root / "proc" / name.replace("__", "/")
        path.parent.mkdir(parents=True, exist_ok=True)
        if content is None:
            path.mkdir()
        else:
            path.write_text(content)
    return root


def at(root: Path, system: Any = None, wait: Callable[[float], None] = lambda span_s: None) -> Moment:
    return moment(root, system or Psutil(), wait)


def test_a_moment_is_read_whole(tmp_path: Path) -> None:
    stat = "cpu  {} 0 50 800 10 0 0 {} 5 0\ncpu0 1 2 3\n"
    write(
        tmp_path,
        stat=stat.format(100, 7),
        loadavg="0.34 1.02 1.28 2/90 25561\n",
        meminfo="MemTotal: 9 kB\nSwapTotal:  1000 kB\nSwapFree:  400 kB\n",
        pressure__cpu="some avg10=12.50 avg60=0.81 avg300=3.32 total=8748036589\nfull avg10=0.00 total=0\n",
    )

    def wait(span_s: float) -> None:
        write(tmp_path, stat=stat.format(190, 17))

    system = Psutil({"coretemp": [heat(51.0), heat(63.0)], "nvme": [heat(90.0)]}, SimpleNamespace(power_plugged=False))
    assert at(tmp_path, system, wait) == Moment(
        load1=0.34,
        runnable=2,
        swap_used_bytes=600 * 1024,
        temperature_c=63.0,
        steal_ratio=0.1,
        pressure_cpu_avg10=0.125,
        on_battery=True,
    )


def test_a_moment_without_files_knows_nothing(tmp_path: Path) -> None:
    assert at(tmp_path, Broken()) == at(tmp_path, object()) == at(tmp_path) == Moment()


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("loadavg", ""),
        ("loadavg", "nan inf x -1/2 3\n"),
        ("loadavg", "-0.5 0 0\n"),
        ("loadavg", None),
        ("stat", "cpu  1 2 3\n"),
        ("stat", "cpu  1 2 3 4 5 6 7 x\n"),
        ("stat", "cpu  1 2 3 4 5 6 7 8 9 10\n"),  # stands still
        ("stat", None),
        ("meminfo", "SwapTotal: 1 kB\nSwapFree: 2 kB\n"),
        ("meminfo", "SwapTotal: 1 kB\n"),
        ("meminfo", "SwapTotal: 1 pages\nSwapFree: 0 pages\n"),
        ("pressure__cpu", "some avg10=nan avg60=0\n"),
        ("pressure__cpu", "some avg10=101.0\n"),
        ("pressure__cpu", "full avg10=1.0\n"),
        ("pressure__cpu", "\x00\n"),
    ],
)
def test_nonsense_is_not_measured(tmp_path: Path, name: str, content: str | None) -> None:
    assert at(write(tmp_path, **{name: content})) == Moment()


@pytest.mark.parametrize("later", ["cpu 9 9 9 9 9 9 9 7\n", "cpu 9 9 9 7 9 9 9 9\n", "", "cpu0 9 9 9 9 9 9 9 9\n"])
def test_counters_that_run_backwards_or_vanish_are_no_share(tmp_path: Path, later: str) -> None:
    write(tmp_path, stat="cpu 8 8 8 8 8 8 8 8\n")

    def wait(span_s: float) -> None:
        write(tmp_path, stat=later)

    assert at(tmp_path, wait=wait).steal_ratio is None


@pytest.mark.parametrize(
    ("told", "temperature_c"),
    [
        ({"k10temp": [heat(97.0, "Tctl"), heat(70.0, "Tdie")]}, 70.0),
        ({"k10temp": [heat(61.5, "Tctl")]}, 61.5),
        ({"coretemp": [heat(0.0), heat(-273.0), heat(55.0)]}, 55.0),
        ({"coretemp": [heat(55000.0), heat(float("nan")), heat(None)]}, None),
        ({"acpitz": [heat(27.8)], "amdgpu": [heat(90.0)]}, None),
        ({}, None),
    ],
)
def test_the_hottest_sound_reading_of_the_processor_counts(tmp_path: Path, told: Any, temperature_c: Any) -> None:
    """Sensors as Documentation/hwmon/{coretemp,k10temp}.rst names them; Tctl is 27 °C above Tdie on some models."""
    assert at(tmp_path, Psutil(told)).temperature_c == temperature_c


@pytest.mark.parametrize(("plugged", "on_battery"), [(True, False), (False, True), (None, None)])
def test_the_battery_counts_where_it_is_known(tmp_path: Path, plugged: bool | None, on_battery: bool | None) -> None:
    assert at(tmp_path, Psutil(battery=SimpleNamespace(power_plugged=plugged))).on_battery is on_battery


TYPED = "sudo -E setpriv --reuid=$(id -u) --init-groups --inh-caps=+sys_ptrace bench run …"


def test_lines_are_wrapped_and_what_is_typed_is_not() -> None:
    remedy = f"execute as root, or as yourself with more rights: `{TYPED}` (a container: `--cap-add=SYS_PTRACE`)"
    finding = Finding(
        what="processes", found="not read: " + "only its owner may see them " * 3, fit=False, remedy=remedy
    )
    assert finding.lines(60) == [
        "!!  processes: not read: only its owner may see them only",
        "      its owner may see them only its owner may see them",
        "      execute as root, or as yourself with more rights:",
        f"      `{TYPED}`",
        "      (a container: `--cap-add=SYS_PTRACE`)",
    ]
    assert len(finding.lines()) == 2, "a pipe gets one line each"


@pytest.mark.parametrize(("fit", "mark"), [(True, "ok"), (False, "!!"), (None, "--")])
def test_a_remedy_without_backquotes_is_typed_as_it_stands(fit: bool | None, mark: str) -> None:
    lines = Finding(what="a", found="b", fit=fit, remedy=TYPED).lines(20)
    assert lines == [f"{mark}  a: b", f"      {TYPED}"]
