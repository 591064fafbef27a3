"""A backend that does as it is told: for tests of the harness. Register it as `tests.scripted:Scripted`.

The option `script` is a list of `when:what` joined by `+`. `when` is a call (open, step, logits, rewind, close) with an
optional count (step@3 = the third call). `what` is one of: raise (a CaseError), invalid, bug (ValueError), oom
(MemoryError), kill (SIGKILL to itself), segv, ill, exit, hang, nan (logits), eat (memory until the kernel minds), print
(to standard output).

SCRIPTED_SLOWER_MS in the environment of its worker adds to every step: a runtime that became slower, by no option.
"""

from __future__ import annotations

import os
import signal
import time
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from backends.null import Null, NullSession
from bench.api import Artifact, Progress
from bench.errors import CaseError, InvalidMeasurement
from bench.facts import Placement, SessionFacts
from bench.types import Case, Float32, Int32, LoadGroup, Option, Prepared, Support


class Scripted(Null):
    name = "scripted"
    options: ClassVar = {
        "script": Option(kind=str, default="", help="what goes wrong, and when"),
        "kill_at_write": Option(kind=int, default=None, help="SIGKILL to itself before this write after open, from 1"),
        "kill_after": Option(kind=bool, default=False, help="... but after that write instead of before"),
        "step_ms": Option(kind=int, default=0, help="how long every step takes"),
        "cases": Option(kind=int, default=None, help="the script holds only in launches of this many cases"),
    }

    def support(self, case: Case) -> Support:
        if case.options["script"] == "unsupported":
            return Support(ok=False, reason="NEVER", detail="the script says so")
        return Support(ok=True)

    def prepare(self, case: Case, artifact: Artifact, into: Path, progress: Progress) -> Prepared:
        return Prepared(path=str(into), files=())

    def open(self, group: LoadGroup, prepared: Prepared) -> ScriptedSession:
        options = group.first.options
        holds = options["cases"] in (None, len(group.cases))
        if holds and options["kill_at_write"]:
            _kill_at_write(options["kill_at_write"], options["kill_after"])
        return ScriptedSession(group, options["script"] if holds else "", options["step_ms"])


class Placed(Scripted):
    """Says that it computes, and that the option `elsewhere` of its matrix products was executed on a spare device."""

    name = "placed"
    computes = True
    options: ClassVar = {
        **Scripted.options,
        "elsewhere": Option(
            kind=float, default=0.0, help="share of the matrix products that is not where it was asked"
        ),
    }

    def open(self, group: LoadGroup, prepared: Prepared) -> PlacedSession:
        options = group.first.options
        return PlacedSession(group, options["script"], options["step_ms"])


def _kill_at_write(at: int, after: bool) -> None:
    """From now on count this process's writes, and die at one of them."""
    write, count = os.write, 0

    def counted(descriptor: int, data: bytes) -> int:
        nonlocal count
        count += 1
        if count == at and not after:
            os.kill(os.getpid(), signal.SIGKILL)
        written = write(descriptor, data)
        if count == at:
            os.kill(os.getpid(), signal.SIGKILL)
        return written

    os.write = counted


class ScriptedSession(NullSession):
    def __init__(self, group: LoadGroup, script: str, step_ms: int):
        super().__init__(group)
        self._step_s = (step_ms + int(os.environ.get("SCRIPTED_SLOWER_MS", "0"))) / 1000
        self._script = dict(part.split(":") for part in script.split("+") if ":" in part)
        self._calls: dict[str, int] = {}
        self._nan = False
        self._act("open")

    def step(self, token_ids: Int32, want: Any = "last") -> Int32:
        self._act("step")
        time.sleep(self._step_s)
        return super().step(token_ids, want)

    def logits(self) -> Float32:
        self._act("logits")
        logits = super().logits()
        return np.full_like(logits, np.nan) if self._nan else logits

    def rewind(self, length: int) -> bool:
        self._act("rewind")
        return super().rewind(length)

    def close(self) -> None:
        self._act("close")

    def _act(self, call: str) -> None:
        count = self._calls[call] = self._calls.get(call, 0) + 1
        what = self._script.get(f"{call}@{count}") or (self._script.get(call) if count == 1 else None)
        match what:
            case None:
                return
            case "raise":
                raise CaseError("the script raised", cause="it was told to", remedy="do not tell it to")
            case "invalid":
                raise InvalidMeasurement("the script is invalid")
            case "bug":
                raise ValueError("the script has a bug")
            case "oom":
                raise MemoryError("no room for the script")
            case "kill":
                os.kill(os.getpid(), signal.SIGKILL)
            case "segv":
                os.kill(os.getpid(), signal.SIGSEGV)
            case "ill":
                os.kill(os.getpid(), signal.SIGILL)
            case "exit":
                os._exit(7)
            case "hang":
                time.sleep(3600)
            case "nan":
                self._nan = True
            case "eat":
                eaten = []
                while sum(each.nbytes for each in eaten) < 64 << 30:
                    eaten.append(np.ones(8 << 20))
            case "print":
                print("a runtime prints what it likes")
            case _:
                raise AssertionError(what)


class PlacedSession(ScriptedSession):
    def __init__(self, group: LoadGroup, script: str, step_ms: int):
        super().__init__(group, script, step_ms)
        self._elsewhere = group.first.options["elsewhere"]

    def facts(self) -> SessionFacts:
        places = [Placement(device="chip", matmul_share=1 - self._elsewhere, operations={"MatMul": 97})]
        if self._elsewhere:
            places.append(Placement(device="spare", matmul_share=self._elsewhere, operations={"Attention": 3}))
        return replace(super().facts(), asked_placement="chip", placement=tuple(places))
