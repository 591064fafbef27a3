"""Check of an adapter's source: what belongs to the harness must not be in it."""

from __future__ import annotations

import ast
import importlib.util
from collections.abc import Iterator
from pathlib import Path

from bench.conformance.check import Check, demand
from bench.conformance.subject import Subject

FORBIDDEN_MODULES = {
    "time": "the harness owns the clock",
    "timeit": "the harness owns the clock",
    "sched": "the harness owns the clock",
    "tokenizers": "token ids come from the harness",
    "sentencepiece": "token ids come from the harness",
}
FORBIDDEN_CALLS = {
    "print": "what is printed hides in a log",
    "os.putenv": "the environment is the user's",
    "os.unsetenv": "the environment is the user's",
    "os.chdir": "the working folder is the user's",
    "os.environ.update": "the environment is the user's",
    "os.environ.setdefault": "the environment is the user's",
    "os.environ.pop": "the environment is the user's",
    "os.environ.clear": "the environment is the user's",
    "sys.stdout.write": "what is printed hides in a log",
    "sys.stderr.write": "what is printed hides in a log",
}


def the_source_keeps_to_its_own(subject: Subject) -> None:
    """The adapter's source has no timing, printing, sleeping, retries, tokenization or changes of the environment."""
    found = [
        f"{path.name}:{line}: {what}"
        for path in sources(subject.target)
        for line, what in trespasses(ast.parse(path.read_text(encoding="utf-8")))
    ]
    demand(not found, "; ".join(found[:5]))


def sources(target: str) -> list[Path]:
    """The files of the adapter that `module:Attribute` names: its module, or all of its package."""
    spec = importlib.util.find_spec(target.partition(":")[0])
    if spec is None or spec.origin is None:
        return []
    origin = Path(spec.origin)
    return sorted(origin.parent.rglob("*.py")) if spec.submodule_search_locations else [origin]


def trespasses(tree: ast.Module) -> Iterator[tuple[int, str]]:
    """(line, what) of everything that an adapter must leave to the harness."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import | ast.ImportFrom):
            for name in _imported(node):
                if name in FORBIDDEN_MODULES:
                    yield node.lineno, f"imports {name} ({FORBIDDEN_MODULES[name]})"
        elif isinstance(node, ast.Call):
            called = ast.unparse(node.func)
            if called in FORBIDDEN_CALLS:
                yield node.lineno, f"calls {called} ({FORBIDDEN_CALLS[called]})"
        elif isinstance(node, ast.Subscript) and ast.unparse(node.value) == "os.environ":
            if not isinstance(node.ctx, ast.Load):
                yield node.lineno, "changes os.environ (the environment is the user's)"
        elif isinstance(node, ast.For | ast.While) and _retries(node):
            yield node.lineno, "tries again after an error (a failure must be seen)"


def _imported(node: ast.Import | ast.ImportFrom) -> list[str]:
    names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else [node.module or ""]
    return [name.partition(".")[0] for name in names]


def _retries(loop: ast.For | ast.While) -> bool:
    """A loop that ends when an attempt succeeds and goes on when it fails."""
    for node in loop.body:
        if not isinstance(node, ast.Try):
            continue
        succeeds = any(
            isinstance(part, ast.Break | ast.Return) for step in node.body + node.orelse for part in ast.walk(step)
        )
        goes_on = any(
            not any(isinstance(part, ast.Raise | ast.Break | ast.Return) for part in ast.walk(handler))
            for handler in node.handlers
        )
        if succeeds and goes_on:
            return True
    return False


CHECKS = (Check(the_source_keeps_to_its_own, computing=False),)
