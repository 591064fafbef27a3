"""A model compiled for the devices asked for: what is asked of them, and what they answer."""

from __future__ import annotations

import os
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

from backends.openvino import devices, ir, naming
from backends.openvino.failures import LOWERED, no_kernel
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
ROUNDING = ("INFERENCE_PRECISION_HINT", "DYNAMIC_QUANTIZATION_GROUP_SIZE")
"""What decides to what a product rounds its inputs."""
STATISTICS, IN_DEVICE = "GPU_MEMORY_STATISTICS", ("cl_mem", "usm_device")
"""Bytes held now by kind of allocation: ov::intel_gpu::memory_statistics, engine::get_memory_statistics."""
CACHE = ("CACHE_DIR", "CACHE_MODE")
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
        together = {"DEVICE_PROPERTIES": self._settings}
        asked = together if len(self.names) > 1 else self._settings[self.names[0]]
        self.runtime = core.compile_model(model, self.asked, asked)
        executed = [devices.listed(core, str(name)) for name in self.runtime.get_property("EXECUTION_DEVICES")]
        self.executed = sorted(executed, key=[*self.names, *executed].index)
        self._demand_precision()
        self._demand_kernels()

    @cached_property
    def constants(self) -> dict[str, Any]:
        """Of the model that was compiled, by name."""
        return ir.constants(self.model)

    def alone(self, model: Any) -> Any:
        """Another model, compiled for the first of the devices that execute this one, with the precision of this one.

        As it is effective here: by itself a plugin may choose another for what it does not take for a language model.
        """
        name = self.executed[0]
        asked = {key: value for key, value in self._settings.get(name, {}).items() if key not in CACHE}
        effective = {key: self.kind(key) for key in ROUNDING}
        return self.core.compile_model(model, name, asked | {k: v for k, v in effective.items() if v is not None})

    def property(self, name: str) -> Any:
        """Effective value on the first of the devices that execute; None where it does not tell.

        Asked for, not looked up in SUPPORTED_PROPERTIES: plugins answer more than they list, as the GPU's does for
        KV_CACHE_PRECISION.
        """
        if len(self.names) > 1:
            told: Mapping[str, Any] = self.runtime.get_property("DEVICE_PROPERTIES")
            by_device = {devices.listed(self.core, device): values for device, values in told.items()}
            return by_device.get(self.executed[0], {}).get(name)
        try:
            return self.runtime.get_property(name)
        except RuntimeError:
            return None

    def instruction_set(self) -> str | None:
        """Of the CPU's kernels, in the plugin's words: what ONEDNN_MAX_CPU_ISA leaves of the processor's."""
        told = str(self.property("RUNTIME_REQUIREMENTS") or "")
        return next((part.removeprefix("isa=") for part in told.split(";") if part.startswith("isa=")), None)

    def kind(self, name: str) -> str | None:
        """The value of a property as it is written when set; of an element type its short name: f32, bf16, u8."""
        value = self.property(name)
        return None if value is None else str(getattr(value, "get_type_name", lambda: value)())

    def grown_bytes(self) -> int | None:
        """What the first device's allocator holds now over what it held before; None where the plugin does not tell."""
        before, now = self._before_bytes, self._held_bytes()
        return now - before if before is not None and now is not None and now > before else None

    def _held_bytes(self) -> int | None:
        """Of memory in the device, by OpenCL and by USM; what lies in the host's is not the device's."""
        if STATISTICS not in self.core.get_property(self.names[0], "SUPPORTED_PROPERTIES"):
            return None
        held: Mapping[str, int] = self.core.get_property(self.names[0], STATISTICS)
        return sum(count for kind, count in held.items() if kind in IN_DEVICE)

    def _demand_precision(self) -> None:
        """PrerequisiteError where a precision, or a number of threads, was taken and another is in effect."""
        for key in (*EXACT, PROPERTIES["threads"]):
            asked, effective = self._settings.get(self.executed[0], {}).get(key), self.kind(key)
            if asked is not None and effective not in (str(asked), None):
                raise PrerequisiteError(
                    f"device {self.executed[0]} was asked for {key} {asked} and does {effective}",
                    where="backend openvino",
                    remedy=f"ask for {effective}, or leave the option out",
                )

    def _demand_kernels(self) -> None:
        """CaseError where the instruction set was lowered below bf16 and the plugin chose it: AVX2 ends the process."""
        kernels, chosen = self.instruction_set(), self.kind("INFERENCE_PRECISION_HINT")
        if LOWERED in os.environ and kernels and chosen == "bf16" and "bfloat16" not in kernels:
            raise no_kernel(f"the plugin chose bf16, and {kernels} has none", "open")


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
    if name != naming.DEFAULT:
        cache = dict(zip(CACHE, (str(folder / CACHE_FOLDER), "OPTIMIZE_SIZE"), strict=True))
        asked |= {key: value for key, value in cache.items() if key in known}
    return asked
