"""Records: their bytes, their schema and its history."""

from __future__ import annotations

import json
import math
import re
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.errors import StoreError, UsageError
from bench.results import record as record_module
from bench.results.ids import check_uuid7, new_uuid7, uuid7_time
from bench.results.keys import precision_key
from bench.results.record import decode, encode, json_schema
from bench.results.schema import Reason, Sample
from tests.records import record

ROOT = Path(__file__).parents[2]
GOLDEN = sorted((ROOT / "tests" / "golden" / "records").glob("*/*.json"))
SCHEMA_FILE = ROOT / "bench" / "results" / "record.schema.json"


def test_a_record_survives_the_way_to_bytes_and_back() -> None:
    for made in (record(), record(status="failed", reason=Reason(what="x"), facts=None, gate=None, samples=[])):
        data = encode(made)
        assert data.endswith(b"\n") and data.count(b"\n") == 1
        assert decode(data) == made
        assert decode(data).raw() == json.loads(data)
        assert encode(decode(data)) == data


@given(st.lists(st.floats(min_value=0, allow_infinity=False, allow_nan=False)))
def test_samples_keep_every_bit(step_s: list[float]) -> None:
    assert decode(encode(record(samples=[Sample(step_s=step_s)]))).samples[0].step_s == step_s


@pytest.mark.parametrize("number", [math.nan, math.inf, -math.inf])
def test_no_record_holds_what_is_no_number(number: float) -> None:
    with pytest.raises(ValueError, match=re.escape("record.samples[1].step_s[0]")):
        encode(record(samples=[Sample(), Sample(step_s=[number])]))


def test_what_could_not_be_read_back_is_not_written() -> None:
    with pytest.raises(ValueError, match="would not be readable"):
        encode(record(samples=[Sample(step_s=[-1.0])]))


def changed(**fields: Any) -> bytes:
    return json.dumps({**json.loads(encode(record())), **fields}).encode()


def test_a_newer_minor_version_is_read_and_its_fields_survive() -> None:
    newer = decode(changed(schema_version="1.7", mood={"of": ["the", "machine"]}))
    assert newer.raw()["mood"] == {"of": ["the", "machine"]}
    assert json.loads(encode(newer))["mood"] == {"of": ["the", "machine"]}


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (changed(schema_version="2.0"), r"here\.json: schema 2\.0 is newer than 1\.4.*upgrade"),
        (changed(schema_version="10.0"), "is newer than"),
        (changed(schema_version="0.9"), "never existed"),
        (changed(schema_version="one"), "never existed"),
        (changed(schema="llama-bench"), "its schema is 'llama-bench'"),
        (changed(status="splendid"), r"not a valid record: .*\$\.status"),
        (changed(record_id="../../etc/passwd"), r"\$\.record_id"),
        (changed(launch_id=new_uuid7() + "\n"), "not a launch id"),
        (changed(samples=[{"kind": "step", "step_s": [None]}]), r"samples\[0\]\.step_s\[0\]"),
        (b"", "corrupt record: .*after 0 bytes"),
        (encode(record())[:-40], "corrupt record: Input data was truncated"),
        (b'{\n"schema": "bench.record",\n"schema_version" 1}', r"corrupt record: .*line 3, byte 45"),
        (encode(record()).replace(b"[0.5,", b"[NaN,"), "corrupt record"),
        (encode(record()).replace(b"onnx", b"on\xff\xfe"), "corrupt record"),
        (b"[" * 100_000, "not a valid record"),
        (b'{"x":' * 100_000, "corrupt record"),
        (changed()[:-1] + b', "later": ' + b"[" * 100_000, "corrupt record"),
        (b"null", "not a valid record"),
    ],
)
def test_a_damaged_record_is_one_clear_error(data: bytes, says: str) -> None:
    with pytest.raises(StoreError, match=says) as error:
        decode(data, Path("here.json"))
    assert str(error.value).startswith("here.json: ")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("path", GOLDEN, ids=lambda path: f"{path.parent.name}-{path.stem}")
def test_every_version_ever_written_stays_readable(path: Path) -> None:
    read = decode(path.read_bytes(), path)
    assert read.schema_version == path.parent.name
    assert json.loads(encode(read)) == json.loads(path.read_bytes())
    jsonschema.validate(read.raw(), json.loads(SCHEMA_FILE.read_text()))


def test_the_golden_record_still_means_the_same() -> None:
    read = decode((ROOT / "tests/golden/records/1.0/ok.json").read_bytes())
    assert (read.status, read.origin, read.identity.workload.new_tokens) == ("ok", "measured", 8)
    assert read.samples[0].step_s == [0.476, 0.477]
    assert read.gate is not None and (read.gate.class_, read.gate.error) == ("a8-g32", 0.022)
    assert read.facts is not None and read.facts.prefill.activations == "a8-g32"
    assert read.ceiling is not None and read.ceiling.read_bytes_per_s == 2.05e10


def test_what_was_executed_elsewhere_is_read_and_what_was_not_told_changes_no_key() -> None:
    read = decode((ROOT / "tests/golden/records/1.4/fallback.json").read_bytes())
    assert read.facts is not None and read.facts.elsewhere_share == 0.03 and read.info.allow_fallback == 0.05
    assert read.facts.prefill.product_results == "f16" and "3 % of the matrix products not on" in read.warnings[0]
    old, new = (decode((ROOT / f"tests/golden/records/{each}/ok.json").read_bytes()) for each in ("1.3", "1.4"))
    assert precision_key(old.raw()["facts"]) == precision_key(new.raw()["facts"]) == new.precision_key
    assert read.precision_key == precision_key(read.raw()["facts"]) != new.precision_key


def test_there_are_golden_records_of_the_present_version() -> None:
    assert {"ok", "failed"} <= {path.stem for path in GOLDEN if path.parent.name == record_module.SCHEMA_VERSION}


def test_the_committed_schema_is_current() -> None:
    assert json.loads(SCHEMA_FILE.read_text()) == json_schema(), (
        "the schema changed: raise SCHEMA_VERSION, add golden records, and write json_schema() to record.schema.json"
    )
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(json.loads(changed(status="splendid")), json_schema())


def test_ids_sort_by_time_and_are_checked() -> None:
    ids = [new_uuid7() for _ in range(200)]
    assert len(set(ids)) == 200
    assert [uuid7_time(each) for each in ids] == sorted(uuid7_time(each) for each in ids)
    assert check_uuid7(ids[0].upper()) == ids[0]


@pytest.mark.parametrize(
    "text",
    [
        "",
        "0193b3f2",
        "../../../etc/passwd",
        "0193b3f2-6c1a-4d40-9a5e-2f8c01d4e6b7",  # version 4
        "0193b3f2-6c1a-7d40-1a5e-2f8c01d4e6b7",  # no RFC variant
        "0193b3f2-6c1a-7d40-9a5e-2f8c01d4e6b7\n",
        "0193b3f2-6c1a-7d40-9a5e-2f8c01d4e6b7/",
        "٠193b3f2-6c1a-7d40-9a5e-2f8c01d4e6b7",  # a digit, but not of ours
    ],
)
def test_only_a_uuid7_becomes_a_path(text: str) -> None:
    with pytest.raises(UsageError, match="not a record id"):
        check_uuid7(text)


def test_an_id_from_another_millennium_is_refused() -> None:
    with pytest.raises(UsageError, match="millennium"):
        uuid7_time("ffffffff-ffff-7fff-bfff-ffffffffffff")
