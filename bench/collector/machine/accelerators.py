"""Graphics cards and processing accelerators as PCI knows them: without any vendor's library."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path

from bench.collector.machine.kernel_files import entries, integer, lines, number, word

ADDRESS = r"[0-9a-f]{4,8}:[0-9a-f]{2}:[0-9a-f]{2}\.[0-7]"
CLASSES = re.compile(r"0x(03|12)[0-9a-f]{4}")
"""Display controllers, and processing accelerators (PCI Code and ID Assignment Specification)."""
RATES = {"2.5": 2.5e9, "5": 5e9, "5.0": 5e9, "8": 8e9, "8.0": 8e9, "16.0": 16e9, "32.0": 32e9, "64.0": 64e9}
"""As `pci_speed_string` writes them, before Linux 5.7 with no decimal."""
WIDTHS = (1, 2, 4, 8, 12, 16, 32)
BARS = 6
"""Of the lines in `resource`; those behind them are the ROM, virtual functions and bridges' windows."""
IORESOURCE_MEM = 0x200


@dataclass(frozen=True, slots=True, kw_only=True)
class Accelerator:
    """One PCI function. Ids are four hexadecimal digits, `subsystem` is `vendor:device`.

    The link is that between the slot and the card. `link_transfers_per_s` is of this moment: idle cards slow it down.
    `bar_bytes` is the largest window into its memory: 256 MiB where the whole is not mapped (no resizable BAR).
    """

    address: str
    vendor_id: str | None
    device_id: str | None
    subsystem: str | None
    driver: str | None
    numa_node: int | None
    link_transfers_per_s: float | None
    link_transfers_per_s_most: float | None
    link_lanes: int | None
    link_lanes_most: int | None
    bar_bytes: int | None


def accelerators(root: Path = Path("/")) -> tuple[Accelerator, ...]:
    """Every display controller and processing accelerator, by address (Documentation/ABI/testing/sysfs-bus-pci)."""
    found = entries(root / "sys/bus/pci/devices", ADDRESS)
    return tuple(_accelerator(device) for device in found if CLASSES.fullmatch(word(device / "class") or ""))


def _accelerator(device: Path) -> Accelerator:
    slot = _upstream_port(device)
    maker, model = _id(device / "subsystem_vendor"), _id(device / "subsystem_device")
    return Accelerator(
        address=device.name,
        vendor_id=_id(device / "vendor"),
        device_id=_id(device / "device"),
        subsystem=f"{maker}:{model}" if maker and model else None,
        driver=_target(device / "driver"),
        numa_node=integer(device / "numa_node", most=4096),
        link_transfers_per_s=_rate(slot / "current_link_speed"),
        link_transfers_per_s_most=_rate(slot / "max_link_speed"),
        link_lanes=_lanes(slot / "current_link_width"),
        link_lanes_most=_lanes(slot / "max_link_width"),
        bar_bytes=_largest_bar(device / "resource"),
    )


def _upstream_port(device: Path) -> Path:
    """The function of the card that stands in the slot: the device, or the topmost bridge of a switch on the card.

    Behind such a switch the device's own link is one inside the card: some state 2.5 GT/s and one lane in any slot
    (nvtop #344), others the full width (nokyan/resources #512). A switch of another vendor's is not on the card, and
    the root port belongs to the board.
    """
    top, vendor = Path(os.path.realpath(device)), word(device / "vendor")
    if vendor is None:
        return device
    while _is_device(top.parent) and _is_device(top.parent.parent) and word(top.parent / "vendor") == vendor:
        top = top.parent
    return top


def _is_device(path: Path) -> bool:
    return re.fullmatch(ADDRESS, path.name) is not None


def _id(path: Path) -> str | None:
    text = word(path) or ""
    return text[2:] if re.fullmatch(r"0x[0-9a-f]{4}", text) else None


def _target(path: Path) -> str | None:
    try:
        return path.readlink().name or None
    except OSError:
        return None


def _rate(path: Path) -> float | None:
    """Transfers per second of `16.0 GT/s PCIe`; None for `Unknown`."""
    amount, _, unit = (word(path) or "").partition(" ")
    return RATES.get(amount) if unit.partition(" ")[0] == "GT/s" else None


def _lanes(path: Path) -> int | None:
    """Lanes; 0 and 63 or 255 stand for a link that is down or a device that fell off the bus."""
    width = number(word(path))
    return width if width in WIDTHS else None


def _largest_bar(path: Path) -> int | None:
    """Bytes of the largest memory window; each line of `resource` is start, end and flags."""
    sizes = []
    for line in lines(path)[:BARS]:
        if re.fullmatch(r"(0x[0-9a-f]{16} ?){3}", line):
            start, end, flags = (int(part, 16) for part in line.split())
            if flags & IORESOURCE_MEM and end > start:
                sizes.append(end - start + 1)
    return max(sizes, default=None)
