"""The steps of gpu_check: executed one by one, each with its log and one line; and what the machine's tools say."""

from __future__ import annotations

import json
import os
import platform
import re
import shlex
import shutil
import signal
import subprocess
import time
from collections import Counter
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from bench.units import render_duration

FAILED = 4
TOOLS = ("lscpu", "nvidia-smi", "rocm-smi", "xpu-smi discovery", "npu-smi info", "mthreads-gmi", "cnmon", "mx-smi")
TOOLS += ("hy-smi", "ixsmi")
TOOL_LIMIT_S = 120
GRACE_S = 30
COLUMNS = 80
VERSIONS = """
import platform, torch
told = {name: value for name, value in vars(torch.version).items() if isinstance(value, (str, bool, type(None)))}
told = {name: value for name, value in told.items() if name[0] != "_"}
print(f"python {platform.python_version()}, torch {torch.__version__}, torch.version {told}")
"""
SECRETS = (
    (r"(?i)\b[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}\b", "x"),
    (r"(?im)((?:serial|uuid|\bs/?n\b)[\w ]*[:=|]\s*).*$", r"\1x"),
    (r"/home/[^\s/|]+|/root\b", "~"),
)
"""What a vendor's tool may tell that is nobody's business, and what stands in its place."""


class Step(NamedTuple):
    name: str
    command: list[str]


class Check:
    """The steps so far: their logs, and what failed."""

    def __init__(self, out: Path, limit_s: float):
        self.out, self._limit_s = out, limit_s
        self._done, self._failed = 0, []
        self._logs = out / "logs"
        self._logs.mkdir(parents=True, exist_ok=True)

    def say(self, text: str, end: str = "\n") -> None:
        print(text, end=end, flush=True)
        with (self.out / "summary.txt").open("a", encoding="utf-8") as file:
            file.write(text + end)

    def execute(self, step: Step, total: int) -> None:
        """One step, one line."""
        self._done += 1
        self.say(f"{self._done:2}/{total} {step.name:25}", end="")
        began_s, before = time.monotonic(), self._records()
        code, log = self.call(step, dict(os.environ))
        note, new = "", self._records() - before
        if new or code is not None:  # the last line of what was ended says nothing
            note = told(log, new)
        if code != 0:
            why = f"longer than {render_duration(self._limit_s)}" if code is None else f"exit {code}"
            note = f"FAILED: {why}" + (f": {note}" if note else "")
            self._failed.append(f"{step.name}: {note[8:200]}; log: {log.relative_to(self.out)}")
        self.say(f"{render_duration(time.monotonic() - began_s):>7} {note}"[: COLUMNS - 31])

    def call(self, step: Step, variables: dict[str, str]) -> tuple[int | None, Path]:
        """Its exit code, None where it took too long, and its log."""
        log = self._logs / f"{self._done:02}-{re.sub(r'[^a-z0-9_.=-]+', '-', step.name.lower())}.log"
        with log.open("wb") as file:
            file.write(f"{shlex.join(step.command)}\n".encode())
            file.flush()
            process = subprocess.Popen(
                step.command,
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=subprocess.STDOUT,
                env=variables,
                cwd=self.out,
                start_new_session=True,  # Ctrl-C reaches this process alone, which ends the step in order
            )
        try:
            return process.wait(self._limit_s), log
        except subprocess.TimeoutExpired:
            return None, log
        finally:
            end(process)

    def _records(self) -> set[Path]:
        return set((self.out / "results/launches").glob("*/*/*/record-*.json"))

    def summary(self, absent: list[str]) -> int:
        """The table, what failed and where the records are; the exit code."""
        bench, results = str(self.out / "environment/bin/bench"), self.out / "results"
        self.say("\n" + output([bench, "table", "--results", str(results)]))
        self._failed += [f"{name}: asked for, but not here" for name in absent]
        self.say("\n".join(f"failed: {each}" for each in self._failed) or "all passed")
        self.say(f"records: {results}\nto publish one: bench show RECORD --redacted --json, as results/README.md says")
        return FAILED if self._failed else 0


def end(process: subprocess.Popen[bytes]) -> None:
    """The step and what it started: politely, then for good."""
    try:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGTERM)
            process.wait(GRACE_S)
    except subprocess.TimeoutExpired:
        pass
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def told(log: Path, records: set[Path]) -> str:
    """What a step came to, in few words."""
    if records:
        counts = Counter(json.loads(path.read_text(encoding="utf-8"))["status"] for path in records)
        return ", ".join(f"{count} {status}" for status, count in counts.most_common())
    ratios = re.findall(r"^ *\d+ (zero|uniform) +\S+ (\S+) \(", log.read_text(errors="replace"), re.M)
    if ratios:
        both = ("zero", "uniform")
        return "; ".join(" ".join([name, *(ratio for codes, ratio in ratios if codes == name)]) for name in both)
    return last_line(log)


def last_line(log: Path, word: str = "") -> str:
    """The last that says something; with `word` in it, if there is one."""
    lines = [line.strip() for line in log.read_text(errors="replace").splitlines() if line.strip()]
    return ([line for line in lines if word in line] or lines or [""])[-1]


def machine(python: str) -> str:
    """What the system's and the vendors' tools say, without what tells whose machine it is."""
    texts = [output([python, "-c", VERSIONS])]
    texts += [f"{tool}:\n{output(tool.split())}" for tool in TOOLS if shutil.which(tool.split()[0])]
    text = "\n".join(texts)
    for secret, instead in (*SECRETS, (rf"(?<!\w){re.escape(platform.node() or 'x')}(?!\w)", "x")):
        text = re.sub(secret, instead, text)
    return text


def output(command: list[str]) -> str:
    try:
        variables = {**os.environ, "LC_ALL": "C"}
        done = subprocess.run(
            command, env=variables, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=TOOL_LIMIT_S
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return f"{error}\n"
    return done.stdout + done.stderr
