"""Executing something in a fork that is killed before, inside or after one of the calls that change the disk."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest


class Killer:
    """Counts the calls that change the disk and kills its process at the `at`-th, in one of three ways."""

    CALLS = ((os, "write"), (os, "fsync"), (os, "ftruncate"), (Path, "mkdir"), (Path, "rename"), (Path, "unlink"))

    def __init__(self, at: int, how: str):
        self.at, self.how = at, how
        self.names: list[str] = []

    def install(self, patch: pytest.MonkeyPatch) -> None:
        for owner, name in self.CALLS:
            patch.setattr(owner, name, self._watched(getattr(owner, name), name))

    def _watched(self, call: Any, name: str) -> Any:
        def watched(*args: Any, **kwargs: Any) -> Any:
            now = len(self.names) == self.at
            self.names.append(name)
            if now and self.how == "half" and name == "write":
                call(args[0], args[1][: len(args[1]) // 2])
            if now and self.how in ("before", "half"):
                os.kill(os.getpid(), signal.SIGKILL)
            result = call(*args, **kwargs)
            if now:
                os.kill(os.getpid(), signal.SIGKILL)
            return result

        return watched


def calls_of(act: Callable[[], object]) -> list[str]:
    """The calls of `act`, undisturbed, in order."""
    killer = Killer(-1, "before")
    with pytest.MonkeyPatch.context() as patch:
        killer.install(patch)
        act()
    return killer.names


def kill_points(calls: list[str]) -> Iterator[tuple[int, str]]:
    """Every place and way in which a process that does `calls` is to be killed."""
    for at, name in enumerate(calls):
        yield from ((at, how) for how in ("before", "half", "after") if how != "half" or name == "write")


def killed_at(act: Callable[[Callable[[str], None]], object], at: int, how: str) -> tuple[list[str], bool]:
    """Execute `act`, which is given a function to report with, in a fork that is killed at call `at`.

    What it reported, and whether it was killed.
    """
    receive, send = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            os.close(receive)
            write = os.write
            with pytest.MonkeyPatch.context() as patch:
                Killer(at, how).install(patch)
                act(lambda line: write(send, f"{line}\n".encode()) and None)
        finally:
            os._exit(0)
    os.close(send)
    with os.fdopen(receive) as pipe:
        reported = pipe.read().splitlines()
    _, status = os.waitpid(pid, 0)
    return reported, os.WIFSIGNALED(status)
