"""venv and pip, executed and listened to; what goes wrong is said with pip's own last words."""

from __future__ import annotations

import json
import os
import re
import selectors
import shlex
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from bench.environments.managed import Environment
from bench.errors import PrerequisiteError
from bench.types import Requirements

Watch = Callable[[str | None], None]
"""Called with each line that is said, and with None whenever nothing was said for a while."""

TICK_S = 0.5
LAST_WORDS = 3
DISK_FULL = re.compile(r"No space left on device|Disk quota exceeded")
NO_NETWORK = re.compile(
    r"NewConnectionError|ConnectionError|Connection refused|Network is unreachable|name resolution|timed out|"
    r"Name or service not known|Max retries exceeded|No matching distribution found",
    re.I,
)
INHERITED = ("PYTHONPATH", "PYTHONHOME", "PIP_TARGET", "PIP_PREFIX", "PIP_USER", "PIP_CONSTRAINT")
"""Of this process's environment, what would install elsewhere or otherwise."""


def make_venv(python: str, made: Environment, watch: Watch) -> None:
    """An environment with pip inside; one that is there already is gone on with."""
    watch(f"Making {made.path / 'venv'}")
    _execute([python, "-m", "venv", str(made.path / "venv")], made.log, {}, watch)


def install(
    made: Environment,
    packages: Sequence[str],
    constraints: Path,
    needed: Requirements,
    cache: Path | None,
    watch: Watch,
) -> None:
    """Install `packages` at the committed versions, from the configured index and the one that `needed` adds.

    `cache`: a folder of pip's own for what is compiled. pip's usual one hands out a wheel by its name and version,
    whatever flags it was compiled with.
    """
    given = {**needed.build, **({"PIP_CACHE_DIR": str(cache)} if cache else {})}
    command = [str(made.python), "-m", "pip", "install", *_options(constraints, needed.index_url)]
    _execute([*command, *packages], made.log, given, watch)


def collect(folder: Path, packages: Sequence[str], constraints: Path, needed: Requirements, watch: Watch) -> None:
    """Wheels of `packages` and of everything that they require, compiled where there are none, into `folder`."""
    with tempfile.TemporaryDirectory(prefix="bench-pip-") as cache:
        given = {**needed.build, **({"PIP_CACHE_DIR": cache} if needed.build or needed.native else {})}
        command = [sys.executable, "-m", "pip", "wheel", "--wheel-dir", str(folder)]
        _execute([*command, *_options(constraints, needed.index_url), *packages], folder / "bundle.log", given, watch)


def installed(made: Environment) -> dict[str, str]:
    """Distribution -> version of everything in the environment."""
    command = [str(made.python), "-m", "pip", "list", "--format", "json", "--disable-pip-version-check"]
    done = subprocess.run(command, env=_environment({}), capture_output=True, text=True, check=True)
    return {each["name"]: each["version"] for each in json.loads(done.stdout)}


def _options(constraints: Path, index_url: str | None) -> list[str]:
    quiet = ["--no-input", "--disable-pip-version-check", "--progress-bar", "off"]
    return [*quiet, "--constraint", str(constraints), *(["--extra-index-url", index_url] if index_url else [])]


def _environment(given: Mapping[str, str]) -> dict[str, str]:
    return {**{name: value for name, value in os.environ.items() if name not in INHERITED}, **given}


def _execute(command: Sequence[str], log_file: Path, given: Mapping[str, str], watch: Watch) -> None:
    """Execute `command`; every line goes to the log and to `watch`. PrerequisiteError unless it ends with 0."""
    said: list[str] = []
    with log_file.open("ab") as log:
        log.write(f"$ {shlex.join([*(f'{name}={value}' for name, value in given.items()), *command])}\n".encode())
        process = subprocess.Popen(
            command,
            env=_environment(given),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # Ctrl-C ends what it compiles through `_end`, whole
        )
        try:
            assert process.stdout
            with selectors.DefaultSelector() as selector:
                selector.register(process.stdout, selectors.EVENT_READ)
                pending = b""
                while True:
                    if not selector.select(TICK_S):
                        watch(None)
                        continue
                    data = os.read(process.stdout.fileno(), 1 << 16)
                    if not data:
                        break
                    log.write(data)
                    log.flush()
                    *lines, pending = (pending + data).split(b"\n")
                    for line in lines:
                        said.append(line.decode(errors="replace").rstrip())
                        watch(said[-1])
            code = process.wait()
        finally:
            _end(process)
    if code:
        raise _failure(command, log_file, code, [line for line in said if line.strip()])


def _end(process: subprocess.Popen[bytes]) -> None:
    """End the process and everything that it started; nothing to do where it ended by itself."""
    if process.stdout:
        process.stdout.close()
    if process.poll() is None:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _failure(command: Sequence[str], log_file: Path, code: int, said: Sequence[str]) -> PrerequisiteError:
    text = "\n".join(said)
    errors = [line.strip() for line in said if re.match(r"\s*(ERROR|error):", line)]
    told = (errors or [line.strip() for line in said])[-LAST_WORDS:]
    again = f"the same command goes on then; all of it stands in {log_file}"
    if DISK_FULL.search(text):
        what, remedy = "disk full", f"free some space, or set BENCH_ENVIRONMENTS to a folder on a larger disk; {again}"
    elif NO_NETWORK.search(text):
        what = "pip found no package index that has it"
        remedy = f"look at the network, PIP_INDEX_URL and PIP_FIND_LINKS (docs/environments.md); {again}"
    else:
        what, remedy = f"{Path(command[2]).name} ended with exit code {code}", again
    cause = " | ".join(told)[:600] or None
    return PrerequisiteError(what, where=str(log_file.parent), cause=cause, remedy=remedy)
