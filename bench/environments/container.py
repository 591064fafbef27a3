"""A container that a command prefix starts, ended by its id: killing the engine's client does not end it."""

from __future__ import annotations

import subprocess
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from bench.environments.interpreter import CIDFILE

PATIENCE_S = 30.0


class Container:
    """What `prefix` may start. `cidfile` is where its engine writes the id; nothing is there without `{cidfile}`.

    The engine's words are those before `run`: `docker`, `sudo podman`, `docker --context lab container`.
    """

    def __init__(self, prefix: Sequence[str]):
        asked = any(CIDFILE in word for word in prefix)
        self._folder = tempfile.TemporaryDirectory(prefix="bench-container-") if asked else None
        self._engine = list(prefix[: list(prefix).index("run")]) if asked else []
        self._killed = False
        self.cidfile = Path(self._folder.name, "id") if self._folder else Path("no-container")

    def kill(self) -> None:
        """End the container if it was started; whatever the engine says, for it may be gone already."""
        with suppress(OSError, subprocess.TimeoutExpired):
            if not self._killed and self._folder and (told := self.cidfile.read_text().strip()):
                done = subprocess.run(
                    [*self._engine, "kill", told],
                    stdin=subprocess.DEVNULL,
                    capture_output=True,
                    timeout=PATIENCE_S,
                    start_new_session=True,  # a second Ctrl-C must not stop this
                    check=False,
                )
                self._killed = done.returncode == 0

    def forget(self) -> None:
        """Remove what was kept of it."""
        if self._folder:
            self._folder.cleanup()
