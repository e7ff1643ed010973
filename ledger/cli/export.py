"""`ledger export`."""

import gzip
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import rich_click as click

from ledger.cli.common import prepared_database
from ledger.eventlog.export_lines import export_lines
from ledger.eventlog.liveness_transfer import export_records
from ledger.operations.render.words import count
from ledger.postgres.connect import connect


@click.command()
@click.option(
    "--output",
    default="-",
    metavar="FILE",
    help="File to write; gzipped if its name ends in .gz. [default: standard output]",
)
@click.option(
    "--after", type=click.IntRange(min=0), default=0, metavar="N", help="Only after position N."
)
@click.option("--upto", type=click.IntRange(min=1), metavar="N", help="Only up to position N.")
@click.option("--lab", metavar="LAB", help="Only of this lab.")
@click.option("--bill", metavar="BILL", help="Only of this bill.")
@click.option(
    "--import",
    "import_id",
    type=click.IntRange(1, 2**63 - 1),
    metavar="ID",
    help="Only what this import recorded.",
)
def export(
    *,
    output: str,
    after: int,
    upto: int | None,
    lab: str | None,
    bill: str | None,
    import_id: int | None,
) -> None:
    """Write the log, or a part of it, as JSON Lines that `ledger import` reads back.

    Bodies are written byte for byte, with the time at which they were received. Without --upto,
    --lab, --bill and --import, records follow of when receivers were alive or refused deliveries,
    from which loss windows are computed.
    """
    events = records = 0
    with connect(prepared_database(), "export") as connection, _opened(output) as target:
        # Whoever reads a pipe may read it as slowly as they like.
        connection.execute("SET tcp_user_timeout = 0")
        for line in export_lines(
            connection, after=after, upto=upto, lab_id=lab, bill_id=bill, import_id=import_id
        ):
            target.write(line)
            events += 1
        if not (lab or bill or import_id or upto):
            for line in export_records(connection):
                target.write(line)
                records += 1
    click.echo(
        f"{count(events, 'event')} and {count(records, 'record')} of liveness written.", err=True
    )


@contextmanager
def _opened(name: str) -> Iterator[IO[bytes]]:
    """Open the target; a file gets its name only when it is complete."""
    if name == "-":
        yield sys.stdout.buffer
        sys.stdout.buffer.flush()
        return
    unfinished = Path(f"{name}.part")
    try:
        plain = unfinished.open("wb")
    except OSError as error:
        raise click.ClickException(f"cannot write {unfinished}: {error.strerror}") from error
    with plain:
        if name.endswith(".gz"):
            with gzip.open(plain, "wb", compresslevel=6) as packed:
                yield packed  # type: ignore[misc]  # a GzipFile is an IO[bytes] in all we use
        else:
            yield plain
        plain.flush()
        os.fsync(plain.fileno())
    unfinished.replace(name)
