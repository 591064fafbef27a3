"""Modules of memory, from the firmware's tables and from the memory controller's driver."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bench.collector.machine.memory_modules import modules
from tests.collector.trees import write


def table(**changed: Any) -> bytes:
    """A memory device with the fields of DMTF DSP0134 3.7, 7.18: 32 GiB of DDR5, 4800 MT/s set of 5600."""
    told = {"kind": 17, "length": 0x5C, "size": 0x7FFF, "type": 0x22, "configured": 4800, "extended": 0, **changed}
    body = bytearray(0x5C)
    struct.pack_into("<BBH", body, 0, told["kind"], told["length"], 0x0011)
    struct.pack_into("<H", body, 0x0C, told["size"])
    struct.pack_into("<B", body, 0x12, told["type"])
    struct.pack_into("<HxxxxxI", body, 0x15, 5600, 32768)
    struct.pack_into("<H", body, 0x20, told["configured"])
    struct.pack_into("<I", body, 0x58, told["extended"])
    return bytes(body) + b"DIMM A1\0SERIAL\0\0"


@pytest.mark.parametrize(
    ("tables", "found"),
    [
        ([table(), table(), table(size=0)], (2, ("DDR5",), (4_800_000_000,))),
        ([table(), table(type=0x1A, configured=3200)], (2, ("DDR4", "DDR5"), (3_200_000_000, 4_800_000_000))),
        ([table(configured=0)], (1, ("DDR5",), ())),
        ([table(configured=0xFFFF, extended=12800)], (1, ("DDR5",), (12_800_000_000,))),
        ([table(configured=0xFFFF, extended=0x7FFFFFFF)], (1, ("DDR5",), ())),
        ([table(type=0xEE)], (1, (), (4_800_000_000,))),
        ([table(length=0x1B)[:0x1B]], (1, ("DDR5",), ())),
        ([table(), table(type=0x09)], (1, ("DDR5",), (4_800_000_000,))),
        ([table(size=0)], None),
        ([table(), table()[:0x20]], None),
        ([table(), table(kind=16)], None),
        ([table(), b""], None),
        ([table(), None], None),
    ],
)
def test_modules_are_read_from_the_firmware(tmp_path: Path, tables: list[Any], found: Any) -> None:
    tree = {f"sys/firmware/dmi/entries/17-{number}/raw": content for number, content in enumerate(tables)}
    told = modules(write(tmp_path, tree))
    assert (told and (told.count, told.types, told.transfers_per_s)) == found


def test_without_root_the_memory_controller_counts(tmp_path: Path) -> None:
    """Documentation/admin-guide/ras.rst; kinds of memory as drivers/edac/edac_mc.c names them."""
    mc = "sys/devices/system/edac/mc/mc0"
    tree: dict[str, Any] = {"sys/firmware/dmi/entries/17-0/raw": None, f"{mc}/rank0/size": "16384\n"}
    for slot, size in enumerate(("16384", "0", "16384", "?")):
        tree |= {f"{mc}/dimm{slot}/size": f"{size}\n", f"{mc}/dimm{slot}/dimm_mem_type": "Registered-DDR5\n"}
    told = modules(write(tmp_path, tree))
    assert told is not None
    assert (told.count, told.types, told.transfers_per_s, told.source) == (2, ("DDR5",), (), "edac")


@pytest.fixture(scope="module")
def slot(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("slot"), {"sys/firmware/dmi/entries/17-0/raw": b""})


@settings(deadline=None)
@given(length=st.integers(0, 255), rest=st.binary(min_size=0x13, max_size=0x60))
def test_no_table_raises_or_tells_an_absurd_rate(slot: Path, length: int, rest: bytes) -> None:
    (slot / "sys/firmware/dmi/entries/17-0/raw").write_bytes(bytes((17, length)) + rest)
    told = modules(slot)
    assert told is None or (told.count == 1 and all(0 < rate <= 40e9 for rate in told.transfers_per_s))
