"""The lock of the machine, with real processes: killed at random, outlived by their workers, without rights."""

from __future__ import annotations

import errno
import fcntl
import os
import random
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from bench.collector import locks
from bench.collector.locks import FILE, NOBODY, POLL_S, held, lock_folder, shared_with_host
from bench.errors import EXIT_BUSY, BusyError, PrerequisiteError

ROOT = Path(__file__).parents[2]
PROLOGUE = """
import os, random, subprocess, sys, time
from pathlib import Path
from bench.collector.locks import held
folder = Path(sys.argv[1])
"""
HOLDER = """
with held(30, "bench run " + sys.argv[2], print, folder=folder):
    print("held", flush=True)
    sys.stdin.read()
"""
PARENT_OF_A_WORKER = """
with held(30, "bench run", print, folder=folder) as descriptor:
    worker = "import sys; print('held', flush=True); sys.stdin.read()"
    subprocess.run([sys.executable, "-c", worker], pass_fds=(descriptor,) if sys.argv[2] == "shared" else ())
"""
STRANGER = """
import fcntl
descriptor = os.open(folder / "evenbench.lock", os.O_RDONLY)
fcntl.flock(descriptor, fcntl.LOCK_EX)
print("held", flush=True)
sys.stdin.read()
"""
CONTENDER = """
moments = os.open(sys.argv[2], os.O_WRONLY | os.O_APPEND)
chance = random.Random(os.getpid())
for window in range(1_000_000):
    with held(600, "contender", lambda holder: None, folder=folder, sleep=lambda left_s: time.sleep(0.002)):
        for _ in range(8):
            os.write(moments, f"{os.getpid()}/{window} {time.monotonic_ns()}\\n".encode())
            time.sleep(0.001)
    time.sleep(chance.uniform(0, 0.01))
"""


def started(script: str, *words: object) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", PROLOGUE + script, *map(str, words)]
    return subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def ended(process: subprocess.Popen[str]) -> None:
    process.kill()
    process.communicate()


@contextmanager
def holding(script: str, *words: object) -> Iterator[subprocess.Popen[str]]:
    """A process that has said that it holds the lock."""
    process = started(script, *words)
    try:
        assert process.stdout is not None and process.stdout.readline() == "held\n"
        yield process
    finally:
        ended(process)


def silent(holder: str) -> None:
    raise AssertionError(f"waited for {holder}")


def refused(folder: Path) -> str:
    """Whom the error names to somebody who will not wait."""
    with pytest.raises(BusyError) as error, held(0, "late", silent, folder=folder):
        pass
    assert error.value.exit_code == EXIT_BUSY and error.value.where == str(folder / FILE)
    return error.value.cause or ""


def overlapping(lines: Sequence[str]) -> list[str]:
    """Windows that began before an earlier one was last heard of. A line is a window's name and a moment in it."""
    windows: dict[str, list[int]] = {}
    for line in lines:
        name, moment = line.split()
        windows.setdefault(name, []).append(int(moment))
    ordered = sorted(windows, key=lambda name: min(windows[name]))
    return [later for name, later in pairwise(ordered) if min(windows[later]) <= max(windows[name])]


@pytest.mark.parametrize(
    ("lines", "found"),
    [
        (["a 1", "a 4", "b 5", "b 6", "a2 7"], []),
        (["a 1", "b 3", "a 4", "b 6"], ["b"]),
        (["b 2", "a 1", "a 3"], ["b"]),  # killed after its first moment
    ],
)
def test_overlapping_windows_would_be_seen(lines: list[str], found: list[str]) -> None:
    assert overlapping(lines) == found


