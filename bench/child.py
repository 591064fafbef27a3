"""One worker process seen from the parent: start it, read its events, end it, explain its death."""

from __future__ import annotations

import json
import os
import selectors
import signal
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any

from bench.collector.contention import TIMED, Contention
from bench.collector.host_memory import HostMemory, Resident, oom_kills
from bench.environments.container import Container
from bench.environments.interpreter import Interpreter
from bench.errors import CaseError, PrerequisiteError
from bench.protocol import Job, encode
from bench.units import render_bytes

TICK_S, SELDOM_S = 0.05, 0.5
"""How often the parent looks at its worker, and how often while it is timed."""
GRACE_S = 5.0
LAST_WORDS = 5
"""Lines of the log that an error tells."""
QUIET = (TIMED, "energy", "idle")
"""Phases in which nothing else shall take the machine's time."""
SILENCE = {"event": "tick"}
"""What `events` yields when nothing was said for a while, so that the parent can show that time passes."""


class Child:
    """A started worker. Use as a context manager: leaving it ends the process, however one leaves.

    `interpreter` executes `bench.worker`; what the worker and its runtime print goes to `log`. The worker inherits the
    descriptors `keep`: a lock that outlives this process as long as the worker does.
    """

    def __init__(self, interpreter: Interpreter, job: Job, log: Path, limit_s: float, keep: Sequence[int] = ()):
        self.log, self.limit_s = log, limit_s
        self.memory, self.contention = HostMemory(), Contention()
        self.phase = "start"
        self._interpreter, self._job = interpreter, interpreter.adapt(job)
        self._container = Container(interpreter.prefix)
        self._oom_kills = oom_kills()
        command = interpreter.command(job.adapter, self._container.cidfile)
        variables = interpreter.variables(job.adapter)
        self._log = log.open("ab")
        try:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._log,
                env=variables,
                pass_fds=keep,
                start_new_session=True,  # Ctrl-C reaches the parent alone, which ends the worker in order
            )
        except OSError as error:
            self._log.close()
            self._container.forget()
            raise PrerequisiteError(
                f"cannot start the worker: {error.strerror}", where=command[0], remedy=interpreter.remedy
            ) from error
        if not interpreter.prefix:
            self.memory.watch(self._process.pid)
            self.contention.watch(self._process.pid)
        self._send()

    def __enter__(self) -> Child:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.end()

    def events(self) -> Iterator[dict[str, Any]]:
        """Events until the worker ends, `SILENCE` in between; CaseError when it dies, stalls or takes too long."""
        assert self._process.stdout
        deadline = time.monotonic() + self.limit_s
        buffer = b""
        with selectors.DefaultSelector() as selector:
            selector.register(self._process.stdout, selectors.EVENT_READ)
            while True:
                ready = selector.select(SELDOM_S if self.phase in QUIET else TICK_S)
                self.memory.sample()
                if time.monotonic() > deadline:
                    raise CaseError(
                        f"took longer than {self.limit_s:.0f} s", phase=self.phase, remedy="raise --timeout"
                    )
                if not ready:
                    yield SILENCE
                    continue
                data = os.read(self._process.stdout.fileno(), 1 << 16)
                if not data:
                    break
                *lines, buffer = (buffer + data).split(b"\n")
                for line in lines:
                    event = self._event(line)
                    if told := event.pop("resident", None):
                        self.memory.told(Resident(**told))
                    if event["event"] == "phase":
                        self.phase = event["name"]
                        self.memory.mark(event["name"], event.get("case"))
                        self.contention.mark(event["name"], event.get("case"))
                    yield event
        self._check_exit()

    def _event(self, line: bytes) -> dict[str, Any]:
        try:
            said = json.loads(line)
        except ValueError:
            said = None
        if not isinstance(said, dict) or "event" not in said:
            text = line[:60].decode(errors="replace")
            raise CaseError(
                f"the worker said {text!r}, which is no event", phase=self.phase, cause="it is no bench.worker"
            )
        return said

    def end(self) -> None:
        """End the worker: politely, then for good. A second call does nothing."""
        if self._process.poll() is None:
            self._container.kill()
            for send, patience_s in ((signal.SIGTERM, GRACE_S), (signal.SIGKILL, None)):
                try:
                    os.killpg(self._process.pid, send)
                    self._process.wait(patience_s)
                    break
                except subprocess.TimeoutExpired:
                    continue
                except ProcessLookupError:
                    self._process.wait()
                    break
        if self._process.returncode != 0:
            self._container.kill()  # its id may have been written only while the client was ended
        self._container.forget()
        self._hang_up()
        for stream in (self._process.stdout, self._log):
            if stream:
                stream.close()

    def _hang_up(self) -> None:
        """Close the worker's standard input."""
        if self._process.stdin:
            with suppress(BrokenPipeError):
                self._process.stdin.close()

    def _send(self) -> None:
        assert self._process.stdin
        try:
            self._process.stdin.write(encode(self._job))
            self._process.stdin.flush()
            if not self._job.behind_prefix:
                self._process.stdin.close()
        except BrokenPipeError:
            pass  # it died at once; `events` finds out why

    def _check_exit(self) -> None:
        """Raise CaseError unless the worker ended by itself with exit code 0."""
        self._hang_up()  # what stands before the worker may wait for this
        code = self._process.wait()
        if code == 0:
            return
        number = self._signal(code)
        if number is None:
            raise CaseError(f"the worker ended with exit code {code}", phase=self.phase, cause=self._last_words())
        died = f"the worker died of {number.name}"
        if number == signal.SIGKILL and oom_kills() > self._oom_kills:
            raise CaseError(
                f"the worker was killed by the kernel ({number.name}): out of memory",
                phase=self.phase,
                cause=f"it had reached {render_bytes(self.memory.last.total_bytes)}",
                remedy="take a smaller model, batch or context, or free memory",
            )
        if number in (signal.SIGKILL, signal.SIGTERM):
            raise CaseError(died, phase=self.phase, cause="killed from outside", remedy="see the launch's log")
        if number == signal.SIGILL:
            why = "; ".join(filter(None, ["compiled for another processor", self._last_words()]))
            raise CaseError(died, phase=self.phase, cause=why, remedy=self._rebuild())
        raise CaseError(died, phase=self.phase, cause=self._last_words(), remedy="see the launch's log")

    def _signal(self, code: int) -> signal.Signals | None:
        """The signal that an exit code tells of; engines and shells add 128 to that of what they started."""
        number = -code if code < 0 else code - 128 if self._interpreter.prefix else 0
        return signal.Signals(number) if number in set(signal.Signals) else None

    def _rebuild(self) -> str:
        """The command after which the runtime fits this processor."""
        name = self._job.group.first.backend if self._job.group else "NAME"
        if self._interpreter.origin == "managed environment":
            return f"`bench setup --remove {name}`, then `bench setup {name}`"
        return f"build the runtime of {self._interpreter.label} for this processor, or take one of `bench setup {name}`"

    def _last_words(self) -> str | None:
        """The last lines of the log that say something."""
        with self.log.open("rb") as file:
            file.seek(max(0, self.log.stat().st_size - 4096))
            lines = [line.strip() for line in file.read().decode(errors="replace").splitlines() if line.strip()]
        return f"last log lines: {' | '.join(line[:200] for line in lines[-LAST_WORDS:])}" if lines else None
