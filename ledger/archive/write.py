"""Writes what is sealed and not archived yet, and reads it back.

A range is there once its manifest is. So a kill at any moment costs the range under way, which the
next run writes again; and a run with nothing to do changes nothing.
"""

from bisect import bisect_right
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from msgspec import Struct
from psycopg import Connection
from psycopg.sql import SQL

from ledger.archive.check import checked_rows
from ledger.archive.folder import FORMAT, LIVENESS, Archive, Manifest, missing, range_name
from ledger.archive.parquet import ArchivedRow, RowWriter, require
from ledger.errors import ArchiveError
from ledger.eventlog import read
from ledger.eventlog.liveness_transfer import export_records
from ledger.postgres.locks import Lock, try_lock_session, unlock_session
from ledger.seals.leaf import TIMES_BEGIN, Leaf
from ledger.seals.merkle import complete_nodes, leaf_hash
from ledger.seals.sealing import tree_root
from ledger.seals.tiles import leaf_hashes, sealed_size, stored_tree

RANGE = 250_000
"""Events of a range at the most."""

READ_AT_ONCE = 8_192
"""Positions of the log that are read with one statement."""

_NOTE = """
SELECT note
FROM ledger.seal_checkpoint
WHERE tree_size BETWEEN %s AND %s
ORDER BY tree_size DESC, sealed_at DESC
LIMIT 1
"""

_ERASED = "SELECT position FROM ledger.erasable_body WHERE erased_at IS NOT NULL"

# As for a leaf: by COPY a timestamptz is read as the int8 that it is, exactly.
_ROWS = SQL("""
COPY (
    SELECT
        position, received_at, event_time, source, lab_id, bill_id, event_type, digest,
        coalesce(sha256(body), body_sha256), body, erased_at
    FROM ledger.logged_event
    WHERE position > {} AND position <= {}
    ORDER BY position
) TO STDOUT (FORMAT binary)
""")
_TYPES = (
    *("int8", "int8", "int8", "text", "text", "text", "text", "bytea"),
    *("bytea", "bytea", "int8"),
)


class Archived(Struct, frozen=True):
    """What a run did, and how things are now.

    `last` is the last position that is archived, `head` the last of the log: what is between is not
    sealed yet. `still_held` counts the bodies that the archive holds and that were erased since.
    """

    ranges: int
    events: int
    last: int
    head: int
    signed: bool
    still_held: int


@contextmanager
def archiving(connection: Connection) -> Iterator[None]:
    """Be the only one that archives this log. Raises `ArchiveError` if another does."""
    if not try_lock_session(connection, Lock.ARCHIVE):
        raise ArchiveError("another `ledger archive` of this log runs: wait for its end")
    try:
        yield
    finally:
        if not connection.closed:
            unlock_session(connection, Lock.ARCHIVE)


def write_archive(
    connection: Connection,
    archive: Archive,
    on_progress: Callable[[int, int], None],
    *,
    renew: bool = False,
) -> Archived:
    """Write all ranges that are sealed and not in the archive; the caller is `archiving`.

    With `renew`, ranges are written again that hold bodies which were erased since. Raises
    `ArchiveError`: what was written before is whole and stays.
    """
    require()
    read.keep_to_indexes(connection)
    head, size = read.head(connection), sealed_size(connection)
    archive.prepare()
    refuse_other_log(connection, archive)
    found = archive.ranges()
    wanted = [
        (first, min(first + RANGE - 1, last))
        for start, last in missing(found, size)
        for first in range(start, last + 1, RANGE)
    ]
    again = [manifest for manifest, number in _stale(connection, found) if number] if renew else []
    total = sum(last - first + 1 for first, last in wanted) + sum(each.events for each in again)
    done = 0

    def tell(events: int) -> None:
        nonlocal done
        done += events
        on_progress(done, total)

    for first, last in wanted:
        _write_range(connection, archive, (first, last), f"{range_name(first, last)}.parquet", tell)
    for manifest in again:
        _write_again(connection, archive, manifest, tell)
    with archive.written(LIVENESS) as file:
        for line in export_records(connection):
            file.write(line)
    ranges = archive.ranges()
    return Archived(
        ranges=len(wanted) + len(again),
        events=done,
        last=ranges[-1].last if ranges else 0,
        head=head,
        signed=bool(ranges and ranges[-1].checkpoint),
        still_held=sum(number for _, number in _stale(connection, ranges)),
    )


