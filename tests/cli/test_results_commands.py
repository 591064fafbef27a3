"""`bench results`: verify, merge, annotate; what is said, and the exit code."""

from __future__ import annotations

import shutil
from datetime import datetime, timezone
from pathlib import Path

import pytest

from bench.results.annotations import stored, utc
from bench.results.ids import new_uuid7
from bench.results.record import Record
from bench.results.schema import Info
from bench.results.store import Store
from tests.cli.conftest import NULL_SWEEP, refused
from tests.records import identity, record
from tests.stores import ANNOTATIONS, FILES, LAUNCHES, SWEEPS, content, events, whole, write
from tests.sweeps.conftest import Bench

HOST = "7ddaf9984bb1a010"


@pytest.fixture
def mine(tmp_path: Path) -> Record:
    """The one record of the store."""
    one = record(who=identity(host_id=HOST), info=Info(sweep_id=new_uuid7(), started_at_utc="2026-06-01T00:00:00Z"))
    with Store(tmp_path / "results").launch(one.launch_id) as draft:
        draft.add(one)
    return one


def test_a_sweep_of_this_bench_is_sound_and_merges(bench: Bench, tmp_path: Path) -> None:
    assert bench(*NULL_SWEEP).code == 0
    checked = bench("results", "verify")
    assert (checked.code, checked.out) == (0, "")
    assert checked.err == f"0 damaged, 0 notes, 1 launch in {tmp_path / 'results'}\n"
    done = bench("results", "merge", "results", "--results", "all")
    assert (done.code, done.out) == (0, "")
    assert done.err == "bench: results: 1 launch, 1 sweep added\n"
    again = bench("results", "merge", "results", "results", "--results", "all")
    assert again.err == "bench: results: nothing added; 2 here already\n" * 2
    assert content(Store(tmp_path / "all")) == content(Store(tmp_path / "results"))


def test_verify_names_what_is_damaged_and_notes_what_is_not(bench: Bench, tmp_path: Path) -> None:
    store = whole(tmp_path / "results")
    path = next(store.launch_path(LAUNCHES[0]).glob("record-*"))
    path.write_bytes(path.read_bytes()[:99])
    store.launch(new_uuid7())
    checked = bench("results", "verify")
    assert checked.code == 6
    damaged, note = checked.out.splitlines()
    assert damaged.startswith(f"damaged: {path}: corrupt record") and note.startswith(f"note: {store.root}/launches/")
    assert checked.err == f"1 damaged, 1 note, 4 launches in {store.root}\n"


def test_what_a_foreign_file_says_cannot_rewrite_the_terminal(bench: Bench, tmp_path: Path) -> None:
    store = whole(tmp_path / "results")
    next(store.launch_path(LAUNCHES[0]).glob("record-*")).write_text('{"schema":"\\u001b[2J","schema_version":"1.0"}')
    for done in (bench("results", "verify"), bench("results", "merge", "results", "--results", "all")):
        assert done.code == 6 and "\x1b" not in done.out + done.err and "[2J" in done.out + done.err


def test_merge_takes_what_is_sound_and_tells_the_rest(bench: Bench, tmp_path: Path) -> None:
    parts = [
        write(tmp_path / "a", {LAUNCHES[0]: FILES[LAUNCHES[0]]}, annotations=ANNOTATIONS[:1]),
        write(tmp_path / "b", {LAUNCHES[1]: FILES[LAUNCHES[1]]}, {SWEEPS[0]: b"".join(events(SWEEPS[0]))}),
    ]
    (broken,) = (tmp_path / "b" / "sweeps").iterdir()
    broken.write_text("nonsense\n")
    done = bench("results", "merge", "a", "b")
    assert (done.code, done.out) == (6, "")
    one, left_out, two = done.err.splitlines()
    assert one == "bench: a: 1 launch, 1 annotation added"
    assert left_out.startswith("bench: left out: b/sweeps/") and "corrupt journal, line 1" in left_out
    assert two == "bench: b: 1 launch added"
    broken.unlink()
    assert bench("results", "merge", "b", "a").code == 0
    assert content(done.store) == {**content(parts[0]), **content(parts[1])}


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("merge", "absent"), ("absent: no store is here: No such file",)),
        (("merge", "tiny.toml"), ("tiny.toml: no store is here: Not a directory",)),
        (("merge", "other"), ("other: no store is here: it has none of launches, sweeps, annotations",)),
        (("merge",), ("results merge: Missing argument", "bench results merge --help")),
        (("merge", "whole", "absent"), ("absent: no store is here",)),
        (("verify", "--results", "absent"), ("no store is here",)),
        (("annotations", "--results", "absent"), ("no store is here",)),
        (("annotate", "tag=x", "--host", "h1", "--results", "absent"), ("no store is here",)),
        (("mend",), ("results: No such command 'mend'", "bench results --help")),
    ],
)
def test_a_mistyped_store_is_no_empty_one(
    bench: Bench, tmp_path: Path, words: tuple[str, ...], says: tuple[str, ...]
) -> None:
    whole(tmp_path / "whole")
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "photo.jpg").touch()
    refused(bench("results", *words), 2, *says)
    assert not (tmp_path / "results").exists(), "nothing was merged before all were looked for"


