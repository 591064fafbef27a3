"""Instruction sets that a processor's kernels can be held to: what each needs, and what holds torch's libraries to it.

oneDNN, ATen and MKL read their ceilings once, at their first kernel, so they stand in the environment of the worker.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from bench.errors import CaseError, PrerequisiteError

NATIVE = "native"
CPUINFO = Path("/proc/cpuinfo")


@dataclass(frozen=True, slots=True, kw_only=True)
class Ceiling:
    """`flags` are Linux's names (arch/x86/include/asm/cpufeatures.h); the others are values of the variables.

    Held to it, what oneDNN says of its instruction set has the word `says` in it and not the word `beyond`.
    """

    flags: tuple[str, ...]
    says: str
    beyond: str
    onednn: str
    aten: str
    mkl: str


CEILINGS: Mapping[str, Ceiling] = {
    "amx": Ceiling(
        flags=("amx_tile", "amx_int8", "amx_bf16"),
        says="AMX",
        beyond="AVX10.2",
        onednn="AVX512_CORE_AMX",
        aten="avx512",
        mkl="AVX512_E4",
    ),
    "avx512_vnni": Ceiling(
        flags=("avx512f", "avx512bw", "avx512_vnni"),
        says="DL Boost",
        beyond="bfloat16",
        onednn="AVX512_CORE_VNNI",
        aten="avx512",
        mkl="AVX512_E1",
    ),
    "avx512": Ceiling(
        flags=("avx512f", "avx512bw"),
        says="AVX-512",
        beyond="DL Boost",
        onednn="AVX512_CORE",
        aten="avx512",
        mkl="AVX512",
    ),
    "avx2": Ceiling(flags=("avx2",), says="AVX2", beyond="AVX-512", onednn="AVX2", aten="avx2", mkl="AVX2"),
}
CHOICES = (*CEILINGS, NATIVE)
VARIABLES = ("ONEDNN_MAX_CPU_ISA", "ATEN_CPU_CAPABILITY", "MKL_ENABLE_INSTRUCTIONS")
PROFILE = {"ONEDNN_JIT_PROFILE": "2"}
"""Lets oneDNN list the kernels that it generates; it costs a line of text for each."""
BINDING = ("OMP_NUM_THREADS", "OMP_PROC_BIND", "OMP_PLACES", "KMP_AFFINITY", "GOMP_CPU_AFFINITY")
TOLD = (*VARIABLES, *BINDING)
"""Variables that stand in the evidence, whoever set them."""
_TOLD_FLAGS = ("avx", "amx", "asimd", "sve")
"""How the flags begin that matter here, ARM's among them."""


def variables(name: str) -> dict[str, str]:
    """What holds the libraries to `name`; nothing for `native`. PrerequisiteError where this processor lacks it."""
    if name == NATIVE:
        return {}
    ceiling, present = CEILINGS[name], flags()
    if missing := [flag for flag in ceiling.flags if flag not in present]:
        there = [flag for flag in present if flag.startswith(_TOLD_FLAGS)]
        raise PrerequisiteError(
            f"this processor has no {name}: {', '.join(missing)} {'is' if len(missing) == 1 else 'are'} missing",
            where="--isa",
            cause=f"it has {', '.join(there) or 'none of the flags that are known here'}",
            remedy=f"name one of {', '.join(possible(present))}",
        )
    return dict(zip(VARIABLES, (ceiling.onednn, ceiling.aten, ceiling.mkl), strict=True))


def check(name: str, said: str | None) -> None:
    """CaseError where oneDNN, by what it `said` of its instruction set, was not held to `name`."""
    if name == NATIVE:
        return
    ceiling = CEILINGS[name]
    if said is None or ceiling.says not in said or ceiling.beyond in said:
        raise CaseError(
            f"kernels are not held to {name}",
            phase="open",
            where="--isa",
            cause=f"oneDNN says {said or 'nothing of its instruction set'}",
            remedy="AMX's tiles may be forbidden to this process or container" if name == "amx" else None,
        )


def possible(present: tuple[str, ...]) -> list[str]:
    """Those that a processor with these flags can be held to."""
    return [name for name, ceiling in CEILINGS.items() if set(ceiling.flags) <= set(present)] + [NATIVE]


def flags(cpuinfo: Path = CPUINFO) -> tuple[str, ...]:
    """Of the first processor, as Linux names them, in its order; none where that cannot be read."""
    return tuple(told(cpuinfo, "flags", "Features").split())


def told(cpuinfo: Path, *keys: str) -> str:
    """The first value under one of `keys`; empty where there is none."""
    try:
        lines = cpuinfo.read_text().splitlines()
    except OSError:
        return ""
    return next((line.partition(":")[2].strip() for line in lines if line.startswith(keys)), "")


def binding(pinned: bool | None) -> dict[str, str]:
    """OpenMP's variables for threads that stay on cores of their own (True) or may move (False); None: not told."""
    if pinned is None:
        return {}
    return {"OMP_PROC_BIND": "close", "OMP_PLACES": "cores"} if pinned else {"OMP_PROC_BIND": "false"}
