"""The right to measure on this machine: one holder at a time, whichever user, folder or results store it works for.

One lock for the whole machine and not one for each device: two measurements on one host share its memory bandwidth,
its PCIe links and its power budget, so that each would be part of the other's numbers. It is flock(2) on a file that is
never removed. The kernel frees it when the last process that has the descriptor ends, however that dies.
"""

from __future__ import annotations

import errno
import fcntl
import os
import re
import stat
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import datetime, timezone
from pathlib import Path

from bench.errors import BusyError, PrerequisiteError

FILE = "evenbench.lock"
FOLDER_VARIABLE = "BENCH_LOCKS"
POLL_S = 0.2
NOTE_CHARACTERS = 60
NOBODY = "a process that left no name"
_OPEN = os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK  # a fifo in its place must not block
_NOT_WRITABLE = (errno.EACCES, errno.EPERM, errno.EROFS)


def lock_folder(root: Path = Path("/")) -> Path:
    """The folder that all users of this machine share for it: $BENCH_LOCKS, else /run/lock, else /tmp.

    /run/lock counts where everybody may write it (Debian and its kin), whoever asks: if root locked there and the
    others in /tmp, they would not see each other. For the same reason $TMPDIR does not count: it may differ per user.
    """
    if given := os.environ.get(FOLDER_VARIABLE):
        return Path(given)
    folder = root / "run/lock"
    try:
        for_all = bool(folder.stat().st_mode & stat.S_IWOTH)
    except OSError:
        for_all = False
    return folder if for_all and os.access(folder, os.W_OK) else root / "tmp"


@contextmanager
def held(
    wait_s: float,
    note: str,
    waiting: Callable[[str], None],
    *,
    folder: Path | None = None,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> Iterator[int]:
    """Hold the right to measure on this machine; yields the descriptor that holds it.

    `note` says to others who holds it: the command line. Waits up to `wait_s` for another holder, after one call of
    `waiting` with who that is; BusyError when the time is over, PrerequisiteError where the file cannot be locked.
    Who waits is in no queue: whoever looks first once it is free has it.

    A process started with `pass_fds=(descriptor,)` holds it too: then it is free when both have ended. Other processes
    started meanwhile do not, unless they are forked without an exec.
    """
    path = (lock_folder() if folder is None else folder) / FILE
    ends = clock() + wait_s
    told = False
    while isinstance(taken := _take(path), str):
        left_s = ends - clock()
        if left_s <= 0:
            raise BusyError(
                "the machine is being measured",
                where=str(path),
                cause=taken,
                remedy="wait for it, or give a longer --max-wait",
            )
        if not told:
            waiting(taken)
            told = True
        sleep(min(POLL_S, left_s))
    try:
        _leave_note(taken, note)
        yield taken
    finally:
        os.close(taken)  # not LOCK_UN, which would take it from a worker that shares the descriptor


def _take(path: Path) -> int | str:
    """A descriptor that holds the lock; or who holds it."""
    while True:
        try:
            descriptor = _opened(path)
        except OSError as error:
            raise _unusable(path, error) from error
        ours = False
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            ours = _is_at(descriptor, path)
        except BlockingIOError:
            return _holder(descriptor)
        except OSError as error:
            raise _unusable(path, error) from error
        finally:
            if not ours:
                os.close(descriptor)
        if ours:
            return descriptor


def _is_at(descriptor: int, path: Path) -> bool:
    """Whether the file still has its name: a lock on one that was removed meanwhile protects nothing."""
    try:
        return os.path.samestat(os.fstat(descriptor), os.lstat(path))
    except FileNotFoundError:
        return False


def _opened(path: Path) -> int:
    """A descriptor of the file, made for all users if it is missing; only readable where it cannot be written.

    First without O_CREAT: with it the kernel refuses somebody else's file in a sticky folder, even one that everybody
    may write (fs.protected_regular; Documentation/admin-guide/sysctl/fs.rst). flock(2) asks for no right to write.
    """
    while True:
        try:
            try:
                descriptor = os.open(path, os.O_RDWR | _OPEN)
            except OSError as error:
                if error.errno not in _NOT_WRITABLE:
                    raise
                descriptor = os.open(path, os.O_RDONLY | _OPEN)
        except FileNotFoundError:
            with suppress(FileExistsError):  # another process was faster
                descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | _OPEN, 0o666)
                with suppress(OSError):  # a file system without modes
                    os.fchmod(descriptor, 0o666)  # whatever the umask
                return descriptor
            continue
        if stat.S_ISREG(os.fstat(descriptor).st_mode):
            return descriptor
        os.close(descriptor)
        raise OSError(errno.EINVAL, "not a regular file")


