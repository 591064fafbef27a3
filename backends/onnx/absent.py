"""What is said of a provider or a device that is not there: what there is, the likely reason, what brings it."""

from __future__ import annotations

from collections.abc import Collection
from difflib import get_close_matches
from pathlib import Path

import onnxruntime as ort

from backends.onnx import plugins
from backends.onnx.known import NAMES, PROVIDERS, known
from bench.errors import PrerequisiteError

LISTED = "`bench list devices` shows what is there"


def provider(name: str) -> PrerequisiteError:
    """For a provider that the runtime does not have, or whose plugin is broken or finds no device."""
    unusable, present = plugins.unusable(), plugins.present()
    if name in unusable:
        return PrerequisiteError(f"{name} cannot be used here", cause=unusable[name], remedy=LISTED)
    told = ["present: " + ", ".join(sorted(present))]
    near = dict.fromkeys(NAMES[word] for word in get_close_matches(name.lower(), NAMES))
    if near and name not in PROVIDERS:
        told.append(f"nearest known: {', '.join(near)}")
    told += [f"{other}: {reason}" for other, reason in unusable.items()]
    found = known(name)
    remedy = f"pip install {found.package}" if found.package else found.notes
    return PrerequisiteError(
        f"ONNX Runtime {ort.__version__} has no {name} here",
        cause="; ".join(told),
        remedy=remedy or "install the vendor's build of ONNX Runtime, or give its plugin: --set plugin=PATH",
    )


def device(name: str, asked: str | None, count: int) -> PrerequisiteError:
    """For a device that a provider, which has `count` of that kind, does not have."""
    return PrerequisiteError(
        f"{name} has no device {asked}",
        cause=f"it tells of {count}" if count else "it tells of none",
        remedy=LISTED,
    )


def from_library(path: str, name: str, brought: Collection[str]) -> PrerequisiteError:
    """For a plugin's library that brings other providers than the one asked for, or none that has a device."""
    names = sorted(brought)
    return PrerequisiteError(
        f"the plugin brings no {name} here",
        where="option plugin",
        cause=f"it brings {', '.join(names)}" if names else plugins.without_device(Path(path).name, name),
        remedy=f"--provider {names[0]}" if names else LISTED,
    )
