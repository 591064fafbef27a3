"""Devices as torch presents them: which are here, which one was asked for, and what stands in the way.

Nothing falls back and nothing is guessed. What is the same for all goes through torch.accelerator; names and memory are
only in the modules of the single kinds (torch.cuda, torch.xpu, torch.npu, ...), which agree on these functions.
"""

from __future__ import annotations

import os
import platform
from collections.abc import Sequence
from importlib import import_module, metadata
from pathlib import Path
from typing import Any

import torch

from backends.pytorch import isa
from backends.pytorch.kinds import CPU, Kind, maker
from bench.errors import PrerequisiteError
from bench.types import Device, pci_address

NVIDIA_DRIVER = Path("/proc/driver/nvidia/version")
IPEX = "intel_extension_for_pytorch"
_THREADS = torch.get_num_threads()
"""torch's own choice, before any session has changed it."""


def versions(kind: Kind) -> dict[str, str]:
    """Of torch, of the extension, and of the toolkit that torch is built with."""
    found = {"torch": torch.__version__}
    if kind.extension:
        found[kind.extension] = _version(kind.extension)
    if kind.build and (toolkit := getattr(torch.version, kind.build, None)):
        found[kind.build] = str(toolkit)
    return found


def present(kind: Kind) -> tuple[Device, ...]:
    """All devices of `kind`; PrerequisiteError, with what is missing and how to get it, where there are none."""
    if kind is CPU:
        return (Device(kind=CPU.name, name=_processor()),)
    module = ready(kind)
    return tuple(described(kind, module, index) for index in range(module.device_count()))


def chosen(kind: Kind, asked: str | None) -> torch.device:
    """The device `asked` for (`cuda:1`, `1`), the first where none is; PrerequisiteError where it is not here."""
    index = place_of(kind, asked, present(kind))
    device = torch.device(kind.word) if kind is CPU else torch.device(kind.word, index)
    return torch.empty(0, device=device).device  # as tensors that lie there name it


def place_of(kind: Kind, asked: str | None, there: Sequence[Device]) -> int:
    """The index of the device that `asked` names, by our word or torch's; PrerequisiteError for none of `there`."""
    names = [kind.name if kind is CPU else f"{kind.name}:{device.index}" for device in there]
    word, _, number = (asked or kind.name).lower().partition(":")
    if word.isdecimal() and not number:
        word, number = kind.name, word
    wanted = kind.name if kind is CPU and not number else f"{kind.name}:{number or there[0].index}"
    if word not in (kind.name, kind.word) or wanted not in names:
        raise PrerequisiteError(
            f"there is no device {asked!r}",
            where=f"backend {kind.name}",
            cause=f"present: {', '.join(names)}",
            remedy=f"--device {names[0]}",
        )
    return there[names.index(wanted)].index


def described(kind: Kind, module: Any, index: int) -> Device:
    """One device: its kind is its maker's where it is not the one that torch pretends."""
    name, properties = module.get_device_name(index), _properties(module, index)
    arch, uuid = getattr(properties, "gcnArchName", ""), getattr(properties, "uuid", None)
    return Device(
        kind=maker(kind, torch.__version__, name, arch, NVIDIA_DRIVER.exists()),
        name=name,
        index=index,
        uuid=None if uuid is None else str(uuid),
        pci=_pci(properties),
    )


def ready(kind: Kind) -> Any:
    """torch's module about `kind`, with at least one device; PrerequisiteError with the first thing in the way."""
    if kind.extension:
        _import(kind)
    if kind.build and getattr(torch.version, kind.build, None) is None:
        remedy = f"bench setup {kind.name}, or a Python whose torch is built for them"  # pip would change nothing here
        raise _absent(kind, f"torch {torch.__version__} is not built for {kind.label}s", remedy)
    module = getattr(torch, kind.word, None)
    if module is None:
        raise _absent(kind, f"torch {torch.__version__} has no torch.{kind.word}", kind.remedy)
    if not module.is_available() or not module.device_count():
        raise _absent(kind, f"torch sees no {kind.label}: {_obstacle(kind)}", kind.notes or kind.remedy)
    return module


