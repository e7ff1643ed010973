"""Options, checks and questions that several commands share."""

import os
import socket
import sys
from contextlib import closing
from datetime import datetime
from pathlib import Path
from typing import Any

import msgspec
import rich_click as click
import structlog

from ledger import schema
from ledger.errors import DatabaseUnavailableError
from ledger.logging_setup import configure_logging
from ledger.model.operators import Operator
from ledger.postgres.connect import connect
from ledger.processes import user_name
from ledger.settings import Settings

PATIENCE = 600.0
"""Seconds that a command waits for the state to catch up with the log."""

LONGEST_WORDS = 2000
"""Characters of a reason or a note that the log takes."""

processes_option = click.option(
    "--processes",
    type=click.IntRange(1, 64),
    default=lambda: min(os.cpu_count() or 1, 8),
    show_default="one per core, at most 8",
    metavar="N",
    help="Number of processes that share the work.",
)

operator_option = click.option(
    "--by",
    default=lambda: f"{user_name()}@{socket.gethostname()}",
    show_default="the user who is logged in",
    metavar="NAME",
    callback=lambda _, __, name: Operator(name.strip()[:200] or "nobody"),
    help="The person who decides; recorded in the log with the decision.",
)


def not_blank(_: click.Context, parameter: click.Parameter, text: str | None) -> str | None:
    """Refuse a blank text, and one that is longer than the log takes."""
    if text is not None and not (text.strip() and len(text) <= LONGEST_WORDS):
        raise click.BadParameter(f"takes 1 to {LONGEST_WORDS} characters", param=parameter)
    return text


form_option = click.option(
    "--format",
    "form",
    type=click.Choice(["text", "json", "csv", "markdown", "xlsx"]),
    default="text",
    show_default=True,
    help="The form of the output. A support request in markdown is the letter to support.",
)
json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON.")
json_lines_option = click.option(
    "--json", "as_json", is_flag=True, help="Print JSON Lines, one object per line."
)
output_option = click.option(
    "--output",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="F",
    help="Write to a file instead of standard output.",
)

yes_option = click.option("--yes", is_flag=True, help="Do it without asking.")
dry_run_option = click.option(
    "--dry-run", is_flag=True, help="Say what would be done, and change nothing."
)


def read_time(text: str | None, option: str) -> datetime | None:
    """Return the time (RFC 3339, with a zone) given to an option. Raises `click.BadParameter`."""
    if text is None:
        return None
    try:
        moment = msgspec.convert(text.strip(), datetime)
    except msgspec.ValidationError:
        moment = None
    if moment is None or moment.tzinfo is None:
        raise click.BadParameter(
            f"{text!r} is not a time in RFC 3339 with a zone, such as 2024-01-20T10:00:00Z",
            param_hint=option,
        )
    return moment


def prepared_database() -> str:
    """Return the database's URL after checking that its schema is the one of this version."""
    settings = Settings.from_environment()
    configure_logging(settings)
    url = settings.require_database()
    with closing(connect(url, "check")) as connection:
        schema.check(connection)
    return url


def check_schema_if_reachable(url: str, *, may_be_newer: bool = False) -> None:
    """Raise `SchemaError` for a wrong schema; only warn if the database cannot be reached.

    It may come back. Until then deliveries are answered with 503, and the sender retries.
    `may_be_newer`: only warn if a newer version of Ledger made the schema.
    """
    try:
        with closing(connect(url, "check")) as connection:
            schema.check(connection, may_be_newer=may_be_newer)
            if schema.is_newer(version := schema.current_version(connection)):
                structlog.get_logger(__name__).warning(
                    "the schema is newer than this version of Ledger", schema=version
                )
    except DatabaseUnavailableError as error:
        structlog.get_logger(__name__).warning("starting without the database", error=str(error))


def go_ahead(what: str, *, yes: bool, dry_run: bool, irreversible: bool = False) -> bool:
    """Announce a change, ask for confirmation, and return whether to make it.

    The default answer is no for an irreversible change and yes for any other. Without a terminal
    nobody can be asked: other changes are made, and an irreversible one needs `yes`, or raises
    `click.UsageError`. Raises `click.ClickException` if the answer is no.
    """
    click.echo(what, err=True)
    if dry_run:
        click.echo("Nothing was changed (--dry-run).", err=True)
        return False
    if yes:
        return True
    if not sys.stdin.isatty():
        if irreversible:
            raise click.UsageError("nothing was changed: without a terminal this needs --yes")
        return True
    if not click.confirm("Go on?", default=not irreversible, err=True):
        raise click.ClickException("nothing was changed")
    return True


def query_one(url: str, query: str) -> tuple[Any, ...]:
    """Return the single row of a query."""
    with connect(url, "look") as connection:
        row = connection.execute(query.encode()).fetchone()
    assert row is not None  # noqa: S101 -- the caller's query always returns a row
    return tuple(row)
