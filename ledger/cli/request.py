"""`ledger request`."""

from pathlib import Path
from typing import TYPE_CHECKING

import rich_click as click

from ledger.cli.common import (
    form_option,
    not_blank,
    operator_option,
    output_option,
    prepared_database,
)

if TYPE_CHECKING:
    from ledger.operations.render import Format


@click.command()
@click.argument("number", type=click.IntRange(min=1), required=False)
@form_option
@output_option
@click.option("--close", is_flag=True, help="Close what has not come and will not; needs --reason.")
@click.option("--reason", callback=not_blank, metavar="WORDS", help="Why it will not come.")
@operator_option
def request(
    *,
    number: int | None,
    form: "Format",
    output: Path | None,
    close: bool,
    reason: str | None,
    by: str,
) -> None:
    """Show support request NUMBER and what came of it, or list all.

    `ledger reconcile --request` makes one.
    """
    from contextlib import closing

    from ledger.cli.output import written
    from ledger.cli.reconcile import PATIENCE
    from ledger.operations.render import Sender, write_request
    from ledger.operations.support_requests.make import close_request
    from ledger.operations.support_requests.queries import read_request
    from ledger.postgres.connect import connect
    from ledger.settings import Settings

    if close != (reason is not None) or (close and number is None):
        raise click.UsageError("closing takes NUMBER, --close and --reason WORDS")
    if number is None and (form != "text" or output):
        raise click.UsageError(
            "--format and --output want NUMBER; GET /v1/support-requests has all"
        )
    url = prepared_database()
    if number is None:
        _list(url)
        return
    if close and reason is not None:
        found, _ = close_request(url, number, reason=reason, by=by, lines=None, patience=PATIENCE)
    else:
        with closing(connect(url, "request")) as connection:
            found = read_request(connection, number)
    with written(output) as (to, screen):
        sender = Sender.of(Settings.from_environment())
        write_request(found, form, to, sender=sender, screen=screen)


def _list(url: str) -> None:
    from contextlib import closing

    from ledger.operations.support_requests.queries import list_requests
    from ledger.postgres.connect import connect

    with closing(connect(url, "request")) as connection:
        found = list_requests(connection, limit=100)
    if not found:
        click.echo("No support request has been made; `ledger reconcile --request` makes one.")
    for item in found:
        lines = ", ".join(f"{count} {state}" for state, count in item.lines.items())
        lab = f" of lab {item.lab_id}" if item.lab_id else ""
        who = f"by {item.made_by}{lab}"
        click.echo(f"{item.number:6}  {item.state:6}  {item.made_at:%F %T}  {who}: {lines}")
