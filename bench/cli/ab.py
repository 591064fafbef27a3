"""`bench ab`: two sides measured by turns on this machine, and how B stands to A."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import click

from bench.cli.asked import FALLBACK, measuring, options_told, share, told_of
from bench.cli.compare import margin_of
from bench.cli.display import display
from bench.cli.names import Names
from bench.cli.run import exit_code
from bench.cli.turns import Turns, by_turns
from bench.errors import UsageError
from bench.results.location import locate_store
from bench.results.store import Store

if TYPE_CHECKING:
    from bench.comparing import Sides

OF_A_SIDE = ("python", "device", "provider")
"""Keys of a side that are no options of its backend."""


@click.command()
@click.option("--a", "text_a", required=True, metavar="'BACKEND [KEY=VALUE …]'", help="What to compare with.")
@click.option("--b", "text_b", required=True, metavar="'BACKEND [KEY=VALUE …]'", help="What is judged.")
@click.option("--model", "models", type=Names(), required=True, help="MODEL-SCHEME, as in deepseek-7b-int8.")
@click.option("--workload", "workloads", type=Names(), default="tg128", show_default=True)
@click.option("--pairs", type=click.IntRange(2), help="So many, judged once; else 8, 16, 32 until all is decided.")
@click.option("--margin", metavar="2%", default="2%", show_default=True, help="Within it both are the same.")
@click.option("--fidelity", type=click.Choice(["native", "exact"]), default="native", show_default=True)
@FALLBACK
@click.option("--repetitions", type=int, default=5, show_default=True, help="Samples of each case in a launch.")
@click.option("--chunk", type=int, default=512, show_default=True, help="Most tokens of a prefill step.")
@click.option("--seed", type=int, default=0, show_default=True, help="Of token ids and of the order.")
@measuring
@click.option("--json", "as_json", is_flag=True, help="Print one object, and nothing else.")
def ab(
    text_a: str,
    text_b: str,
    pairs: int | None,
    margin: str,
    allow_fallback: str | None,
    waiting: dict[str, Any],
    results: str | None,
    as_json: bool,
    **common: Any,
) -> int:
    """Measure two sides by turns, a fresh process each, and tell whether B is better, worse or the same.

    A side is a backend and its options (bench list options), those of its provider as ep.NAME=VALUE; python=PATH,
    device=D and provider=EP are understood as well. Pairs are executed A B B A or B A A B, by a seeded draw.

    bench ab --a "onnx threads=1" --b "onnx threads=2" --model smollm2-135m-int8
    """
    from bench.stats.sequential import LOOKS, levels  # scipy, which may be missing, and few commands need it

    looks = (pairs,) if pairs else LOOKS
    shared = {
        "budget_s": None,
        **told_of(**waiting),
        "command": shlex.join(["bench", *sys.argv[1:]]),
    }
    common |= {"weights": "synthetic", "launches": looks[-1], "allow_fallback": share(allow_fallback)}
    told = (_told(text_a, "--a", common, shared), _told(text_b, "--b", common, shared))
    level_at = dict(zip(looks, levels(looks), strict=True))
    turns, found = _measured(told, Store(locate_store(results)), level_at, margin_of(margin))
    _show(turns, found, (text_a, text_b), margin_of(margin), as_json)
    return exit_code([*turns.a, *turns.b])


def _measured(
    told: tuple[dict[str, Any], dict[str, Any]], store: Store, level_at: Mapping[int, float], margin: float
) -> tuple[Turns, Sides]:
    """Pairs until every row is decided or the last look was taken; `level_at` is the interval's at each look."""
    from bench.comparing import Sides

    found = Sides(rows=(), only_a=(), only_b=())
    with display() as watcher:

        def enough(look: int, turns: Turns) -> bool:
            nonlocal found
            found = turns.compared(margin=margin, level=level_at[look])
            for row in found.rows:
                verdict = row.comparison.verdict if row.comparison else row.refused
                watcher.say(f"{look} pairs: {row.model} {row.workload}: {verdict}")
            return all(row.comparison is None or row.comparison.verdict != "inconclusive" for row in found.rows)

        turns = by_turns(told, store, watcher, list(level_at), enough)
    return turns, found


def _show(turns: Turns, found: Sides, words: tuple[str, str], margin: float, as_json: bool) -> None:
    from bench.reports import verdicts

    a, b = (
        verdicts.Asked(words=text, launches=len({record.launch_id for record in of}))
        for text, of in zip(words, turns.counting, strict=True)
    )
    heading = verdicts.Heading(a=a, b=b, margin=margin)
    if as_json:
        click.echo(verdicts.render_json(found, heading, ab_id=turns.ab_id, order=list(turns.order)))
    elif found.rows:
        click.echo(verdicts.render_terminal(found, heading, color=sys.stdout.isatty()), nl=False)


def _told(text: str, flag: str, common: dict[str, Any], shared: dict[str, Any]) -> dict[str, Any]:
    """One side as a journal keeps it."""
    try:
        backend, *pairs = shlex.split(text)
    except ValueError as error:
        raise UsageError(f"{text!r} names no backend", where=flag, cause=str(error), remedy=f"{flag} onnx") from None
    options = options_told(pairs, flag, f'{flag} "{backend} threads=4"')
    of_side = {name: options.pop(name, None) for name in OF_A_SIDE}
    request = {
        **common,
        "backends": (backend,),
        "devices": (of_side["device"],),
        "provider": of_side["provider"],
        "options": options,
    }
    return {**shared, "request": request, "python": of_side["python"]}
