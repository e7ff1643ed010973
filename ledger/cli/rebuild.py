"""`ledger rebuild`."""

import time
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import rich_click as click

from ledger.archive.folder import Archive
from ledger.archive.rebuild import rebuild_from
from ledger.cli.common import (
    dry_run_option,
    go_ahead,
    prepared_database,
    processes_option,
    query_one,
    yes_option,
)
from ledger.cli.progress import progress
from ledger.projection.join import join
from ledger.projection.rebuild import rebuild as run
from ledger.projection.rebuild import rebuild_bill


@click.command()
@click.option(
    "--bill", nargs=2, metavar="LAB BILL", help="Fold only this bill again, in the live state."
)
@click.option(
    "--from",
    "archive",
    type=click.Path(file_okay=False, path_type=Path),
    metavar="DIR",
    help="Read the events from an archive of this log, and from the log only what came after it.",
)
@click.option(
    "--join",
    "joins",
    is_flag=True,
    help="Take part in the rebuild that runs on another machine, until it needs no more help.",
)
@click.option("--anew", is_flag=True, help="Do not go on with a rebuild that was interrupted.")
@processes_option
@yes_option
@dry_run_option
def rebuild(
    *,
    bill: tuple[str, str] | None,
    archive: Path | None,
    joins: bool,
    anew: bool,
    processes: int,
    yes: bool,
    dry_run: bool,
) -> None:
    """Rebuild the state from the log next to the live one, then swap them.

    Readers are served from the old state until the new one is complete. Interrupted, it leaves the
    old state untouched; run it again, and it goes on where it was.
    """
    if bill and archive:
        raise click.UsageError("--bill folds one bill again from the log: it does not take --from")
    if bill and (anew or dry_run):
        raise click.UsageError("--bill folds one bill at once: it takes no --anew and no --dry-run")
    if joins and (bill or archive or anew or dry_run):
        raise click.UsageError("--join helps a rebuild that runs: it takes --processes alone")
    url = prepared_database()
    if bill:
        _one(url, bill)
    elif joins:
        _join(url, processes)
    else:
        source = Archive(archive) if archive else None
        _all(url, processes, source, anew=anew, yes=yes, dry_run=dry_run)


def _one(url: str, key: tuple[str, str]) -> None:
    error = rebuild_bill(url, key)
    if error is not None:
        raise click.ClickException(error)
    click.echo(f"Bill {key[1]} of lab {key[0]} was folded again.")


def _join(url: str, processes: int) -> None:
    with progress("rebuild") as tell:
        done = join(url, processes=processes, on_progress=tell)
    click.echo(
        f"Took part in the rebuild: folded {done.events:,} events in {done.shares:,} shares. "
        "It goes on by itself."
    )


def _all(
    url: str,
    processes: int,
    archive: Archive | None,
    *,
    anew: bool,
    yes: bool,
    dry_run: bool,
) -> None:
    head = query_one(url, "SELECT ledger.event_log_head()")[0]
    archived = ""
    if archive:
        last = archive.whole()[-1].last
        archived = f", those up to position {last:,} from {archive.path},"
    what = (
        f"The state will be rebuilt from {head:,} events{archived} by {processes} processes. "
        "Readers are served meanwhile."
    )
    if not go_ahead(what, yes=yes, dry_run=dry_run):
        return
    began = time.monotonic()
    with progress("rebuild") as tell:
        work = partial(rebuild_from, archive=archive) if archive else partial(run, anew=anew)
        made = work(url, processes=processes, started_at=datetime.now(UTC), on_progress=tell)
    seconds = time.monotonic() - began
    counts = made.counts
    before = (
        f" {made.before:,} events were folded before it was interrupted." if made.before else ""
    )
    click.echo(
        f"Rebuilt to position {made.position:,}: {counts.events:,} events, {counts.bills:,} bills, "
        f"{counts.unreadable:,} unreadable, {counts.parked:,} parked, in {seconds:.1f} s "
        f"({(counts.events - made.before) / seconds:,.0f} events/s).{before}"
    )
    if counts.parked:
        click.echo("`ledger status` lists the parked bills with their errors.", err=True)
