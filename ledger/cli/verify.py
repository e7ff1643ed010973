"""`ledger verify`."""

import sys
from contextlib import closing
from pathlib import Path

import rich_click as click

from ledger.cli.common import prepared_database, processes_option
from ledger.cli.progress import progress
from ledger.cli.seal_settings import read_public_key
from ledger.errors import SealError
from ledger.eventlog import read
from ledger.postgres.connect import connect
from ledger.projection.verification import record_comparison, record_verification
from ledger.projection.verify import verify as run
from ledger.seals.comparison import Compared, compare, read_signed
from ledger.seals.notes import PublicKey


@click.command()
@processes_option
@click.option(
    "--against",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    metavar="CHECKPOINT",
    help="A file with one signed checkpoint or more: first compare the log with what was sealed.",
)
@click.option(
    "--public-key",
    metavar="KEY",
    help="The public key that signed them, or a file with it. [default: that of LEDGER_SEAL_KEY]",
)
def verify(*, processes: int, against: Path | None, public_key: str | None) -> None:
    """Prove that the log has no gap, that its digests fit, and that the state equals the fold.

    Reads everything in one snapshot; the service may run meanwhile. Names the first difference and
    exits with 3 if there is one. With --against it first proves that no column of any sealed row
    has changed since.
    """
    if public_key and not against:
        raise click.UsageError("--public-key belongs to --against")
    url = prepared_database()
    if against:
        compared = _compare(url, against, read_public_key(public_key))
        if compared.verdict != "as sealed":
            words = f"{compared.verdict.upper()}: {compared.words}"
            record_comparison(url, compared.agreed, words)
            click.echo(words)
            sys.exit(3)
        click.echo(compared.words)
    with progress("verify") as tell:
        verified = run(url, processes=processes, on_progress=tell)
    record_verification(url, verified)
    if verified.difference:
        click.echo(f"DIFFERENT: {verified.difference.words}")
        sys.exit(3)
    click.echo(
        f"The log is whole up to position {verified.head:,}. "
        f"The state is what the fold says of it up to position {verified.position:,}: "
        f"{verified.bills:,} bills."
    )


def _compare(url: str, against: Path, key: PublicKey) -> Compared:
    try:
        text = against.read_text("utf-8", "replace")
    except OSError as error:
        raise SealError(f"cannot read {against}: {error.strerror}") from error
    checkpoints = read_signed(text, key)
    with closing(connect(url, "verify")) as connection, progress("compare") as tell:
        read.keep_to_indexes(connection)
        connection.execute("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")
        return compare(connection, checkpoints, tell)
