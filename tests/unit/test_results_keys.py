"""Keys: the same for the same thing, another for anything else."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.results.keys import canonical_json, config_key, precision_key, series_key
from tests.records import FACTS, identity

PLAIN: dict[str, Any] = msgspec.to_builtins(identity())


def shuffled(value: Any, order: Any) -> Any:
    if isinstance(value, dict):
        names = list(value)
        order.shuffle(names)
        return {name: shuffled(value[name], order) for name in names}
    return [shuffled(item, order) for item in value] if isinstance(value, list) else value


def leaves(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for name, item in items:
        if isinstance(item, dict | list) and item:
            yield from leaves(item, (*path, name))
        else:
            yield (*path, name)


def with_leaf(path: tuple[Any, ...], value: Any) -> dict[str, Any]:
    changed = copy.deepcopy(PLAIN)
    inner: Any = changed
    for name in path[:-1]:
        inner = inner[name]
    inner[path[-1]] = value
    return changed


@given(st.randoms(use_true_random=False))
def test_the_order_of_keys_does_not_matter(order: Any) -> None:
    assert series_key(shuffled(PLAIN, order)) == series_key(identity())
    assert config_key(shuffled(PLAIN, order)) == config_key(identity())


@pytest.mark.parametrize("path", list(leaves(PLAIN)), ids=lambda path: ".".join(map(str, path)))
def test_any_change_of_the_identity_is_another_series(path: tuple[Any, ...]) -> None:
    changed = with_leaf(path, "changed")
    physical = path == ("host_id",) or (path[0] == "devices" and path[-1] in ("uuid", "index", "pci"))
    in_another_slot = path[-1] == "pci"  # of a device whose UUID is known
    assert (series_key(changed) == series_key(PLAIN)) is in_another_slot
    assert (config_key(changed) == config_key(PLAIN)) is physical


@given(st.dictionaries(st.text(), st.none() | st.booleans() | st.integers() | st.text(), max_size=4))
def test_equal_keys_mean_equal_options(options: dict[str, Any]) -> None:
    same = canonical_json(options) == canonical_json(PLAIN["options"])
    assert (series_key({**PLAIN, "options": options}) == series_key(PLAIN)) is same


@pytest.mark.parametrize(("uuid", "same"), [(None, False), ("GPU-1", True)])
def test_an_address_tells_devices_apart_that_have_no_uuid(uuid: str | None, same: bool) -> None:
    here, there = ({**PLAIN, "devices": [{"kind": "gpu", "name": "a", "uuid": uuid, "pci": at}]} for at in ("x", "y"))
    assert (series_key(here) == series_key(there)) is same
    assert config_key(here) == config_key(there)


def test_keys_are_stable_for_ever() -> None:
    """A changed value here breaks every series that exists."""
    plain = {"model": "m", "host_id": "h", "devices": [{"kind": "cpu", "uuid": "u", "index": 0}], "options": {"é": 1.5}}
    assert canonical_json(plain).decode() == (
        '{"devices":[{"index":0,"kind":"cpu","uuid":"u"}],"host_id":"h","model":"m","options":{"é":1.5}}'
    )
    assert series_key(plain) == "c75862630194dd42c7ec654175bd4984d71f25f5a6f76c90c896b55d4ad0c332"
    assert config_key(plain) == "60785de3e43f81d30ed568ef1b5ecd205a3b835433b550303ed5e9421a14409c"


@pytest.mark.parametrize(
    ("changed", "another"),
    [
        ({"weights": "int4"}, True),
        ({"kv_cache": "u8"}, True),
        ({"prefill": msgspec.structs.replace(FACTS.prefill, activations="bf16")}, True),
        ({"decode": msgspec.structs.replace(FACTS.decode, compute="bf16")}, True),
        ({"prefill": msgspec.structs.replace(FACTS.prefill, kernels={"matmul": "another"})}, False),
        ({"prefill": msgspec.structs.replace(FACTS.prefill, product_results="f16")}, True),
        ({"isa": "AVX2"}, True),
        ({"path": msgspec.structs.replace(FACTS.prefill, activations="f16")}, True),
        ({"threads": 64}, False),
        ({"resident_weight_bytes": None}, False),
    ],
)
def test_the_precision_key_follows_the_effective_precision(changed: dict[str, Any], another: bool) -> None:
    assert (precision_key(msgspec.structs.replace(FACTS, **changed)) != precision_key(FACTS)) is another
    assert precision_key(None) is None