def test_windows_of_two_benches_never_overlap_however_often_they_are_killed(tmp_path: Path) -> None:
    chance = random.Random(6)
    moments = tmp_path / "moments"
    moments.touch()
    processes = [started(CONTENDER, tmp_path, moments) for _ in range(2)]
    pids = [process.pid for process in processes]
    try:
        for _ in range(16):
            victim = chance.randrange(2)
            heard_of(processes[victim], moments)
            time.sleep(chance.uniform(0, 0.1))
            ended(processes[victim])
            processes[victim] = started(CONTENDER, tmp_path, moments)
            pids.append(processes[victim].pid)
        for process in processes:
            heard_of(process, moments)
    finally:
        for process in processes:
            ended(process)
    lines = moments.read_text().splitlines()
    assert {int(line.split("/")[0]) for line in lines} == set(pids)
    assert overlapping(lines) == []


def heard_of(process: subprocess.Popen[str], moments: Path) -> None:
    """Return once it has held the lock: without this, a lock that nobody ever gets would pass."""
    deadline = time.monotonic() + 120
    while f"{process.pid}/" not in moments.read_text():
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.01)


def test_a_killed_holder_frees_it_at_once(tmp_path: Path) -> None:
    with holding(HOLDER, tmp_path, "first") as process:
        assert "bench run first" in refused(tmp_path)
        ended(process)
        with held(0, "second", silent, folder=tmp_path):
            assert "second" in refused(tmp_path) and "first" not in refused(tmp_path)


def test_the_error_names_the_holder(tmp_path: Path) -> None:
    with holding(HOLDER, tmp_path, "qwen3") as process:
        cause = refused(tmp_path)
    assert cause.startswith(f"bench run qwen3, process {process.pid}, since 20") and cause.endswith(" UTC")


def test_a_worker_that_outlives_its_parent_holds_it_on(tmp_path: Path) -> None:
    with holding(PARENT_OF_A_WORKER, tmp_path, "shared") as parent:
        parent.kill()
        parent.wait()
        assert "bench run" in refused(tmp_path)
        assert parent.stdin is not None
        parent.stdin.close()  # ends the worker, which shares it
        with held(60, "next", lambda holder: None, folder=tmp_path):
            pass
        parent.stdin = None


def test_a_worker_that_was_not_given_it_does_not_hold_it_on(tmp_path: Path) -> None:
    with holding(PARENT_OF_A_WORKER, tmp_path, "own") as parent:
        parent.kill()
        parent.wait()
        with held(0, "next", silent, folder=tmp_path):
            pass


def test_a_parent_that_lets_go_does_not_take_it_from_its_worker(tmp_path: Path) -> None:
    with held(0, "parent", silent, folder=tmp_path) as descriptor:
        assert not os.get_inheritable(descriptor)
        command = [sys.executable, "-c", "import sys; sys.stdin.read()"]
        worker = subprocess.Popen(command, stdin=subprocess.PIPE, pass_fds=(descriptor,))
    try:
        assert "parent" in refused(tmp_path)
    finally:
        worker.communicate()
    with held(0, "next", silent, folder=tmp_path):
        pass


class Clock:
    """Time that passes only while somebody sleeps; `then` happens after the sleep of that number."""

    def __init__(self, at: int = 0, then: Any = None) -> None:
        self.now_s, self.slept, self._at, self._then = 0.0, list[float](), at, then

    def __call__(self) -> float:
        return self.now_s

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now_s += seconds
        if len(self.slept) == self._at:
            self._then()


def test_who_waits_in_vain_is_told_once_and_waits_no_longer_than_asked(tmp_path: Path) -> None:
    clock, told = Clock(), list[str]()
    words = (
        "bench run --backend onnx,openvino,llamacpp --model smollm2-135m-int8,qwen2.5-0.5b-int8 --workload pp512,tg128"
    )
    with held(0, words, silent, folder=tmp_path):
        late = held(0.9, "late", told.append, folder=tmp_path, clock=clock, sleep=clock.sleep)
        with pytest.raises(BusyError, match=r"being measured \(bench run .*…, process .*--max-wait") as error, late:
            pass
    assert len(told) == 1 and told[0].startswith(f"{words[:59]}…, process {os.getpid()}, since ")
    assert len(str(error.value)) - len(str(tmp_path)) < 200
    assert sum(clock.slept) == pytest.approx(0.9) and max(clock.slept) <= POLL_S <= 0.2


