"""Finding and importing backends."""

from __future__ import annotations

import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest

from bench import registry
from bench.errors import PrerequisiteError, UsageError

ADAPTER = """
class Mine:
    name = "mine"

made = Mine()
nameless = object()
"""


def entry(name: str, value: str, package: str | None = None) -> metadata.EntryPoint:
    found = metadata.EntryPoint(name, value, registry.ENTRY_POINTS)
    if package:

        class Package(metadata.Distribution):
            def read_text(self, filename: str) -> str | None:
                return f"Metadata-Version: 2.1\nName: {package}\n" if filename == "METADATA" else None

            def locate_file(self, path: object) -> Path:
                return Path(str(path))

        vars(found)["dist"] = Package()
    return found


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch) -> list[metadata.EntryPoint]:
    """The entry points that packages register; none to begin with."""
    found: list[metadata.EntryPoint] = []
    monkeypatch.setattr(metadata, "entry_points", lambda group: found if group == registry.ENTRY_POINTS else [])
    return found


@pytest.fixture
def adapter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    (tmp_path / "made_for_test.py").write_text(ADAPTER)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "made_for_test", raising=False)
    return "made_for_test"


def test_a_checkout_that_is_not_installed_reads_its_own_table(installed: list[metadata.EntryPoint]) -> None:
    assert {"null", "onnx"} <= set(registry.names())
    assert registry.target("null") == "backends.null:Null"


def test_an_installed_project_is_not_read_twice(installed: list[metadata.EntryPoint]) -> None:
    installed.append(entry("only", "some.where:Thing", registry.DISTRIBUTION))
    assert registry.names() == ("only",)


def test_third_parties_stand_beside(installed: list[metadata.EntryPoint]) -> None:
    installed.append(entry("theirs", "some.where:Thing", "their-package"))
    assert {"null", "theirs"} <= set(registry.names())
    assert registry.target("theirs") == "some.where:Thing"


def test_a_name_registered_twice_is_refused_with_both(installed: list[metadata.EntryPoint]) -> None:
    installed.append(entry("null", "evil.twin:Null", "their-package"))
    assert registry.names().count("null") == 1
    with pytest.raises(UsageError, match=r"backends\.null:Null from evenbench and evil\.twin:Null from their-package"):
        registry.target("null")


def test_unknown_names_suggest_the_nearest() -> None:
    with pytest.raises(UsageError, match=r"unknown backend 'onx' \(nearest: onnx\)"):
        registry.load("onx")


def test_listing_imports_no_adapter() -> None:
    code = "import sys; from bench import registry; registry.names(); print(*sorted(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not [module for module in done.stdout.split() if module.startswith("backends")]


def test_null_loads() -> None:
    assert registry.load("null").name == "null"


@pytest.mark.parametrize("attribute", ["Mine", "made"])
def test_an_adapter_by_path_may_be_a_class_or_an_instance(adapter: str, attribute: str) -> None:
    assert registry.load(f"{adapter}:{attribute}").name == "mine"
    assert registry.target(f"{adapter}:{attribute}") == f"{adapter}:{attribute}"


def test_a_name_of_its_own_is_refused(adapter: str, installed: list[metadata.EntryPoint]) -> None:
    installed.append(entry("yours", f"{adapter}:Mine", "their-package"))
    with pytest.raises(UsageError, match="registered as 'yours' but calls itself 'mine'"):
        registry.load("yours")


@pytest.mark.parametrize(
    ("attribute", "error", "said"),
    [
        ("{}:Absent", UsageError, "has no 'Absent'"),
        ("{}:nameless", UsageError, "is no adapter"),
        ("absent_module:Thing", PrerequisiteError, "cannot be imported"),
        ("../{}:Mine", UsageError, "names no adapter"),
        (":", UsageError, "names no adapter"),
    ],
)
def test_what_cannot_be_loaded(adapter: str, attribute: str, error: type[Exception], said: str) -> None:
    with pytest.raises(error, match=said):
        registry.load(attribute.format(adapter))