def _unusable(path: Path, error: OSError) -> PrerequisiteError:
    link = error.errno == errno.ELOOP
    return PrerequisiteError(
        "is a symbolic link, which is not followed" if link else f"cannot be locked: {error.strerror}",
        where=str(path),
        remedy=f"remove the file if it is in the way, or set {FOLDER_VARIABLE} to an existing folder "
        "that every user of this machine may write; the same for all of them",
    )


def _leave_note(descriptor: int, note: str) -> None:
    """Say in the file who holds the lock, where it can be written: command, process, since when, PID namespace."""
    since = datetime.now(timezone.utc).strftime("%Y-%m-%d %H:%M UTC")
    lines = (_plain(note), f"process {os.getpid()}", f"since {since}", _namespace())
    with suppress(OSError):  # somebody else's file, or a full disk: the lock holds without it
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, "\n".join(lines).encode(), 0)


def _holder(descriptor: int) -> str:
    """Who holds the lock that this descriptor did not get.

    A holder that could not write leaves the note of an earlier, killed one as it was. The kernel knows better: the note
    does not count where it names another process than /proc/locks does, in the same PID namespace.
    """
    try:
        text = os.pread(descriptor, 4096, 0).decode("utf-8", "replace")
    except OSError:
        text = ""
    *told, namespace = text.split("\n")
    locker = _locker(descriptor)
    theirs = locker is not None and namespace == _namespace() and f"process {locker}" not in told[1:2]
    if len(told) == 3 and not theirs:
        return ", ".join(_plain(line) for line in told if line)
    return NOBODY if locker is None else f"process {locker}"


def _locker(descriptor: int, locks: Path = Path("/proc/locks")) -> int | None:
    """The process that took the flock of this file, as proc_locks(5) tells; None where it does not.

    A process outside of this PID namespace is not told, nor a file whose device number differs from stat(2)'s (btrfs).
    """
    file = os.fstat(descriptor)
    name = f"{os.major(file.st_dev):02x}:{os.minor(file.st_dev):02x}:{file.st_ino}"
    try:
        found = re.search(rf"^\d+: FLOCK +ADVISORY +WRITE +(\d+) {name} ", locks.read_text(), re.MULTILINE)
    except OSError:
        return None
    return int(found[1]) if found else None


def _namespace() -> str:
    """This process's PID namespace; empty where the system has none."""
    try:
        return str(Path("/proc/self/ns/pid").readlink())
    except OSError:
        return ""


def _plain(text: str) -> str:
    """One short line without control characters: every user may write the file, and terminals obey what they show."""
    plain = "".join(character if character.isprintable() else " " for character in text)
    return plain if len(plain) <= NOTE_CHARACTERS else plain[: NOTE_CHARACTERS - 1] + "…"


def shared_with_host(folder: Path | None = None, root: Path = Path("/")) -> str | None:
    """A warning where this process is in a container and its lock folder is the container's own; None otherwise.

    The folder counts as shared where it is a mount of its own, or lies in one that is neither `/` nor a tmpfs. A volume
    or tmpfs that nobody else has, mounted right there, looks the same as the host's and is not warned of.
    """
    folder = Path(os.path.realpath(lock_folder() if folder is None else folder))
    if not _in_container(root) or _from_outside(folder, root):
        return None
    return (
        f"this container does not see the lock of others: share {folder} with it "
        f"(`docker run -v {folder}:{folder} …`), or a folder that {FOLDER_VARIABLE} names on both sides"
    )


def _in_container(root: Path) -> bool:
    """Whether an engine left its mark: Docker's and Podman's files, systemd's variable, Kubernetes' variable."""
    if any((root / mark).exists() for mark in (".dockerenv", "run/.containerenv")):
        return True
    first, own = _variables(root / "proc/1/environ"), _variables(root / "proc/self/environ")
    return "container" in first or "KUBERNETES_SERVICE_HOST" in first | own


def _variables(environ: Path) -> set[str]:
    try:
        return {entry.partition("=")[0] for entry in environ.read_text(errors="replace").split("\0")}
    except OSError:  # pid 1 is root's
        return set()


def _from_outside(folder: Path, root: Path) -> bool:
    """Whether the mount that holds `folder` is another than the container's own; False where that is not known.

    proc_pid_mountinfo(5): of two mounts at one place the later one is seen; blanks are written as octal numbers.
    """
    place, kind = Path("/"), ""
    try:
        lines = (root / "proc/self/mountinfo").read_text(errors="replace").splitlines()
    except OSError:
        return False
    for line in lines:
        before, _, after = line.partition(" - ")
        fields = before.split()
        if len(fields) < 5 or not after.split():
            continue
        mounted = Path(re.sub(r"\\([0-7]{3})", lambda code: chr(int(code[1], 8)), fields[4]))
        if folder.is_relative_to(mounted) and len(mounted.parts) >= len(place.parts):
            place, kind = mounted, after.split()[0]
    return place != Path("/") and (place == folder or kind != "tmpfs")
