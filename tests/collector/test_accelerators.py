"""Cards as PCI knows them, in trees shaped like /sys/devices."""

from __future__ import annotations

from pathlib import Path

import pytest

from bench.collector.machine.accelerators import accelerators


def device(address: str, **more: str) -> dict[str, str]:
    """A PCI function at a path below /sys/devices; its name is the last part."""
    return {f"sys/devices/pci0000:00/{address}/{name}": content for name, content in more.items()}


def link(speed: str, lanes: str, most_speed: str, most_lanes: str) -> dict[str, str]:
    return {
        "current_link_speed": speed,
        "current_link_width": lanes,
        "max_link_speed": most_speed,
        "max_link_width": most_lanes,
    }


def card(vendor: str, *, switch_vendor: str | None = None) -> dict[str, str]:
    """A card with a switch of its own behind a root port, each with another link.

    Links as in nokyan/resources #512, positions as in nvtop #344; the rest after sysfs-bus-pci.
    """
    top = {"vendor": f"{switch_vendor or vendor}\n", "class": "0x060400\n"}
    gpu = {"vendor": f"{vendor}\n", "device": "0x744c\n", "class": "0x030000\n", "numa_node": "-1\n"}
    gpu |= {"subsystem_vendor": "0x1da2\n", "subsystem_device": "0xe471\n"}
    bars = [(0x6000000000, 0x67FFFFFFFF, 0x14220C), (0, 0, 0), (0x6800000000, 0x680FFFFFFF, 0x14220C)]
    bars += [(0, 0, 0), (0xE000, 0xE0FF, 0x40101), (0, 0, 0), (0, 1 << 40, 0x200)]
    gpu["resource"] = "".join(f"0x{start:016x} 0x{end:016x} 0x{flags:016x}\n" for start, end, flags in bars)
    return {
        **device("0000:00:01.0", vendor=top["vendor"], **link("2.5 GT/s PCIe\n", "2\n", "2.5 GT/s PCIe\n", "2\n")),
        **device("0000:00:01.0/0000:01:00.0", **top, **link("16.0 GT/s PCIe\n", "8\n", "32.0 GT/s PCIe\n", "16\n")),
        **device("0000:00:01.0/0000:01:00.0/0000:02:00.0", **top),
        **device(
            "0000:00:01.0/0000:01:00.0/0000:02:00.0/0000:03:00.0",
            **gpu,
            **link("32.0 GT/s PCIe\n", "16\n", "32.0 GT/s PCIe\n", "16\n"),
        ),
    }


def write(root: Path, tree: dict[str, str]) -> Path:
    """The files, and links to PCI functions as the bus lists them."""
    for name, content in tree.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
    bus = root / "sys/bus/pci/devices"
    bus.mkdir(parents=True, exist_ok=True)
    for path in {(root / name).parent for name in tree if "/pci0000:00/" in name}:
        (bus / path.name).symlink_to(path)
    return root


def test_a_card_is_read_without_its_library(tmp_path: Path) -> None:
    root = write(tmp_path, card("0x1002"))
    driver = root / "sys/bus/pci/drivers/amdgpu"
    driver.mkdir(parents=True)
    (root / "sys/bus/pci/devices/0000:03:00.0/driver").symlink_to(driver)
    (found,) = accelerators(root)
    assert (found.address, found.vendor_id, found.device_id, found.subsystem) == (
        *("0000:03:00.0", "1002", "744c", "1da2:e471"),
    )
    assert (found.driver, found.numa_node, found.bar_bytes) == ("amdgpu", None, 32 << 30)


@pytest.mark.parametrize(("switch", "lanes"), [("0x1002", 8), ("0x10b5", 16)])
def test_the_link_is_that_of_the_slot(tmp_path: Path, switch: str, lanes: int) -> None:
    """A switch of the card's vendor is on the card; one of another vendor's (PLX: 10b5) is in the chassis."""
    (found,) = accelerators(write(tmp_path, card("0x1002", switch_vendor=switch)))
    assert (found.link_lanes, found.link_lanes_most) == (lanes, 16)
    assert found.link_transfers_per_s == {8: 16e9, 16: 32e9}[lanes]


@pytest.mark.parametrize(("kind", "seen"), [("0x120000", True), ("0x030200", True), ("0x020000", False), ("", False)])
def test_only_display_and_processing_devices_count(tmp_path: Path, kind: str, seen: bool) -> None:
    tree = device("0000:65:00.0", **{"class": f"{kind}\n", "vendor": "0x10de\n"})
    assert bool(accelerators(write(tmp_path, tree))) is seen


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("current_link_speed", "Unknown\n"),
        ("current_link_speed", "16.0 MB/s\n"),
        ("current_link_width", "63\n"),
        ("current_link_width", "0\n"),
        ("resource", "0x0 0xffffffff 0x200\n"),
        ("resource", f"0x{0:016x} 0x{0xFFF:016x} 0x{0x101:016x}\n"),
        ("vendor", "10de\n"),
    ],
)
def test_a_broken_field_of_a_card_is_not_known(tmp_path: Path, name: str, content: str) -> None:
    tree = device("0000:65:00.0", **{"class": "0x030000\n", "vendor": "0x10de\n", name: content})
    (found,) = accelerators(write(tmp_path, tree))
    fields = ("link_transfers_per_s", "link_lanes", "bar_bytes", *(("vendor_id",) if name == "vendor" else ()))
    assert {getattr(found, field) for field in fields} == {None}
