"""`bench show` and `bench table` over stores that hold all kinds of records, broken ones among them."""

from __future__ import annotations

import csv
import fcntl
import io
import json
import os
import pty
import re
import shutil
import struct
import subprocess
import sys
import termios
from pathlib import Path

import msgspec
import pytest

from bench.results.record import SCHEMA_VERSION, Record, encode
from bench.results.schema import Info, Reason
from bench.results.store import Store
from tests.cli.conftest import refused
from tests.records import identity, record, samples
from tests.sweeps.conftest import Bench, environment


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "results")


def keep(store: Store, *records: Record) -> None:
    for one in records:
        with store.launch(one.launch_id) as draft:
            draft.add(one)


def record_file(store: Store, one: Record) -> Path:
    return store.launch_path(one.launch_id) / f"record-{one.record_id}.json"


def test_show_by_id_and_by_parts_of_it(bench: Bench, store: Store) -> None:
    one, two = record(), record("pp512")
    keep(store, one, two)
    for part in (one.record_id, one.record_id.upper(), one.record_id[-8:]):
        shown = bench("show", part)
        assert (shown.code, shown.err) == (0, "")
        assert shown.out.startswith("record\n") and one.record_id in shown.out and "smollm2-135m-int8" in shown.out
    refused(bench("show", one.record_id[:5]), 2, f"2 records match {one.record_id[:5]}", "give more of the id")
    (line,) = bench("show", one.record_id[-8:], "--json").printed
    assert line["record_id"] == one.record_id and line["summary"]["tg_tokens_per_s"]["value"] == 2.0


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"", ("corrupt record", "truncated")),
        (b'{"schema": "bench.record", "schema_ver', ("corrupt record", "truncated or edited", "restore it or move")),
        (
            b'{"schema": "bench.record", "schema_version": "9.0"}',
            (f"schema 9.0 is newer than {SCHEMA_VERSION}", "upgrade evenbench"),
        ),
        (b'{"schema": "other", "schema_version": "1.0"}', ("not a record", "'other'")),
        (b"\xff\xfe\x00", ("corrupt record",)),
    ],
    ids=["empty", "truncated", "newer", "foreign", "binary"],
)
def test_a_record_that_cannot_be_read(bench: Bench, store: Store, data: bytes, says: tuple[str, ...]) -> None:
    good, bad = record(), record("pp512")
    keep(store, good, bad)
    file = record_file(store, bad)
    file.write_bytes(data)
    refused(bench("show", bad.record_id), 6, str(file), *says)
    table = bench("table")
    assert table.code == 0
    assert "tg4" in table.out and "pp512" not in table.out, "the others are shown"
    assert table.err.startswith(f"bench: passed over: {file}: ") and table.err.count("\n") == 1


def test_a_record_whose_id_is_no_uuid(bench: Bench, store: Store) -> None:
    one = record()
    keep(store, one)
    raw = msgspec.json.decode(encode(one))
    record_file(store, one).write_text(json.dumps({**raw, "record_id": "../../outside"}))
    refused(bench("show", one.record_id), 6, "not a valid record", "move the file out of the store")


def test_a_record_that_was_copied_or_renamed(bench: Bench, store: Store) -> None:
    one = record()
    keep(store, one)
    copy = record_file(store, one).with_name(f"record-{record().record_id}.json")
    shutil.copy(record_file(store, one), copy)
    table = bench("table")
    assert "copied or renamed" in table.err and "tg4" in table.out


