"""docs/records.md names every field, figure and column, and none that does not exist."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from bench.reports.column import never
from bench.reports.columns import COLUMNS
from bench.reports.metrics import METRICS, PERCENTILE_FLOORS
from bench.results import annotations
from bench.results.record import json_schema

PAGE = (Path(__file__).parents[2] / "docs" / "records.md").read_text(encoding="utf-8")


def section(title: str) -> str:
    return PAGE.split(f"\n## {title}\n")[1].split("\n## ")[0]


def first_cells(title: str) -> list[str]:
    return [name for row in re.findall(r"^\| (`.*?) \|", section(title), re.M) for name in re.findall(r"`(.*?)`", row)]


def fields(schema: dict[str, Any], definitions: dict[str, Any], path: str = "") -> Iterator[str]:
    for part in (schema, *schema.get("anyOf", [])):
        if "$ref" in part:
            part = definitions[part["$ref"].rsplit("/", 1)[1]]
        if part.get("type") == "array" and isinstance(part.get("items"), dict):
            yield from fields(part["items"], definitions, f"{path}[]")
        for name, inner in part.get("properties", {}).items():
            here = f"{path}.{name}" if path else name
            yield here
            yield from fields(inner, definitions, here)


def test_every_field_is_documented_and_none_is_invented() -> None:
    schema = json_schema()
    names = set(fields(schema, schema["$defs"]))
    listed = first_cells("A record")
    assert len(listed) == len(set(listed))
    assert set(listed) <= names
    # a heading may be left out where its fields are listed
    missing = {n for n in names - set(listed) if not any(x.startswith((f"{n}.", f"{n}[].")) for x in listed)}
    assert not missing


def test_every_field_and_kind_of_an_annotation_is_documented() -> None:
    listed = first_cells("Annotations")
    assert listed == list(annotations.json_schema()["$defs"]["Annotation"]["properties"])
    kinds = re.findall(r"^\| (\w+) \| (.*?) \|", section("Annotations").split("| field |")[0], re.M)[1:]
    assert {kind for kind, _ in kinds} == set(annotations.SAID_OF)
    for kind, said_of in kinds:
        named = [
            name for name in annotations.TARGETS if name.split("_")[0].replace("config", "configuration") in said_of
        ]
        assert said_of == "anything" or tuple(named) == annotations.SAID_OF[kind]


def test_every_figure_is_documented_with_its_id() -> None:
    assert first_cells("Figures") == [m.key for m in METRICS] + [f"itl_p{p}_s" for p in PERCENTILE_FLOORS]
    for metric in METRICS:
        assert f"| `{metric.key}` | `{metric.id}` | {metric.meaning} |" in PAGE
    assert ", ".join(map(str, list(PERCENTILE_FLOORS.values())[:3])) in section("Figures")


def test_every_column_is_documented() -> None:
    figures = {metric.key for metric in METRICS} | {f"itl_p{p}_s" for p in PERCENTILE_FLOORS}
    read = {column.key for column in COLUMNS if column.shown is not never or column.published}
    own = [column for column in COLUMNS if column.key in read or column.key.split(".")[0] not in figures]
    assert first_cells("Columns of a table") == [column.key for column in own]
    for column in own:
        header = column.header if column.key in read else ""
        assert f"| `{column.key}` | {header} | {column.meaning} |" in PAGE
