"""What a machine shows of itself, read from trees of files; each names where its content comes from."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bench.collector.machine import facts, split
from bench.collector.machine import kernel_files as files
from tests.collector.trees import write

CPU = "sys/devices/system/cpu"
THP = "sys/kernel/mm/transparent_hugepage/enabled"

X86 = """processor\t: 0
vendor_id\t: GenuineIntel
cpu family\t: 6
model\t\t: 143
model name\t: Intel(R) Xeon(R) Platinum 8480+
stepping\t: 8
microcode\t: 0x2b0004d0
flags\t\t: fpu vme avx2 avx512f avx512_vnni amx_tile amx_int8 amx_bf16 avx10_2

processor\t: 1
model name\t: another
"""
ARM = """processor\t: 0
BogoMIPS\t: 2000.00
Features\t: fp asimd atomics asimddp sve i8mm bf16 sve2
CPU implementer\t: 0x41
CPU architecture: 8
CPU variant\t: 0x0
CPU part\t: 0xd4f
CPU revision\t: 0
"""


def server() -> dict[str, str]:
    """Made up after Documentation/admin-guide/{pm/intel_pstate,cputopology,cgroup-v2}.rst and proc(5)."""
    tree = {
        "proc/cpuinfo": X86,
        f"{CPU}/online": "0-3\n",
        f"{CPU}/isolated": "\n",
        f"{CPU}/smt/active": "1\n",
        f"{CPU}/intel_pstate/no_turbo": "1\n",
        "sys/devices/system/node/node0/cpulist": "0,2\n",
        "sys/devices/system/node/node0/meminfo": "Node 0 MemTotal:       16384 kB\nNode 0 MemFree:   1 kB\n",
        "sys/devices/system/node/node1/cpulist": "\n",
        "proc/meminfo": "MemTotal:       32768 kB\nMemFree:  1 kB\nSwapTotal:       0 kB\n",
        THP: "always [madvise] never\n",
        "proc/sys/kernel/numa_balancing": "1\n",
        "proc/sys/kernel/osrelease": "6.8.0-45-generic\n",
        "etc/os-release": 'NAME="Ubuntu"\nPRETTY_NAME="Ubuntu 24.04.1 LTS"\n',
        "sys/class/dmi/id/sys_vendor": "Dell Inc.\n",
        "sys/class/dmi/id/product_name": "To Be Filled By O.E.M.\n",
        "sys/class/dmi/id/product_serial": "SECRET1\n",
        "sys/class/dmi/id/product_uuid": "SECRET2\n",
        "proc/sys/kernel/hostname": "SECRET3\n",
        "sys/devices/system/clocksource/clocksource0/current_clocksource": "tsc\n",
        "proc/cmdline": "root=UUID=SECRET4 mitigations=off isolcpus=2-3 quiet ip=SECRET5\n",
        "proc/self/status": "Name:\tpython\nCpus_allowed:\tf\nCpus_allowed_list:\t0-3\n",
        "proc/self/cgroup": "0::/user.slice/job\n",
        "sys/fs/cgroup/user.slice/cpu.max": "150000 100000\n",
        "sys/fs/cgroup/user.slice/job/cpu.max": "max 100000\n",
    }
    for cpu in range(4):
        tree[f"{CPU}/cpu{cpu}/topology/physical_package_id"] = "0\n"
        tree[f"{CPU}/cpu{cpu}/topology/core_cpus_list"] = f"{cpu % 2},{cpu % 2 + 2}\n"
        policy = f"{CPU}/cpufreq/policy{cpu}"
        tree[f"{policy}/scaling_governor"] = "powersave\n"
        tree[f"{policy}/scaling_driver"] = "intel_pstate\n"
        tree[f"{policy}/energy_performance_preference"] = "balance_performance\n"
        tree[f"{policy}/scaling_min_freq"] = "800000\n"
        tree[f"{policy}/scaling_max_freq"] = f"{3800000 + cpu}\n"
    return tree


def test_a_server_is_read_whole(tmp_path: Path) -> None:
    machine = facts(write(tmp_path, server()))
    cpu = machine.processor
    assert (cpu.name, cpu.vendor) == ("Intel(R) Xeon(R) Platinum 8480+", "GenuineIntel")
    assert (cpu.family, cpu.model, cpu.stepping, cpu.microcode) == (6, 143, 8, "0x2b0004d0")
    assert cpu.isa == ("amx_bf16", "amx_int8", "amx_tile", "avx10_2", "avx2", "avx512_vnni", "avx512f")
    assert (cpu.sockets, cpu.cores, cpu.threads, cpu.smt, cpu.turbo) == (1, 2, 4, True, False)
    assert (cpu.governor, cpu.driver) == ("powersave", "intel_pstate")
    assert cpu.energy_performance_preference == "balance_performance"
    assert (cpu.frequency_min_hz, cpu.frequency_max_hz) == (800_000_000, 3_800_003_000)
    assert cpu.numa_nodes is not None
    assert [(node.number, node.cpus, node.memory_bytes) for node in cpu.numa_nodes] == [
        (0, "0,2", 16 << 20),
        (1, "", None),
    ]
    memory, system = machine.memory, machine.platform
    assert (memory.total_bytes, memory.swap_total_bytes, memory.huge_pages) == (32 << 20, 0, "madvise")
    assert (memory.numa_balancing, memory.modules) == (1, None)
    assert (system.kernel, system.distribution) == ("6.8.0-45-generic", "Ubuntu 24.04.1 LTS")
    assert (system.vendor, system.product, system.virtual, system.clock_source) == ("Dell Inc.", None, None, "tsc")
    assert (system.cpus_usable, system.cpu_quota_cores, system.isolated_cpus) == ("0-3", 1.5, "")
    assert system.kernel_options == ("mitigations=off", "isolcpus=2-3")


def test_nothing_tells_whose_machine_it_is(tmp_path: Path) -> None:
    assert "SECRET" not in json.dumps(split(facts(write(tmp_path, server()))))


def test_a_machine_that_shows_nothing_has_no_facts(tmp_path: Path) -> None:
    covariates, info = split(facts(tmp_path))
    assert covariates.pop("link_lanes") == {}
    assert info.pop("accelerators") == []
    assert {value for part in info.values() for value in part.values()} == {None}
    assert set(covariates.values()) == {None}


def test_arm_names_its_processor_by_numbers(tmp_path: Path) -> None:
    """The fields of arch/arm64/kernel/cpuinfo.c."""
    cpu = facts(write(tmp_path, {"proc/cpuinfo": ARM})).processor
    assert (cpu.name, cpu.vendor, cpu.family, cpu.model, cpu.stepping) == (None, "0x41", 8, 0xD4F, 0)
    assert cpu.isa == ("asimddp", "bf16", "i8mm", "sve", "sve2")


def test_every_governor_that_occurs_is_named(tmp_path: Path) -> None:
    changed = {f"{CPU}/cpufreq/policy2/scaling_governor": "performance\n"}
    assert facts(write(tmp_path, {**server(), **changed})).processor.governor == "performance, powersave"


@pytest.mark.parametrize(
    ("tree", "turbo"),
    [
        ({"intel_pstate/no_turbo": "0\n", "cpufreq/boost": "0\n"}, True),
        ({"cpufreq/boost": "1\n"}, True),
        ({"cpufreq/boost": "0\n"}, False),
        ({"cpufreq/boost": "2\n"}, None),
        ({"cpufreq/boost": None}, None),
    ],
)
def test_turbo_is_read_from_either_file(tmp_path: Path, tree: dict[str, Any], turbo: bool | None) -> None:
    """Documentation/admin-guide/pm/{intel_pstate,cpufreq}.rst."""
    machine = facts(write(tmp_path, {f"{CPU}/{name}": content for name, content in tree.items()}))
    assert machine.processor.turbo is turbo


@pytest.mark.parametrize(
    ("name", "content", "fact"),
    [
        (f"{CPU}/cpufreq/policy0/scaling_max_freq", "99999999999\n", lambda m: m.processor.frequency_max_hz),
        (f"{CPU}/cpufreq/policy0/scaling_max_freq", "<unknown>\n", lambda m: m.processor.frequency_max_hz),
        (f"{CPU}/cpu0/topology/physical_package_id", "-1\n", lambda m: m.processor.sockets),
        (f"{CPU}/online", "0-99999\n", lambda m: m.processor.threads),
        (f"{CPU}/online", "3-0\n", lambda m: m.processor.threads),
        ("proc/cpuinfo", "model\t: 1_0\n", lambda m: m.processor.model),
        ("proc/cpuinfo", "microcode\t: -1\n", lambda m: m.processor.microcode),
        ("proc/cpuinfo", "vendor_id\t: \xff\x00\n", lambda m: m.processor.vendor),
        ("proc/meminfo", "MemTotal: 12 MB\n", lambda m: m.memory.total_bytes),
        ("proc/meminfo", "MemTotal: 0 kB\n", lambda m: m.memory.total_bytes),
        ("proc/meminfo", None, lambda m: m.memory.total_bytes),
        (THP, "[perhaps]\n", lambda m: m.memory.huge_pages),
        ("proc/sys/kernel/numa_balancing", "on\n", lambda m: m.memory.numa_balancing),
        ("proc/self/status", "Cpus_allowed_list:\t\n", lambda m: m.platform.cpus_usable),
        ("sys/class/dmi/id/bios_version", "Default string\n", lambda m: m.platform.bios_version),
        ("sys/class/dmi/id/bios_version", "x" * 101, lambda m: m.platform.bios_version),
    ],
)
def test_nonsense_is_not_known(tmp_path: Path, name: str, content: Any, fact: Any) -> None:
    assert fact(facts(write(tmp_path, {name: content}))) is None


@pytest.mark.parametrize(
    ("tree", "cores"),
    [
        ({"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/cpu.max": "200000 100000\n"}, 2.0),
        ({"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/cpu.max": "max 100000\n"}, None),
        ({"proc/self/cgroup": "0::/../..\x00\n", "sys/fs/cgroup/cpu.max": "100000 0\n"}, None),
        (
            {
                "proc/self/cgroup": "2:cpuset:/\n1:cpu,cpuacct:/docker/ab\n",
                "sys/fs/cgroup/cpu,cpuacct/cpu.cfs_quota_us": "50000\n",
                "sys/fs/cgroup/cpu,cpuacct/cpu.cfs_period_us": "100000\n",
            },
            0.5,
        ),
        (
            {
                "proc/self/cgroup": "1:cpu:/\n",
                "sys/fs/cgroup/cpu/cpu.cfs_quota_us": "-1\n",
                "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000\n",
            },
            None,
        ),
        ({"proc/self/cgroup": "nonsense\n\n"}, None),
    ],
)
def test_a_quota_is_cores(tmp_path: Path, tree: dict[str, str], cores: float | None) -> None:
    """Forms of cgroups(7), cgroup-v2.rst and sched-bwc.rst; the second is what Docker leaves under version 1."""
    assert facts(write(tmp_path, tree)).platform.cpu_quota_cores == cores


@pytest.mark.parametrize(
    ("tree", "virtual"),
    [
        ({"proc/cpuinfo": "flags\t: fpu hypervisor\n"}, "vm"),
        ({".dockerenv": ""}, "container"),
        ({"run/.containerenv": "", "proc/cpuinfo": "flags\t: hypervisor\n"}, "container in vm"),
        ({"proc/cpuinfo": "flags\t: fpu\n"}, None),
    ],
)
def test_virtual_machines_and_containers_are_told(tmp_path: Path, tree: dict[str, str], virtual: str | None) -> None:
    assert facts(write(tmp_path, tree)).platform.virtual == virtual


def test_what_varies_by_itself_is_a_covariate(tmp_path: Path) -> None:
    pci = "sys/bus/pci/devices/0000:03:00.0"
    card = {f"{pci}/class": "0x030000\n", f"{pci}/current_link_width": "8\n", f"{pci}/max_link_width": "16\n"}
    covariates, info = split(facts(write(tmp_path, {**server(), **card})))
    assert covariates["governor"] == "powersave"
    assert covariates["kernel_options"] == ["mitigations=off", "isolcpus=2-3"]
    assert covariates["link_lanes"] == {"0000:03:00.0": 8}
    assert "governor" not in info["processor"]
    assert "link_lanes" not in info["accelerators"][0]
    assert (info["processor"]["cores"], info["accelerators"][0]["link_lanes_most"]) == (2, 16)
    assert [covariates, info] == json.loads(json.dumps([covariates, info], allow_nan=False))


TREE = {
    **server(),
    "sys/firmware/dmi/entries/17-0/raw": "",
    "sys/devices/system/edac/mc/mc0/dimm0/size": "16384\n",
    "sys/devices/system/edac/mc/mc0/dimm0/dimm_mem_type": "Registered-DDR5\n",
    **{
        f"sys/bus/pci/devices/0000:03:00.0/{name}": "0x030000\n"
        for name in ("class", "vendor", "resource", "numa_node")
    },
    **{f"sys/bus/pci/devices/0000:03:00.0/current_link_{name}": "8\n" for name in ("speed", "width")},
}
HARMLESS = st.sampled_from(["", "\n", "-1", "9" * 30, "0-9999999999", "nan", "0x", "[", ":", "=", "\x00", "a" * 200])


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("machine"), TREE)


@settings(max_examples=200, deadline=None)
@given(
    garbage=st.dictionaries(
        st.sampled_from(sorted(TREE)), st.binary(max_size=200) | HARMLESS.map(str.encode), min_size=1, max_size=5
    )
)
def test_no_content_of_files_raises(whole: Path, garbage: dict[str, bytes]) -> None:
    for name, content in garbage.items():
        (whole / name).write_bytes(content)
    machine = facts(whole)
    for name in garbage:
        (whole / name).write_text(TREE[name])
    assert "SECRET1" not in json.dumps(split(machine), allow_nan=False)
    cpu = machine.processor
    assert all(value is None or value > 0 for value in (cpu.sockets, cpu.cores, cpu.threads, cpu.frequency_max_hz))


@pytest.mark.parametrize(
    ("text", "found"),
    [("0-2,8", {0, 1, 2, 8}), ("", set()), ("a", None), ("1-", None), ("2-1", None), ("0-99999", None), (None, None)],
)
def test_lists_of_processors(text: str | None, found: set[int] | None) -> None:
    assert files.cpus(text) == found
    assert files.cpu_list(text) == (text if found is not None else None)
