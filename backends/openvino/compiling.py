"""A model compiled for the devices asked for: what is asked of them, and what they answer."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from backends.openvino import devices
from bench.errors import PrerequisiteError
from bench.types import Case

EXACT = {"INFERENCE_PRECISION_HINT": "f32", "DYNAMIC_QUANTIZATION_GROUP_SIZE": "0", "KV_CACHE_PRECISION": "f32"}
"""Float32 everywhere, whatever the options say. What of it a device does not know it cannot do either."""
PROPERTIES = {
    "threads": "INFERENCE_NUM_THREADS",
    "pinning": "ENABLE_CPU_PINNING",
    "inference_precision": "INFERENCE_PRECISION_HINT",
    "dynamic_quantization_group_size": "DYNAMIC_QUANTIZATION_GROUP_SIZE",
    "kv_cache_precision": "KV_CACHE_PRECISION",
}
"""Options of this adapter and the properties they set; one that is not given stays the device's own default."""
STATISTICS, IN_DEVICE = "GPU_MEMORY_STATISTICS", ("cl_mem", "usm_device")
"""Bytes held now by kind of allocation: ov::intel_gpu::memory_statistics, engine::get_memory_statistics."""
CACHE_FOLDER = "compiled"
"""Beside the IR, so that it goes when the IR goes; compiled kernels are kept there, weights stay in the IR."""


class Compiled:
    """`model`, compiled for `names`, the devices that `case` asks for; more than one is a HETERO.

    Raises PrerequisiteError where a device or one of its properties is not there, and whatever the runtime raises.
    """

    def __init__(self, core: Any, model: Any, case: Case, folder: Path):
        self.core, self.model = core, model
        self.names = devices.resolved(core, case.device)
        self.asked = spelled(self.names)
        self._before_bytes = self._held_bytes()
        self._settings = {name: settings(core, name, case, folder) for name in self.names}
        self.runtime = core.compile_model(model, self.asked, self._for(self.names))
        executed = self.runtime.get_property("EXECUTION_DEVICES")
        self.executed = [devices.listed(core, str(name)) for name in executed]

    def alone(self, model: Any) -> Any:
        """Another model, compiled with the same properties for the first of the devices that execute this one."""
        name = self.executed[0]
        return self.core.compile_model(model, name, self._settings.get(name, {}))

    def property(self, name: str) -> Any:
        """Effective value on the first of the devices that execute; None where it does not know the property."""
        first = self.executed[0]
        if len(self.names) > 1:
            known: Mapping[str, Any] = self.runtime.get_property("DEVICE_PROPERTIES")
            return next((values.get(name) for device, values in known.items() if device == first), None)
        known = self.runtime.get_property("SUPPORTED_PROPERTIES")
        return self.runtime.get_property(name) if name in known else None

    def kind(self, name: str) -> str | None:
        """An element type that is the value of a property, by its short name: f32, bf16, u8."""
        value = self.property(name)
        return None if value is None else str(getattr(value, "get_type_name", lambda: value)())

    def grown_bytes(self) -> int | None:
        """What the first device's allocator holds now over what it held before; None where the plugin does not tell."""
        now = self._held_bytes()
        return None if now is None or self._before_bytes is None else now - self._before_bytes or None

    def _held_bytes(self) -> int | None:
        """Of memory in the device, by OpenCL and by USM; what lies in the host's is not the device's."""
        if STATISTICS not in self.core.get_property(self.names[0], "SUPPORTED_PROPERTIES"):
            return None
        held: Mapping[str, int] = self.core.get_property(self.names[0], STATISTICS)
        return sum(count for kind, count in held.items() if kind in IN_DEVICE)

    def _for(self, names: list[str]) -> dict[str, Any]:
        return self._settings[names[0]] if len(names) == 1 else {"DEVICE_PROPERTIES": self._settings}


def spelled(names: list[str]) -> str:
    """As OpenVINO writes one device, or several together."""
    return names[0] if len(names) == 1 else "HETERO:" + ",".join(names)


def settings(core: Any, name: str, case: Case, folder: Path) -> dict[str, Any]:
    """What `case` asks of the device `name`, by the property's name.

    Raises PrerequisiteError for an option whose property the device does not know.
    """
    known = core.get_property(name, "SUPPORTED_PROPERTIES")
    asked: dict[str, Any] = {}
    for option, value in case.options.items():
        if value is None:
            continue
        if PROPERTIES[option] not in known:
            raise PrerequisiteError(
                f"device {name} has no {PROPERTIES[option]}",
                where=f"--set {option}",
                remedy="leave the option out for this device",
            )
        asked[PROPERTIES[option]] = value
    if case.fidelity == "exact":
        asked |= {key: value for key, value in EXACT.items() if key in known}
    if name != devices.DEFAULT:
        cache = {"CACHE_DIR": str(folder / CACHE_FOLDER), "CACHE_MODE": "OPTIMIZE_SIZE"}
        asked |= {key: value for key, value in cache.items() if key in known}
    return asked
