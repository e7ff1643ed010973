"""Proves that the log is complete and that the state equals the fold.

Everything is read in one snapshot, shared by all processes, so that it may run next to the intake
and the projector.
"""

import itertools
from collections.abc import Callable, Iterator
from datetime import datetime
from typing import Any, LiteralString

from msgspec import Struct
from psycopg import Connection
from psycopg.sql import SQL, Composed, Identifier, Literal

from ledger.errors import RebuildError
from ledger.eventlog.append import columns_of, from_unix
from ledger.postgres.connect import connect
from ledger.postgres.locks import Lock, try_lock_session, unlock_session
from ledger.projection import delivery_stats, expected_bills, parallel, store
from ledger.projection.delivery_stats import DeliveryStats
from ledger.projection.expected_bills import LoggedExpectation
from ledger.projection.fold_bills import MOST_MEMORY, Projected, add_history
from ledger.projection.gc_pause import gc_paused
from ledger.projection.parallel import Chunk
from ledger.projection.rows import COLUMNS, KEYS, Row, Rows

RANGE = 20_000
"""Positions of the log that one job reads."""


class Difference(Struct, frozen=True):
    """The first thing that is not as it must be. `place` orders the findings of several jobs."""

    place: tuple[str, ...]
    words: str


class Verified(Struct, frozen=True):
    """The log's head, the state's position, how many bills were compared, the first difference."""

    head: int
    position: int
    bills: int
    difference: Difference | None


class LogJob(Struct, frozen=True):
    """The positions after `after` up to and with `upto`."""

    after: int
    upto: int


class StateJob(Struct, frozen=True):
    """A chunk of bills to compare with their fold at a position."""

    chunk: Chunk
    upto: int


class Checked(Struct, frozen=True):
    """What one job did."""

    events: int
    bills: int
    difference: Difference | None
    delivery_stats: DeliveryStats | None = None


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
        head = _one(connection, "SELECT coalesce(max(position), 0) FROM ledger.event_log")
        snapshot = _one(connection, "SELECT pg_export_snapshot()")
        prepare = (
            "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY; "
            f"SET TRANSACTION SNAPSHOT '{snapshot}'"
        )
        if checkpoint.position > head:
            words = f"the state is at position {checkpoint.position} and the log ends at {head}"
            return Verified(head, checkpoint.position, 0, _at(head, words))
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
        for checked in results:
            if checked is None:  # the log is done; a state made of a broken log proves nothing
                if first:
                    break
                continue
            events += checked.events
            bills += checked.bills
            on_progress(events, head + checkpoint.position)
            heard.merge(checked.delivery_stats or DeliveryStats.none())
            found = checked.difference
            if found and (first is None or found.place < first.place):
                first = found
        first = first or _contradiction_over_all(connection, heard)
        connection.execute("COMMIT")
        unlock_session(connection, Lock.REBUILD, shared=True)
    return Verified(head, checkpoint.position, bills, first)


_LOG = """
COPY (
    SELECT
        position, lab_id, bill_id, event_type, event_time, digest, source, body
    FROM ledger.event_log
    WHERE position > {} AND position <= {}
    ORDER BY position
) TO STDOUT (FORMAT binary)
"""


def check_log(connection: Connection, job: LogJob) -> Checked:
    """Check that a stretch has each position once, and that columns and digests fit the bodies."""
    query = SQL(_LOG).format(Literal(job.after), Literal(job.upto))
    expected = job.after
    with connection.cursor().copy(query) as copy:
        copy.set_types(("int8", "text", "text", "text", "timestamptz", "bytea", "text", "bytea"))
        for position, *said, body in copy.rows():
            expected += 1
            words = None
            if position > expected:
                words = f"the log has a gap: position {expected} is missing"
            elif position < expected:
                words = f"position {position} stands in the log twice"
            else:
                words = _contradiction(position, said, body)
            if words:
                _drain(copy)
                return Checked(expected - job.after, 0, _at(position, words))
    if expected < job.upto:
        words = f"the log has a gap: position {expected + 1} is missing"
        return Checked(expected - job.after, 0, _at(expected + 1, words))
    return Checked(expected - job.after, 0, None)


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
        if position not in stored and not _one(
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


def _contradiction(position: int, said: list[Any], body: bytes) -> str | None:
    lab_id, bill_id, event_type, event_time, digest, source = said
    found = columns_of(body, source)
    said_time = None if found.event_time is None else from_unix(found.event_time)
    if digest != found.digest:
        return (
            f"the digest of position {position} is {digest.hex()} "
            f"and its body's is {found.digest.hex()}"
        )
    for column, stored, from_body in (
        ("lab_id", lab_id, found.lab_id),
        ("bill_id", bill_id, found.bill_id),
        ("event_type", event_type, found.event_type),
        ("event_time", event_time, said_time),
    ):
        if stored != from_body:
            return f"{column} of position {position} is {stored} and its body says {from_body}"
    return None


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


def _at(position: int, words: str) -> Difference:
    return Difference((f"{position:020}",), words)


def _drain(copy: Any) -> None:  # noqa: ANN401 -- psycopg's Copy; leaving it half read is an error
    for _ in copy:
        pass


def _one(connection: Connection, query: LiteralString, *values: object) -> Any:  # noqa: ANN401 -- whatever the query gives
    row = connection.execute(query, values or None).fetchone()
    assert row  # noqa: S101 -- the queries above give one row
    return row[0]
