"""`ledger erase`."""

import rich_click as click
from msgspec.json import encode

from ledger.cli.common import (
    dry_run_option,
    go_ahead,
    json_option,
    not_blank,
    operator_option,
    prepared_database,
    yes_option,
)
from ledger.model.operators import Operator
from ledger.operations.erasure import Erasure
from ledger.operations.erasure import erase as erase_body
from ledger.operations.render.words import count


@click.command()
@click.argument("position", type=click.IntRange(1, 2**63 - 1), metavar="POSITION")
@click.option(
    "--reason",
    required=True,
    callback=not_blank,
    metavar="WORDS",
    help="Why it is erased; recorded in the log.",
)
@operator_option
@yes_option
@dry_run_option
@json_option
def erase(
    *, position: int, reason: str, by: Operator, yes: bool, dry_run: bool, as_json: bool
) -> None:
    """Erase the body of the event at POSITION, which may hold a person's data.

    Only bodies that are not folded can be erased: of other types than the four, such as
    lead.created, and unreadable ones. The event keeps its place, its times and its hashes. Exports,
    backups and other copies made before still hold the body. The command asks for confirmation;
    without a terminal it needs --yes.
    """
    url = prepared_database()
    found, _ = erase_body(url, position, reason=reason, by=by, dry_run=True)
    what = f"The body of {_named(found)} will be erased, {count(found.bytes, 'byte')}."
    if not go_ahead(what, yes=yes, dry_run=dry_run, irreversible=True):
        if as_json and dry_run:
            click.echo(encode(found))
        return
    erased, _ = erase_body(url, position, reason=reason, by=by, dry_run=False)
    if as_json:
        click.echo(encode(erased))
        return
    click.echo(
        f"Erased the body of {_named(erased)}. Position {erased.decision} of the log says so. "
        "Copies made before may still hold it: exports, backups, replicas, and the database's "
        "files until VACUUM."
    )


def _named(event: Erasure) -> str:
    what = event.event_type or "event without a type"
    where = f" of lab {event.lab_id}" if event.lab_id else ""
    return f"position {event.position}, {what}{where}"
