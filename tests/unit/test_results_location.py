"""Where the store is found."""

from __future__ import annotations

from pathlib import Path

import platformdirs
import pytest

from bench.results.location import locate_store


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(platformdirs, "user_data_path", lambda name: tmp_path / "data" / name)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_the_flag_comes_first(home: Path) -> None:
    environ = {"BENCH_RESULTS": str(home / "named")}
    assert locate_store("here", environ=environ) == home / "here"
    assert locate_store(None, environ=environ) == home / "named"


def test_a_checkout_of_this_project_keeps_its_own(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (home / "pyproject.toml").write_text('[project]\nname = "evenbench"\n')
    (home / "bench").mkdir()
    monkeypatch.chdir(home / "bench")
    assert locate_store(environ={}) == home / "results"


@pytest.mark.parametrize(
    "text", ['[project]\nname = "other"\n', "not toml", 'project = "evenbench"\n', "[tool.x]\n", "\xff"]
)
def test_elsewhere_it_is_the_data_folder(home: Path, text: str) -> None:
    (home / "pyproject.toml").write_text(text, encoding="latin-1")
    assert locate_store(environ={"BENCH_RESULTS": ""}) == home / "data" / "evenbench" / "results"
