"""What a backend finds in an interpreter, asked in a process of its own: no runtime is loaded in this one."""

from __future__ import annotations

import tempfile
from pathlib import Path

from bench import protocol
from bench.child import Child
from bench.environments.interpreter import Interpreter
from bench.errors import CaseError, PrerequisiteError
from bench.protocol import Job
from bench.types import Availability

LIMIT_S = 120.0


def probe(target: str, interpreter: Interpreter | None = None) -> Availability:
    """The answer of the adapter `target` (`module:Attribute`); PrerequisiteError where no worker can be executed."""
    interpreter = interpreter or Interpreter()
    with tempfile.TemporaryDirectory(prefix="bench-probe-") as folder:
        log = Path(folder, "worker.log")
        with Child(interpreter, Job(task="probe", adapter=target), log, limit_s=LIMIT_S) as child:
            answer, why = None, "it said nothing"
            try:
                for event in child.events():  # to the end: it ends by itself, and so does its container
                    if event["event"] in ("availability", "error"):
                        answer = event
            except CaseError as error:
                why = f"{error.what}: {error.cause}" if error.cause else error.what
    if answer is None:
        raise PrerequisiteError(
            f"the interpreter cannot execute a worker: {why}", where=interpreter.label, remedy=interpreter.remedy
        )
    if answer["event"] == "error":
        raise protocol.rebuild(answer)
    found: Availability = protocol.revive(Availability, answer["availability"])
    return found
