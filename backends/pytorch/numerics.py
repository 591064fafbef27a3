"""Switches that let a device compute less exactly than asked: set to exact where the build has them, and read back."""

from __future__ import annotations

from functools import reduce
from typing import Any

import torch

EXACT: tuple[tuple[tuple[str, ...], Any], ...] = (
    (("backends.cuda.matmul.fp32_precision", "backends.cuda.matmul.allow_tf32"), "ieee"),
    (("backends.cudnn.conv.fp32_precision", "backends.cudnn.allow_tf32"), "ieee"),
    (("backends.mkldnn.matmul.fp32_precision", "backends.mkldnn.allow_tf32"), "ieee"),
    (("backends.cuda.matmul.allow_fp16_reduced_precision_reduction",), False),
    (("backends.cuda.matmul.allow_bf16_reduced_precision_reduction",), False),
    (("backends.cuda.matmul.allow_fp16_accumulation",), False),
    (("npu.matmul.allow_hf32",), False),
    (("npu.conv.allow_hf32",), False),
    (("backends.mudnn.allow_tf32",), False),
    (("backends.mlu.matmul.allow_tf32",), False),
    (("backends.cnnl.allow_tf32",), False),
)
"""Paths below `torch` and the exact value. Of several the first that exists counts: since torch 2.9 a switch of the old
kind may not be touched once one of the new kind was. `ieee` is float32 as it is; False for an old switch."""


def set_exact() -> dict[str, str]:
    """Set every switch that this build has, and return what it then says, by its name in torch."""
    told = {}
    for paths, value in EXACT:
        for path in paths:
            place, name = _place(path)
            if place is None or not hasattr(place, name):
                continue
            setattr(place, name, False if name.startswith("allow") else value)
            told[f"torch.{path}"] = str(getattr(place, name))
            break
    return told


def _place(path: str) -> tuple[Any, str]:
    """The object that holds the last name of `path`, None where this build has no such thing."""
    *modules, name = path.split(".")
    return reduce(lambda found, module: getattr(found, module, None), modules, torch), name
