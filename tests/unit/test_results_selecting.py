"""Selections: what each selector lets through, what is refused, and what is told where nothing is left."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.errors import UsageError
from bench.results.ids import new_uuid7
from bench.results.record import Record
from bench.results.schema import Code, Covariates, DeviceRef, Info
from bench.results.selecting import KEYS, Selection, left_out, matches, newest, parse, values_of, what_there_is
from tests.records import identity, record

SWEEP = "0193b3f2-6c1a-7d40-9a5e-2f8c01d4e6b7"
LAUNCH = "0193b3f2-7c1a-7d40-9a5e-2f8c01d4e6b8"
ONE = record(
    who=identity(
        devices=[DeviceRef(kind="gpu", name="Arc A770")],
        options={"threads": 2, "spin": True, "dialect": "contrib", "isa": None},
    ),
    launch_id=LAUNCH,
    covariates=Covariates(
        runtime={"onnxruntime": "1.31.1", "torch": "2.13.0+cpu"}, code=Code(commit="cab420d3f099caff81c4f8562ddc80c7")
    ),
    info=Info(started_at_utc="2026-11-22T15:20:11.005+00:00", sweep_id=SWEEP),
)


class Told:
    """Annotations of two records at most."""

    def __init__(self, tagged: Record | None = None, excluded: Record | None = None) -> None:
        self._tagged, self._excluded = tagged, excluded

    def tags(self, record: Record) -> set[str]:
        return {"v1", "good"} if record is self._tagged else set()

    def excluded(self, record: Record) -> object | None:
        return "why" if record is self._excluded else None


@pytest.mark.parametrize(
    ("fits", "does_not"),
    [
        ("backend=onnx", "backend=onn"),
        ("model=smollm2-135m", "model=smollm2"),
        ("model=smollm2-135m-int8", "model=smollm2-135m-int4"),
        ("scheme=int8", "scheme=int"),
        ("workload=tg4", "workload=tg"),
        ("machine=h1", "machine=1"),
        ("device=arc", "device=cpu"),
        ("device=gpu", "device=A780"),
        ("provider=CPU", "provider=Execution"),
        ("provider=cpuexecutionprovider", "provider=CUDAExecutionProvider"),
        ("commit=CAB420", "commit=ab420"),
        ("version=1.31", "version=1.3"),
        ("version=2.13.0", "version=2.13.0+cp"),
        (f"sweep={SWEEP}", "sweep=0193b3f27"),
        ("sweep=d4e6b7", "sweep=d4e6b8"),
        ("launch=0193b3f2-7c", "launch=7c1a"),
        (f"series={ONE.series_key[:6]}", f"series={'0' * 64}"),
        ("fidelity=native", "fidelity=exact"),
        ("status=ok", "status=unproven"),
        ("since=2026-11-22", "since=2026-11-23"),
        ("since=2026-11-22T15:20", "since=2026-11-22T15:21"),
        ("since=2026-11-22T17:20+02:00", "since=2026-11-22T15:20-02:00"),
        ("until=2026-11-22", "until=2026-11-21"),
        ("until=2026-11-22T15:21Z", "until=2026-11-22T15:20"),
        ("set.threads=2", "set.threads=20"),
        ("set.spin=true", "set.spin=True"),
        ("set.dialect=contrib", "set.dialect=standard"),
        ("set.isa=null", "set.streams=null"),
        ("backend=x,backend=onnx", "backend=x,backend=y"),
        ("backend=onnx,model=smollm2-135m", "backend=onnx,model=other"),
        (" backend = onnx , scheme = int8 ", " backend = onnx , scheme = int4 "),
        ("latest=3", "latest=3,backend=x"),
    ],
)
def test_what_a_selector_lets_through(fits: str, does_not: str) -> None:
    assert matches(ONE, parse(fits))
    assert not matches(ONE, parse(does_not))


def test_every_selector_is_tried() -> None:
    (marks,) = [mark for mark in test_what_a_selector_lets_through.pytestmark if mark.name == "parametrize"]  # type: ignore[attr-defined]
    tried = {part.partition("=")[0].strip() for fits, _ in marks.args[1] for part in fits.split(",")}
    named = {"set.OPTION" if key.startswith("set.") else key for key in tried}
    assert named == set(KEYS) - {"tag"}


def test_tags_are_what_people_said() -> None:
    assert matches(ONE, parse("tag=v1"), Told(tagged=ONE)) and matches(ONE, parse("tag=x,tag=good"), Told(tagged=ONE))
    assert not matches(ONE, parse("tag=v"), Told(tagged=ONE))
    assert not matches(ONE, parse("tag=v1"), Told()) and not matches(ONE, parse("tag=v1")), "nobody said anything"


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("bakend=onnx", "nearest: backend"),
        ("Backend=onnx", "nearest: backend"),
        ("=onnx", "neither key=value nor an existing path"),
        ("backend=", "neither key=value"),
        ("backend", "neither key=value"),
        ("", "neither key=value"),
        (" ", "neither key=value"),
        ("backend=a,,model=b", "'' is neither key=value"),
        ("backend=a,b", "'b' is neither key=value"),
        ("set.=2", "unknown selector 'set.'"),
        ("status=okay", "nearest: ok"),
        ("fidelity=fast", "known: exact, native"),
        ("latest=0", "no number of launches"),
        ("latest=-1", "no number of launches"),
        ("latest=1e3", "no number of launches"),
        ("latest=9999999", "no number of launches"),
        ("latest=٣", "no number of launches"),
        ("commit=abc", "4 or more"),
        ("sweep=../..", "no part of an id"),
        ("since=yesterday", "no date"),
        ("until=2026-13-01", "no date"),
        ("backend=a\0", None),
        ("\0", "neither key=value"),
        ("x" * 5000, "longer than"),
        ("/nowhere/at/all", "nor an existing path"),
    ],
)
def test_bad_selectors_are_told(text: str, says: str | None) -> None:
    if says is None:
        assert not matches(ONE, parse(text))
        return
    with pytest.raises(UsageError, match=says) as told:
        parse(text, where="A")
    assert str(told.value).startswith("A: ") and "\n" not in str(told.value)


def test_a_path_stands_alone_or_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    odd = tmp_path / "my,results=1"
    odd.mkdir()
    assert parse(str(odd)) == Selection(path=odd)
    assert parse(f"{tmp_path},backend=onnx") == Selection(path=tmp_path, wanted={"backend": ("onnx",)})
    with pytest.raises(UsageError):
        parse(f"backend=onnx,{tmp_path}")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "backend=onnx").touch()
    assert parse("backend=onnx").path is None, "a file that happens to lie here changes nothing"
    assert parse("./backend=onnx").path == Path("./backend=onnx")


@given(st.text(max_size=60) | st.lists(st.sampled_from([*KEYS, "=", ",", "2026", "set.a", "\0", "9"])).map("".join))
def test_no_text_is_a_bug(text: str) -> None:
    try:
        selection = parse(text)
    except UsageError:
        return
    matches(ONE, selection)
    what_there_is([ONE], selection)


@given(st.data())
def test_a_record_has_what_it_is_selected_by(data: Any) -> None:
    chosen = data.draw(st.lists(st.sampled_from([key for key in KEYS if key not in ("latest", "set.OPTION")])))
    parts = [f"{key}={data.draw(st.sampled_from(values_of(ONE, key)))}" for key in chosen if values_of(ONE, key)]
    if parts:
        assert matches(ONE, parse(",".join(parts)))


def test_what_does_not_count_says_why() -> None:
    assert left_out(ONE) is None and left_out(record(status="unproven")) is None
    assert [left_out(record(status=each)) for each in ("invalid", "failed", "unsupported")] == [
        "invalid", "failed", "unsupported",
    ]  # fmt: skip
    assert left_out(ONE, Told(excluded=ONE)) == "excluded" and left_out(record(), Told(excluded=ONE)) is None


def test_newest_are_the_newest_launches_of_each_series() -> None:
    ids = [new_uuid7() for _ in range(3)]
    mine = [record(launch_id=each) for each in ids]
    two_of_one = record(launch_id=ids[2])
    lone = record("pp512", launch_id=ids[0])
    assert newest([*reversed(mine), two_of_one, lone], 2) == [mine[2], mine[1], two_of_one, lone]
    assert newest(iter(mine), None) == mine


def test_what_there_is() -> None:
    records = [ONE, record("pp512", who=identity("pp512", backend="openvino"))]
    told = {
        "backend=x": "there is backend onnx, openvino",
        "backend=openvino,workload=tg4": "there is backend onnx; workload pp512",
        "backend=x,workload=y": "there is backend onnx, openvino; workload pp512, tg4",
        "tag=x": "no record has any tag",
        "set.streams=1,tag=x": "no record has any set.streams, tag",
    }
    assert {text: what_there_is(records, parse(text)) for text in told} == told
    assert what_there_is([], parse("backend=x")) == "there are no records at all"
    many = [record(who=identity(backend=f"b{n:02}")) for n in range(20)]
    assert what_there_is(many, parse("backend=x")).endswith("b06, b07 and 12 more")


@pytest.mark.parametrize("started", [None, "", "soon", "0001-01-01T00:00+14:00", "9999-12-31T23:59-14:00", "２０２６"])
def test_a_start_that_is_no_time_is_in_no_period(started: str | None) -> None:
    foreign = record(info=Info(started_at_utc=started))
    assert not matches(foreign, parse("since=0001-01-02"))
    assert not matches(foreign, parse("until=9999-12-30"))
