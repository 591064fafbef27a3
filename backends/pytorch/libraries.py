"""What the libraries below torch say of themselves on a processor: instruction sets, and the kernels they generated.

torch tells that `_int_mm` was called; which machine code that was, only oneDNN and MKL know. Both speak on standard
output, from C, when asked to be verbose; oneDNN also lists each kernel that it generates for `perf` (perf-PID.map of
tools/perf/Documentation/jit-interface.txt), where isa.PROFILE asks for it.
"""

from __future__ import annotations

import ctypes
import os
import re
import sys
import tempfile
from collections.abc import Callable
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import BinaryIO

import torch

_ARCH_PRCTL, _GET_PERMITTED, _TILE_DATA = 158, 0x1022, 18
"""arch_prctl(2) of x86-64, its ARCH_GET_XCOMP_PERM, and the bit of AMX's tiles (Documentation/arch/x86/xstate.rst)."""


@dataclass(frozen=True, slots=True)
class Said:
    """What the libraries said of what was executed: `calls` as `oneDNN brg_matmul:avx512_core_bf16` or `MKL SGEMM`."""

    lines: tuple[str, ...]

    @property
    def calls(self) -> list[str]:
        found = set()
        for line in self.lines:
            fields = line.split(",")
            if fields[0] == "onednn_verbose" and fields[3:4] == ["exec"]:
                found.add(f"oneDNN {fields[6] or fields[5]}")
            elif called := re.match(r"MKL_VERBOSE (\w+)\(", line):
                found.add(f"MKL {called[1]}")
        return sorted(found)


def listening(work: Callable[[], object]) -> Said:
    """What the libraries say while `work` is done. Standard output goes to a file meanwhile, for the whole process."""
    introductions()  # else they would be said, and lost, here
    return _heard(work)


def _heard(work: Callable[[], object]) -> Said:
    sys.stdout.flush()
    kept = os.dup(1)
    with tempfile.TemporaryFile() as file:
        os.dup2(file.fileno(), 1)
        try:
            with ExitStack() as speaking:
                for library in (torch.backends.mkldnn, torch.backends.mkl):
                    if library.is_available():
                        speaking.enter_context(library.verbose(library.VERBOSE_ON))
                work()
            ctypes.CDLL(None).fflush(None)
        finally:
            os.dup2(kept, 1)
            os.close(kept)
        file.seek(0)
        return Said(tuple(file.read().decode(errors="replace").splitlines()))


@cache
def introductions() -> Said:
    """What both say first, once in a process: their versions and instruction sets."""
    ones = torch.ones(2, 32, dtype=torch.int8)
    said = _heard(lambda: (torch._int_mm(ones, ones.t()), torch.ones(64, 64) @ torch.ones(64, 64)))
    generated()  # takes the list out of the folder, whatever becomes of this process
    return said


def instruction_set() -> str | None:
    """What oneDNN's kernels may use, in its words; None where it does not say."""
    return next((line.split("isa:")[1] for line in introductions().lines if ",cpu,isa:" in line), None)


def mkl() -> str | None:
    """MKL's version, and for which instruction sets it computes where it tells."""
    lines = (line.removeprefix("MKL_VERBOSE ") for line in introductions().lines)
    return next((line.partition(", Lnx")[0] for line in lines if line.startswith(("oneMKL", "Intel"))), None)


def generated(process: int | None = None) -> list[str]:
    """Names of the matrix kernels that oneDNN has generated in this process so far; none where it was not asked to.

    The list is no longer in the file system afterwards: it lies in a folder that all share.
    """
    path = Path(f"/tmp/perf-{process or os.getpid()}.map")  # perf's fixed place
    with suppress(OSError):
        _lists.append(path.open("rb"))
        path.unlink()
    names = set()
    for file in _lists:
        file.seek(0)
        names.update(
            re.findall(r"(jit_(?!\w*copy)\w*gem[mv]\w*?)(?:_kern)?(?:_t)?(?:\.\d+)?$", file.read().decode(), re.M)
        )
    return sorted(names)


def profiled(work: Callable[[], object], device: torch.device) -> list[str]:
    """Names of the kernels that the device executes for `work`, as torch's profiler sees them; none where it cannot."""
    try:
        with torch.profiler.profile(activities=torch.profiler.supported_activities()) as profile:
            work()
            torch.accelerator.synchronize(device)
        events = profile.events()
    except Exception:  # evidence beside other evidence: a vendor's profiler may be missing or refuse
        return []
    return sorted({event.name for event in events if event.device_type != torch.autograd.DeviceType.CPU})


def tiles_permitted() -> bool | None:
    """Whether the kernel lets this process use AMX's tiles; None where it cannot be asked (only x86-64 Linux)."""
    if sys.platform != "linux" or os.uname().machine != "x86_64":
        return None
    mask = ctypes.c_uint64()
    failed = ctypes.CDLL(None).syscall(_ARCH_PRCTL, _GET_PERMITTED, ctypes.byref(mask))
    return None if failed else bool(mask.value >> _TILE_DATA & 1)


_lists: list[BinaryIO] = []
"""Of this process, kept open: oneDNN goes on writing into them."""