def use_ipex() -> str:
    """Import Intel's archived extension and return its version; PrerequisiteError where it does not fit this torch.

    It ends the process when it is imported beside another minor version of torch, so that is looked at first.
    """
    try:
        version = metadata.version(IPEX)
    except metadata.PackageNotFoundError:
        raise PrerequisiteError(
            f"{IPEX} is not installed",
            where="backend xpu, option ipex",
            cause="it is archived: its last release, 2.8.10+xpu, is for torch 2.8",
            remedy="leave --set ipex=on out",
        ) from None
    minor = [".".join(each.split(".")[:2]) for each in (version, torch.__version__)]
    if minor[0] != minor[1]:
        raise PrerequisiteError(
            f"{IPEX} {version} does not fit torch {torch.__version__}",
            where="backend xpu, option ipex",
            remedy=f"install torch {minor[0]}, or leave --set ipex=on out",
        )
    import_module(IPEX)
    return version


def settle(kind: Kind, device: torch.device) -> None:
    """Make `device` the current one, which some kernels are launched on whatever their inputs lie on."""
    if kind is not CPU:
        torch.accelerator.set_device_index(device.index or 0)


def wait(device: torch.device) -> None:
    """Until all that was given to the device is done."""
    if device.type != CPU.word:
        torch.accelerator.synchronize(device)


def free_bytes(device: torch.device) -> int | None:
    """What the device's memory has left; None for the processor, or where it does not tell."""
    tell = _function(device, "mem_get_info")
    return int(tell(device)[0]) if tell else None


def peak_bytes(device: torch.device) -> int | None:
    """The most that torch's allocator has had in use on the device; None for the processor, or where it is not told."""
    tell = _function(device, "max_memory_allocated")
    return int(tell(device)) if tell else None


def hand_back(device: torch.device) -> None:
    """What torch keeps of the device's memory for later, for others."""
    if empty := _function(device, "empty_cache"):
        empty()


def use_threads(count: int | None) -> None:
    """So many from now on in this process; None: as many as torch takes by itself."""
    torch.set_num_threads(count or _THREADS)


def _function(device: torch.device, name: str) -> Any:
    """Of torch's module about the device; None for the processor, or where the module has no such function."""
    return None if device.type == CPU.word else getattr(getattr(torch, device.type), name, None)


def _import(kind: Kind) -> None:
    """The vendor's extension: some add themselves to torch when it is imported, none mind being imported again."""
    assert kind.extension
    try:
        import_module(kind.extension)
    except Exception as error:  # a vendor's package may raise anything where its driver is missing
        what = "is not installed" if isinstance(error, ModuleNotFoundError) else f"cannot be imported: {error}"
        raise _absent(kind, f"{kind.extension} {what}", kind.remedy) from error


def _absent(kind: Kind, what: str, remedy: str) -> PrerequisiteError:
    return PrerequisiteError(what, where=f"backend {kind.name}", remedy=remedy)


def _obstacle(kind: Kind) -> str:
    """The first thing in the way below torch."""
    if not Path(kind.node).exists():
        return f"there is no {kind.node}: no such device, its driver is not loaded, or a container does not show it"
    if not os.access(kind.node, os.R_OK | os.W_OK):
        return f"{kind.node} may not be opened by this user"
    return f"{kind.node} is there, but the driver offers no device"


def _pci(properties: Any) -> str | None:
    """The address of a device whose properties have it (NVIDIA's and AMD's); a card is its function 0."""
    if not hasattr(properties, "pci_bus_id"):
        return None
    return pci_address(properties.pci_domain_id, properties.pci_bus_id, properties.pci_device_id)


def _properties(module: Any, index: int) -> Any:
    try:
        return module.get_device_properties(index)
    except Exception:  # a vendor's module may lack it, or know less of a device than of the others
        return None


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:  # a vendor's image may hold it as a folder
        return str(getattr(import_module(package), "__version__", "unknown"))


def _processor() -> str:
    """As the system names it."""
    return isa.told(isa.CPUINFO, "model name") or platform.processor() or platform.machine()
