"""The host file is executed, so it is read strictly: what is wrong is said with file, line and key."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from bench.environments.host_file import locate_host_file, read_host_file
from bench.errors import PrerequisiteError, UsageError

WHOLE = """
[backends.onnx]
command = ["docker", "run", "--rm", "-i", "--cidfile", "{cidfile}", "image"]
environment = { A = "1 2" }
paths = { "/data" = "/in", "/data/deep" = "/elsewhere" }

[backends.null]
python = "~/env/bin/python"

[backends."mine.adapter:Class"]
environment = { B = "2" }
"""


def written(folder: Path, text: str) -> Path:
    (folder / "host.toml").write_text(text)
    return folder / "host.toml"


def test_entries_become_interpreters(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/somebody")
    found = read_host_file(written(tmp_path, WHOLE))
    assert set(found) == {"onnx", "null", "mine.adapter:Class"}
    onnx, null, mine = found.values()
    assert {each.origin for each in found.values()} == {"host file"}
    assert (onnx.python, onnx.prefix[:2], onnx.environment) == ("python3", ("docker", "run"), {"A": "1 2"})
    assert (null.python, null.prefix) == ("/home/somebody/env/bin/python", ())
    assert mine.python == sys.executable
    assert "host.toml:2: [backends.onnx]" in onnx.remedy


def test_paths_go_by_the_longest_folder(tmp_path: Path) -> None:
    onnx = read_host_file(written(tmp_path, WHOLE))["onnx"]
    assert [onnx.inside(path) for path in ("/data", "/data/x/y", "/data/deep/z", "/data/deeper")] == [
        "/in",
        "/in/x/y",
        "/elsewhere/z",
        "/in/deeper",
    ]
    with pytest.raises(PrerequisiteError, match=r'/other/file.*add "/other" = .*host\.toml:2'):
        onnx.inside("/other/file")


def test_a_link_on_the_way_does_not_matter(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real")
    text = f'[backends.null]\npaths = {{ "{tmp_path}/real" = "/in" }}\n'
    assert read_host_file(written(tmp_path, text))["null"].inside(tmp_path / "link" / "x") == "/in/x"


def test_what_a_prefix_starts_is_handed_its_variables(tmp_path: Path) -> None:
    text = '[backends.null]\ncommand = ["go", "{cidfile}!"]\nenvironment = { A = "1 2", PYTHONPATH = "/theirs" }\n'
    with pytest.raises(UsageError, match="without `run`"):
        read_host_file(written(tmp_path, text))
    null = read_host_file(written(tmp_path, text.replace('"go"', '"go", "run"')))["null"]
    root = Path(__file__).parents[2]
    assert null.command("backends.null:Null", Path("/tmp/id")) == [
        *("go", "run", "/tmp/id!", "env", "A=1 2", f"PYTHONPATH={root}:/theirs", "python3", "-m", "bench.worker")
    ]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("[backend.onnx]\n", r"host\.toml.*unknown key 'backend' \(known: backends, meter\)"),
        ("\n[backends.onx]\n", r"host\.toml:2: \[backends\.onx\]: unknown backend 'onx' \(nearest: onnx"),
        ("[backends]\nonnx = 3\n", r"\[backends\.onnx\]: is no table"),
        ("backends = 3\n", "`backends` is no table"),
        (
            '[backends.onnx]\ncomand = ["x"]\n',
            r"host\.toml:2: \[backends\.onnx\] comand: unknown key 'comand' \(known: command, python, env",
        ),
        ('[backends.onnx]\n\ncommand = "docker"\n', r"host\.toml:3: \[backends\.onnx\] command: .*array.*got `str`"),
        ("[backends.onnx]\nenvironment = { A = 1 }\n", r"host\.toml:2: \[backends\.onnx\] environment: .*`str`"),
        ('[backends.onnx]\nenvironment = { "A=B" = "1" }\n', r"host\.toml:2: .*'A=B' is no name of a variable"),
        ('[backends.onnx]\npaths = { "here" = "/in" }\n', r"host\.toml:2: .*'here' is not absolute"),
        ('[backends.onnx]\npaths = { "/here" = "in" }\n', r"host\.toml:2: .*'in' is not absolute"),
        ("[backends.onnx\n", r"host\.toml:1: malformed TOML"),
    ],
)
def test_what_is_wrong_is_named_with_its_line(tmp_path: Path, text: str, says: str) -> None:
    with pytest.raises(UsageError, match=says):
        read_host_file(written(tmp_path, text))


def test_where_it_is_looked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    monkeypatch.delenv("BENCH_HOST", raising=False)
    monkeypatch.chdir(tmp_path)
    written(tmp_path, WHOLE)
    assert locate_host_file() is None, "never the working folder"
    (tmp_path / "evenbench").mkdir()
    users = written(tmp_path / "evenbench", WHOLE)
    assert locate_host_file() == users
    monkeypatch.setenv("BENCH_HOST", "/named")
    assert locate_host_file() == Path("/named")
    assert locate_host_file(Path("/flag")) == Path("/flag")
    assert read_host_file(None) == {}
    with pytest.raises(UsageError, match="/flag: no such file"):
        read_host_file(Path("/flag"))
