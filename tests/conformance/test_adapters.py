"""Every registered backend through every check: adding a backend adds no test."""

from __future__ import annotations

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


@cache
def subject_of(name: str, scratch: Path) -> Subject:
    return Subject(name, scratch)


def every_case() -> list[Any]:
    return [
        pytest.param(name, check, arguments, id="-".join([name, check.function.__name__, *map(str, arguments)]))
        for name in registry.names()
        for check in CHECKS
        if check.applies(registry.load(name))
        for arguments in check.arguments()
    ]


@pytest.mark.parametrize(("name", "check", "arguments"), every_case())
def test_conforms(name: str, check: Check, arguments: tuple[Any, ...], scratch: Path) -> None:
    try:
        check.function(subject_of(name, scratch), *arguments)
    except Gap as gap:
        pytest.skip(f"gap: {gap}")
