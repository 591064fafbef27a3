"""The columns that say where it was executed: the provider asked for, and how much of the work was really there."""

from __future__ import annotations

from bench.attest import elsewhere_share
from bench.reports.column import Column, Peers, plain, when_differing
from bench.reports.row import Row
from bench.units import NOT_MEASURED, render_share

ALL = render_share(1.0)


def on_provider(row: Row) -> float | None:
    """The share of the matrix products on the placement that was asked for; None where that is not known."""
    facts = row.first.facts
    told = facts is not None and facts.placement and facts.asked_placement is not None
    return 1 - (elsewhere_share(facts) or 0.0) if facts and told else None


def when_not_all(values: Peers) -> bool:
    """Shown where something that some row computed was elsewhere."""
    return any(value not in (NOT_MEASURED, ALL) for peers in values for value in peers)


def _said(row: Row) -> str:
    facts, share = row.first.facts, on_provider(row)
    if facts is None or share is None:
        return NOT_MEASURED
    only_others_elsewhere = elsewhere_share(facts) == 0
    return render_share(share) + (" of products" if only_others_elsewhere else "")


PROVIDER = Column(
    key="provider",
    header="provider",
    meaning="execution provider inside the runtime",
    of=lambda row: row.first.identity.provider,
    text=lambda value: plain(value).removesuffix("ExecutionProvider"),
    folds=True,
    shown=when_differing,
)

ON_PROVIDER = Column(
    key="on_provider_ratio",
    header="on provider",
    meaning="share of the matrix products that was executed where it was asked, shown where anything was not; "
    "of products: all of them were, other operations were not",
    of=on_provider,
    says=_said,
    numeric=True,
    shown=when_not_all,
)
