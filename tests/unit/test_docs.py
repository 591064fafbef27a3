"""What the documents name exists, and what exists is named: files, backends, errors, commands, options, definitions.

The minimal adapter of docs/adding-a-backend.md is executed as it stands there.
"""

from __future__ import annotations

import importlib
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import click
import pytest

from bench import errors, registry
from bench.artifacts.noise import CLASSES, KV8
from bench.cli import cli
from bench.reports.metrics import METRICS, PERCENTILE_FLOORS
from bench.results.store import Store

ROOT = Path(__file__).parents[2]
ARCHITECTURE = (ROOT / "ARCHITECTURE.md").read_text(encoding="utf-8")
METHOD = (ROOT / "docs" / "method.md").read_text(encoding="utf-8")
BACKENDS = (ROOT / "docs" / "adding-a-backend.md").read_text(encoding="utf-8")
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), ROOT / "results" / "README.md"])
EXAMPLE = re.findall(r"^```python\n(.*?)^```", BACKENDS, re.M | re.S)[0]
REPOSITORY_PATH = re.compile(r"(?:bench|backends|tests|scripts|docs|\.ci)/[\w./-]*|constraints\.txt|pyproject\.toml")


def section(page: str, title: str) -> str:
    return page.split(f"\n## {title}\n")[1].split("\n## ")[0]


def rows(text: str) -> list[list[str]]:
    """Cells of the table rows whose first cell begins with code, without their backticks."""
    return [[cell.strip() for cell in line.strip("|").split(" | ")] for line in re.findall(r"^\| `.*\|$", text, re.M)]


def code(text: str) -> list[str]:
    """Code spans outside of fenced blocks."""
    return re.findall(r"`([^`\n]+)`", re.sub(r"^```.*?^```", "", text, flags=re.M | re.S))


def house() -> Iterator[str]:
    """Every file that the house lists, from the root."""
    folder = ""
    for line in section(ARCHITECTURE, "The house").splitlines():
        if heading := re.match(r"### `(.+/)`", line):
            folder = heading[1]
        elif item := re.match(r"- `([^`]+)`: \S", line):
            yield folder + item[1]


def commands(group: click.Group = cli, prefix: str = "bench") -> Iterator[tuple[str, click.Command]]:
    context = click.Context(group)
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        assert command is not None
        if isinstance(command, click.Group):
            yield from commands(command, f"{prefix} {name}")
        else:
            yield f"{prefix} {name}", command


def long_options(command: click.Command) -> set[str]:
    named = {name for p in command.params if isinstance(p, click.Option) for name in p.opts if name.startswith("--")}
    return named - {"--help"}


def has_code(path: Path) -> bool:
    """False for the `__init__.py` of a package that holds its docstring at most."""
    text = path.read_text(encoding="utf-8").strip()
    return path.name != "__init__.py" or bool(re.sub(r'\A""".*?"""', "", text, flags=re.S).strip())


def test_the_house_lists_every_file_and_no_other() -> None:
    listed = list(house())
    kept = {path for folder in ("bench", "backends") for path in (ROOT / folder).rglob("*") if path.is_file()}
    kept = {path for path in kept if "__pycache__" not in path.parts and path.suffix in (".py", ".toml", ".json")}
    files = {path.relative_to(ROOT).as_posix() for path in kept if path.suffix != ".py" or has_code(path)}
    assert len(listed) == len(set(listed))
    assert set(listed) == files


