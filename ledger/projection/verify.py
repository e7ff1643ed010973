"""Proves that the log is complete and that the state equals the fold.

Everything is read in one snapshot, shared by all processes, so that it may run next to the intake
and the projector.
"""

import itertools
from collections.abc import Callable, Iterator
from datetime import datetime

from msgspec import Struct
from psycopg import Connection
from psycopg.sql import SQL, Composed, Identifier

from ledger.errors import RebuildError
from ledger.postgres.connect import connect
from ledger.postgres.locks import Lock, try_lock_session, unlock_session
from ledger.projection import delivery_stats, expected_bills, parallel, store
from ledger.projection.delivery_stats import DeliveryStats
from ledger.projection.expected_bills import LoggedExpectation
from ledger.projection.fold_bills import MOST_MEMORY, Projected, add_history
from ledger.projection.gc_pause import gc_paused
from ledger.projection.parallel import Chunk
from ledger.projection.rows import COLUMNS, KEYS, Row, Rows
from ledger.projection.verify_log import (
    Checked,
    Difference,
    Erasures,
    LogJob,
    at,
    check_log,
    contradiction_of_erasures,
    single,
)

RANGE = 20_000
"""Positions of the log that one job reads."""


class Verified(Struct, frozen=True):
    """The log's head, the state's position, how many bills were compared, the first difference."""

    head: int
    position: int
    bills: int
    difference: Difference | None


class StateJob(Struct, frozen=True):
    """A chunk of bills to compare with their fold at a position."""

    chunk: Chunk
    upto: int


def verify(url: str, *, processes: int, on_progress: Callable[[int, int], None]) -> Verified:
    """Check the log, then the state; stop at the first difference.

    `on_progress` gets the events read and those to read; each event is read twice. Raises
    `FoldVersionError` if the state is of another version, `RebuildError` while a rebuild runs, and
    what the database raises.
    """
    with connect(url, "verify") as connection:
        connection.execute("SET enable_seqscan = off")  # as for the chunks
        if not try_lock_session(connection, Lock.REBUILD, shared=True):
            # It would exchange the tables under the names by which they are read here.
            raise RebuildError("a rebuild runs: verify when it is done")
        connection.execute("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")
        checkpoint = store.read_checkpoint(connection)
        store.check_version(checkpoint)
        head = single(connection, "SELECT ledger.last_position()")
        snapshot = single(connection, "SELECT pg_export_snapshot()")
        prepare = (
            "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY; "
            f"SET TRANSACTION SNAPSHOT '{snapshot}'"
        )
        if checkpoint.position > head:
            words = f"the state is at position {checkpoint.position} and the log ends at {head}"
            return Verified(head, checkpoint.position, 0, at(head, words))
        events = bills = 0
        log_jobs = (LogJob(after, min(after + RANGE, head)) for after in range(0, head, RANGE))
        state_jobs = (StateJob(chunk, checkpoint.position) for chunk in parallel.chunks(connection))
        results = itertools.chain(
            parallel.run(url, "verify", log_jobs, check_log, processes=processes, prepare=prepare),
            [None],
            parallel.run(
                url, "verify", state_jobs, check_state, processes=processes, prepare=prepare
            ),
        )
        first: Difference | None = None
        heard = DeliveryStats.none()
        erasures = Erasures.none()
        for checked in results:
            if checked is None:  # the log is done; a state made of a broken log proves nothing
                first = first or contradiction_of_erasures(connection, erasures)
                if first:
                    break
                continue
            events += checked.events
            bills += checked.bills
            erasures.merge(checked.erasures or Erasures.none())
            on_progress(events, head + checkpoint.position)
            heard.merge(checked.delivery_stats or DeliveryStats.none())
            found = checked.difference
            if found and (first is None or found.place < first.place):
                first = found
        first = first or _contradiction_over_all(connection, heard)
        connection.execute("COMMIT")
        unlock_session(connection, Lock.REBUILD, shared=True)
    return Verified(head, checkpoint.position, bills, first)


@gc_paused()
def check_state(connection: Connection, job: StateJob) -> Checked:
    """Check that a chunk's rows in the state are those that the fold makes of its events."""
    projected = Projected.nothing()
    events = bills = 0
    found: Difference | None = None
    after = job.chunk.after
    for key, history in parallel.histories(connection, job.chunk, job.upto):
        events += add_history(projected, key, history)
        if projected.memory > MOST_MEMORY:
            bills += len(projected.rows["bill"])
            part, after = Chunk(after, key), key
            found = found or _difference_of(connection, part, projected.take_rows())
    bills += len(projected.rows["bill"])
    found = (
        found
        or _difference_of(connection, Chunk(after, job.chunk.last), projected.take_rows())
        or _expected_otherwise(connection, job.chunk, projected.expected)
    )
    return Checked(events, bills, found, projected.delivery_stats)


