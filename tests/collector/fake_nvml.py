"""A libnvidia-ml.so of our own for tests: what it tells stands in a file that may change while it is loaded."""

from __future__ import annotations

import ctypes
import subprocess
from pathlib import Path

import pynvml

SOURCE = Path(__file__).with_suffix(".c")
H200 = {
    "count": "1",
    "driver": "570.86.15",
    "bus_id": "00000000:3B:00.0",
    "pci_ids": "0x233510de",
    "name": "NVIDIA H200",
    "uuid": "GPU-00000000-1111-2222-3333-444444444444",
    "vbios": "96.00.A0.00.01",
    "architecture": "9",
    "mig": "0",
    "energy": "123456789",
    "field.186": "70500",
    "power": "71500",
    "limit": "700000",
    "limit_default": "700000",
    "limit_least": "200000",
    "limit_most": "700000",
    "temperature.0": "35",
    "field.82": "44",
    "clock.1": "1980",
    "clock.2": "3201",
    "utilization": "57",
    "memory_total": "150754820096",
    "memory_used": "1073741824",
    "violation.0": "2500000000",
    "violation.1": "0",
    "reasons": "0x24",
    "generation": "5",
    "generation_max": "5",
    "width": "16",
    "width_max": "16",
    "ecc": "1",
    "persistence": "1",
    "bar1": "274877906944",
    "processes": "4711 4712",
    "errors.0.0": "3",
    "errors.1.0": "0",
    "pcie_replay": "5",
}
"""Made up after the fields of nvml.h; limits, clocks and sizes are of the order of an H200's data sheet."""


def built(folder: Path) -> Path:
    """The library, compiled into `folder`; FileNotFoundError without a C compiler."""
    library = folder / "libnvidia-ml.so.1"
    command = ["cc", "-std=gnu11", "-Wall", "-Werror", "-shared", "-fPIC", "-o", str(library), str(SOURCE)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return library


class FakeNvml:
    """The binding's library, replaced. `tell` changes what it tells; None takes an answer away."""

    def __init__(self, library: Path, answers: Path):
        self.library, self._answers = ctypes.CDLL(str(library)), answers
        self.library.fake_reset()
        self._told: dict[str, str] = {}
        self.tell(H200)

    def tell(self, answers: dict[str, str | int | None]) -> None:
        self._told |= answers
        lines = [f"{key} {value}\n" for key, value in self._told.items() if value is not None]
        self._answers.write_text("".join(lines))

    def fail(self, function: str, code: int, device: int | None = None) -> None:
        """Have a function of NVML fail, for one device or all."""
        self.tell({f"{'' if device is None else f'{device}.'}error.{function}": code})

    @property
    def calls(self) -> tuple[int, int]:
        """Times that the library was initialized and shut down."""
        return self.library.fake_inits(), self.library.fake_shutdowns()


class Without:
    """A library that lacks symbols, as one does that is older or newer than a function."""

    def __init__(self, library: ctypes.CDLL, *missing: str):
        self._library, self._missing = library, missing

    def __getattr__(self, name: str):
        if name in self._missing:
            raise AttributeError(f"undefined symbol: {name}")
        return getattr(self._library, name)


def cut_off(monkeypatch) -> None:
    """As if the binding had just been imported: no library is loaded."""
    monkeypatch.setattr(pynvml, "nvmlLib", None)
    monkeypatch.setattr(pynvml, "_nvmlGetFunctionPointer_cache", {})
    monkeypatch.setattr(pynvml, "_nvmlLib_refcount", 0)
