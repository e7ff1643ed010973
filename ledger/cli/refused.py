"""`ledger refused`."""

from collections.abc import Callable
from contextlib import closing
from typing import Any, get_args

import msgspec
import rich_click as click
from msgspec.json import encode

from ledger.api.schemas import RefusedDeliveryItem, shown_body
from ledger.cli.common import (
    dry_run_option,
    go_ahead,
    json_lines_option,
    json_option,
    operator_option,
    prepared_database,
    yes_option,
)
from ledger.cli.table import print_table
from ledger.model.operators import Operator
from ledger.operations.refused_deliveries import decide
from ledger.operations.refused_deliveries.keep import Refusal
from ledger.operations.refused_deliveries.queries import (
    RefusedDelivery,
    Selection,
    list_refused,
    read_refused,
)
from ledger.operations.render.words import clock, count, shown
from ledger.postgres.connect import connect

COLUMNS = ("id", "received (UTC)", "times", "token", "event", "lab", "bill", "client")

PAGE = 1_000
"""Deliveries read by one query."""


@click.group()
def refused() -> None:
    """List, show, accept or drop deliveries that were refused for their token.

    A delivery whose webhook token is wrong, missing or one of other labs gets a 401. If it looks
    like one of Flabs, it is kept outside the log until somebody decides about it, or it is too old.
    """


@refused.command("list")
@click.option("--lab", metavar="LAB", help="Only of this lab.")
@click.option(
    "--reason", type=click.Choice(get_args(Refusal)), help="Only refused for this reason."
)
@json_lines_option
def list_(*, lab: str | None, reason: Refusal | None, as_json: bool) -> None:
    """List refused deliveries, the first one first."""
    selection = Selection(labs=None if lab is None else (lab,), reason=reason)
    found: list[RefusedDelivery] = []
    with closing(connect(prepared_database(), "refused")) as connection:
        after = None
        while page := list_refused(connection, selection, limit=PAGE, after=after):
            found += page
            after = (page[-1].received_at, page[-1].delivery_id)
    if as_json:
        for item in found:
            click.echo(encode(item))
    elif found:
        print_table(COLUMNS, map(_cells, found), whole=COLUMNS[:3])
    else:
        click.echo("No refused delivery matches.", err=True)


@refused.command()
@click.argument("delivery_id", metavar="ID")
@json_option
def show(*, delivery_id: str, as_json: bool) -> None:
    """Show refused delivery ID with its body."""
    with closing(connect(prepared_database(), "refused")) as connection:
        found, content = read_refused(connection, delivery_id)
    if as_json:
        body, raw = shown_body(content)
        item = RefusedDeliveryItem(**msgspec.structs.asdict(found), body=body, raw=raw)
        click.echo(encode(item))
        return
    for name, cell in zip(COLUMNS, _cells(found), strict=True):
        click.echo(f"{name:<15}{shown(cell)}")
    click.echo(f"{'last received':<15}{clock(found.last_received_at)}")
    click.echo(f"{'happened':<15}{clock(found.event_time) if found.event_time else ''}")
    click.echo(f"{'body':<15}{shown(content.decode(errors='replace'))}")


def _selecting(command: Callable[..., None]) -> Callable[..., None]:
    """Add the arguments and options that say which deliveries, and how to decide."""
    for add in (
        json_option,
        dry_run_option,
        yes_option,
        operator_option,
        click.option("--all", "everything", is_flag=True, help="All there are."),
        click.option("--lab", metavar="LAB", help="Only of this lab."),
        click.argument("ids", metavar="[ID]...", nargs=-1),
    ):
        command = add(command)
    return command


@refused.command()
@_selecting
def accept(**options: Any) -> None:  # noqa: ANN401 -- of `_selecting`
    """Accept refused deliveries by ID, of a lab, or all: they enter the log.

    Each enters it once, with the time at which it was first received. The command says how many
    there are and asks for confirmation; without a terminal it needs --yes, for nothing leaves the
    log again.
    """
    _decide(decide.accept, "accepted into the log", "Accepted", **options)


@refused.command()
@_selecting
def drop(**options: Any) -> None:  # noqa: ANN401 -- of `_selecting`
    """Drop refused deliveries by ID, of a lab, or all: they are deleted.

    The command says how many there are and asks for confirmation; without a terminal it needs
    --yes.
    """
    _decide(decide.drop, "deleted", "Dropped", **options)


def _decide(
    work: Callable[..., tuple[decide.Accepted | decide.Dropped, int]],
    will: str,
    done: str,
    *,
    ids: tuple[str, ...],
    lab: str | None,
    everything: bool,
    by: Operator,
    yes: bool,
    dry_run: bool,
    as_json: bool,
) -> None:
    if everything == (bool(ids) or lab is not None):
        raise click.UsageError("say which: ID, --lab LAB or both, or else --all")
    selection = Selection(ids=ids or None, labs=None if lab is None else (lab,))
    url = prepared_database()
    preview, _ = work(url, selection, by=by, dry_run=True)
    if not preview.labs:
        click.echo("No refused delivery matches.", err=True)
        return
    if not as_json:
        print_table(("lab", "count"), [(name, str(n)) for name, n in sorted(preview.labs.items())])
    what = f"{_counted(preview.labs)} will be {will}."
    if not go_ahead(what, yes=yes, dry_run=dry_run, irreversible=True):
        if as_json and dry_run:
            click.echo(encode(preview))
        return
    result, _ = work(url, selection, by=by, dry_run=False)
    if as_json:
        click.echo(encode(result))
        return
    said = f"{done} {_counted(result.labs)}"
    if isinstance(result, decide.Accepted) and result.recorded < result.accepted:
        said += f"; {result.accepted - result.recorded} of them were in the log already"
    click.echo(f"{said}.")


def _counted(labs: dict[str, int]) -> str:
    return count(sum(labs.values()), "refused delivery", "refused deliveries")


def _cells(item: RefusedDelivery) -> tuple[str, ...]:
    return (
        item.delivery_id,
        clock(item.received_at),
        str(item.times),
        item.reason.replace("foreign_lab", "of other labs"),
        item.event_type,
        item.lab_id,
        item.bill_id,
        item.client,
    )
