"""How devices are named. Names only: reading them loads no runtime."""

from __future__ import annotations

import re

DEFAULT = "CPU"
TOGETHER = "HETERO:"
CHOOSERS = ("AUTO", "BATCH", "HETERO", "MULTI", "")
"""Devices of OpenVINO that choose others by themselves, as HETERO does where it is given no names; "" names none."""


def parts(asked: str | None) -> list[str]:
    """The devices in `asked`, as OpenVINO writes them: `gpu:1` is GPU.1, HETERO:GPU+CPU are two, None is the CPU.

    `+` as well as OpenVINO's comma: on the command line commas separate devices that are measured one after the other.
    """
    name = (asked or DEFAULT).upper()
    if name.startswith(TOGETHER):
        return [part.replace(":", ".") for part in re.split(r"[,+]", name.removeprefix(TOGETHER))]
    return [name.replace(":", ".")]


def objection(asked: str | None) -> str | None:
    """Why `asked` names nothing that can be measured, and what to write instead; None for a device or several."""
    named = parts(asked)
    if any(part.partition(".")[0] in CHOOSERS for part in named):
        return f"{asked} leaves the choice to OpenVINO: name a device (CPU, GPU, GPU.1) or several (HETERO:GPU+CPU)"
    if (asked or "").upper().startswith(TOGETHER) and len({part.removesuffix(".0") for part in named}) == 1:
        return f"{asked} is one device only: join several by + (HETERO:GPU+CPU), for a comma begins another case"
    return None