def test_who_waits_has_it_once_it_is_free(tmp_path: Path) -> None:
    first = held(0, "first", silent, folder=tmp_path)
    first.__enter__()
    clock, told = Clock(at=3, then=lambda: first.__exit__(None, None, None)), list[str]()
    with held(60, "second", told.append, folder=tmp_path, clock=clock, sleep=clock.sleep):
        assert "second" in refused(tmp_path)
    assert len(clock.slept) == 3 and len(told) == 1


def test_a_free_lock_is_had_without_waiting_and_freed_by_an_exception(tmp_path: Path) -> None:
    for _ in range(2):
        with pytest.raises(ZeroDivisionError), held(0, "note", silent, folder=tmp_path):
            raise ZeroDivisionError


def test_a_file_removed_while_it_was_being_locked_is_not_the_lock(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, real, calls = tmp_path / FILE, fcntl.flock, list[int]()

    def flock(descriptor: int, operation: int) -> None:
        real(descriptor, operation)
        calls.append(descriptor)
        if len(calls) == 1:
            path.unlink()

    monkeypatch.setattr(fcntl, "flock", flock)
    with held(0, "note", silent, folder=tmp_path) as descriptor:
        assert len(calls) == 2 and os.path.samestat(os.fstat(descriptor), path.stat())


def test_the_file_is_for_all_users_whatever_the_umask(tmp_path: Path) -> None:
    before = os.umask(0o077)
    try:
        with held(0, "note", silent, folder=tmp_path):
            assert (tmp_path / FILE).stat().st_mode & 0o777 == 0o666
    finally:
        os.umask(before)


def somebody_elses(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int = errno.EACCES) -> None:
    """A file as another user sees it in /run/lock: made up after open(2) and fs.protected_regular of sysctl/fs.rst."""
    (tmp_path / FILE).write_text(f"bench run stale\nprocess 1\nsince 2020-01-01 00:00 UTC\n{locks._namespace()}")
    real = os.open

    def guarded(path: Any, flags: int, *rest: Any) -> int:
        if Path(path).name == FILE and (flags & os.O_CREAT or flags & os.O_ACCMODE != os.O_RDONLY):
            raise OSError(code, os.strerror(code), str(path))
        return real(path, flags, *rest)

    monkeypatch.setattr(os, "open", guarded)


@pytest.mark.parametrize("code", [errno.EACCES, errno.EPERM, errno.EROFS])
def test_a_file_that_may_only_be_read_still_locks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int) -> None:
    somebody_elses(tmp_path, monkeypatch, code)
    with held(0, "note", silent, folder=tmp_path):
        refused(tmp_path)
    assert "stale" in (tmp_path / FILE).read_text()


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everything")
def test_a_file_without_the_right_to_write_still_locks(tmp_path: Path) -> None:
    (tmp_path / FILE).touch(0o444)
    with held(0, "note", silent, folder=tmp_path):
        assert refused(tmp_path) != ""


def test_the_note_of_a_killed_holder_is_not_shown_for_one_that_could_not_write(tmp_path: Path) -> None:
    with holding(HOLDER, tmp_path, "stale"):
        pass
    with holding(STRANGER, tmp_path) as stranger:
        with (tmp_path / FILE).open() as file:
            if locks._locker(file.fileno()) is None:
                pytest.skip("this kernel does not tell who holds a lock")
        assert refused(tmp_path) == f"process {stranger.pid}"