def _difference_of(connection: Connection, part: Chunk, folded: Rows) -> Difference | None:
    stored = {table: list(_stored(connection, table, part)) for table in COLUMNS}
    return _first_difference(stored, folded)


def _expected_otherwise(
    connection: Connection, chunk: Chunk, expected: list[LoggedExpectation]
) -> Difference | None:
    """Return the first expectation of a chunk that is not stored as its last event says."""
    said = {one.position: one.decision for one in expected}
    query = SQL("SELECT position, integrator_id, lab_id, expected_by FROM {} WHERE {}").format(
        _with_bill_id("expected_bill"), chunk.where()
    )
    stored = set()
    for position, integrator_id, lab_id, expected_by in connection.execute(query):
        stored.add(position)
        one = said.get(position)
        is_ = (integrator_id, lab_id, expected_by)
        if one is None or is_ != (one.integrator_id, one.lab_id or "", one.expected_by):
            words = f"state.expected_bill {integrator_id} is not as position {position} of the log"
            return Difference((lab_id, "", "expected_bill"), words)
    for position, one in sorted(said.items()):
        later = "SELECT EXISTS (SELECT FROM state.expected_bill WHERE lab_id = %s"
        if position not in stored and not single(
            connection,
            later + " AND integrator_id = %s AND position > %s)",
            one.lab_id or "",
            one.integrator_id,
            position,
        ):
            words = (
                f"state.expected_bill {one.integrator_id} is missing: position {position} has it"
            )
            return Difference((one.lab_id or "", "", "expected_bill"), words)
    return None


def _contradiction_over_all(connection: Connection, heard: DeliveryStats) -> Difference | None:
    """Check what is made of the events of many bills together."""
    stored = delivery_stats.stored(connection, "state")
    for table, is_, should in (
        ("lab", stored.labs, heard.labs),
        ("delay", dict(stored.delays), dict(heard.delays)),
        ("lab_hour", stored.hours, heard.hours),
    ):
        for key in sorted({*is_, *should}, key=str):
            if is_.get(key) != should.get(key):
                words = f"state.{table} {key} is {is_.get(key)} and the log says {should.get(key)}"
                return Difference(("", "", table), words)
    found = expected_bills.contradiction(connection)
    return Difference(("", "", "expected_bill"), found) if found else None


def _with_bill_id(table: str) -> SQL | Composed:
    """Name a table for `Chunk.where`; those of no bill stand in the log under an empty bill id."""
    if "bill_id" in COLUMNS.get(table, ()):
        return SQL("state.{}").format(Identifier(table))
    return SQL("""(SELECT *, ''::text COLLATE "C" AS bill_id FROM state.{}) t""").format(
        Identifier(table)
    )


def _stored(connection: Connection, table: str, chunk: Chunk) -> Iterator[Row]:
    columns = SQL(", ").join(map(Identifier, COLUMNS[table]))
    query = SQL("COPY (SELECT {} FROM {} WHERE {}) TO STDOUT (FORMAT binary)").format(
        columns, _with_bill_id(table), chunk.where()
    )
    with connection.cursor().copy(query) as copy:
        copy.set_types(list(COLUMNS[table].values()))
        yield from copy.rows()


def _first_difference(stored: Rows, folded: Rows) -> Difference | None:
    found = [
        _difference(table, stored_by_key.get(key), folded_by_key.get(key), key)
        for table in COLUMNS
        for stored_by_key, folded_by_key in [
            (_by_key(table, stored[table]), _by_key(table, folded[table]))
        ]
        for key in stored_by_key.keys() | folded_by_key.keys()
        if stored_by_key.get(key) != folded_by_key.get(key)
    ]
    return min(found, key=lambda difference: difference.place, default=None)


def _by_key(table: str, rows: list[Row]) -> dict[Row, Row]:
    return {row[: KEYS[table]]: row for row in rows}


def _difference(table: str, stored: Row | None, folded: Row | None, key: Row) -> Difference:
    name = "/".join(map(_show, key))
    place = (*map(_show, key[:2]), table)
    if stored is None:
        return Difference(place, f"state.{table} {name} is missing: the fold has it")
    if folded is None:
        return Difference(place, f"state.{table} {name} should not be there: the fold has none")
    for column, is_, should in zip(COLUMNS[table], stored, folded, strict=True):
        if is_ != should:
            words = f"is {_show(is_)} and the fold says {_show(should)}"
            return Difference(place, f"state.{table} {name}: {column} {words}")
    raise AssertionError("two rows that differ have a field that differs")


def _show(value: object) -> str:
    if value is None:
        return "null"
    return f"{value:%F %T.%f} UTC" if isinstance(value, datetime) else str(value)
