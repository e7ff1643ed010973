"""`ledger waive`."""

from typing import get_args

import rich_click as click

from ledger.cli.common import (
    PATIENCE,
    dry_run_option,
    go_ahead,
    not_blank,
    operator_option,
    prepared_database,
    read_time,
    yes_option,
)
from ledger.cli.table import print_table
from ledger.event_types import EventType
from ledger.model.missing_events import Certainty
from ledger.model.operators import Operator
from ledger.operations.missing_events.queries import Filter
from ledger.operations.missing_events.waive import unwaive_matching, waive_matching
from ledger.operations.policy import agree
from ledger.operations.render.words import count
from ledger.settings import Settings


@click.command()
@click.option("--lab", metavar="LAB", help="Only of this lab.")
@click.option("--bill", metavar="BILL", help="Only of this bill; needs --lab.")
@click.option("--test", metavar="TEST", help="Only of this test; needs --bill.")
@click.option("--type", "event_type", type=click.Choice(get_args(EventType)), help="Of this type.")
@click.option(
    "--certainty",
    type=click.Choice(get_args(Certainty)),
    help="Only those proven, or only those that may be missing.",
)
@click.option(
    "--before",
    metavar="TIME",
    help="Only those first known to be missing before this time (RFC 3339).",
)
@click.option(
    "--reason",
    callback=not_blank,
    metavar="WORDS",
    help="Why they will not be asked for; with --undo, optional.",
)
@click.option("--undo", is_flag=True, help="Take back the waivers of the events that match.")
@operator_option
@yes_option
@dry_run_option
def waive(
    *,
    lab: str | None,
    bill: str | None,
    test: str | None,
    event_type: EventType | None,
    certainty: Certainty | None,
    before: str | None,
    reason: str | None,
    undo: bool,
    by: Operator,
    yes: bool,
    dry_run: bool,
) -> None:
    """Waive missing events that match all filters and have not been requested.

    A waived event is not asked for. On the day of the installation, for example, bills older than
    the webhook lack their bill.created. The command shows how many events match and asks for
    confirmation; without a terminal it needs --yes. With --undo it takes back the waivers of all
    events that match, so that they can be asked for again.
    """
    wanted = Filter(
        lab_id=lab,
        bill_id=bill,
        test_id=test,
        event_type=event_type,
        certainty=certainty,
        known_before=read_time(before, "--before"),
    )
    if wanted == Filter():
        raise click.UsageError(
            "give at least one of --lab, --bill, --test, --type, --certainty, --before"
        )
    if (bill is not None and lab is None) or (test is not None and bill is None):
        raise click.UsageError("--bill needs --lab, and --test needs --bill")
    if not undo and reason is None:
        raise click.UsageError("--reason is missing: say why they will not be asked for")
    url = prepared_database()
    policy = agree(url, Settings.from_environment())

    def run(*, only_count: bool) -> dict[str, dict[str, int]]:
        if undo or reason is None:
            unwaived, _ = unwaive_matching(
                url, policy, wanted, reason=reason, by=by, dry_run=only_count, patience=PATIENCE
            )
            return unwaived.labs
        waived, _ = waive_matching(
            url, policy, wanted, reason=reason, by=by, dry_run=only_count, patience=PATIENCE
        )
        return waived.labs

    found = run(only_count=True)
    if not found:
        state = "waived" if undo else "missing and neither waived nor requested"
        click.echo(f"No event that matches is {state}.", err=True)
        return
    rows = [
        (lab_id, name, str(number))
        for lab_id, types in found.items()
        for name, number in types.items()
    ]
    print_table(("lab", "event", "count"), rows)
    noun, will, done = (
        ("waiver", "taken back", "Took back") if undo else ("missing event", "waived", "Waived")
    )
    what = f"{count(_total(found), noun)} will be {will}."
    if go_ahead(what, yes=yes, dry_run=dry_run, irreversible=not undo):
        click.echo(f"{done} {count(_total(run(only_count=False)), noun)}.")


def _total(labs: dict[str, dict[str, int]]) -> int:
    return sum(sum(types.values()) for types in labs.values())
