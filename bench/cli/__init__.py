"""The command `bench`: one file per subcommand, imported when it is called. Only this package prints and exits."""

from __future__ import annotations

import contextlib
import errno
import os
import signal
import sys
import traceback
from types import FrameType
from typing import NoReturn

import click

from bench import __version__
from bench.cli.lazy import Lazy
from bench.errors import EXIT_BUG, EXIT_INTERRUPTED, BenchError, PrerequisiteError

COMMANDS = {
    "run": "bench.cli.run:run",
    "prepare": "bench.cli.prepare:prepare",
    "cache": "bench.cli.cache:cache",
    "list": "bench.cli.list_:list_command",
    "setup": "bench.cli.setup:setup",
    "bundle": "bench.cli.bundle:bundle",
    "doctor": "bench.cli.doctor:doctor",
    "show": "bench.cli.show:show",
    "table": "bench.cli.table:table",
    "results": "bench.cli.results:results",
    "nightly": "bench.cli.nightly:nightly",
    "ab": "bench.cli.ab:ab",
    "compare": "bench.cli.compare:compare",
    "import": "bench.cli.import_:import_command",
    "export": "bench.cli.export:export",
    "backend-check": "bench.cli.backend_check:backend_check",
}


@click.group(
    cls=Lazy,
    paths=COMMANDS,
    kind="command",
    remedy="`bench --help` tells what each does",
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.version_option(__version__, prog_name="bench")
def cli() -> None:
    """Execute the same quantized LLM on any vendor's chip and keep a record that can be believed."""


def main() -> NoReturn:
    """Execute the command line; every way out is an exit code of bench.errors."""
    signal.signal(signal.SIGTERM, _interrupt)
    try:
        code = cli.main(prog_name="bench", standalone_mode=False)
    except click.exceptions.NoArgsIsHelpError as error:
        click.echo(error.ctx.get_help() if error.ctx else error.message, err=True)
        code = error.exit_code
    except click.ClickException as error:
        click.echo(f"bench: {_one_line(error)}", err=True)
        code = error.exit_code
    except BenchError as error:
        click.echo(f"bench: {error}", err=True)
        code = error.exit_code
    except (KeyboardInterrupt, click.Abort):
        code = EXIT_INTERRUPTED
    except (BrokenPipeError, SystemExit):  # the reader of a pipe (head, less) had enough; click makes an exit of it
        with contextlib.suppress(OSError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = 0
    except Exception as error:
        code = _unforeseen(error)
    sys.exit(code if isinstance(code, int) else 0)


def _one_line(error: click.ClickException) -> str:
    """What click found wrong with the command line, in the form of every other message."""
    what = " ".join(error.format_message().split()).rstrip(".")
    if not isinstance(error, click.UsageError) or error.ctx is None:
        return what
    path = error.ctx.command_path
    where = path.partition(" ")[2]
    return f"{where}: {what}; `{path} --help` shows all" if where else f"{what}; `{path} --help` shows all"


def _unforeseen(error: Exception) -> int:
    """The exit code of a disk that is full where no part of the program foresaw it, or of a bug."""
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        where = error.filename or "standard output or a temporary file"
        click.echo(f"bench: {where}: disk full; free some space", err=True)
        return PrerequisiteError.exit_code
    traceback.print_exc()
    click.echo("bench: this is a bug in Evenbench; please report it with the lines above", err=True)
    return EXIT_BUG


def _interrupt(number: int, frame: FrameType | None) -> None:
    """SIGTERM ends a sweep as Ctrl-C does: the worker first, then what is measured is kept."""
    raise KeyboardInterrupt
