"""Which records one side of a comparison is: `key=value` pairs joined by commas. Pure.

    backend=onnx,model=smollm2-135m-int8,since=2026-11-01,set.threads=2,latest=5

Several of one key: any of them. Different keys: all of them.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timezone
from pathlib import Path
from typing import Protocol, get_args

from bench.errors import UsageError, unknown_name
from bench.results.keys import canonical_json
from bench.results.record import Record
from bench.results.schema import Status

MOST_CHARACTERS = 4096
MOST_LAUNCHES = 10**6
MOST_TOLD = 8
_OPTION = "set."
_PART_OF_DIGEST = re.compile(r"[0-9a-fA-F-]{4,64}")
_DAY = re.compile(r"\d{4}-\d\d-\d\d")


class Said(Protocol):
    """What people said of records: the part of `Annotations` that decides which records a side has."""

    def tags(self, record: Record, /) -> Collection[str]: ...

    def excluded(self, record: Record, /) -> object | None: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Selection:
    """`wanted` are values by key; `path` is where the records lie (None: the store), `latest` as in `newest`."""

    wanted: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    path: Path | None = None
    latest: int | None = None


def _equal(wanted: str, found: str) -> bool:
    return wanted == found


def _within(wanted: str, found: str) -> bool:
    return wanted.casefold() in found.casefold()


def _begins(wanted: str, found: str) -> bool:
    return found.startswith(wanted.lower())


def _either_end(wanted: str, found: str) -> bool:
    return found.startswith(wanted.lower()) or found.endswith(wanted.lower())


def _version(wanted: str, found: str) -> bool:
    """`1.31` is 1.31, 1.31.1 and `1.31+cpu`, but not 1.310."""
    return found.startswith(wanted) and not found[len(wanted) : len(wanted) + 1].isalnum()


def _provider(wanted: str, found: str) -> bool:
    """With or without the word that all of ONNX Runtime's providers end in."""
    return found.casefold().removesuffix("executionprovider") == wanted.casefold().removesuffix("executionprovider")


def _since(wanted: str, found: str) -> bool:
    at, first = _moment(found), _moment(wanted)
    return at is not None and first is not None and at >= first


def _until(wanted: str, found: str) -> bool:
    """A day counts to its end."""
    at, last = _moment(found), _moment(wanted)
    if at is None or last is None:
        return False
    return at.date() <= last.date() if _DAY.fullmatch(wanted) else at <= last


@dataclass(frozen=True, slots=True)
class _Key:
    """What a selector looks at, and when a value that is wanted fits one that a record has."""

    of: Callable[[Record], Iterable[str | None]]
    fits: Callable[[str, str], bool] = _equal
    known: tuple[str, ...] = ()
    digest: bool = False


_KEYS = {
    "backend": _Key(lambda r: [r.identity.backend]),
    "model": _Key(lambda r: [r.identity.model, f"{r.identity.model}-{r.identity.scheme}"]),
    "scheme": _Key(lambda r: [r.identity.scheme]),
    "workload": _Key(lambda r: [r.identity.workload.name]),
    "machine": _Key(lambda r: [r.identity.host_id], _begins),
    "device": _Key(lambda r: [text for d in r.identity.devices for text in (d.kind, d.name)], _within),
    "provider": _Key(lambda r: [r.identity.provider], _provider),
    "commit": _Key(lambda r: [r.covariates.code.commit if r.covariates.code else None], _begins, digest=True),
    "version": _Key(lambda r: r.covariates.runtime.values(), _version),
    "tag": _Key(lambda r: []),  # what people said is not in the record
    "sweep": _Key(lambda r: [r.info.sweep_id], _either_end, digest=True),
    "series": _Key(lambda r: [r.series_key], _begins, digest=True),
    "launch": _Key(lambda r: [r.launch_id], _either_end, digest=True),
    "fidelity": _Key(lambda r: [r.identity.fidelity], known=("native", "exact")),
    "status": _Key(lambda r: [r.status], known=get_args(Status)),
    "since": _Key(lambda r: [r.info.started_at_utc], _since),
    "until": _Key(lambda r: [r.info.started_at_utc], _until),
}
KEYS = (*_KEYS, "latest", f"{_OPTION}OPTION")
"""Every selector, for messages and pages."""


def parse(text: str, *, where: str | None = None) -> Selection:
    """The selection that `text` names; UsageError, at `where`, for what is none.

    The first of the parts may be an existing path instead: a store's folder, a record's file or JSON lines.
    """
    if len(text) > MOST_CHARACTERS:
        raise UsageError(f"is longer than {MOST_CHARACTERS} characters", where=where)
    if not _is_selector(text) and _exists(text):
        return Selection(path=Path(text))
    wanted: dict[str, tuple[str, ...]] = {}
    path, latest = None, None
    for position, part in enumerate(text.split(",")):
        key, given, value = (each.strip() for each in part.partition("="))
        if position == 0 and not _is_selector(part) and _exists(part):
            path = Path(part)
        elif not given or not key or not value:
            remedy = "write key=value,key=value, with a key for each value, or the path of records"
            raise UsageError(f"{part!r} is neither key=value nor an existing path", where=where, remedy=remedy)
        elif key == "latest":
            latest = _count(value, where)
        else:
            wanted[key] = (*wanted.get(key, ()), _checked(key, value, where))
    return Selection(wanted=wanted, path=path, latest=latest)


