"""`ledger prove`."""

from contextlib import closing
from pathlib import Path

import rich_click as click

from ledger.cli.common import output_option, prepared_database
from ledger.cli.output import check_writable, written
from ledger.errors import SealError
from ledger.postgres.connect import connect
from ledger.seals.notes import notes_in
from ledger.seals.proofs import prove as prove_included
from ledger.seals.proofs import prove_consistent, to_json

_POSITIONS = click.IntRange(1, 2**63 - 1)
_FILE = click.Path(exists=True, dir_okay=False, path_type=Path)


@click.command()
@click.argument("position", type=_POSITIONS, required=False)
@click.option(
    "--consistent",
    type=(_FILE, _FILE),
    metavar="OLD NEW",
    help="Prove instead that the log of one checkpoint begins with that of an older one: two "
    "files, the last checkpoint of each.",
)
@output_option
def prove(
    *, position: int | None, consistent: tuple[Path, Path] | None, output: Path | None
) -> None:
    """Write a proof that the event at a POSITION is in the log, and what was received when.

    `docs/check_proof.py` checks it without Ledger. The proof holds the event's body.
    """
    if (position is None) == (consistent is None):
        raise click.UsageError("name either a POSITION or --consistent OLD NEW")
    check_writable(output)
    with closing(connect(prepared_database(), "prove")) as connection:
        if consistent:
            old, new = map(_last_note, consistent)
            content = to_json(prove_consistent(connection, old, new))
        else:
            assert position is not None  # noqa: S101 -- one of both is given
            content = to_json(prove_included(connection, position))
    with written(output) as (target, _):
        target.write(content)


def _last_note(path: Path) -> str:
    try:
        notes = list(notes_in(path.read_text("utf-8", "replace")))
    except OSError as error:
        raise SealError(f"cannot read {path}: {error.strerror}") from error
    if not notes:
        raise SealError(f"there is no checkpoint in {path}")
    return notes[-1]
