"""How a provider is asked: its device and its options, from what a case says. No runtime is imported here."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from backends.onnx.known import THREADS, known
from bench.errors import UsageError
from bench.types import Case

EP = "ep."
"""How the options of `--set` begin that are the provider's own."""


def kind_and_index(device: str | None) -> tuple[str | None, int]:
    """`cpu`, `1`, `gpu:1` or None as a kind, where one is named, and an index."""
    kind, _, number = (device or "0").rpartition(":")
    if number.isdecimal():
        return kind or None, int(number)
    if not kind and number.isalpha():
        return number, 0
    raise UsageError(f"device {device!r} is not understood", remedy="write an index (0) or kind and index (gpu:0)")


def provider_options(provider: str, case: Case, *, listed: bool, threads: int) -> dict[str, str]:
    """What `provider` is given: its defaults, the case's own, then what makes it exact; the device if not `listed`.

    An option that is given without a value takes a default away. Values that are objects of JSON are merged.
    """
    told = known(provider)
    own = {name.removeprefix(EP): str(value) for name, value in case.options.items() if name.startswith(EP)}
    counted = {name: value.replace(THREADS, str(threads)) for name, value in told.threads.items()}
    given = {**counted, **told.options}
    for name, value in own.items():
        given[name] = _merged(given.get(name), value)
    given = {name: value for name, value in given.items() if value}
    if case.device and told.device and not listed:
        if told.device in own:
            raise UsageError(
                f"--device {case.device} and ep.{told.device} both name one", remedy="leave one of them out"
            )
        given[told.device] = _device_told(told.device, case.device)
    if case.fidelity == "exact":
        for name, value in told.exact.items():
            given[name] = _merged(given.get(name), value)
    return given


def _device_told(option: str, device: str) -> str:
    kind, index = kind_and_index(device)
    if option == "device_id":
        return str(index)
    if kind is None:
        raise UsageError(f"device {device!r} names no kind", remedy="write kind and index, as in cpu:0 or gpu:1")
    return f"{kind.upper()}.{index}" if index else kind.upper()


def _merged(given: str | None, value: str) -> str:
    """`value`, with what `given` has beside it where both are objects of JSON."""
    try:
        mine, own = json.loads(value), json.loads(given or "null")
    except ValueError:
        return value
    if not isinstance(mine, dict) or not isinstance(own, dict):
        return value
    return json.dumps(_over(own, mine))


def _over(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    merged = {**below, **above}
    for name in below.keys() & above.keys():
        if isinstance(below[name], dict) and isinstance(above[name], dict):
            merged[name] = _over(below[name], above[name])
    return merged
