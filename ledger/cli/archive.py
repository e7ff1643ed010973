"""`ledger archive`."""

import sys
from contextlib import closing
from pathlib import Path

import msgspec
import rich_click as click

from ledger.archive.check import Checked, check
from ledger.archive.folder import Archive
from ledger.archive.write import Archived, archiving, write_archive
from ledger.cli.common import json_option, prepared_database
from ledger.cli.progress import progress
from ledger.cli.seal_settings import read_public_key
from ledger.errors import ArchiveDamageError, SealError
from ledger.operations.render.words import count
from ledger.postgres.connect import connect
from ledger.seals.comparison import read_signed
from ledger.seals.notes import PublicKey
from ledger.settings import Settings


@click.command()
@click.argument("folder", type=click.Path(file_okay=False, path_type=Path), metavar="DIR")
@click.option(
    "--check",
    "only_check",
    is_flag=True,
    help="Write nothing: read a whole archive and compare each event with the seal. Needs no "
    "database.",
)
@click.option(
    "--against",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    metavar="CHECKPOINT",
    help="With --check: also compare with the signed checkpoints of a file.",
)
@click.option(
    "--public-key",
    metavar="KEY",
    help="With --check: the public key that signed the checkpoints, or a file with it. "
    "[default: that of LEDGER_SEAL_KEY]",
)
@click.option(
    "--renew",
    is_flag=True,
    help="Also write those files again that hold bodies which were erased since.",
)
@json_option
def archive(
    *,
    folder: Path,
    only_check: bool,
    against: Path | None,
    public_key: str | None,
    renew: bool,
    as_json: bool,
) -> None:
    """Write what is sealed of the log, and not archived yet, to Parquet files in a folder.

    Each file is read back and each event in it compared with the seal. Interrupted, it is run again
    and goes on. Nothing is removed from the log. `ledger import --archive` and `ledger rebuild
    --from` read an archive; so does whatever reads Parquet. Needs `ledger[archive]`. --check exits
    with 3 if the archive is not what was sealed.
    """
    if not only_check and (against or public_key):
        raise click.UsageError("--against and --public-key belong to --check")
    if only_check and renew:
        raise click.UsageError("--check writes nothing, so it does not go with --renew")
    if only_check:
        _check(Archive(folder), against, public_key, as_json=as_json)
        return
    url = prepared_database()
    with (
        closing(connect(url, "archive")) as connection,
        archiving(connection),
        progress("archive") as tell,
    ):
        done = write_archive(connection, Archive(folder), tell, renew=renew)
    if as_json:
        click.echo(msgspec.json.encode(done))
    else:
        _show(done)


def _show(done: Archived) -> None:
    if done.ranges:
        written, files = count(done.events, "event"), count(done.ranges, "file")
        click.echo(f"archived  {written} in {files}, read back and compared with the seal")
    else:
        click.echo("archived  nothing new")
    signed = "" if done.signed or not done.last else ", without a signed checkpoint at its end"
    click.echo(
        f"holds     the positions 1 to {done.last:,}{signed}" if done.last else "holds     nothing"
    )
    if left := done.head - done.last:
        click.echo(
            f"left out  {count(left, 'event')} of the log that {'is' if left == 1 else 'are'} not "
            "sealed yet: `ledger seal` seals"
        )
    if done.still_held:
        bodies = count(done.still_held, "body", "bodies")
        were = "was" if done.still_held == 1 else "were"
        click.echo(
            f"erased    the archive still holds {bodies} that {were} erased since: --renew writes "
            "those files again"
        )


def _check(folder: Archive, against: Path | None, public_key: str | None, *, as_json: bool) -> None:
    key = _key(public_key, is_needed=against is not None)
    checkpoints = []
    if against and key:
        try:
            text = against.read_text("utf-8", "replace")
        except OSError as error:
            raise SealError(f"cannot read {against}: {error.strerror}") from error
        checkpoints = read_signed(text, key)
    try:
        with progress("check") as tell:
            found = check(folder, tell, key=key, against=checkpoints)
    except ArchiveDamageError as error:
        click.echo(msgspec.json.encode({"damage": str(error)}) if as_json else f"DAMAGED: {error}")
        sys.exit(3)
    click.echo(msgspec.json.encode(found) if as_json else _words(found, key))


def _key(given: str | None, *, is_needed: bool) -> PublicKey | None:
    if given is None and not is_needed and Settings.from_environment().seal_key is None:
        return None
    return read_public_key(given)


def _words(found: Checked, key: PublicKey | None) -> str:
    held = (
        f"The archive is as it was sealed: the positions 1 to {found.last:,} in "
        f"{count(found.ranges, 'file')}, {count(found.erased, 'erased body', 'erased bodies')}."
    )
    if key is None:
        return f"{held} No signature was checked: name the key with --public-key."
    if not found.signed:
        return f"{held} No checkpoint in it is signed by {key.name} {key.key_id}."
    return f"{held} Signed up to position {found.signed:,} by {key.name} {key.key_id}."
