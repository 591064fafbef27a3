"""Devices by the names that ggml gives them; an absent one is refused, with the build that would have it."""

from __future__ import annotations

import ctypes
from dataclasses import dataclass

from backends.llamacpp.builds import remedy_for
from backends.llamacpp.library import DeviceProperties, Library
from bench.errors import PrerequisiteError
from bench.types import Device

CPU = "CPU"
_KINDS = {0: "cpu", 1: "gpu", 2: "gpu", 3: "accelerator", 4: "gpu"}
"""enum ggml_backend_dev_type: CPU, GPU, integrated GPU, a helper of the CPU, several devices as one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Present:
    """A device of this build that is there. `at` is its ggml_backend_dev_t, `pci` its address where ggml knows it."""

    at: int
    name: str
    kind: str
    description: str
    pci: str | None = None

    def told(self, index: int) -> Device:
        return Device(kind=self.kind, name=self.description or self.name, index=index, pci=self.pci)


def present(lib: Library) -> list[Present]:
    """All devices in ggml's order."""
    found = []
    for index in range(lib.ggml_backend_dev_count()):
        at = lib.ggml_backend_dev_get(index)
        found.append(
            Present(
                at=at,
                name=lib.ggml_backend_dev_name(at).decode(),
                kind=_KINDS.get(lib.ggml_backend_dev_type(at), "accelerator"),
                description=lib.ggml_backend_dev_description(at).decode().strip(),
                pci=_pci(lib, at),
            )
        )
    return found


def asked_for(lib: Library, named: str | None) -> list[Present]:
    """What `--device` names: `CPU`, or devices joined with `+`; all that are no CPU, else the CPU, for None.

    PrerequisiteError where one is not there; its remedy is the build that would have it.
    """
    here = present(lib)
    if named is None:
        return [each for each in here if each.kind == "gpu"] or [each for each in here if each.kind == "cpu"]
    found = []
    for name in named.split("+"):
        match = next((each for each in here if each.name.upper() == name.strip().upper()), None)
        if match is None:
            raise PrerequisiteError(
                f"there is no device {name!r}",
                where="backend llamacpp",
                cause=f"present: {', '.join(each.name for each in here)}; this build has {'+'.join(lib.registered())}",
                remedy=remedy_for(name),
            )
        found.append(match)
    return found


def _pci(lib: Library, at: int) -> str | None:
    """`device_id` is the lower-case PCI address, or NULL (ggml-backend.h)."""
    properties = DeviceProperties()
    lib.ggml_backend_dev_get_props(at, ctypes.byref(properties))
    return properties.device_id.decode() if properties.device_id else None


def free_bytes(lib: Library, device: Present) -> int | None:
    """Free memory of a device with memory of its own; None for the CPU."""
    if device.kind != "gpu":
        return None
    free, total = ctypes.c_size_t(), ctypes.c_size_t()
    lib.ggml_backend_dev_memory(device.at, ctypes.byref(free), ctypes.byref(total))
    return int(free.value)