def matches(record: Record, selection: Selection, annotations: Said | None = None) -> bool:
    """Whether `record` has, for each key, one of the values that are wanted. `latest` is `newest`'s to see to."""
    return all(
        any(_fits(key)(each, found) for found in values_of(record, key, annotations) for each in wanted)
        for key, wanted in selection.wanted.items()
    )


def values_of(record: Record, key: str, annotations: Said | None = None) -> list[str]:
    """What a record has for a selector's key; nothing where it is not known."""
    if key == "tag":
        return sorted(annotations.tags(record)) if annotations else []
    if key.startswith(_OPTION):
        options = record.identity.options
        name = key.removeprefix(_OPTION)
        return [as_text(options[name])] if name in options else []
    return [value for value in _KEYS[key].of(record) if value is not None]


def left_out(record: Record, annotations: Said | None = None) -> str | None:
    """Why a record counts in no comparison: what must not be believed, did not run, or somebody excluded."""
    if annotations and annotations.excluded(record) is not None:
        return "excluded"
    return None if record.status in ("ok", "unproven") else record.status


def newest(records: Iterable[Record], launches: int | None) -> list[Record]:
    """Of each series the records of its newest `launches` launches, in input order; all where it is None."""
    found = list(records)
    if launches is None:
        return found
    ids: dict[str, set[str]] = {}
    for record in found:
        ids.setdefault(record.series_key, set()).add(record.launch_id)
    kept = {key: set(sorted(of)[-launches:]) for key, of in ids.items()}  # ids sort by time
    return [record for record in found if record.launch_id in kept[record.series_key]]


def what_there_is(records: Collection[Record], selection: Selection, annotations: Said | None = None) -> str:
    """For a selection that matches nothing: what there is of each key beside all the others, else at all."""
    if not records:
        return "there are no records at all"
    keys = list(selection.wanted)
    alone: dict[str, list[str]] = {key: [] for key in keys}
    beside = {key: [other for other in keys if other != key] for key in keys}
    for others in (beside, alone):
        said = []
        for key in keys:
            rest = replace(selection, wanted={name: selection.wanted[name] for name in others[key]})
            near = [record for record in records if matches(record, rest, annotations)]
            if found := sorted({value for record in near for value in values_of(record, key, annotations)}):
                some, more = ", ".join(found[:MOST_TOLD]), len(found) - MOST_TOLD
                said.append(f"{key} {some}" + (f" and {more} more" if more > 0 else ""))
        if said:
            return "there is " + "; ".join(said)
    return f"no record has any {', '.join(keys)}"


def as_text(value: object) -> str:
    """A value of an option as it is typed: `2`, `true`, `null`."""
    return value if isinstance(value, str) else canonical_json(value).decode()


def _is_selector(text: str) -> bool:
    """A file in the working folder must not change what `backend=…` means."""
    key, given, _ = text.partition("=")
    return bool(given) and (key.strip() in (*_KEYS, "latest") or key.strip().startswith(_OPTION))


def _exists(text: str) -> bool:
    try:
        return bool(text.strip()) and Path(text).exists()
    except (OSError, ValueError):  # too long, or with a zero byte: no path
        return False


def _checked(key: str, value: str, where: str | None) -> str:
    """`value` where it can be one of `key`'s."""
    if key.startswith(_OPTION) and key != _OPTION:
        return value
    if key not in _KEYS:
        raise unknown_name("selector", key, KEYS, where=where)
    known = _KEYS[key].known
    if known and value not in known:
        raise unknown_name(key, value, known, where=where)
    if _KEYS[key].digest and not _PART_OF_DIGEST.fullmatch(value):
        raise UsageError(f"{key}={value} is no part of an id", where=where, remedy="give 4 or more of 0-9, a-f and -")
    if key in ("since", "until") and _moment(value) is None:
        raise UsageError(
            f"{key}={value} is no date", where=where, remedy=f"write {key}=2026-11-22, or with T15:20 (UTC)"
        )
    return value


def _fits(key: str) -> Callable[[str, str], bool]:
    return _equal if key.startswith(_OPTION) else _KEYS[key].fits


def _count(text: str, where: str | None) -> int:
    if not re.fullmatch(r"[0-9]{1,7}", text) or not 1 <= int(text) <= MOST_LAUNCHES:
        raise UsageError(f"latest={text} is no number of launches", where=where, remedy="write latest=5")
    return int(text)


def _moment(text: str) -> datetime | None:
    """ISO 8601 as a time of UTC, which it is where it says nothing else; None for anything else."""
    try:
        at = datetime.fromisoformat(text.replace("Z", "+00:00"))
        return at.replace(tzinfo=timezone.utc) if at.tzinfo is None else at.astimezone(timezone.utc)
    except (ValueError, OverflowError):
        return None
