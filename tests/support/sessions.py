"""Sessions of the database as tests see them from outside, and dumps of what they wrote."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import psycopg
from psycopg import Connection
from psycopg.sql import SQL, Identifier

from ledger.eventlog import read
from ledger.projection.projector import follow_once
from ledger.projection.store import TABLES

LONG = 30.0
"""Seconds after which a condition that must come true never will."""


def wait_until(holds: Callable[[], object], what: str) -> None:
    """Return as soon as something holds; fail if it does not for `LONG` seconds."""
    deadline = time.monotonic() + LONG
    pause = threading.Event()
    while not holds():
        assert time.monotonic() < deadline, f"not so after {LONG:.0f} s: {what}"
        pause.wait(0.005)


def one(connection: Connection, query: str, *parameters: object) -> Any:  # noqa: ANN401 -- as asked
    """Return the only column of the only row."""
    row = connection.execute(query.encode(), parameters or None).fetchone()
    assert row
    return row[0]


def pid_of(connection: Connection) -> int:
    """Return the process id of the server's side."""
    return connection.info.backend_pid


def wait_until_blocked(owner: Connection, *pids: int) -> None:
    """Return when each of these sessions waits for a lock."""

    def all_wait() -> bool:
        query = "SELECT count(DISTINCT pid) FROM pg_locks WHERE NOT granted AND pid = ANY(%s)"
        return bool(one(owner, query, list(pids)) == len(pids))

    wait_until(all_wait, f"sessions {pids} wait for a lock")


def sessions_named(owner: Connection, name: str) -> list[int]:
    """Return the process ids of the sessions with this purpose."""
    query = (
        "SELECT pid FROM pg_stat_activity"
        " WHERE application_name = %s AND datname = current_database()"
    )
    return [pid for (pid,) in owner.execute(query, (f"ledger {name}",))]


def terminate(owner: Connection, *pids: int) -> None:
    """End sessions as an administrator would, and return when they are gone."""
    for pid in pids:
        owner.execute("SELECT pg_terminate_backend(%s)", (pid,))
    query = "SELECT count(*) FROM pg_stat_activity WHERE pid = ANY(%s)"
    wait_until(lambda: one(owner, query, list(pids)) == 0, "terminated sessions are gone")


@contextmanager
def lane_held(url: str) -> Iterator[Connection]:
    """Hold the lane's lock in an open transaction of another session."""
    with psycopg.connect(url) as holder:
        holder.execute("SELECT pg_advisory_xact_lock(7402, 1)")
        yield holder
        holder.rollback()


@contextmanager
def in_thread(work: Callable[[], object]) -> Iterator[threading.Thread]:
    """Do some work beside the block, and raise at its end what the work raised."""
    raised: list[BaseException] = []

    def run() -> None:
        try:
            work()
        except BaseException as error:  # noqa: BLE001 -- raised again below
            raised.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    yield thread
    thread.join(LONG)
    assert not thread.is_alive(), "the work beside did not end"
    if raised:
        raise raised[0]


def drain(connection: Connection) -> int:
    """Follow until the head that the log has now, and return the position reached."""
    read.keep_to_indexes(connection)
    head = read.head(connection)
    while True:
        batch = follow_once(connection, head)
        if not batch.events:
            return batch.position


def log_rows(connection: Connection) -> list[tuple[Any, ...]]:
    """Return the whole log in order of position."""
    return connection.execute("SELECT * FROM ledger.event_log ORDER BY position, digest").fetchall()


def state_rows(connection: Connection, schema: str = "state") -> dict[str, list[str]]:
    """Return all rows of all state tables as text, sorted."""
    return {
        table: [
            row
            for (row,) in connection.execute(
                SQL('SELECT t::text AS row FROM {}.{} t ORDER BY t::text COLLATE "C"').format(
                    Identifier(schema), Identifier(table)
                )
            )
        ]
        for table in (*TABLES, "checkpoint")
    }


def state_without_positions(connection: Connection) -> dict[str, list[tuple[Any, ...]]]:
    """Return what the state says of bills and events, but not where in the log they stand."""
    queries = {
        "bill": "SELECT lab_id, bill_id, integrator_id, state, flabs_status, created_at,"
        " completed_at, deleted_at, report_url, reports_total, reports_completed, findings, events,"
        " first_received_at, last_received_at, last_event_at, missing FROM state.bill",
        "report": "SELECT lab_id, bill_id, test_id, status, completed_at, evidence"
        " FROM state.report",
        "missing_event": "SELECT lab_id, bill_id, event_type, test_id, certainty, count,"
        " integrator_id, evidence_event_type, evidence_event_time, evidence_received_at"
        " FROM state.missing_event",
        "unreadable_event": "SELECT u.lab_id, u.bill_id, u.reason, u.path, u.detail, e.digest"
        " FROM state.unreadable_event u JOIN ledger.event_log e USING (lab_id, bill_id, position)",
        "parked_bill": "SELECT lab_id, bill_id, error FROM state.parked_bill",
    }
    return {
        table: sorted(connection.execute(query.encode()), key=repr)
        for table, query in queries.items()
    }


def tamper(owner: Connection, statement: str) -> None:
    """Change the log behind the back of its walls, as only an owner can; one row is changed."""
    with owner.transaction():
        owner.execute("ALTER TABLE ledger.event_log DISABLE TRIGGER event_log_is_append_only")
        changed = owner.execute(statement.encode()).rowcount
        owner.execute("ALTER TABLE ledger.event_log ENABLE ALWAYS TRIGGER event_log_is_append_only")
    assert changed == 1, f"{changed} rows changed by: {statement}"


def empty_log(owner: Connection) -> None:
    """Remove all that was received, as only an owner can, and all state."""
    tables = ("event_log", "repeat_delivery", "erasable_body")
    triggers = [(table, f"{table}_is_append_only") for table in tables]
    switch = "ALTER TABLE ledger.{} {} TRIGGER {}".format
    names = [f"ledger.{table}" for table in (*tables, "liveness", "refusal")]
    statements = [
        *(switch(table, "DISABLE", trigger) for table, trigger in triggers),
        f"TRUNCATE {', '.join([*names, *(f'state.{table}' for table in TABLES)])}",
        "UPDATE state.checkpoint SET position = 0",
        *(switch(table, "ENABLE ALWAYS", trigger) for table, trigger in triggers),
    ]
    owner.execute("; ".join(statements).encode())