@pytest.mark.parametrize(
    ("content", "shown"),
    [
        (b"", NOBODY),
        (b"bench run\nprocess 12", NOBODY),
        (b"\xff\xfe\x00\n\n\n\n\n\n", NOBODY),
        (b"[" * 100_000, NOBODY),
        (b"bench\x1b[2J run\nprocess 12\nsince 2026-01-01 14:02 UTC\npid:[1]", "bench [2J run, process 12, since 2"),
        (b"x" * 1000 + b"\nprocess 12\nsince now\npid:[1]", "x" * 59 + "…, process 12"),
    ],
)
def test_a_note_that_anybody_wrote_is_shown_plain_or_not_at_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: bytes, shown: str
) -> None:
    monkeypatch.setattr(locks, "_locker", lambda descriptor: None)
    with held(0, "note", silent, folder=tmp_path):
        (tmp_path / FILE).write_bytes(content)
        assert refused(tmp_path).startswith(shown)


def test_a_note_is_one_short_line_whatever_the_command_was(tmp_path: Path) -> None:
    with held(0, "bench run\n\udcff\x1b" + "é" * 500, silent, folder=tmp_path):
        assert refused(tmp_path).startswith("bench run   " + "é" * 47 + "…, process ")


def test_who_holds_it_is_found_in_the_kernels_list(tmp_path: Path) -> None:
    """Lines after proc_locks(5): a waiter, a lock for reading, another file and a POSIX lock do not count."""
    file = (tmp_path / FILE).open("w")
    found = os.fstat(file.fileno())
    name = f"{os.major(found.st_dev):02x}:{os.minor(found.st_dev):02x}:{found.st_ino}"
    listed = tmp_path / "locks"
    lines = [f"1: POSIX  ADVISORY  WRITE 1 {name} 0 EOF", f"2: FLOCK  ADVISORY  WRITE 2 {name}0 0 EOF"]
    lines += [f"3: FLOCK  ADVISORY  READ  3 {name} 0 EOF", f"4: -> FLOCK  ADVISORY  WRITE 4 {name} 0 EOF"]
    with file:
        assert locks._locker(file.fileno(), listed) is None
        listed.write_text("\n".join(lines))
        assert locks._locker(file.fileno(), listed) is None
        listed.write_text("\n".join([*lines, f"5: FLOCK  ADVISORY  WRITE 521 {name} 0 EOF"]))
        assert locks._locker(file.fileno(), listed) == 521


def unusable(folder: Path) -> str:
    with pytest.raises(PrerequisiteError) as error, held(0, "note", silent, folder=folder):
        pass
    assert "BENCH_LOCKS" in (error.value.remedy or "") and error.value.where == str(folder / FILE)
    return error.value.what


@pytest.mark.parametrize("target", ["there", "nowhere"])
def test_a_symbolic_link_is_refused_and_left_as_it_is(tmp_path: Path, target: str) -> None:
    (tmp_path / "there").write_text("precious")
    (tmp_path / FILE).symlink_to(tmp_path / target)
    assert "symbolic link" in unusable(tmp_path)
    assert (tmp_path / "there").read_text() == "precious" and not (tmp_path / "nowhere").exists()


def test_what_is_no_file_is_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / FILE)
    assert "not a regular file" in unusable(tmp_path)
    (tmp_path / "folder" / FILE).mkdir(parents=True)
    assert "Is a directory" in unusable(tmp_path / "folder")


