"""`ledger status`."""

import rich_click as click

from ledger.cli.common import prepared_database


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def status(*, as_json: bool) -> None:
    """Show how far the state is behind the log, and what is parked."""
    from datetime import UTC, datetime

    import msgspec

    from ledger import schema
    from ledger.model.bill import FOLD_VERSION
    from ledger.postgres.connect import connect
    from ledger.projection.status import PARKED, REBUILD, STATUS, StatusRow

    with connect(prepared_database(), "status") as connection:
        row = connection.execute(STATUS).fetchone()
        if row is None:
            raise click.ClickException("state.checkpoint has no row: run `ledger rebuild`")
        found = StatusRow(*row)
        parked = connection.execute(PARKED).fetchall()
        progress = connection.execute(REBUILD).fetchone() if found.rebuild_runs else None
    lag = found.lag_seconds(datetime.now(UTC))
    if as_json:
        content = {
            "schema": schema.SCHEMA_VERSION,
            "version": found.fold_version,
            "position": found.position,
            "head": found.head,
            "lag_events": found.lag_events,
            "lag_seconds": lag,
            "parked": found.parked,
            "rebuild": progress and {"events_done": progress[0], "events_total": progress[1]},
        }
        click.echo(msgspec.json.encode(content))
        return
    click.echo(f"log       {found.head:,} events")
    behind = f"{found.lag_events:,} events behind, the oldest for {lag:.1f} s"
    click.echo(f"state     at {found.position:,}, {behind if found.lag_events else 'up to date'}")
    if found.fold_version != FOLD_VERSION:
        click.echo(
            f"version   the state is of version {found.fold_version}, this is {FOLD_VERSION}: "
            "run `ledger rebuild`"
        )
    if progress:
        click.echo(
            f"rebuild   {progress[0]:,} of {progress[1]:,} events, since {progress[2]:%F %T}"
        )
    click.echo(f"parked    {found.parked:,} bills")
    for lab_id, bill_id, _, error in parked:
        click.echo(f"          lab {lab_id} bill {bill_id}: {error}")
    if parked:
        click.echo("          `ledger rebuild --bill LAB BILL` tries one again")
