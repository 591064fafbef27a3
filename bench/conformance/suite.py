"""All checks, in the order in which they are worth reading, and what comes out of each."""

from __future__ import annotations

import traceback
from dataclasses import dataclass
from typing import Literal

from bench.conformance import contract, manners, numbers, source, stepping
from bench.conformance.check import Check, Failure, Gap
from bench.conformance.subject import Subject

CHECKS: tuple[Check, ...] = (
    *contract.CHECKS,
    *source.CHECKS,
    *stepping.CHECKS,
    *manners.CHECKS,
    *numbers.CHECKS,
)


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of one check. `message` names the variants and reasons of gaps and failures."""

    check: Check
    verdict: Literal["pass", "gap", "FAIL"]
    message: str = ""


def judge(check: Check, subject: Subject) -> Outcome:
    """Execute all variants: FAIL if one fails, gap if every one is refused, pass otherwise (refused ones are named)."""
    gaps: dict[str, list[str]] = {}
    failures = []
    for arguments in check.arguments():
        at = "".join(f"{variant}: " for variant in arguments)
        try:
            check.function(subject, *arguments)
        except Gap as gap:
            gaps.setdefault(str(gap), []).append(at.removesuffix(": "))
        except Failure as failure:
            failures.append(f"{at}{failure}")
        except Exception as error:
            place = traceback.extract_tb(error.__traceback__)[-1]
            where = f"{place.filename.rpartition('/')[2]}:{place.lineno}"
            failures.append(f"{at}{type(error).__name__} at {where}: {error}")
    if failures:
        more = f" (and {len(failures) - 1} more)" if len(failures) > 1 else ""
        return Outcome(check, "FAIL", failures[0] + more)
    told = "; ".join(f"{reason} [{len(refused)}]" for reason, refused in gaps.items())
    return Outcome(check, "gap" if sum(map(len, gaps.values())) == len(check.arguments()) else "pass", told)