def test_a_folder_that_is_missing_or_none_has_a_remedy(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    assert "No such file" in unusable(tmp_path / "missing")
    assert "Not a directory" in unusable(tmp_path / "file")


def test_a_folder_that_cannot_be_written_has_a_remedy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """open(2) of a new file there, made up: EACCES for a folder of others, ENOENT for the file itself."""

    def denied(path: Any, flags: int, *rest: Any) -> int:
        code = errno.EACCES if flags & os.O_CREAT else errno.ENOENT
        raise OSError(code, os.strerror(code), str(path))

    monkeypatch.setattr(os, "open", denied)
    assert "Permission denied" in unusable(tmp_path)


def test_a_file_system_without_locks_has_a_remedy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def without(descriptor: int, operation: int) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", without)
    assert "No locks available" in unusable(tmp_path)


@pytest.mark.parametrize(
    ("mode", "given", "found"),
    [
        (0o1777, None, "run/lock"),  # Debian
        (0o755, None, "tmp"),  # Fedora: root could write it, others could not
        (None, None, "tmp"),
        (0o1777, "", "run/lock"),
        (0o1777, "/shared/locks", "/shared/locks"),
    ],
)
def test_all_users_arrive_at_the_same_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mode: int | None, given: str | None, found: str
) -> None:
    monkeypatch.delenv(locks.FOLDER_VARIABLE, raising=False)
    monkeypatch.setenv("TMPDIR", str(tmp_path / "private"))
    if given is not None:
        monkeypatch.setenv(locks.FOLDER_VARIABLE, given)
    if mode is not None:
        (tmp_path / "run/lock").mkdir(parents=True)
        (tmp_path / "run/lock").chmod(mode)
    assert lock_folder(tmp_path) == tmp_path / found


OVERLAY = "1 0 0:50 / / rw,relatime - overlay overlay rw,lowerdir=/a:/b"
TMPFS = "0:25 / {} rw,nosuid shared:5 - tmpfs tmpfs rw,size=5120k"
MOUNTS = {
    "nothing of it": ([OVERLAY], True),
    "the folder": ([OVERLAY, f"2 1 {TMPFS.format('/bench/my locks')}".replace("my locks", "my\\040locks")], False),
    "a disk above it": ([OVERLAY, "2 1 8:1 /srv /bench rw,relatime - ext4 /dev/sda1 rw"], False),
    "a tmpfs above it": ([OVERLAY, f"2 1 {TMPFS.format('/bench')}"], True),
    "a disk above it, covered by a tmpfs": (
        [OVERLAY, "2 1 8:1 /srv /bench rw - ext4 /dev/sda1 rw", f"3 2 {TMPFS.format('/bench')}"],
        True,
    ),
    "a namesake": ([OVERLAY, "2 1 8:1 /srv /ben rw - ext4 /dev/sda1 rw"], True),
    "broken lines": ([OVERLAY, "", "2 1 8:1 /bench", "2 1 8:1 / /bench rw -", " - ext4"], True),
}
"""What is mounted in a container, and whether it is warned; lines made up after proc_pid_mountinfo(5)."""


@pytest.mark.parametrize("mounted", MOUNTS)
def test_a_container_is_warned_unless_the_folder_is_mounted_into_it(tmp_path: Path, mounted: str) -> None:
    lines, warned = MOUNTS[mounted]
    (tmp_path / "proc/self").mkdir(parents=True)
    (tmp_path / "proc/self/mountinfo").write_text("\n".join(lines))
    assert shared_with_host(Path("/bench/my locks"), tmp_path) is None
    (tmp_path / ".dockerenv").touch()
    warning = shared_with_host(Path("/bench/my locks"), tmp_path)
    assert (warning is not None) == warned and (warning is None or "share /bench/my locks with it" in warning)


@pytest.mark.parametrize(
    ("mark", "content", "warned"),
    [
        (".dockerenv", "", True),
        ("run/.containerenv", "", True),
        ("proc/1/environ", "PATH=/bin\0container=lxc\0", True),
        ("proc/self/environ", "KUBERNETES_SERVICE_HOST=10.0.0.1\0", True),
        ("proc/self/environ", "container=mine\0", False),
        ("proc/1/environ", "PATH=/bin\0containers=none\0NOTE=container=x", False),
        ("proc/1/environ/unreadable", "", False),  # a folder in its place
        ("etc/hostname", "", False),
    ],
)
def test_a_container_is_known_by_its_marks(tmp_path: Path, mark: str, content: str, warned: bool) -> None:
    (tmp_path / mark).parent.mkdir(parents=True, exist_ok=True)  # no mountinfo: not known to be shared
    (tmp_path / mark).write_text(content)
    assert (shared_with_host(Path("/bench/locks"), tmp_path) is not None) == warned
