"""Records from a store, from a file of one, from JSON lines; damaged ones are told and passed over."""

from __future__ import annotations

from pathlib import Path

import pytest

from bench.errors import StoreError, UsageError
from bench.reports.summary import render_json
from bench.results import reading
from bench.results.reading import records_at
from bench.results.record import Record, encode
from bench.results.store import Store
from tests.records import record

GOLDEN = Path(__file__).parents[1] / "golden" / "records" / "1.0" / "ok.json"


def read(path: Path) -> tuple[list[Record], list[str]]:
    told: list[StoreError] = []
    return list(records_at(path, told.append)), [str(error) for error in told]


def test_a_store(tmp_path: Path) -> None:
    one, two = record(), record("pp512")
    for each in (one, two):
        with Store(tmp_path).launch(each.launch_id) as draft:
            draft.add(each)
    assert read(tmp_path) == ([one, two], [])
    damaged = next((tmp_path / "launches").rglob(f"record-{one.record_id}.json"))
    damaged.write_bytes(b"{")
    found, told = read(tmp_path)
    assert found == [two] and len(told) == 1 and str(damaged) in told[0]


def test_the_file_of_one_record(tmp_path: Path) -> None:
    one = record()
    path = tmp_path / "record.json"
    path.write_bytes(encode(one))
    (found,), told = read(path)
    assert (found, found.path, told) == (one, path, [])
    assert len(read(GOLDEN)[0]) == 1, "indented, as people write it"


def test_json_lines_as_they_are_printed(tmp_path: Path) -> None:
    one, two = record(), record("pp512")
    path = tmp_path / "lines"
    path.write_text(f"{render_json(one)}\n\n{render_json(two)[:-9]}\n{render_json(two)}\n")
    found, told = read(path)
    assert [each.record_id for each in found] == [one.record_id, two.record_id]
    assert len(told) == 1 and f"{path}:3: corrupt record" in told[0]
    path.write_bytes(b"\xff\xfe\n" + encode(one) + b'{"schema": "other"}\n')
    found, told = read(path)
    assert found == [one] and [text.split(": ")[0] for text in told] == [f"{path}:1", f"{path}:3"]


@pytest.mark.parametrize("data", [b"", b"\n\n", b"model,backend\na,b\n", b"[" * 10_000, b"\0" * 64, b"null"])
def test_what_holds_no_record_is_told_once(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "x.json"
    path.write_bytes(data)
    found, told = read(path)
    assert not found and len(told) == 1 and str(path) in told[0]


def test_what_is_no_place_of_records(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UsageError, match="holds no results"):
        read(tmp_path)
    with pytest.raises(UsageError, match="cannot be read: No such file"):
        read(tmp_path / "nothing")
    monkeypatch.setattr(reading, "MOST_BYTES", 8)
    (tmp_path / "large").write_bytes(b"123456789")
    with pytest.raises(UsageError, match="larger than"):
        read(tmp_path / "large")
