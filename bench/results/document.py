"""JSON documents of the store: which versions of a schema are read, and one clear line for whatever is wrong."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, Generic, TypeVar

import msgspec
from msgspec import Struct

from bench.errors import StoreError, UsageError

T = TypeVar("T")


class _Head(Struct):
    schema: str
    schema_version: str


_HEAD = msgspec.json.Decoder(_Head)


class Document(Generic[T]):
    """One kind of document: its `noun` for people, its `schema` and `version` as they stand in it, its `type`."""

    def __init__(self, noun: str, schema: str, version: str, type: type[T]):
        self.noun, self.schema, self.version, self.type = noun, schema, version, type
        self._decoder = msgspec.json.Decoder(type)

    def decode(self, data: bytes, where: str, check: Callable[[T], object] = lambda _: None) -> T:
        """What `data` holds. StoreError naming `where` if it is damaged, something else, or of a newer major version.

        A newer minor version is read. A UsageError of `check` counts as damage.
        """
        try:
            data.decode()  # msgspec skips unknown fields without looking whether they are text
            self._check_version(_HEAD.decode(data), where)
            decoded = self._decoder.decode(data)
            check(decoded)
        except (msgspec.ValidationError, UsageError) as error:
            raise StoreError(
                f"not a valid {self.noun}: {error}", where=where, remedy="move the file out of the store"
            ) from None
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise StoreError(
                f"corrupt {self.noun}: {_located(str(error), data)}",
                where=where,
                cause="the file was truncated or edited",
                remedy="restore it or move it out of the store",
            ) from None
        return decoded

    def json_schema(self) -> dict[str, Any]:
        """JSON Schema, generated from the type."""
        return {
            "$schema": "https://json-schema.org/draft/2020-12/schema",
            "title": f"{self.schema} {self.version}",
            **msgspec.json.schema(self.type),
        }

    def _check_version(self, head: _Head, where: str) -> None:
        if head.schema != self.schema:
            article = "an" if self.noun[0] in "aeiou" else "a"
            what = f"not {article} {self.noun}: its schema is {head.schema[:60]!r}, not {self.schema!r}"
            raise StoreError(what, where=where)
        parts = re.fullmatch(r"(\d{1,6})\.(\d{1,6})", head.schema_version)
        major, ours = int(parts[1]) if parts else 0, int(self.version.split(".")[0])
        if major > ours:
            raise StoreError(
                f"schema {head.schema_version} is newer than {self.version}, the newest that this version reads",
                where=where,
                remedy="upgrade evenbench",
            )
        if major < 1:
            raise StoreError(f"schema version {head.schema_version[:60]!r} never existed", where=where)


def _located(message: str, data: bytes) -> str:
    """msgspec's message with its byte position also as a line, which editors understand."""
    if position := re.search(r"\(byte (\d+)\)| in position (\d+)", message):
        offset = position[1] or position[2]
        line = data[: int(offset)].count(b"\n") + 1
        return message.replace(position[0], f" (line {line}, byte {offset})").replace("  ", " ")
    return f"{message} (after {len(data)} bytes)"
