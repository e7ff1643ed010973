"""Rebuilds the state from an archive, and from the log only what came after it."""

from collections.abc import Callable
from datetime import datetime

from psycopg import Connection

from ledger.archive.check import checked_rows
from ledger.archive.folder import Archive
from ledger.archive.parquet import require
from ledger.archive.write import refuse_other_log
from ledger.projection.rebuild import Rebuilt, rebuild
from ledger.seals.leaf import TIMES_BEGIN

_COPY = """
COPY state_next.archived_event (
    position, received_at, event_time, source, lab_id, bill_id, event_type, digest, body
) FROM STDIN (FORMAT binary)
"""
_TYPES = ("int8", "int8", "int8", "text", "text", "text", "text", "bytea", "bytea")
"""In binary a timestamptz is the int8 that it is."""


def rebuild_from(
    url: str,
    archive: Archive,
    *,
    processes: int,
    started_at: datetime,
    on_progress: Callable[[int, int], None],
) -> Rebuilt:
    """Rebuild the state from an archive of this log; each of its events is checked on the way.

    Raises `ArchiveError` if the archive is not whole or of another log, and what a rebuild raises;
    the live state is untouched then.
    """
    require()

    def load(connection: Connection, tell: Callable[[int, int], None]) -> None:
        refuse_other_log(connection, archive)
        _load(connection, archive, tell)

    return rebuild(
        url, processes=processes, started_at=started_at, on_progress=on_progress, load=load
    )


def _load(connection: Connection, archive: Archive, tell: Callable[[int, int], None]) -> None:
    manifests = archive.whole()
    last = manifests[-1].last
    for manifest in manifests:
        with connection.cursor().copy(_COPY) as copy:
            copy.set_types(_TYPES)
            for row in checked_rows(archive, manifest):
                copy.write_row(
                    (
                        row.position,
                        row.received_at - TIMES_BEGIN,
                        None if row.event_time is None else row.event_time - TIMES_BEGIN,
                        *row[3:8],
                        row.body,
                    )
                )
        tell(manifest.last, last)
