"""`ledger verify`."""

import sys

import rich_click as click

from ledger.cli.common import prepared_database, processes_option
from ledger.cli.progress import progress
from ledger.projection.verify import verify as run


@click.command()
@processes_option
def verify(*, processes: int) -> None:
    """Prove that the log has no gap, that its digests fit, and that the state equals the fold.

    Reads everything in one snapshot; the service may run meanwhile. Names the first difference and
    exits with 3 if there is one.
    """
    url = prepared_database()
    with progress("verify") as tell:
        verified = run(url, processes=processes, on_progress=tell)
    if verified.difference:
        click.echo(f"DIFFERENT: {verified.difference.words}")
        sys.exit(3)
    click.echo(
        f"The log is whole up to position {verified.head:,}. "
        f"The state is what the fold says of it up to position {verified.position:,}: "
        f"{verified.bills:,} bills."
    )
