"""Devices by name: which are present, and what one that is absent needs.

Nothing here falls back, and nothing chooses: a device that is not there is a PrerequisiteError.
"""

from __future__ import annotations

import os
from functools import cache
from pathlib import Path
from typing import Any

import openvino as ov

from backends.openvino import naming
from backends.openvino.failures import told
from bench.errors import PrerequisiteError, UsageError
from bench.types import Device, pci_address

DRIVERS = {
    "GPU": "install Intel's compute runtime (Debian, Ubuntu: apt install intel-opencl-icd ocl-icd-libopencl1, from "
    "Intel's repository for new cards)",
    "NPU": "install the NPU driver (intel-driver-compiler-npu, intel-level-zero-npu and level-zero of "
    "github.com/intel/linux-npu-driver)",
}
NODES = {"GPU": ("/dev/dri", "renderD*", "i915 or xe"), "NPU": ("/dev/accel", "accel*", "intel_vpu")}
"""Where the kernel offers a kind of device, under which names, and by which driver."""


@cache
def core() -> Any:
    """The process's one Core: each further one would start threads of its own."""
    return ov.Core()


def present(core: Any) -> tuple[Device, ...]:
    """The devices that the runtime tells of, each by its own name's index."""
    return tuple(described(core, name) for name in core.available_devices)


def described(core: Any, name: str) -> Device:
    """`GPU.1` as a device: its kind, full name, index, and UUID where the plugin tells."""
    kind, _, index = name.partition(".")
    uuid, pci = _property(core, name, "DEVICE_UUID"), _property(core, name, "DEVICE_PCI_INFO")
    return Device(
        kind=kind.lower(),
        name=str(_property(core, name, "FULL_DEVICE_NAME") or name),
        index=int(index) if index.isdecimal() else 0,
        uuid=None if uuid is None else str(uuid),
        pci=pci_address(**pci) if isinstance(pci, dict) else None,
    )


def resolved(core: Any, asked: str | None) -> list[str]:
    """The devices that `asked` names, as the runtime names them, each once.

    Raises PrerequisiteError where one is not here, UsageError where the choice is left to OpenVINO.
    """
    if objection := naming.objection(asked):
        raise UsageError(objection, where="--device")
    return list(dict.fromkeys(listed(core, part) for part in naming.parts(asked)))


def listed(core: Any, name: str) -> str:
    """`name` as the runtime lists it: GPU for GPU.0 where there is only one, and the other way round."""
    present = list(core.available_devices)
    kind, _, index = name.partition(".")
    for spelled in (name, kind if index == "0" else name, name if index else f"{name}.0"):
        if spelled in present:
            return spelled
    raise _missing(core, name, present)


def _missing(core: Any, name: str, present: list[str]) -> PrerequisiteError:
    """Why `name` is not here: no such kind, no such index, or a plugin that does not start."""
    kind = name.partition(".")[0]
    same = [each for each in present if each.partition(".")[0] == kind]
    cause = f"present: {', '.join(present) or 'none'}"
    if same:
        return PrerequisiteError(f"OpenVINO has no device {name} here", cause=cause, remedy=f"name {' or '.join(same)}")
    if kind not in DRIVERS:
        remedy = "`bench list devices` shows what is there"
        return PrerequisiteError(f"OpenVINO has no device {name} here", cause=cause, remedy=remedy)
    obstacle, remedy = _obstacle(core, kind)
    return PrerequisiteError(f"OpenVINO sees no {kind} here: {obstacle}", cause=cause, remedy=remedy)


def _obstacle(core: Any, kind: str) -> tuple[str, str]:
    """The first thing in the way, and what removes it: no node of the kernel, one that may not be opened, no driver."""
    folder, names, drivers = NODES[kind]
    nodes = sorted(Path(folder).glob(names))
    if not nodes:
        missing = f"load the kernel's driver ({drivers}), or give the container --device {folder}"
        return f"no device in {folder}", missing
    if not any(os.access(node, os.R_OK | os.W_OK) for node in nodes):
        return f"{nodes[0]} may not be opened by this user", "usermod -aG render $USER, then log in again"
    try:
        core.get_property(kind, "AVAILABLE_DEVICES")
    except RuntimeError as error:
        return told(error), DRIVERS[kind]
    return f"{nodes[0]} is there, but the driver offers no device", DRIVERS[kind]


def _property(core: Any, device: str, name: str) -> Any:
    """None where the device does not know the property."""
    try:
        return core.get_property(device, name)
    except RuntimeError:
        return None
