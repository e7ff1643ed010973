"""`ledger waive`."""

from datetime import datetime
from typing import get_args

import rich_click as click

from ledger.cli.common import (
    dry_run_option,
    go_ahead,
    not_blank,
    operator_option,
    prepared_database,
    yes_option,
)
from ledger.model.event import EventType
from ledger.model.missing_events import Certainty


@click.command()
@click.option("--lab", metavar="LAB", help="Of this lab alone.")
@click.option("--type", "event_type", type=click.Choice(get_args(EventType)), help="Of this type.")
@click.option("--certainty", type=click.Choice(get_args(Certainty)), help="Proven, or likely.")
@click.option(
    "--before", metavar="TIME", help="Those first known to be missing before this time (RFC 3339)."
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
    event_type: EventType | None,
    certainty: Certainty | None,
    before: str | None,
    reason: str | None,
    undo: bool,
    by: str,
    yes: bool,
    dry_run: bool,
) -> None:
    """Waive all missing events that the filters find and that were not asked for.

    As on the day of the installation, when bills that are older than the webhook lack their
    bill.created. Says first how many they are. With --undo it takes back the waivers of all events
    that match, so that they can be asked for again.
    """
    from ledger.cli.reconcile import PATIENCE, read_time
    from ledger.operations.missing_events.queries import Filter
    from ledger.operations.missing_events.waive import unwaive_matching, waive_matching
    from ledger.operations.policy import Policy
    from ledger.operations.render.words import count
    from ledger.settings import Settings

    known_before: datetime | None = read_time(before, "--before")
    wanted = Filter(
        lab_id=lab, event_type=event_type, certainty=certainty, known_before=known_before
    )
    if wanted == Filter():
        raise click.UsageError("say which: at least one of --lab, --type, --certainty, --before")
    if not undo and reason is None:
        raise click.UsageError("--reason is missing: say why they will not be asked for")
    url = prepared_database()
    policy = Policy.of(Settings.from_environment())

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
    for lab_id, types in found.items():
        for name, number in types.items():
            click.echo(f"{number:8,}  {name} of lab {lab_id}")
    noun = "waiver" if undo else "missing event"
    if not found:
        state = "waived" if undo else "missing and neither waived nor requested"
        click.echo(f"No event that matches is {state}.")
        return
    will = "taken back" if undo else "waived"
    if go_ahead(f"{count(_total(found), noun)} will be {will}.", yes=yes, dry_run=dry_run):
        done = "Took back" if undo else "Waived"
        click.echo(f"{done} {count(_total(run(only_count=False)), noun)}.")


def _total(labs: dict[str, dict[str, int]]) -> int:
    return sum(sum(types.values()) for types in labs.values())
