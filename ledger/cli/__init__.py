"""The command `ledger`: thin commands over the parts that do the work."""

import importlib
import sys
from typing import NoReturn

import psycopg
import rich_click as click

from ledger import __version__
from ledger.errors import LedgerError
from ledger.model.json_text import is_encodable

COMMANDS = (
    "up",
    "serve",
    "project",
    "migrate",
    "rebuild",
    "verify",
    "reconcile",
    "request",
    "missing",
    "waive",
    "import",
    "export",
    "status",
    "simulate",
    "openapi",
)
"""In the order in which they are listed. Each stands in the module of its name."""


class _Commands(click.RichGroup):
    """Loads a command when it is called, so that `ledger --help` and small commands are quick."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 -- click's signature
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        if cmd_name not in COMMANDS:
            return None
        name = {"import": "import_"}.get(cmd_name, cmd_name)
        module = importlib.import_module(f"ledger.cli.{name}")
        command = getattr(module, name)
        assert isinstance(command, click.Command)  # noqa: S101 -- as each module has it
        return command


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="ledger")
def ledger() -> None:
    """Keep every webhook of Flabs, fold them into bills, prove which never came.

    Settings come from the environment: LEDGER_DATABASE_URL, LEDGER_WEBHOOK_TOKENS, ... The README
    lists them. Exit codes: 0 done, 1 failed, 2 wrong usage, 3 a check found something.
    """


def main() -> NoReturn:
    """Run the command; what was foreseen to go wrong ends in a sentence and not in a traceback."""
    for argument in sys.argv[1:]:
        if not is_encodable(argument):  # bytes that no encoding of the terminal has
            click.echo(f"ledger: {argument!a} is not UTF-8", err=True)
            sys.exit(2)
    try:
        ledger(prog_name="ledger", standalone_mode=True)
    except LedgerError as error:
        click.echo(f"ledger: {error}", err=True)
        sys.exit(1)
    except psycopg.Error as error:
        words = " ".join(str(error).split())
        click.echo(f"ledger: the database refused or was lost: {words}", err=True)
        sys.exit(1)
    except BrokenPipeError:  # who read our output has gone
        sys.stderr.close()
        sys.exit(1)
    sys.exit(0)
