"""Which interpreter is taken, what pip is told, what a worker says it imported, where code is taken from."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from backends.onnx import Onnx
from bench.environments import code, finding, pip
from bench.environments.interpreter import Interpreter
from bench.environments.managed import Environment
from bench.packages import imported_packages
from bench.types import Availability, Requirements

MANAGED = Interpreter(python="/managed/python", origin="managed environment")
HOST = {"onnx": Interpreter(python="/host/python", origin="host file")}
NOT_THERE = Availability(reason="no runtime", remedy="pip install it")


def there(*providers: str) -> Availability:
    return Availability(versions={"x": "1"}, providers=providers)


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> dict[str, Availability]:
    """What is found, by the interpreter's origin; a managed environment is there where it is named."""
    answers: dict[str, Availability] = {}
    monkeypatch.setattr(finding, "probe", lambda target, interpreter: answers[interpreter.origin])
    managed = lambda name: MANAGED if "managed environment" in answers else None  # noqa: E731 (shorter so)
    monkeypatch.setattr(finding, "managed_interpreter", managed)
    return answers


@pytest.mark.parametrize(
    ("found", "asked", "taken"),
    [
        ({"this interpreter": there()}, {}, "this interpreter"),
        ({"this interpreter": there(), "managed environment": there()}, {}, "this interpreter"),
        ({"this interpreter": NOT_THERE, "managed environment": there()}, {}, "managed environment"),
        ({"this interpreter": NOT_THERE}, {}, "this interpreter"),
        ({"this interpreter": there(), "host file": NOT_THERE}, {"host": HOST}, "host file"),
        ({"host file": there(), "--python": NOT_THERE}, {"host": HOST, "python": "/p"}, "--python"),
        ({"this interpreter": there("A"), "managed environment": there("B")}, {"provider": "B"}, "managed environment"),
        ({"this interpreter": there("A"), "managed environment": there("A")}, {"provider": "B"}, "this interpreter"),
        ({"this interpreter": there(), "managed environment": there("B")}, {"provider": "B"}, "this interpreter"),
    ],
)
def test_the_order(machine: dict[str, Availability], found: dict[str, Availability], asked: dict, taken: str) -> None:
    machine.update(found)
    chosen = finding.find(Onnx(), "backends.onnx:Onnx", **asked)
    assert (chosen.interpreter.origin, chosen.availability) == (taken, found[taken])


def test_what_is_absent_names_what_brings_it(machine: dict[str, Availability]) -> None:
    machine.update({"this interpreter": NOT_THERE, "host file": NOT_THERE})
    here = finding.absent(finding.find(Onnx(), "backends.onnx:Onnx"), Onnx())
    assert str(here) == "backend onnx: no runtime; pip install it, or bench setup onnx"
    elsewhere = finding.absent(finding.find(Onnx(), "backends.onnx:Onnx", host=HOST), Onnx())
    assert str(elsewhere) == "backend onnx in /host/python (host file): no runtime; pip install it"


def test_what_pip_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[tuple[list[str], dict[str, str]]] = []
    monkeypatch.setattr(pip, "_execute", lambda command, log, given, watch: told.append((command, given)))
    compiled = Requirements(packages=("p==1",), index_url="https://index/", build={"CMAKE_ARGS": "-DX=ON"})
    made, constraints = Environment(tmp_path / "p"), tmp_path / "c.txt"
    pip.install(made, ("p==1", "numpy"), constraints, compiled, made.pip_cache, print)
    pip.install(made, ("p==1",), constraints, Requirements(packages=("p==1",)), None, print)
    (first, given), (second, nothing) = told
    assert first[:4] == [str(made.python), "-m", "pip", "install"]
    assert first[-6:] == ["--constraint", str(constraints), "--extra-index-url", "https://index/", "p==1", "numpy"]
    assert given == {"CMAKE_ARGS": "-DX=ON", "PIP_CACHE_DIR": str(made.pip_cache)}
    assert second[-3:] == ["--constraint", str(constraints), "p==1"] and nothing == {}


def installed(folder: Path, name: str, module: str) -> None:
    (folder / module).parent.mkdir(parents=True, exist_ok=True)
    (folder / module).touch()
    about = folder / f"{name}-1.5.dist-info"
    about.mkdir()
    (about / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.5\n")
    (about / "RECORD").write_text(f"{module},,\n")


def test_of_packages_that_share_a_namespace_the_imported_one_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    installed(tmp_path, "one", "sharedspace/one.py")
    installed(tmp_path, "other", "sharedspace/other.py")
    installed(tmp_path, "unused", "unusedmodule.py")
    monkeypatch.syspath_prepend(str(tmp_path))
    __import__("sharedspace.one")
    found = imported_packages()
    assert found["one"] == "1.5" and found["pytest"]
    assert not {"other", "unused"} & set(found)
    for name in [name for name in sys.modules if name.startswith("sharedspace")]:
        monkeypatch.delitem(sys.modules, name)


def test_another_interpreter_is_shown_no_folder_of_installed_packages(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BENCH_CACHE", str(tmp_path / "cache"))
    installed(tmp_path / "site", "theirs", "theirmodule.py")
    (tmp_path / "site" / "numpy").mkdir()
    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    shared = code.code_folders("theirmodule:Class", shared=True)
    assert shared == [code.PROJECT, tmp_path / "site"]
    project, copied = code.code_folders("theirmodule:Class", shared=False)
    assert project == code.PROJECT
    assert [file.name for file in copied.iterdir()] == ["theirmodule.py"]
    (tmp_path / "site" / "theirmodule.py").write_text("changed = True\n")
    assert code.code_folders("theirmodule:Class", shared=False)[1] != copied
    assert code.code_folders("unheard.of:Class", shared=False) == [code.PROJECT]


def test_an_adapters_digest_is_that_of_its_own_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "ownpackage"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (tmp_path / "ownmodule.py").write_text("one = 1")
    monkeypatch.syspath_prepend(tmp_path)
    before = [code.adapter_digest(name) for name in ("ownpackage:Class", "ownmodule:Class")]
    (package / "session.py").write_text("two = 2")
    after = [code.adapter_digest(name) for name in ("ownpackage:Class", "ownmodule:Class")]
    assert None not in before and before[0] != after[0] and before[1] == after[1]
    assert code.adapter_digest("nobodyhasthis:Class") is None
