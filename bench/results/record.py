"""A record: what one case of one launch leaves in the store, and its way to bytes and back."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Annotated, Any

import msgspec
from msgspec import Meta, Struct

from bench.results.document import Document
from bench.results.ids import UUID7_PATTERN, check_uuid7, new_uuid7
from bench.results.keys import config_key, precision_key, series_key
from bench.results.metered import Collector, Condition, Energy
from bench.results.schema import (
    Ceiling,
    Covariates,
    Facts,
    Gate,
    Identity,
    Info,
    Load,
    Memory,
    Origin,
    Reason,
    Sample,
    Source,
    Status,
)

SCHEMA = "bench.record"
SCHEMA_VERSION = "1.4"

new_record_id = new_uuid7
Uuid7 = Annotated[str, Meta(pattern=UUID7_PATTERN)]

__all__ = ["SCHEMA", "SCHEMA_VERSION", "Record", "check_uuid7", "decode", "encode", "new_record", "new_record_id"]


class Record(Struct, frozen=True, kw_only=True, dict=True):
    """One case of one launch. `dict=True` lets a decoded record remember its bytes, so that unknown fields survive."""

    schema: str = SCHEMA
    schema_version: str = SCHEMA_VERSION
    record_id: Uuid7
    launch_id: Uuid7
    origin: Origin
    status: Status
    reason: Reason | None = None
    series_key: str
    config_key: str
    precision_key: str | None = None
    identity: Identity
    covariates: Covariates
    info: Info
    facts: Facts | None = None
    gate: Gate | None = None
    ceiling: Ceiling | None = None
    load: Load | None = None
    samples: list[Sample] = []
    memory: list[Memory] = []
    energy: Energy | None = None
    conditions: list[Condition] = []
    collector: Collector | None = None
    source: Source | None = None
    warnings: list[str] = []

    @property
    def path(self) -> Path | None:
        """The file it was read from; its folder holds the launch's events and log. None if it was built here."""
        return self.__dict__.get("path")

    @property
    def proven(self) -> bool:
        """Whether it may be ranked: `ok`, and measured here rather than claimed by an import."""
        return self.status == "ok" and self.origin == "measured"

    def raw(self) -> dict[str, Any]:
        """The record as plain JSON values, with the fields that this version does not know."""
        stored: bytes | None = self.__dict__.get("stored")
        mapping: dict[str, Any] = msgspec.json.decode(stored) if stored else msgspec.to_builtins(self)
        return mapping


_DOCUMENT = Document("record", SCHEMA, SCHEMA_VERSION, Record)


def new_record(
    *,
    launch_id: str,
    status: Status,
    identity: Identity,
    covariates: Covariates,
    info: Info,
    origin: Origin = "measured",
    reason: Reason | None = None,
    facts: Facts | None = None,
    **measured: Any,
) -> Record:
    """A record with a fresh id and its three keys; `measured` are the remaining fields of Record."""
    return Record(
        record_id=new_record_id(),
        launch_id=launch_id,
        origin=origin,
        status=status,
        reason=reason,
        series_key=series_key(identity),
        config_key=config_key(identity),
        precision_key=precision_key(facts),
        identity=identity,
        covariates=covariates,
        info=info,
        facts=facts,
        **measured,
    )


def encode(record: Record) -> bytes:
    """`record` as one line of JSON. ValueError for NaN, infinity, or a value that could not be read back."""
    mapping = record.raw()
    _refuse_non_finite(mapping, "record")
    data = msgspec.json.encode(mapping)
    try:
        msgspec.json.decode(data, type=Record)
    except msgspec.ValidationError as error:
        raise ValueError(f"record {record.record_id} would not be readable: {error}") from None
    return data + b"\n"


def decode(data: bytes, path: Path | None = None) -> Record:
    """The record in `data`. StoreError naming `path` if it is damaged, no record, or of a newer major version.

    A newer minor version is read; `raw()` keeps the fields that it added.
    """
    record = _DOCUMENT.decode(data, str(path) if path else "record", _check_ids)
    record.__dict__.update(stored=data, path=path)
    return record


def json_schema() -> dict[str, Any]:
    """JSON Schema of a record, generated from the Structs; committed as record.schema.json."""
    return _DOCUMENT.json_schema()


def _check_ids(record: Record) -> None:
    check_uuid7(record.record_id)  # a pattern's `$` lets a trailing newline pass
    check_uuid7(record.launch_id, "launch")


def _refuse_non_finite(value: Any, where: str) -> None:
    if isinstance(value, float):
        if not math.isfinite(value):
            raise ValueError(f"{where} is {value}: not measured is None, never a number")
    elif isinstance(value, dict):
        for key, item in value.items():
            _refuse_non_finite(item, f"{where}.{key}")
    elif isinstance(value, list):
        for index, item in enumerate(value):
            _refuse_non_finite(item, f"{where}[{index}]")
