"""The child: one job from standard input, events as JSON lines, then the end.

Whatever a runtime prints goes to the log: standard output is moved to a private descriptor before anything is imported
that might write to it. Nothing but the standard library, numpy and the adapter's own runtime is loaded here.
"""

from __future__ import annotations

import ctypes
import importlib
import os
import signal
import sys
import threading
import traceback
from pathlib import Path

from bench.api import Backend
from bench.collector.host_memory import read_resident
from bench.errors import BenchError, CaseError
from bench.protocol import Events, Job, decode, describe

PR_SET_PDEATHSIG = 1  # prctl(2)


def main() -> int:
    """Execute one job; the exit code is 0 when it ended with an event, whatever that says."""
    _die_with_parent()
    descriptor = os.dup(1)
    os.set_inheritable(descriptor, False)
    os.dup2(2, 1)
    events = Events(descriptor)
    job = decode(Job, sys.stdin.buffer.readline())
    if job.behind_prefix:
        events.resident = read_resident
        threading.Thread(target=_end_with, args=(os.dup(0),), daemon=True).start()
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    try:
        execute(job, events)
    except BenchError as error:
        traceback.print_exc()
        events("error", **describe(error))
    except MemoryError as error:
        traceback.print_exc()
        events("error", **describe(CaseError("out of memory", cause=str(error) or None)))
    except Exception as error:
        traceback.print_exc()
        events("error", **describe(CaseError(f"{type(error).__name__}: {error}", cause="a bug in the adapter or here")))
    return 0


def execute(job: Job, events: Events) -> None:
    """Dispatch one task. Imports follow the task: a probe must not need what a measurement needs."""
    backend = load_adapter(job.adapter)
    if job.task == "probe":
        events("availability", availability=backend.probe())
        return
    from bench import tasks

    {"prepare": tasks.prepare, "certify": tasks.certify, "measure": tasks.measure, "export": tasks.export}[job.task](
        backend, job, events
    )


def load_adapter(target: str) -> Backend:
    """`module:Attribute` as an adapter."""
    module, _, attribute = target.partition(":")
    backend: Backend = getattr(importlib.import_module(module), attribute)()
    return backend


def _end_with(descriptor: int) -> None:
    """End this process when the other end of standard input is closed: the parent is done with it, or gone."""
    while os.read(descriptor, 1):
        pass
    os._exit(1)


def _die_with_parent() -> None:
    """A worker never outlives its parent (Linux); elsewhere the closed pipe ends it at its next event."""
    if sys.platform == "linux":
        parent = os.getppid()
        ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:
            os.kill(os.getpid(), signal.SIGKILL)


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
    sys.exit(main())
