"""Host facts and memory from trees like the kernel's, whole and broken."""

from __future__ import annotations

import os
from pathlib import Path

import psutil
import pytest

from bench.ceiling import llc_bytes
from bench.collector import host
from bench.collector.host_memory import HostMemory, Resident, oom_kills
from bench.collector.page_cache import cached_share

GIB = 2**30


def tree(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


@pytest.fixture(autouse=True)
def large_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """Control groups decide in these tests, whatever machine executes them."""
    memory = psutil.virtual_memory()
    monkeypatch.setattr(host.psutil, "virtual_memory", lambda: memory._replace(available=2**50))


def test_a_v2_group_limits_memory_and_its_page_cache_does_not_count(tmp_path: Path) -> None:
    group = "sys/fs/cgroup/lab/job"
    root = tree(
        tmp_path,
        {
            "proc/self/cgroup": "0::/lab/job\n",
            f"{group}/memory.max": "max\n",
            f"{group}/memory.current": "0\n",
            f"{group}/memory.stat": "anon 0\n",
            "sys/fs/cgroup/lab/memory.max": str(20 * GIB),
            "sys/fs/cgroup/lab/memory.current": str(6 * GIB),
            "sys/fs/cgroup/lab/memory.stat": f"anon 1\nactive_file {GIB}\ninactive_file {GIB}\n",
        },
    )
    assert host.memory_available_bytes(root) == 16 * GIB


def test_a_v1_group_limits_memory(tmp_path: Path) -> None:
    group = "sys/fs/cgroup/memory/job"
    root = tree(
        tmp_path,
        {
            "proc/self/cgroup": "5:cpu:/job\n4:memory:/job\n",
            f"{group}/memory.limit_in_bytes": str(4 * GIB),
            f"{group}/memory.usage_in_bytes": str(GIB),
            f"{group}/memory.stat": "cache 0\n",
        },
    )
    assert host.memory_available_bytes(root) == 3 * GIB


def test_without_control_groups_the_machine_decides(tmp_path: Path) -> None:
    assert host.memory_available_bytes(tmp_path) == 2**50


def test_resident_memory_is_kept_apart_by_kind_and_case_and_without_the_harness_own(tmp_path: Path) -> None:
    def now(anon_kb: int, file_kb: int) -> None:
        tree(tmp_path, {"7/status": f"Name:\tx\nRssAnon:\t {anon_kb} kB\nRssFile:\t {file_kb} kB\n"})

    memory = HostMemory(tmp_path)
    memory.watch(7)
    seen = [("start", None, 900, 9), ("open", None, 100, 20), ("gate", None, 800, 8), ("measure", 0, 300, 5)]
    for phase, case, anon_kb, file_kb in [*seen, ("ceiling", None, 999, 99), ("measure", 1, 200, 30)]:
        memory.mark(phase, case)
        now(anon_kb, file_kb)
        memory._read()
    assert memory.peak_of(0) == Resident(anon_bytes=300 * 1024, file_bytes=20 * 1024)
    assert memory.peak_of(1) == Resident(anon_bytes=200 * 1024, file_bytes=30 * 1024)
    assert memory.peak_of(2) == Resident(anon_bytes=100 * 1024, file_bytes=20 * 1024)


def test_memory_once_loaded_and_right_after_prefills(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A prefill ends 60 ms and 1 s after the timed phase began; the next readings are at 100 ms and at 1.7 s."""
    memory = HostMemory(tmp_path)
    memory.watch(7)
    ms = 10**6
    began = [("open", 0, 5, 90), ("gate", 50, 6, 91), ("measure", 1000, 7, 92)]
    for phase, now_ms, anon_kb, file_kb in [*began, (None, 1100, 8, 93), (None, 2700, 9, 80)]:
        monkeypatch.setattr("bench.collector.host_memory.time.monotonic_ns", lambda now_ms=now_ms: now_ms * ms)
        tree(tmp_path, {"7/status": f"RssAnon:\t {anon_kb} kB\nRssFile:\t {file_kb} kB\n"})
        memory.mark(phase, 0) if phase else memory._read()
    assert (memory.loaded, memory.loaded_ns) == (Resident(anon_bytes=6 * 1024, file_bytes=91 * 1024), 50 * ms)
    ended_ns = [(1000 + after_ms) * ms for after_ms in (60, 1000)]
    assert memory.right_after(0, ended_ns) == Resident(anon_bytes=9 * 1024, file_bytes=93 * 1024)
    assert memory.right_after(0, ended_ns[:1]) == Resident(anon_bytes=8 * 1024, file_bytes=93 * 1024)
    for case, moment_ns in ((1, ended_ns[0]), (0, 1200 * ms), (0, 2800 * ms)):
        assert memory.right_after(case, [moment_ns]) == Resident(anon_bytes=None, file_bytes=None)


def test_what_proc_does_not_tell_is_not_zero(tmp_path: Path) -> None:
    memory = HostMemory(tmp_path)
    memory.watch(7)
    memory.sample()
    assert memory.peak_of(0) == Resident(anon_bytes=None, file_bytes=None)


def test_kills_for_memory_are_counted_by_the_kernel(tmp_path: Path) -> None:
    assert oom_kills(tree(tmp_path, {"vmstat": "pgfault 9\noom_kill 3\n"})) == 3
    assert oom_kills(tmp_path / "nowhere") == 0


def test_the_host_id_hides_the_machine_id(tmp_path: Path) -> None:
    machine_id = tmp_path / "machine-id"
    machine_id.write_text("0123456789abcdef\n")
    assert host.host_id(machine_id) == host.host_id(machine_id)
    assert "0123456789abcdef" not in host.host_id(machine_id)


@pytest.mark.parametrize("text", ["", "uninitialized\n"])
def test_a_machine_id_that_all_images_share_is_none(tmp_path: Path, text: str) -> None:
    machine_id = tmp_path / "machine-id"
    machine_id.write_text(text)
    assert host.host_id(machine_id) == host.host_id(tmp_path / "nowhere")


def test_all_last_level_caches_of_the_processors_count(tmp_path: Path) -> None:
    """Two chiplets of two cores, 32 MiB each, as large EPYC processors have many of."""
    for cpu in range(4):
        first = cpu // 2 * 2
        for index, (level, size, shared) in enumerate([(1, "48K", str(cpu)), (3, "32768K", f"{first}-{first + 1}")]):
            folder = f"cpu{cpu}/cache/index{index}"
            tree(tmp_path, {f"{folder}/level": str(level), f"{folder}/size": size, f"{folder}/shared_cpu_list": shared})
    assert llc_bytes({0, 1, 2, 3}, tmp_path) == 64 << 20
    assert llc_bytes({2, 3}, tmp_path) == 32 << 20
    assert llc_bytes({9}, tmp_path) is None


def test_a_file_just_written_is_in_the_page_cache(tmp_path: Path) -> None:
    path = tmp_path / "weights"
    path.write_bytes(os.urandom(1 << 20))
    assert cached_share([path]) in (1.0, None)
    assert cached_share([]) is None


def test_what_a_worker_tells_of_itself_counts_in_the_phase_it_ends() -> None:
    memory = HostMemory()
    told = [
        ("open", None, 5, 1),
        ("gate", None, 70, 2),
        ("measure", 0, 90, 3),
        ("measure", 0, 8, 30),
        ("close", 0, 6, 4),
    ]
    for phase, case, anon, file in told:
        memory.told(Resident(anon_bytes=anon, file_bytes=file))
        memory.mark(phase, case)
    assert memory.peak_of(0) == Resident(anon_bytes=70, file_bytes=30)
    assert memory.last == Resident(anon_bytes=6, file_bytes=4)
    assert memory.peak_of(1) == Resident(anon_bytes=70, file_bytes=2)
