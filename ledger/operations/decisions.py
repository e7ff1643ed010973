"""Appends operators' decisions to the log, one at a time, each based on an up-to-date state.

Decisions made at the same moment are recorded one after the other, and the second sees the first:
it waits for the lock, and then until the state reflects the log's head.
"""

import time
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager

import psycopg
from psycopg import Connection

from ledger.errors import DecisionError, QuestionError
from ledger.eventlog import read
from ledger.eventlog.append import Delivery, Outcome, append
from ledger.model.operator_events import AnyDecision, write_decision
from ledger.postgres.connect import connect
from ledger.postgres.locks import Lock, lock_session, try_lock_session
from ledger.projection import store
from ledger.projection.projector import follow_once

MOST_AT_ONCE = 20_000
"""Decisions in one transaction, which holds the lane for its while: webhooks wait meanwhile."""

LOCK_SECONDS = 20
LOOK_SECONDS = 0.05


@contextmanager
def deciding(url: str, *, patience: float) -> Iterator[Connection]:
    """Give a connection that alone may decide, with the state true for all that is in the log.

    Raises `DecisionError` if another decision is under way, or if the state is still behind after
    `patience` seconds.
    """
    with deciding_without_state(url) as connection:
        catch_up(url, connection, patience=patience)
        yield connection


@contextmanager
def deciding_without_state(url: str) -> Iterator[Connection]:
    """Give a connection that alone may decide, for a decision that does not depend on the state.

    Raises `DecisionError` if another decision is under way.
    """
    with closing(connect(url, "desk")) as connection:
        connection.execute(f"SET lock_timeout = '{LOCK_SECONDS}s'")
        try:
            lock_session(connection, Lock.DECISION)
        except psycopg.errors.LockNotAvailable:
            raise DecisionError(
                "another operator's decision is under way; try again when it is done"
            ) from None
        yield connection


def catch_up(url: str, connection: Connection, *, patience: float, upto: int | None = None) -> int:
    """Return when the state is true for a position, that of the head if none is given.

    Where no projector runs, this does its work. Raises `DecisionError` after `patience` seconds.
    """
    wanted = read.head(connection) if upto is None else upto
    deadline = time.monotonic() + patience
    while True:
        checkpoint = store.read_checkpoint(connection)
        store.check_version(checkpoint)
        if checkpoint.position >= wanted:
            return checkpoint.position
        if time.monotonic() > deadline:
            raise DecisionError(
                f"the state is at position {checkpoint.position} and the log at {wanted}: "
                "try again when it has caught up; `ledger status` says how far it is"
            )
        if not _follow(url, wanted, deadline):
            time.sleep(LOOK_SECONDS)


def see(url: str, connection: Connection, *, patience: float, position: int | None) -> int:
    """Return when the state knows what was recorded at a position; None: when it knows all.

    Raises `DecisionError` after `patience` seconds, which says that it was recorded.
    """
    try:
        return catch_up(url, connection, patience=patience, upto=position)
    except DecisionError as error:
        if position is None:
            raise
        raise DecisionError(
            f"this was decided and stands in the log at position {position}; do not repeat it. "
            "The state has not caught up yet: look again with that as min_position"
        ) from error


def _follow(url: str, upto: int, deadline: float) -> bool:
    """Fold in a projector's place, if none leads; tell whether this did."""
    with closing(connect(url, "desk")) as connection:
        if not try_lock_session(connection, Lock.LEADER):
            return False
        read.keep_to_indexes(connection)
        while time.monotonic() < deadline and follow_once(connection, upto).events:
            pass
        return True


def record(connection: Connection, decisions: Sequence[AnyDecision]) -> int:
    """Append decisions in one transaction, all or none; return the last position.

    They count as received when they were made, so that all questions about a time agree. Raises
    `QuestionError` for one that could not be read again: too long an id, a time out of range;
    `DecisionError` if somebody else holds the log for too long.
    """
    deliveries = [
        Delivery.of(write_decision(decision), received_at=decision.at, source="operator")
        for decision in decisions
    ]
    for delivery in deliveries:
        if unreadable := delivery.columns.unreadable:
            raise QuestionError(f"this cannot be decided: {unreadable.detail}")
    outcomes = append_or_refuse(connection, deliveries)
    return max((outcome.position for outcome in outcomes), default=0)


def append_or_refuse(connection: Connection, deliveries: Sequence[Delivery]) -> list[Outcome]:
    """Append to the log. Raises `DecisionError` if somebody else holds it for too long."""
    try:
        return append(connection, deliveries)
    except psycopg.errors.LockNotAvailable:
        raise DecisionError(
            f"nothing could be appended to the log for {LOCK_SECONDS} s: somebody else holds it. "
            "Nothing was decided; try again"
        ) from None
