"""The memory's limit: of the host, and of a device that an adapter moves bytes in."""

from __future__ import annotations

import pytest

from bench.ceiling import HOST, REPETITIONS, SWEEPS, ReadProbe, measure_device
from bench.collector.host_memory import read_resident


class Memory:
    """A device whose every move takes as long as the clock is told."""

    kind, moved_bytes = "gpu", 1000

    def __init__(self, fails_at: int | None = None) -> None:
        self.now_ns, self.moves, self.closed, self._fails_at = 0, 0, 0, fails_at

    def move(self) -> None:
        self.moves += 1
        if self.moves == self._fails_at:
            raise RuntimeError("device lost")
        self.now_ns += 10_000 if self.moves == 1 else 500

    def close(self) -> None:
        self.closed += 1


def test_a_devices_rate_is_bytes_over_its_own_time_without_the_first_move() -> None:
    memory = Memory()
    found = measure_device(memory, lambda: memory.now_ns)
    assert found.read_bytes_per_s == (1000 * 1e9 / 500,) * REPETITIONS
    assert (memory.moves, memory.closed) == (1 + REPETITIONS * SWEEPS, 1)
    assert (found.kind, found.buffer_bytes, found.threads, found.llc_bytes) == ("gpu", 1000, None, None)


def test_a_device_that_fails_is_let_go() -> None:
    memory = Memory(fails_at=3)
    with pytest.raises(RuntimeError, match="device lost"):
        measure_device(memory, lambda: memory.now_ns)
    assert memory.closed == 1


def test_the_hosts_memory_is_probed_with_all_of_its_processors() -> None:
    probe = ReadProbe()
    probe.buffer_bytes = 1 << 22
    found = probe.measure()
    assert found.kind == HOST and found.threads == probe.threads
    assert len(found.read_bytes_per_s) == REPETITIONS and min(found.read_bytes_per_s) > 0


def test_the_hosts_buffer_is_kept_and_counts_as_nobodys_memory() -> None:
    probe = ReadProbe()
    probe.buffer_bytes = 1 << 26
    before = read_resident()
    probe.measure()
    first = [part.ctypes.data for part in probe._parts]
    probe.measure()
    after = read_resident()
    assert [part.ctypes.data for part in probe._parts] == first
    assert before is not None and after is not None
    assert after.total_bytes - before.total_bytes < probe.buffer_bytes / 4
