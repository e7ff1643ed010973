"""`ledger seal`."""

from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path

import msgspec
import rich_click as click
from msgspec import Struct
from msgspec.structs import replace

from ledger.cli.common import json_option, prepared_database
from ledger.cli.progress import progress
from ledger.cli.seal_settings import read_time_stamps
from ledger.operations.render.words import count
from ledger.postgres.connect import connect
from ledger.seals.key_file import make_key_file, read_key_file
from ledger.seals.notes import SigningKey
from ledger.seals.publication import Publication
from ledger.seals.sealing import (
    log_head,
    publish,
    refuse_fork,
    seal_batch,
    sealing,
    sign,
    tree_root,
)
from ledger.seals.tiles import sealed_size
from ledger.seals.time_stamps import TimeStamps
from ledger.settings import Settings


@click.command()
@click.option(
    "--new-key",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE",
    help="Make a private key in a new file, print the public one, and seal nothing.",
)
@click.option(
    "--name",
    metavar="NAME",
    help="With --new-key: the name of the log, such as ledger.example/log. It stands in each "
    "checkpoint.",
)
@click.option("--public-key", is_flag=True, help="Print the public key of LEDGER_SEAL_KEY.")
@click.option(
    "--publish",
    "publish_to",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Publish checkpoints to a file or a folder instead of LEDGER_SEAL_PUBLISH.",
)
@json_option
def seal(
    *,
    new_key: Path | None,
    name: str | None,
    public_key: bool,
    publish_to: Path | None,
    as_json: bool,
) -> None:
    """Seal the log now, up to its head: hash it, sign a checkpoint and publish it.

    `ledger project` does the same at intervals. Without LEDGER_SEAL_KEY nothing is signed. With
    LEDGER_SEAL_TIMESTAMP_URL an authority confirms when the last published checkpoint existed.
    """
    if (new_key is None) != (name is None):
        raise click.UsageError("--new-key FILE and --name NAME belong together")
    if new_key and name:
        click.echo(make_key_file(new_key, name))
        return
    settings = Settings.from_environment()
    key = read_key_file(settings.seal_key) if settings.seal_key else None
    if key is None and (public_key or publish_to):
        raise click.UsageError(
            "this needs a key in LEDGER_SEAL_KEY: `ledger seal --new-key FILE --name NAME` makes "
            "one"
        )
    if key and public_key:
        click.echo(key.public)
        return
    path = publish_to or settings.seal_publish
    publication = Publication(path) if path and key else None
    time_stamps = read_time_stamps(settings, path)
    sealed = _seal(prepared_database(), key, publication)
    if time_stamps and publication and key:
        sealed = replace(sealed, stamp=_stamp(time_stamps, publication, key))
    if as_json:
        click.echo(msgspec.json.encode(sealed))
        return
    click.echo(f"sealed     up to position {sealed.tree_size:,}, root {sealed.root}")
    by = f"by {sealed.key}" if key else "by nobody: LEDGER_SEAL_KEY is not set"
    click.echo(f"signed     {by}")
    if publication:
        click.echo(f"published  {count(sealed.published, 'checkpoint')} to {path}")
    if time_stamps:
        click.echo(f"stamped    {sealed.stamp or 'nothing new'}")


class _Sealed(Struct, frozen=True):
    tree_size: int
    root: str
    key: str | None
    published: int
    stamp: str | None = None


def _stamp(time_stamps: TimeStamps, publication: Publication, key: SigningKey) -> str | None:
    made = time_stamps.stamp(publication, key.public)
    return str(made) if made else None


def _seal(url: str, key: SigningKey | None, publication: Publication | None) -> _Sealed:
    with (
        closing(connect(url, "seal")) as connection,
        sealing(connection, wait=True),
        progress("seal") as tell,
    ):
        head, begin = log_head(connection), sealed_size(connection)
        size, published = begin, 0
        while size < head:
            size = seal_batch(connection, head).size
            tell(size - begin, head - begin)
        if key:
            if publication:
                refuse_fork(connection, publication, key.public)
            sign(connection, key, datetime.now(UTC))
            if publication:
                published = publish(connection, publication, key.public)
        root = tree_root(connection, size)
    return _Sealed(size, root.hex(), str(key.public) if key else None, published)