def refuse_other_log(connection: Connection, archive: Archive) -> None:
    """Raise `ArchiveError` if the archive is not of the log of this database."""
    size = sealed_size(connection)
    for manifest in archive.ranges():
        if manifest.last > size:
            raise ArchiveError(
                f"{archive.path} goes up to position {manifest.last} and this log is sealed up to "
                f"{size}: it is the archive of another log, or this one was restored from an older "
                "backup, or is not sealed yet (`ledger seal`)"
            )
        if tree_root(connection, manifest.last).hex() != manifest.root:
            raise ArchiveError(
                f"{archive.path} is the archive of another log: what was sealed up to position "
                f"{manifest.last} differs. `ledger verify --against` tells whether this log was "
                "changed"
            )


def _write_range(
    connection: Connection,
    archive: Archive,
    positions: tuple[int, int],
    name: str,
    tell: Callable[[int], None],
) -> None:
    first, last = positions
    erased = unsaid = 0
    with archive.written(name) as file, RowWriter(file) as writer:
        for row in _sealed_rows(connection, first, last):
            writer.write(row)
            erased += row.body is None
            unsaid += 1
            if unsaid == READ_AT_ONCE:
                tell(unsaid)
                unsaid = 0
    nodes = complete_nodes((0, first - 1))
    tree = stored_tree(connection, nodes)
    note = connection.execute(_NOTE, positions).fetchone()
    manifest = Manifest(
        format=FORMAT,
        first=first,
        last=last,
        erased=erased,
        before=[tree.hash_of(node).hex() for node in nodes],
        root=tree_root(connection, last).hex(),
        checkpoint=note[0] if note else None,
        file=archive.describe(name),
    )
    for _ in checked_rows(archive, manifest):
        pass
    archive.add(manifest)
    tell(unsaid)


def _write_again(
    connection: Connection, archive: Archive, old: Manifest, tell: Callable[[int], None]
) -> None:
    """Write a range to a file of another name; the manifest changes from one to the other."""
    stem = range_name(old.first, old.last)
    number = 2
    while old.file.name == f"{stem}.{number}.parquet":
        number += 1
    name = f"{stem}.{number}.parquet"
    _write_range(connection, archive, (old.first, old.last), name, tell)
    archive.drop(old.file.name)


def _sealed_rows(connection: Connection, first: int, last: int) -> Iterator[ArchivedRow]:
    """Yield the rows of a range, each compared with the hash that was sealed."""
    for after in range(first - 1, last, READ_AT_ONCE):
        upto = min(after + READ_AT_ONCE, last)
        hashes = leaf_hashes(connection, after, upto)
        expected, wrong = after, ""
        with connection.cursor().copy(_ROWS.format(after, upto)) as copy:
            copy.set_types(_TYPES)
            for position, received_at, event_time, *rest, erased_at in copy.rows():
                if wrong:
                    continue  # to leave a COPY half read is an error of its own
                row = (position, _time(received_at), _time(event_time), *rest, _time(erased_at))
                hashed = leaf_hash(Leaf.of_row(row).to_bytes())
                if position != expected + 1:
                    wrong = (
                        f"position {expected + 1} is missing"
                        if position > expected + 1
                        else f"position {position} stands twice"
                    )
                elif hashes[expected - after : expected - after + 1] != [hashed]:
                    wrong = f"position {position} is not what was sealed"
                else:
                    yield ArchivedRow._make((*row, hashed))
                    expected += 1
        if not wrong and expected < upto:
            wrong = f"position {expected + 1} is missing"
        if wrong:
            raise ArchiveError(
                f"{wrong} in the log: nothing from position {first} on was archived; `ledger "
                "verify --against` says more"
            )


def _time(since_2000: int | None) -> int | None:
    return None if since_2000 is None else since_2000 + TIMES_BEGIN


def _stale(connection: Connection, ranges: list[Manifest]) -> list[tuple[Manifest, int]]:
    """Return with each range how many bodies it holds that were erased since."""
    firsts = [manifest.first for manifest in ranges]
    counts = [-manifest.erased for manifest in ranges]
    for (position,) in connection.execute(_ERASED):
        place = bisect_right(firsts, position) - 1
        if place >= 0 and position <= ranges[place].last:
            counts[place] += 1
    return [(manifest, max(0, number)) for manifest, number in zip(ranges, counts, strict=True)]
