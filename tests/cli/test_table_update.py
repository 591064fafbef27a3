"""`bench table --update`: pages refreshed, and markers that ask for what they may not."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from bench.cli.table import LARGEST_PAGE_BYTES
from bench.cli.writing import write_whole
from bench.errors import UsageError
from bench.results.store import Store
from tests.cli.conftest import refused
from tests.records import identity, record
from tests.sweeps.conftest import Bench

PAGE = """# A page

<!-- bench table --backend onnx -->
old
<!-- end of bench table -->
between
<!-- bench table -->
<!-- end of bench table -->
after"""


@pytest.fixture
def page(tmp_path: Path) -> Path:
    path = tmp_path / "PAGE.md"
    path.write_text(PAGE)
    return path


@pytest.fixture(autouse=True)
def store(tmp_path: Path) -> Store:
    store = Store(tmp_path / "results")
    for one in (record(), record(who=identity(backend="openvino"))):
        with store.launch(one.launch_id) as draft:
            draft.add(one)
    return store


def begun(text: str) -> str:
    return f"<!-- bench table {text} -->\n<!-- end of bench table -->\n"


def test_every_block_by_its_own_options_and_a_second_call_changes_nothing(bench: Bench, page: Path) -> None:
    page.chmod(0o640)
    done = bench("table", "--backend", "openvino", "--update", "PAGE.md")
    assert (done.code, done.out, done.err) == (0, "", "bench: PAGE.md: 2 tables refreshed\n")
    first, second = page.read_text().split("between\n")
    assert first.startswith("# A page\n\n<!-- bench table --backend onnx -->\n\n| model |") and "old" not in first
    assert "| onnx |" in first and "| openvino |" not in first
    assert "| onnx |" not in second and "| openvino |" in second, "the command's own, where the marker has none"
    assert first.endswith(" |\n\n<!-- end of bench table -->\n") and second.endswith("table -->\nafter")
    before = page.stat()
    again = bench("table", "--backend", "openvino", "--update", "PAGE.md")
    assert (again.code, again.err) == (0, "bench: PAGE.md: is up to date\n")
    after = page.stat()
    assert (after.st_ino, after.st_mtime_ns, after.st_mode & 0o777) == (before.st_ino, before.st_mtime_ns, 0o640)
    assert not list(page.parent.glob(".*partial"))


def test_a_link_stays_a_link(bench: Bench, page: Path, tmp_path: Path) -> None:
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "LINK.md").symlink_to(page)
    assert bench("table", "--update", "docs/LINK.md").code == 0
    assert (tmp_path / "docs" / "LINK.md").is_symlink() and "| openvino |" in page.read_text()


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", ("PAGE.md: no block to refresh", "write <!-- bench table -->")),
        (PAGE + "\n<!-- end of bench table -->", ("PAGE.md:10: a block ends that did not begin",)),
        (PAGE + "\n" + begun("--results /etc"), ("PAGE.md:10: No such option '--results'", "selectors")),
        (begun("--update OTHER.md"), ("PAGE.md:1: No such option '--update'",)),
        (begun("--help"), ("PAGE.md:1: No such option '--help'",)),
        (begun("--format html"), ("PAGE.md:1: a page takes Markdown",)),
        (begun("--format terminal"), ("PAGE.md:1: a page takes Markdown",)),
        (begun("--format x"), ("PAGE.md:1: Invalid value for '--format'",)),
        (begun("--model"), ("PAGE.md:1: Option '--model' requires an argument",)),
        (begun("--model 'x"), ("PAGE.md:1: No closing quotation",)),
        (begun("run"), ("PAGE.md:1: Got unexpected extra argument (run)",)),
        (begun("--status okay"), ("PAGE.md:1: --status: unknown status 'okay'",)),
        (begun("--\x1b[31m\u202e"), ("PAGE.md:1: No such option",)),
        (begun("--model none"), ("PAGE.md:1: no such records in", "as it was")),
    ],
)
def test_a_page_that_cannot_be_refreshed_stays_as_it_is(
    bench: Bench, page: Path, text: str, says: tuple[str, ...]
) -> None:
    page.write_text(text)
    ended = bench("table", "--update", "PAGE.md")
    refused(ended, 2, *says)
    assert "\x1b" not in ended.err and "\u202e" not in ended.err
    assert page.read_text() == text and not (page.parent / "OTHER.md").exists()


def test_what_is_no_page(bench: Bench, page: Path, tmp_path: Path) -> None:
    refused(bench("table", "--update", "NONE.md"), 2, "NONE.md: cannot be read: No such file")
    refused(bench("table", "--update", "."), 2, ".: is no file of at most 16 MiB")
    os.mkfifo(tmp_path / "pipe")
    refused(bench("table", "--update", "pipe"), 2, "pipe: is no file")
    os.truncate(page, LARGEST_PAGE_BYTES + 1)
    refused(bench("table", "--update", "PAGE.md"), 2, "PAGE.md: is no file of at most 16 MiB")
    page.write_text(PAGE)
    refused(bench("table", "--update", "PAGE.md", "--format", "csv"), 2, "PAGE.md:7: a page takes Markdown")


def test_what_fails_to_be_written_leaves_what_was_there(page: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    for name in ("bench.cli.writing.write_new", "bench.cli.writing.publish"):
        with monkeypatch.context() as patch:
            patch.setattr(name, full)
            with pytest.raises(UsageError, match=r"PAGE\.md: cannot be written: No space left"):
                write_whole(page, b"new")
        assert page.read_text() == PAGE and [path.name for path in page.parent.glob(".*")] == []
    write_whole(page, b"new")
    assert page.read_bytes() == b"new"
