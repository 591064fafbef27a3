"""Every registered backend through every check: adding a backend adds no test."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from bench import registry
from bench.conformance.check import Check, Gap
from bench.conformance.subject import Subject
from bench.conformance.suite import CHECKS


@pytest.fixture(scope="session")
def scratch(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("conformance")


FORMS: Mapping[str, tuple[str, ...]] = {
    "onnx": (
        "",
        "dialect=opset21",
        "dialect=opset21 shapes=static",
        "dialect=opset17",
        "dialect=opset17 shapes=static",
    ),
}
"""Options by backend under which it computes the same in another way, and is checked again."""


@cache
def subject_of(name: str, form: str, scratch: Path) -> Subject:
    return Subject(name, scratch / form, dict(option.split("=") for option in form.split()))


def every_case() -> list[Any]:
    return [
        pytest.param(
            *(name, form, check, arguments),
            id="-".join([name, *form.split(), check.function.__name__, *map(str, arguments)]),
        )
        for name in registry.names()
        for form in FORMS.get(name, ("",))
        for check in CHECKS
        if check.applies(registry.load(name))
        for arguments in check.arguments()
    ]


@pytest.mark.parametrize(("name", "form", "check", "arguments"), every_case())
def test_conforms(name: str, form: str, check: Check, arguments: tuple[Any, ...], scratch: Path) -> None:
    try:
        check.function(subject_of(name, form, scratch), *arguments)
    except Gap as gap:
        pytest.skip(f"gap: {gap}")
