"""Stores for tests: fixed launches, journals and annotations, of which each store has a part of its own."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import msgspec

from bench.results.annotations import Annotation, annotation_path
from bench.results.ids import new_uuid7
from bench.results.record import encode
from bench.results.schema import Info
from bench.results.store import Store
from tests.records import record

LAUNCHES = sorted(new_uuid7() for _ in range(4))
SWEEPS = sorted(new_uuid7() for _ in range(2))


def _launch(launch_id: str) -> dict[str, bytes]:
    """Every file of a launch, by name."""
    info = Info(sweep_id=SWEEPS[0], started_at_utc="2026-01-02T03:04:05Z", host={"hostname": "lab-seven"})
    records = [record(workload, launch_id=launch_id, info=info) for workload in ("tg4", "pp512")]
    logs = {"worker.log": b"what the runtime printed\n", "events.jsonl": b'{"event":"done"}\n'}
    return {**{f"record-{each.record_id}.json": encode(each) for each in records}, **logs}


FILES: dict[str, dict[str, bytes]] = {launch_id: _launch(launch_id) for launch_id in LAUNCHES}


def line(event: str, **fields: Any) -> bytes:
    """One line of a journal."""
    return msgspec.json.encode({"event": event, **fields}) + b"\n"


def events(sweep_id: str) -> list[bytes]:
    """The lines of a journal, in the order in which a sweep writes them."""
    lines = [line("planned", sweep_id=sweep_id, case_keys=["a#0", "b#0"], plan={"flags": ["--model"]})]
    for launch_id in LAUNCHES:
        lines.append(line("started", launch_id=launch_id, case_keys=["a#0"]))
        names = [name[7:-5] for name in FILES[launch_id] if name.startswith("record-")]
        lines.append(line("committed", launch_id=launch_id, record_ids=names))
    return [*lines, line("interrupted", launch_id=LAUNCHES[-1]), line("finished")]


ANNOTATIONS = [
    Annotation(id=new_uuid7(), kind="tag", tag=name, launch_id=launch_id, at_utc="2026-01-02T00:00:00Z")
    for name, launch_id in zip(("best", "worst", "first"), LAUNCHES, strict=False)
]


def write(
    root: Path,
    launches: Mapping[str, Iterable[str]] = {},
    journals: Mapping[str, bytes] = {},
    annotations: Iterable[Annotation] = (),
) -> Store:
    """A store at `root` with these files of launches, journals and annotations."""
    store = Store(root)
    parts = {store.launch_path(id) / name: FILES[id][name] for id, names in launches.items() for name in names}
    parts |= {root / "sweeps" / f"{sweep_id}.jsonl": data for sweep_id, data in journals.items()}
    parts |= {annotation_path(store, each.id): msgspec.json.encode(each) + b"\n" for each in annotations}
    root.mkdir(parents=True, exist_ok=True)
    for path, data in parts.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    return store


def whole(root: Path) -> Store:
    """A store with everything."""
    return write(root, FILES, {sweep_id: b"".join(events(sweep_id)) for sweep_id in SWEEPS}, ANNOTATIONS)


def content(store: Store) -> dict[str, bytes]:
    """Every file that readers look at, by its place; of journals the whole lines, and only where there are any."""
    found = {}
    for path in store.root.rglob("*"):
        place = path.relative_to(store.root)
        if path.is_file() and not any(part.startswith(".") for part in place.parts):
            found[place.as_posix()] = path.read_bytes()
            if place.parts[0] == "sweeps":
                found[place.as_posix()] = path.read_bytes()[: path.read_bytes().rfind(b"\n") + 1]
    return {name: data for name, data in found.items() if data or not name.startswith("sweeps/")}
