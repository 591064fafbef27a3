"""The modules of this machine's memory: how many, of which type, and the rate that the firmware set."""

from __future__ import annotations

import struct
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from bench.collector.machine.kernel_files import entries, integer, raw, word

TYPES = {
    0x12: "DDR",
    0x13: "DDR2",
    0x18: "DDR3",
    0x1A: "DDR4",
    0x1B: "LPDDR",
    0x1C: "LPDDR2",
    0x1D: "LPDDR3",
    0x1E: "LPDDR4",
    0x1F: "logical non-volatile",
    0x20: "HBM",
    0x21: "HBM2",
    0x22: "DDR5",
    0x23: "LPDDR5",
    0x24: "HBM3",
}
"""DMTF DSP0134, 7.18.2."""
FIRMWARE_MEMORY = range(0x08, 0x0D)
"""ROM, flash and their like: some firmware lists the chip it lies in as one more memory device."""
MOST_MT_PER_S = 40_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Modules:
    """The populated slots; types and rates are those that occur, sorted, empty where none is told.

    `transfers_per_s` is the configured rate, not the one printed on the module. `source` is `smbios` or `edac`.
    """

    count: int
    types: tuple[str, ...]
    transfers_per_s: tuple[int, ...]
    source: str


def modules(root: Path = Path("/")) -> Modules | None:
    """What the firmware's tables say, which only root may read, else what the memory controller's driver found.

    None where neither can be read, and where of several tables one cannot: part of the modules is no count.
    """
    return _smbios(root / "sys/firmware/dmi/entries") or _edac(root / "sys/devices/system/edac/mc")


def _smbios(folder: Path) -> Modules | None:
    """Structures of type 17 (Documentation/ABI/testing/sysfs-firmware-dmi-entries; DMTF DSP0134, 7.18)."""
    tables = [raw(entry / "raw") for entry in entries(folder, r"17-\d+")]
    sound = [table for table in tables if table is not None and _is_memory_device(table)]
    if len(sound) < len(tables):
        return None
    populated = [table for table in sound if _populated(table)]
    return _of((TYPES.get(table[0x12]) for table in populated), map(_rate, populated), len(populated), "smbios")


def _is_memory_device(table: bytes) -> bool:
    """Whether the header (type, length, handle) is right and its fields up to the type are there (version 2.1)."""
    return len(table) >= 0x15 and table[0] == 17 and 0x15 <= table[1] <= len(table)


def _populated(table: bytes) -> bool:
    """The size is 0 for an empty slot and all ones where it is not known."""
    (size,) = struct.unpack_from("<H", table, 0x0C)
    return size != 0 and table[0x12] not in FIRMWARE_MEMORY


def _rate(table: bytes) -> int | None:
    """Configured transfers per second; the word of version 2.7, or the double word of 3.3 that it points to."""
    length = table[1]
    value = struct.unpack_from("<H", table, 0x20)[0] if length >= 0x22 else 0
    if value == 0xFFFF:
        value = struct.unpack_from("<I", table, 0x58)[0] & 0x7FFFFFFF if length >= 0x5C else 0
    return value * 10**6 if 0 < value <= MOST_MT_PER_S else None


def _edac(folder: Path) -> Modules | None:
    """Documentation/admin-guide/ras.rst; folders named `rank*` are ranks, of which a module has several."""
    found = [dimm for controller in entries(folder, r"mc\d+") for dimm in entries(controller, r"dimm\d+")]
    populated = [dimm for dimm in found if integer(dimm / "size", least=1)]
    kinds = ((word(dimm / "dimm_mem_type") or "").rpartition("-")[2] for dimm in populated)
    known = set(TYPES.values())
    return _of((kind if kind in known else None for kind in kinds), (), len(populated), "edac")


def _of(types: Iterable[str | None], rates: Iterable[int | None], count: int, source: str) -> Modules | None:
    """None for no module at all: a machine has some, so the source tells nothing."""
    if not count:
        return None
    return Modules(
        count=count,
        types=tuple(sorted({kind for kind in types if kind})),
        transfers_per_s=tuple(sorted({rate for rate in rates if rate})),
        source=source,
    )
