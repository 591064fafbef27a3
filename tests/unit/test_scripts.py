"""scripts/bench makes an environment once, installs what is asked, and passes its arguments on.

A copy of the scripts is executed with an interpreter that only notes what it is told.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

PYTHON = """#!/bin/sh
case "$*" in
    *version_info*) exit "${TOO_OLD:-0}" ;;
    -V) echo Python 3.9.1 ;;
    *ensurepip*) exit "${NO_VENV:-0}" ;;
    "-m venv "*)
        mkdir -p "$3/bin"
        cp "$0" "$3/bin/python" ;;
    *pip*install*)
        echo "noise of pip"
        echo "$*" >>"$NOTES"
        sleep "${SLOWLY:-0}"
        [ "${PIP_FAILS:-0}" = 0 ] || { echo "No matching distribution" >&2; exit 1; }
        printf '#!/bin/sh\\nprintf "[%%s]" "$@"; exit 5\\n' >"$(dirname "$0")/bench"
        chmod +x "$(dirname "$0")/bench" ;;
    *) exit 99 ;;
esac
"""


class Clone:
    """A bare clone in a folder with a space, and a fake interpreter."""

    def __init__(self, folder: Path):
        self.root, self.notes = folder / "a clone", folder / "notes"
        shutil.copytree(ROOT / "scripts", self.root / "scripts")
        for name in ("pyproject.toml", "constraints.txt"):
            shutil.copy(ROOT / name, self.root / name)
        self.python = folder / "fake python"
        self.python.write_text(PYTHON)
        self.python.chmod(0o755)
        self.script, self.cwd = self.root / "scripts" / "bench", folder

    def start(self, *arguments: str, **env: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [str(self.script), *arguments],
            cwd=self.cwd,
            env={**os.environ, "PYTHON": str(self.python), "NOTES": str(self.notes), **env},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def bench(self, *arguments: str, **env: str) -> tuple[int, str, str]:
        process = self.start(*arguments, **env)
        out, err = process.communicate(timeout=60)
        return process.returncode, out, err

    def installed(self) -> list[str]:
        """What pip was asked to install, each time."""
        return [line.rpartition(" ")[2] for line in self.notes.read_text().splitlines()] if self.notes.exists() else []


@pytest.fixture
def clone(tmp_path: Path) -> Clone:
    return Clone(tmp_path)


def test_arguments_and_exit_code_pass_through(clone: Clone) -> None:
    code, out, err = clone.bench("run", "--set", "a=b c", "*", "")
    assert (code, out) == (5, "[run][--set][a=b c][*][]")
    assert "noise" not in err and len(err.splitlines()) == 1
    assert "--constraint constraints.txt --editable ." in clone.notes.read_text()


def test_the_second_call_installs_nothing_and_says_nothing(clone: Clone) -> None:
    clone.bench("list")
    assert clone.bench("list", PYTHON="/nowhere") == (5, "[list]", "")
    assert clone.installed() == ["."]


@pytest.mark.parametrize(
    "arguments",
    [
        ("run", "--backend", "onnx"),
        ("run", "--backend=null,onnx"),
        ("backend-check", "onnx"),
    ],
)
def test_the_asked_backend_is_installed(clone: Clone, arguments: tuple[str, ...]) -> None:
    clone.bench(*arguments)
    clone.bench(*arguments)
    assert clone.installed() == [".[onnx]"]


@pytest.mark.parametrize(
    ("arguments", "extras"),
    [
        (("compare", "A", "B"), "analysis"),
        (("nightly", "PLAN.toml"), "analysis"),
        (("ab", "--a", "null", "--b", "onnx threads=2"), "analysis,onnx"),
        (("ab", "--a", "onnx", "--b", "onnx", "--python", "/opt/python"), "analysis"),
    ],
)
def test_what_compares_needs_the_analysis(clone: Clone, arguments: tuple[str, ...], extras: str) -> None:
    clone.bench(*arguments)
    assert clone.installed() == [f".[{extras}]"]


def test_for_another_interpreter_no_runtime_is_installed_here(clone: Clone) -> None:
    assert clone.bench("run", "--backend", "onnx", "--python", "/opt/python")[0] == 5
    assert clone.installed() == ["."]


@pytest.mark.parametrize("arguments", [("run", "--backend", "absent"), ("--backend", "dev"), ("--model", "onnx")])
def test_what_is_no_backend_is_left_to_bench(clone: Clone, arguments: tuple[str, ...]) -> None:
    assert clone.bench(*arguments)[0] == 5
    assert clone.installed() == ["."]


def test_another_backend_later_and_a_changed_pin_install_again(clone: Clone) -> None:
    clone.bench("list")
    clone.bench("run", "--backend", "onnx")
    with (clone.root / "constraints.txt").open("a") as file:
        file.write("# changed\n")
    clone.bench("run", "--backend", "onnx")
    assert clone.installed() == [".", ".[onnx]", ".[onnx]"]


def test_through_a_symlink_from_anywhere(clone: Clone, tmp_path: Path) -> None:
    link = tmp_path / "elsewhere" / "bench it"
    link.parent.mkdir()
    link.symlink_to(clone.script)
    clone.script, clone.cwd = link, link.parent
    assert clone.bench("list")[:2] == (5, "[list]")
    assert (clone.root / ".venv" / "bin" / "bench").exists()


def test_a_failing_pip_shows_its_log_and_is_tried_again(clone: Clone) -> None:
    code, out, err = clone.bench("list", PIP_FAILS="1")
    assert (code, out) == (3, "")
    assert "noise of pip\nNo matching distribution\npip failed" in err
    assert clone.bench("list")[0] == 5


@pytest.mark.parametrize(
    ("env", "said"),
    [
        ({"TOO_OLD": "1"}, "is Python 3.9.1: too old; set PYTHON"),
        ({"NO_VENV": "1"}, "apt install python3-venv"),
        ({"PYTHON": "/nowhere/python"}, "/nowhere/python: not found"),
    ],
)
def test_an_unfit_interpreter_is_one_clear_line(clone: Clone, env: dict[str, str], said: str) -> None:
    code, _, err = clone.bench("list", **env)
    assert code == 3
    assert said in err and len(err.splitlines()) == 1


@pytest.mark.skipif(not shutil.which("flock"), reason="first calls at once are only kept apart by flock")
def test_first_calls_at_once_install_once(clone: Clone) -> None:
    processes = [clone.start("list", SLOWLY="0.3") for _ in range(3)]
    assert [(process.communicate(timeout=60)[0], process.returncode) for process in processes] == [("[list]", 5)] * 3
    assert clone.installed() == ["."]


def test_every_direct_requirement_is_pinned() -> None:
    from bench.toml_file import tomllib

    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    asked = [*project["dependencies"], *(name for extra in project["optional-dependencies"].values() for name in extra)]
    pinned = {line.partition("==")[0] for line in (ROOT / "constraints.txt").read_text().splitlines()}
    names = {requirement.split(";")[0].split(">")[0].split("=")[0].strip() for requirement in asked}
    assert names <= pinned