def test_scripts_and_folders_of_tests_are_named() -> None:
    folders = {f"tests/{path.name}/" for path in (ROOT / "tests").iterdir() if (path / "__init__.py").exists()}
    scripts = {f"scripts/{path.name}" for path in (ROOT / "scripts").iterdir() if path.is_file()}
    assert folders | scripts <= set(code(ARCHITECTURE))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_files_named_in_the_pages_exist(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    spans = [span for span in code(text) if REPOSITORY_PATH.fullmatch(span)]
    missing = [span for span in spans if not (ROOT / span).exists()]
    links = [link for link in re.findall(r"\]\(([^)#:]+)[^):]*\)", text) if "://" not in link]
    assert not missing + [link for link in links if not (page.parent / link).exists()]


def test_every_backend_has_its_page_and_its_place() -> None:
    assert set(re.findall(r"backend `(\w+)`", section(ARCHITECTURE, "The house"))) == set(registry.names())
    titles = [path.read_text().splitlines()[0] for path in (ROOT / "docs" / "backends").glob("*.md")]
    with_page = sorted(name for title in titles for name in title.removeprefix("# ").split(", "))
    assert with_page == [name for name in registry.names() if registry.load(name).computes]


def test_every_error_is_named_with_its_exit_code() -> None:
    kinds = {kind.__name__: kind.exit_code for kind in errors.BenchError.__subclasses__()}
    codes = {name: value for name, value in vars(errors).items() if name.startswith("EXIT_")}
    table = [row for row in rows(section(ARCHITECTURE, "Rules")) if len(row) == 3]
    assert {code(name)[0]: int(number) for name, number, _ in table} == {**kinds, **codes}


def test_every_command_is_named_with_its_options() -> None:
    told = {code(row[0])[0]: set(code(" ".join(row[1:]))) for row in rows(section(ARCHITECTURE, "Commands"))}
    assert told == {name: long_options(command) for name, command in commands()}


def invocations(page: Path) -> list[str]:
    """Every `bench …` of a page: in code spans, in code blocks, at the start of a line or of a loop's body."""
    text = page.read_text(encoding="utf-8")
    blocks = [line.strip().split("#")[0] for line in re.findall(r"^(?: {4}|(?=[\w./]*bench )).*$", text, re.M)]
    return [
        found[0].removeprefix("scripts/").removesuffix("-->")
        for line in [*code(text), *blocks]
        if (found := re.search(r"(?<![\w/.-])(?:scripts/)?bench [a-z-]+( .*)?$", line))
    ]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_commands_shown_in_the_pages_exist(page: Path) -> None:
    known = dict(commands())
    for line in invocations(page):
        words = shlex.split(line)
        group = words[1] in ("cache", "results", "export")
        name = " ".join(words[: 3 if group else 2])
        if group and len(words) == 2:
            continue
        assert name in known, f"{line!r}: there is no {name!r}"
        unknown = {word.split("=")[0] for word in words if word.startswith("--")} - long_options(known[name])
        assert not unknown, f"{line!r} has options that do not exist"
        for flag, value in pairwise(words):
            if flag == "--backend" and ":" not in value:
                assert set(value.split(",")) <= set(registry.names()), line


def test_invocations_are_found() -> None:
    assert "bench backend-check onnx" in [line.strip() for line in invocations(ROOT / "ARCHITECTURE.md")]
    assert any(line.startswith("bench run --backend onnx") for line in invocations(ROOT / "docs" / "method.md"))


def test_every_figure_is_defined_with_its_id() -> None:
    table = {code(row[0])[0]: row[1:] for row in rows(section(METHOD, "Figures"))}
    floors = [f"itl_p{percent}_s" for percent in PERCENTILE_FLOORS]
    assert set(table) == {metric.id for metric in METRICS} | {"itl.v1"}
    assert {metric.id: (f"`{metric.key}`", metric.meaning) for metric in METRICS} == {
        metric.id: tuple(table[metric.id][:2]) for metric in METRICS
    }
    assert code(table["itl.v1"][0]) == floors
    assert re.findall(r"\d+", table["itl.v1"][1]) == [str(floor) for floor in PERCENTILE_FLOORS.values()]


@pytest.mark.parametrize("title", ["What must hold", "Comparing"])
def test_constants_are_those_of_the_code(title: str) -> None:
    table = [row for row in rows(section(METHOD, title)) if len(row) == 2]
    assert table
    for name, value in table:
        module, _, attribute = code(name)[0].rpartition(".")
        assert float(value) == pytest.approx(getattr(importlib.import_module(module), attribute), rel=1e-4), name


def test_every_check_of_a_record_is_described() -> None:
    sources = (ROOT / "bench" / "gate.py", ROOT / "bench" / "recording.py")
    source = "".join(path.read_text(encoding="utf-8") for path in sources)
    checks = set(re.findall(r'\bjudge\("([a-z]+)"', source)) | set(
        re.findall(r'code="([a-z-]+ed|[a-z]+-rate)"', source)
    )
    told = {name for row in rows(section(METHOD, "What must hold")) if len(row) == 4 for name in code(row[0])}
    assert {"prefill", "decode", "impossible-rate", "throttled"} <= checks
    assert checks <= told


def test_every_precision_class_is_described() -> None:
    names = {name for row in rows(section(METHOD, "Precision classes")) for name in code(row[0])}
    assert names == {name for name in CLASSES if not name.endswith(KV8)} | {f"…{KV8}"}


@pytest.fixture
def example(tmp_path: Path) -> dict[str, str]:
    """Environment of a process that finds the documented adapter."""
    (tmp_path / "echo.py").write_text(EXAMPLE, encoding="utf-8")
    return {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), str(tmp_path)]), "BENCH_CACHE": str(tmp_path / "c")}


def bench(words: str, environment: dict[str, str], folder: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", *shlex.split(words)]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=120)


def test_the_documented_adapter_conforms(example: dict[str, str], tmp_path: Path) -> None:
    done = bench("bench backend-check echo:Echo", example, tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.endswith("0 gaps, 0 failed\n")


def test_the_documented_adapter_is_measured(example: dict[str, str], tmp_path: Path) -> None:
    shown = next(line for line in invocations(ROOT / "docs" / "adding-a-backend.md") if "echo:Echo --model" in line)
    done = bench(f"{shown} --results results", example, tmp_path)
    assert done.returncode == 0, done.stderr
    records = list(Store(tmp_path / "results").records())
    assert sorted((r.identity.workload.name, r.status, len(r.samples)) for r in records) == [
        ("pp32", "unproven", 5),
        ("tg8", "unproven", 5),
    ]
