"""`ledger missing`."""

import sys
from typing import get_args

import rich_click as click

from ledger.cli.common import prepared_database
from ledger.event_types import EventType
from ledger.model.missing_events import Certainty, MissingState

WIDE = 1_000
"""Columns; a table takes no more than it needs."""


@click.command()
@click.option("--state", type=click.Choice(get_args(MissingState)), help="As they are now.")
@click.option("--lab", metavar="LAB", help="Of this lab alone.")
@click.option("--type", "event_type", type=click.Choice(get_args(EventType)), help="Of this type.")
@click.option("--certainty", type=click.Choice(get_args(Certainty)), help="Proven, or likely.")
@click.option(
    "--limit",
    type=click.IntRange(1, 100_000),
    default=100,
    show_default=True,
    metavar="N",
    help="How many at the most.",
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON Lines.")
def missing(
    *,
    state: MissingState | None,
    lab: str | None,
    event_type: EventType | None,
    certainty: Certainty | None,
    limit: int,
    as_json: bool,
) -> None:
    """List the events that were sent and never came, the one missing longest first."""
    from contextlib import closing
    from datetime import UTC, datetime

    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from ledger.operations.missing_events.queries import Filter, item_of, list_query
    from ledger.operations.policy import Policy
    from ledger.postgres.connect import connect
    from ledger.projection.rows import encode
    from ledger.settings import Settings

    url = prepared_database()
    policy = Policy.of(Settings.from_environment())
    wanted = Filter(state=state, lab_id=lab, event_type=event_type, certainty=certainty)
    now = datetime.now(UTC)
    query, values = list_query(wanted, policy, now, limit=limit + 1, after=None)
    with closing(connect(url, "missing")) as connection:
        rows = connection.cursor(binary=True).execute(query, values).fetchall()
    found = [item_of(row[1:], policy, now) for row in rows if row[1] is not None]
    if as_json:
        for item in found[:limit]:
            click.echo(encode(item))
        return
    if not found:
        click.echo("Nothing is missing." if wanted == Filter() else "Nothing of that is missing.")
        return
    table = Table(box=box.SIMPLE)
    for name in ("lab", "bill", "event", "test", "certainty", "state", "due (UTC)", "request"):
        table.add_column(name, overflow="fold", no_wrap=name in ("state", "certainty", "due (UTC)"))
    for item in found[:limit]:
        cells = (
            item.lab_id,
            item.bill_id,
            f"{item.event_type}{f' x {item.count}' if item.count > 1 else ''}",
            item.test_id or "",
            item.certainty,
            item.state,
            f"{item.due_at:%F %T}",
            str(item.request or ""),
        )
        # What is not printable could drive the terminal.
        table.add_row(*(Text(cell if cell.isprintable() else ascii(cell)) for cell in cells))
    # Where it is no terminal, a line stays a line.
    Console(width=None if sys.stdout.isatty() else WIDE).print(table)
    if len(found) > limit:
        click.echo(f"... and more; --limit {limit} was given")
