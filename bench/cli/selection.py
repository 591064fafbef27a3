"""Which records of a store a command is about: the selectors that `bench table` and `bench export` share."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, get_args

import click

from bench.cli.names import Names
from bench.errors import StoreError, unknown_name
from bench.reports.table import latest
from bench.results.record import Record
from bench.results.schema import Status
from bench.results.store import Store


def passed_over(error: StoreError) -> None:
    """Say that something of a store cannot be read; the others follow."""
    click.echo(f"bench: passed over: {error}", err=True)


def selectors(command: Callable[..., Any]) -> Callable[..., Any]:
    """The options that `selected` takes, and where the store is."""
    for option in reversed(
        (
            click.option("--backend", "backends", type=Names(), help="Only these backends."),
            click.option("--model", "models", type=Names(), help="Only these models (MODEL or MODEL-SCHEME)."),
            click.option("--workload", "workloads", type=Names(), help="Only these workloads."),
            click.option("--status", "statuses", type=Names(), help="Only these statuses."),
            click.option("--published", is_flag=True, help="Only published records: those that were redacted."),
            click.option("--all", "everything", is_flag=True, help="Every sweep, not only the newest of each series."),
            click.option("--results", metavar="DIR", help="The store (else $BENCH_RESULTS)."),
        )
    ):
        command = option(command)
    return command


def selected(store: Store, **asked: Any) -> list[Record]:
    """The store's records that all selectors let through, and a message where there are none."""
    records = found(store, **asked)
    if not records:
        click.echo(f"bench: {none_in(store)}", err=True)
    return records


def none_in(store: Store) -> str:
    """What to say where no record is found."""
    return f"no such records in {store.root}"


def found(
    store: Store,
    *,
    backends: tuple[str, ...] | None,
    models: tuple[str, ...] | None,
    workloads: tuple[str, ...] | None,
    statuses: tuple[str, ...] | None,
    published: bool,
    everything: bool,
) -> list[Record]:
    """The store's records that all selectors let through; one that cannot be read is told and passed over."""
    for status in statuses or ():
        if status not in get_args(Status):
            raise unknown_name("status", status, get_args(Status), where="--status")

    def wanted(record: Record) -> bool:
        identity = record.identity
        named = {identity.model, f"{identity.model}-{identity.scheme}"}
        return (
            (not backends or identity.backend in backends)
            and (not models or not named.isdisjoint(models))
            and (not workloads or identity.workload.name in workloads)
            and (not statuses or record.status in statuses)
            and (not published or record.info.redacted)
        )

    records = list(store.records(wanted, passed_over))
    return records if everything else latest(records)