def test_figures_of_what_must_not_be_believed_stand_in_no_table(bench: Bench, store: Store) -> None:
    fast = samples(step_s=1e-6)
    why = Reason(what="impossible", code="impossible-rate")
    keep(
        store,
        record(),
        record(status="invalid", reason=why, who=identity(backend="fast"), samples=fast),
        record(status="failed", reason=Reason(what="died"), who=identity(backend="dead"), samples=fast),
    )
    for words in ((), ("--format", "markdown")):
        lines = bench("table", *words).out.splitlines()
        for backend in ("fast", "dead"):
            (line,) = [line for line in lines if f" {backend} " in line and "tg4" in line and ": " not in line][:1]
            assert "–" in line and "µs" not in line and "1000000" not in line
    rows = {row["backend"]: row for row in csv.DictReader(io.StringIO(bench("table", "--format", "csv").out))}
    assert {backend: row["status"] for backend, row in rows.items()} == {
        "onnx": "ok", "fast": "invalid", "dead": "failed",
    }  # fmt: skip
    for backend, shown in (("onnx", True), ("fast", False), ("dead", False)):
        figures = [rows[backend][key] for key in ("headline_tokens_per_s", "tg_tokens_per_s", "tpot_s", "mbu_ratio")]
        assert all(bool(figure) == shown for figure in figures), backend
    (kept,) = [line for line in bench("table", "--format", "json").printed if line["status"] == "invalid"]
    assert kept["summary"]["tg_tokens_per_s"]["value"] > 1e5, "the record keeps what was measured"


def test_a_redacted_record_can_be_published_in_place(bench: Bench, store: Store) -> None:
    mine = record(info=Info(host={"hostname": "lab-gpu-07"}, command="bench run --weights /home/alice/m.gguf"))
    keep(store, mine)
    for secret in ("lab-gpu-07", "alice"):
        assert secret in bench("show", mine.record_id, "--json").out
        assert secret not in bench("show", mine.record_id, "--redacted").out
        assert secret not in bench("show", mine.record_id, "--redacted", "--json").out
    assert str(store.root) not in bench("show", mine.record_id, "--redacted").out, "a path may tell a name too"
    published = bench("show", mine.record_id, "--redacted", "--json")
    assert published.out.count("\n") == 1 and "summary" not in published.printed[0]
    record_file(store, mine).write_text(published.out)
    (kept,) = store.records()
    assert kept.info.redacted and (kept.record_id, kept.samples) == (mine.record_id, mine.samples)


def test_a_terminal_of_80_columns_shows_what_a_pipe_gets(bench: Bench, store: Store, tmp_path: Path) -> None:
    long = identity("512/5", model="deepseek-r1-distill-qwen-7b", backend="openvino")
    keep(store, record("512/5", who=long, warnings=["hot"]), record("512/5"))
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
    given = {**environment(tmp_path), "BENCH_RESULTS": str(store.root), "TERM": "xterm-256color"}
    subprocess.run([sys.executable, "-m", "bench", "table"], env=given, cwd=tmp_path, stdout=theirs, check=True)
    os.close(theirs)
    shown = os.read(ours, 1 << 16).decode()
    os.close(ours)
    assert "\x1b[" in shown
    lines = re.sub(r"\x1b\[[0-9;]*m", "", shown).splitlines()
    assert [line.rstrip() for line in lines] == bench("table").out.splitlines()
    assert max(map(len, lines)) <= 80


def test_formats_and_selectors(bench: Bench, store: Store) -> None:
    keep(store, record(), record("pp512"), record(who=identity(backend="openvino")))
    terminal = bench("table").out
    assert terminal.startswith("  backend ") and "\nsmollm2-135m-int8 pp512, a8-g32, KV f32\n" in terminal
    assert bench("table", "--workload", "tg4").out.startswith("model "), "one group needs no heading"
    assert bench("table", "--format", "markdown").out.startswith("| backend |")
    assert bench("table", "--format", "html").out.startswith("<!doctype html>\n")
    assert bench("table", "--format", "csv").out.startswith("model,backend,")
    assert {line["schema"] for line in bench("table", "--format", "json").printed} == {"bench.record"}
    chosen = [
        bench("table", "--format", "json", flag, value).printed
        for flag, value in (("--backend", "openvino"), ("--workload", "pp512"), ("--model", "smollm2-135m"),
                            ("--model", "smollm2-135m-int8,x"), ("--status", "ok"))
    ]  # fmt: skip
    assert [len(lines) for lines in chosen] == [1, 1, 3, 3, 3]
    assert "no such records" in bench("table", "--published").err
    nothing = bench("table", "--status", "failed", "--format", "csv")
    assert (nothing.code, nothing.out) == (0, "") and nothing.err.startswith("bench: no such records in ")