def test_an_empty_folder_is_an_empty_store(bench: Bench, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    assert bench("results", "merge", "empty").err == "bench: empty: nothing added\n"
    assert bench("results", "verify").code == 0, "and so is what was merged into"


@pytest.mark.parametrize(
    ("words", "kind"),
    [
        (("tag=night-1.0", "--sweep"), "sweep_id"),
        (("tag=night-1.0", "--launch"), "launch_id"),
        (("exclude", "--reason", "a backup was executed", "--record"), "record_id"),
        (("acknowledged", "--reason", "a new driver", "--author", "ann", "--series"), "series_key"),
        (("quarantine", "--reason", "a fan is broken", "--until", "14d", "--config"), "config_key"),
        (("quarantine", "--reason", "a fan is broken", "--until", "2096-01-01", "--host"), "host_id"),
    ],
)
@pytest.mark.parametrize("part", [slice(None), slice(8), slice(-8, None)])
def test_annotate_finds_what_is_meant_by_a_part_of_its_name(
    bench: Bench, mine: Record, words: tuple[str, ...], kind: str, part: slice
) -> None:
    raw = {**mine.raw(), "sweep_id": mine.info.sweep_id, "host_id": HOST}
    done = bench("results", "annotate", *words, raw[kind][part].upper())
    assert (done.code, done.out) == (0, "") and done.err.startswith("bench: 20") and words[0] in done.err
    (said,) = stored(done.store)
    assert said.target == (kind, raw[kind])
    assert (said.author, said.reason is None) == ("ann" if "ann" in words else None, "tag=" in words[0])
    assert bench("results", "verify").err.startswith("0 damaged, 0 notes")
    listed = bench("results", "annotations")
    assert (listed.code, listed.err) == (0, "") and listed.out == done.err.removeprefix("bench: ")


def test_dates_are_of_utc_and_days_count_from_the_beginning(bench: Bench, mine: Record) -> None:
    words = ("results", "annotate", "quarantine", "--host", HOST, "--reason", "a fan is broken")
    assert bench(*words, "--at", "2026-05-30", "--until", "14d").code == 0
    done = bench(*words, "--at", "2026-05-30T12:00:00+02:00", "--until", "2026-05-31")
    assert [(said.at_utc, said.until_utc) for said in stored(done.store)] == [
        ("2026-05-30T00:00:00Z", "2026-06-13T00:00:00Z"),
        ("2026-05-30T10:00:00Z", "2026-05-31T00:00:00Z"),
    ]


def test_without_a_date_it_holds_from_now_on(bench: Bench, mine: Record) -> None:
    before = datetime.now(timezone.utc).replace(microsecond=0)
    (said,) = stored(bench("results", "annotate", "exclude", "--record", mine.record_id, "--reason", "x").store)
    assert before <= utc(said.at_utc) <= datetime.now(timezone.utc)
    assert said.at_utc.endswith("Z") and said.until_utc is None


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("praise", "--host", HOST), ("unknown annotation 'praise'",)),
        (("excluded", "--record", "00000000"), ("nearest: exclude",)),
        (("tag=x",), ("of what? give exactly one (--record, --launch, --sweep, --series, --config, --host)",)),
        (("tag=x", "--host", HOST, "--sweep", "0193"), ("of what?",)),
        (("tag=x", "--record", "00000000"), ("no record '00000000' in", "bench show RECORD")),
        (("tag=x", "--host", "7dd"), ("no host '7dd'",)),
        (("tag=x", "--host", ""), ("no host ''",)),
        (("tag", "--host", HOST), ("a tag has its name",)),
        (("tag=two words", "--host", HOST), ("no valid annotation", "$.tag")),
        (("exclude=x", "--host", HOST, "--reason", "r"), ("`exclude` is said of record_id, launch_id, sweep_id",)),
        (("acknowledged", "--host", HOST), ("`acknowledged` needs a reason",)),
        (("quarantine", "--host", HOST, "--reason", "r"), ("needs its end", "give --until 14d")),
        (("quarantine", "--host", HOST, "--reason", "r", "--until", "soon"), ("'soon' is no date", "or 14d")),
        (("quarantine", "--host", HOST, "--reason", "r", "--until", "2001-01-01"), ("ends, and after it began",)),
        (("tag=x", "--host", HOST, "--at", "14d"), ("'14d' is no date; write 2026-11-30 or 2026-11-30T12:00:00Z",)),
        (("tag=x", "--host", HOST, "--at", "2026-02-30"), ("is no date",)),
        (("tag=x", "--host", HOST, "--until", "14d"), ("only a quarantine ends",)),
        (("quarantine", "--host", HOST, "--reason", "r", "--at", "9999-12-30", "--until", "14d"), ("is no date",)),
    ],
)
def test_what_cannot_be_said_is_one_line(
    bench: Bench, mine: Record, words: tuple[str, ...], says: tuple[str, ...]
) -> None:
    done = bench("results", "annotate", *words)
    refused(done, 2, *says)
    assert not (done.store.root / "annotations").exists()


def test_a_part_that_means_two_things_is_refused(bench: Bench, mine: Record, tmp_path: Path) -> None:
    other = record(who=identity("pp512", host_id=HOST[:8] + "0" * 8))
    with Store(tmp_path / "results").launch(other.launch_id) as draft:
        draft.add(other)
    refused(bench("results", "annotate", "tag=x", "--host", HOST[:8]), 2, f"2 match '{HOST[:8]}'", "give more of it")
    assert bench("results", "annotate", "tag=x", "--host", HOST[:9]).code == 0


def test_an_annotation_that_cannot_be_read_is_passed_over(bench: Bench, mine: Record) -> None:
    store = bench("results", "annotate", "tag=x", "--host", HOST).store
    (path,) = (store.root / "annotations").rglob("*.json")
    shutil.copy(path, path.with_name(f"{new_uuid7()}.json"))
    listed = bench("results", "annotations")
    assert listed.code == 0 and listed.out.count("\n") == 1
    assert listed.err.startswith("bench: passed over: ") and "copied or renamed" in listed.err
