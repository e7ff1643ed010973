"""What several commands do alike."""

import getpass
import os
import socket
import sys
from contextlib import closing
from pathlib import Path
from typing import Any

import rich_click as click
import structlog

from ledger import schema
from ledger.errors import DatabaseUnavailableError
from ledger.logging_setup import configure_logging
from ledger.postgres.connect import connect
from ledger.settings import Settings

processes_option = click.option(
    "--processes",
    type=click.IntRange(1, 64),
    default=lambda: min(os.cpu_count() or 1, 8),
    show_default="as many as there are cores, at most 8",
    metavar="N",
    help="Processes that share the work.",
)

operator_option = click.option(
    "--by",
    default=lambda: f"{getpass.getuser()}@{socket.gethostname()}",
    show_default="who is logged in",
    metavar="NAME",
    callback=lambda _, __, name: name.strip()[:200] or "nobody",
    help="Who decides this: it stands in the log beside the decision.",
)


def not_blank(_: click.Context, parameter: click.Parameter, text: str | None) -> str | None:
    """Refuse words that say nothing, and more than the log takes."""
    if text is not None and not (text.strip() and len(text) <= LONGEST_WORDS):
        raise click.BadParameter(f"takes 1 to {LONGEST_WORDS} characters", param=parameter)
    return text


LONGEST_WORDS = 2000

form_option = click.option(
    "--format",
    "form",
    type=click.Choice(["text", "json", "csv", "markdown", "xlsx"]),
    default="text",
    show_default=True,
    help="Of a support request, markdown is a letter that asks for what is still open.",
)
output_option = click.option(
    "--output",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="F",
    help="Write to a file instead of standard output.",
)

yes_option = click.option("--yes", is_flag=True, help="Don't ask, do it.")
dry_run_option = click.option(
    "--dry-run", is_flag=True, help="Say what would be done, and do nothing."
)


def prepared_database() -> str:
    """Return the database's URL, having made sure that its schema is the right one."""
    configure_logging()
    url = Settings.from_environment().require_database()
    with closing(connect(url, "check")) as connection:
        schema.check(connection)
    return url


def check_schema_if_reachable(url: str) -> None:
    """Raise `SchemaError` for a wrong schema; of a database that is away, only warn.

    It may come back; until then deliveries get a 503, and the sender tries again.
    """
    try:
        with closing(connect(url, "check")) as connection:
            schema.check(connection)
    except DatabaseUnavailableError as error:
        structlog.get_logger(__name__).warning("starting without the database", error=str(error))


def go_ahead(what: str, *, yes: bool, dry_run: bool) -> bool:
    """Say what will be done; ask, where somebody sits at a terminal; tell whether to do it."""
    click.echo(what, err=True)
    if dry_run:
        click.echo("Nothing was done (--dry-run).", err=True)
        return False
    if yes or not sys.stdin.isatty():
        return True
    return bool(click.confirm("Go on?", default=True, err=True))


def query_one(url: str, query: str) -> tuple[Any, ...]:
    """Return the row of a query that has one."""
    with connect(url, "look") as connection:
        row = connection.execute(query.encode()).fetchone()
    assert row is not None  # noqa: S101 -- as the caller promised
    return tuple(row)
