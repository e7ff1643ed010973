"""`ledger waive`."""

from datetime import datetime
from typing import TYPE_CHECKING, get_args

import rich_click as click

from ledger.cli.common import (
    dry_run_option,
    go_ahead,
    not_blank,
    operator_option,
    prepared_database,
    yes_option,
)
from ledger.event_types import EventType
from ledger.model.missing_events import Certainty

if TYPE_CHECKING:
    from ledger.operations.missing_events.waive import Waived


@click.command()
@click.option("--lab", metavar="LAB", help="Of this lab alone.")
@click.option("--type", "event_type", type=click.Choice(get_args(EventType)), help="Of this type.")
@click.option("--certainty", type=click.Choice(get_args(Certainty)), help="Proven, or likely.")
@click.option(
    "--before", metavar="TIME", help="Those first known to be missing before this time (RFC 3339)."
)
@click.option(
    "--reason",
    required=True,
    callback=not_blank,
    metavar="WORDS",
    help="Why they will not be asked for.",
)
@operator_option
@yes_option
@dry_run_option
def waive(
    *,
    lab: str | None,
    event_type: EventType | None,
    certainty: Certainty | None,
    before: str | None,
    reason: str,
    by: str,
    yes: bool,
    dry_run: bool,
) -> None:
    """Waive all missing events that the filters find and that were not asked for.

    As on the day of the installation, when bills that are older than the webhook lack their
    bill.created. Says first how many they are.
    """
    from ledger.cli.reconcile import PATIENCE, read_time
    from ledger.operations.missing_events.queries import Filter
    from ledger.operations.missing_events.waive import waive_matching
    from ledger.operations.policy import Policy
    from ledger.settings import Settings

    known_before: datetime | None = read_time(before, "--before")
    wanted = Filter(
        lab_id=lab, event_type=event_type, certainty=certainty, known_before=known_before
    )
    if wanted == Filter():
        raise click.UsageError("say which: at least one of --lab, --type, --certainty, --before")
    url = prepared_database()
    policy = Policy.of(Settings.from_environment())

    def run(*, only_count: bool) -> "Waived":
        found, _ = waive_matching(
            url, policy, wanted, reason=reason, by=by, dry_run=only_count, patience=PATIENCE
        )
        return found

    found = run(only_count=True)
    for lab_id, types in found.labs.items():
        for name, count in types.items():
            click.echo(f"{count:8,}  {name} of lab {lab_id}")
    if not found.waived:
        click.echo("Nothing of that is missing and not waived or asked for.")
        return
    if go_ahead(f"{found.waived:,} missing events will be waived.", yes=yes, dry_run=dry_run):
        click.echo(f"Waived {run(only_count=False).waived:,}.")
