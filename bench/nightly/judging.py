"""What a night says of each series: verdicts before and after candidates are confirmed. Pure.

Slower by chance is common, slower in interleaved pairs is not: nothing is called a regression that was not confirmed.
Where most series of a machine moved together it is one incident, not many candidates; one series of it is confirmed for
all, because pairs tell the machine (both sides suffer) from what is executed on it (one side does).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from statistics import median
from typing import Literal, get_args

from bench.errors import EXIT_REGRESSION, EXIT_SUSPECTED, EXIT_TOO_LITTLE
from bench.nightly.history import Night, Series
from bench.stats.nights import FLOOR_RATIO, candidate, confirmed, moved_together

Verdict = Literal[
    "regression", "suspected", "unconfirmed", "incident", "improved", "too-little-data", "quarantined", "quiet"
]
"""The most serious first. `suspected`: a candidate whose pairs could not all be executed; `unconfirmed`: they were, and
do not say that it is slower. `incident`: moved as most of its machine did."""
VERDICTS: tuple[Verdict, ...] = get_args(Verdict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Judged:
    """One series tonight. `ratio` is tonight / median of its nights, None where these are too few.

    `good` is the newest night within bounds. `pairs` are new / last good, of a confirmation.
    """

    series: Series
    verdict: Verdict
    ratio: float | None = None
    good: Night | None = None
    pairs: tuple[float, ...] = ()
    why: str | None = None

    @property
    def host_id(self) -> str:
        return self.series.tonight.newest.identity.host_id or ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Incident:
    """`moved` of the `of` series of one machine that have a history went the same way tonight, by about `ratio`."""

    host_id: str
    ratio: float
    moved: int
    of: int

    @property
    def slower(self) -> bool:
        return self.ratio < 1


def judge(series: Iterable[Series], least_nights: int) -> tuple[list[Judged], list[Incident]]:
    """Every series before anything is confirmed: candidates are `suspected`; and the machines that moved as a whole."""
    judged = [_alone(each, least_nights) for each in series]
    incidents = [
        incident
        for host_id in dict.fromkeys(each.host_id for each in judged)
        if (incident := _incident(host_id, [each for each in judged if each.host_id == host_id])) is not None
    ]
    for incident in incidents:
        judged = [replace(each, verdict="incident") if _moved(each, incident) else each for each in judged]
    return judged, incidents


def to_confirm(judged: Sequence[Judged], incidents: Iterable[Incident]) -> list[Judged]:
    """What is worth pairs, the furthest fallen first: every candidate, and the furthest of each slower machine."""
    found = [each for each in judged if each.verdict == "suspected"]
    for incident in incidents:
        if incident.slower:
            found += sorted((each for each in judged if _moved(each, incident)), key=_fallen)[:1]
    return sorted(found, key=_fallen)


def settled(judged: Judged, pairs: Sequence[float], wanted: int) -> Judged:
    """After a confirmation of `wanted` pairs, of which `pairs` were executed: a member of an incident may stay one."""
    asked = replace(judged, pairs=tuple(pairs))
    if pairs and confirmed(pairs):
        return replace(asked, verdict="regression")
    if len(pairs) < wanted:
        return replace(asked, why=f"{len(pairs)} of {wanted} pairs could be executed")
    return replace(asked, verdict="unconfirmed" if judged.verdict == "suspected" else judged.verdict)


def alarm(judged: Iterable[Judged], incidents: Iterable[Incident], *, strict: bool = False) -> int | None:
    """The exit code that the verdicts ask for; None: the sweep's own."""
    verdicts = {each.verdict for each in judged}
    if "regression" in verdicts:
        return EXIT_REGRESSION
    if strict and (verdicts & {"suspected", "unconfirmed"} or any(incident.slower for incident in incidents)):
        return EXIT_SUSPECTED
    return EXIT_TOO_LITTLE if strict and "too-little-data" in verdicts else None


def _alone(series: Series, least_nights: int) -> Judged:
    """By its own history."""
    values, value = [night.value for night in series.nights], series.tonight.value
    ratio = value / median(values) if len(values) >= least_nights else None
    if series.quarantine is not None:
        return Judged(series=series, verdict="quarantined", ratio=ratio)
    if ratio is None:
        return Judged(series=series, verdict="too-little-data", why=f"{len(values)} of {least_nights} nights")
    within = [night for night in series.nights if candidate(values, night.value, least_nights=least_nights) is None]
    good = within[-1] if within else None
    if candidate(values, value, least_nights=least_nights):
        return Judged(series=series, verdict="suspected", ratio=ratio, good=good)
    # a rate that rose is a time that fell: the same rule in the other direction
    rose = candidate([1 / each for each in values], 1 / value, least_nights=least_nights)
    return Judged(series=series, verdict="improved" if rose else "quiet", ratio=ratio, good=good)


def _incident(host_id: str, judged: Sequence[Judged]) -> Incident | None:
    """A quarantined series says nothing of its machine."""
    ratios = {each.series.key: each.ratio for each in judged if each.ratio and each.verdict != "quarantined"}
    ratio = moved_together(ratios)
    if ratio is None:
        return None
    whole = Incident(host_id=host_id, ratio=ratio, moved=0, of=len(ratios))
    return replace(whole, moved=sum(_moved(each, whole) for each in judged))


def _moved(judged: Judged, incident: Incident) -> bool:
    if judged.host_id != incident.host_id or judged.ratio is None or judged.verdict == "quarantined":
        return False
    return judged.ratio < 1 - FLOOR_RATIO if incident.slower else judged.ratio > 1 + FLOOR_RATIO


def _fallen(judged: Judged) -> float:
    return judged.ratio or 1.0
