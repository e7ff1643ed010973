"""Sends the alerts in the outbox and records the result of each attempt."""

import time
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from datetime import datetime, timedelta
from queue import Empty, SimpleQueue

import psycopg
import structlog
from msgspec import Struct
from psycopg import Connection

from ledger.operations.alerts.channels import Attempt, Channel, channel_id, channel_of
from ledger.postgres.locks import Lock, try_lock_session, unlock_session

PAUSES = (timedelta(minutes=1), timedelta(minutes=5), timedelta(minutes=15), timedelta(hours=1))
"""The pause after the first failure, the second and so on; the last one repeats."""

GIVE_UP_AFTER = timedelta(hours=24)
"""The age from which an alert that fails is not tried again."""

FORGET_AFTER = timedelta(hours=1)
"""How long an overdue delivery waits for a process that knows its channel. While settings are being
changed, one process may have the new channels and another still the old ones."""

AT_ONCE = 100
"""The most alerts sent to one channel in one round."""

ROUND_SECONDS = 60.0
"""The time after which a round starts no more sends and leaves the rest to the next round."""

_TAKE_DUE = """
SELECT
    c.channel,
    d.alert_id,
    d.tries,
    a.made_at,
    a.title,
    a.body
FROM unnest(%(channels)s::text[]) AS c (channel)
CROSS JOIN LATERAL (
    SELECT
        alert_id,
        tries
    FROM ledger.alert_delivery
    WHERE channel = c.channel
        AND next_try_at <= %(now)s
        AND sent_at IS NULL
        AND given_up_at IS NULL
    ORDER BY alert_id
    LIMIT %(limit)s
) d
JOIN ledger.alert a ON a.id = d.alert_id
ORDER BY d.alert_id
"""
"""The limit holds for each channel, because one channel may have a long queue."""

_GIVE_UP_UNKNOWN = """
UPDATE ledger.alert_delivery
SET given_up_at = %(now)s
WHERE sent_at IS NULL
    AND given_up_at IS NULL
    AND next_try_at <= %(due_before)s
    AND channel <> ALL(%(known)s::text[])
"""

_NOTE_SENT = """
UPDATE ledger.alert_delivery
SET
    tries = tries + 1,
    sent_at = %(now)s
WHERE alert_id = %(alert)s AND channel = %(channel)s
"""

_NOTE_FAILED = """
UPDATE ledger.alert_delivery
SET
    tries = %(tries)s,
    next_try_at = %(next_try_at)s,
    given_up_at = %(given_up_at)s
WHERE alert_id = %(alert)s AND channel = %(channel)s
"""

_log = structlog.get_logger(__name__)


class Round(Struct, frozen=True):
    """What one round of sending did: attempts that succeeded or failed, and deliveries given up.

    A delivery that was given up also counts as a failed attempt.
    """

    sent: int
    failed: int
    given_up: int


class _Due(Struct, frozen=True):
    """A delivery that is due."""

    alert: int
    tries: int
    made_at: datetime
    title: str
    body: str


def send_due(connection: Connection, channels: Sequence[str], now: datetime) -> Round:
    """Send what is due, the oldest first; do nothing if another process is sending.

    The connection must be in autocommit mode, so that no transaction is open while a channel is
    waited for. Takes at most `ROUND_SECONDS` plus the time of one send. A channel that fails is
    skipped until the next round and delays no other channel. Raises `psycopg.Error`.

    Delivery is at least once: a process that is killed after a send and before recording it sends
    the alert again after its restart. A repeated alert does less harm than a lost one.
    """
    urls = _places(channels)
    if not urls:
        return Round(0, 0, 0)  # this process sends no alerts; see `note`
    with _turn(connection) as ours:
        if not ours:
            return Round(0, 0, 0)
        _give_up_unknown(connection, urls, now)
        due = _take(connection, urls, now)
        known = {channel: channel_of(*urls[channel]) for channel in due}
        return _send_all(connection, known, due, now)


def _places(channels: Sequence[str]) -> dict[str, tuple[int, str]]:
    """Number the channels from 1; a URL that is listed twice keeps its first place."""
    places: dict[str, tuple[int, str]] = {}
    for number, url in enumerate(channels, start=1):
        places.setdefault(channel_id(url), (number, url))
    return places


@contextmanager
def _turn(connection: Connection) -> Iterator[bool]:
    """Take the lock for sending until the end of the block; give whether it was free.

    It is a session lock: it needs no open transaction and ends with the process, however that
    ends. If the connection is lost meanwhile, another process may send the same alert again.
    """
    ours = try_lock_session(connection, Lock.ALERT_SENDING)
    try:
        yield ours
    finally:
        if ours:
            with suppress(psycopg.OperationalError):  # gone with its session
                unlock_session(connection, Lock.ALERT_SENDING)


def _give_up_unknown(connection: Connection, known: Iterable[str], now: datetime) -> None:
    """Give up deliveries to channels that no process has any more."""
    connection.execute(
        _GIVE_UP_UNKNOWN, {"now": now, "due_before": now - FORGET_AFTER, "known": list(known)}
    )


def _take(connection: Connection, known: Iterable[str], now: datetime) -> dict[str, deque[_Due]]:
    """Return the deliveries that are due on each channel, the oldest first."""
    rows = connection.execute(_TAKE_DUE, {"channels": list(known), "now": now, "limit": AT_ONCE})
    due: dict[str, deque[_Due]] = {}
    for channel, *fields in rows:
        due.setdefault(channel, deque()).append(_Due(*fields))
    return due


def _send_all(
    connection: Connection,
    known: Mapping[str, Channel],
    due: Mapping[str, deque[_Due]],
    now: datetime,
) -> Round:
    """Send to all channels in parallel, and on each channel one alert after the other.

    Each result is recorded as soon as it is known, while other channels are still waited for.
    """
    sent = failed = given_up = 0
    end = time.monotonic() + ROUND_SECONDS
    ended: SimpleQueue[Attempt] = SimpleQueue()
    running = {
        channel: Attempt(known[channel], queue[0].title, queue[0].body, ended)
        for channel, queue in due.items()
    }
    while running:
        channel, why = _next_end(running, ended)
        del running[channel]
        queue = due[channel]
        delivery = queue.popleft()
        if why is None:
            _note_sent(connection, known[channel], delivery, now)
            sent += 1
            if queue and time.monotonic() < end:
                running[channel] = Attempt(known[channel], queue[0].title, queue[0].body, ended)
        else:
            given_up += _note_failed(connection, known[channel], delivery, why, now)
            failed += 1
    return Round(sent, failed, given_up)


def _next_end(
    running: Mapping[str, Attempt], ended: "SimpleQueue[Attempt]"
) -> tuple[str, str | None]:
    """Wait until an attempt ends or runs out of time; return its channel and why it failed."""
    while True:
        first = min(running.values(), key=lambda attempt: attempt.deadline)
        try:
            attempt = ended.get(timeout=max(0.0, first.deadline - time.monotonic()))
        except Empty:
            return channel_id(first.channel.url), first.give_up()
        channel = channel_id(attempt.channel.url)
        if running.get(channel) is attempt:
            return channel, attempt.failure


def _note_sent(connection: Connection, channel: Channel, delivery: _Due, now: datetime) -> None:
    connection.execute(
        _NOTE_SENT, {"now": now, "alert": delivery.alert, "channel": channel_id(channel.url)}
    )
    _log.info("alert sent", alert=delivery.alert, channel=str(channel))


def _note_failed(
    connection: Connection, channel: Channel, delivery: _Due, why: str, now: datetime
) -> bool:
    """Schedule the next attempt or give the delivery up; return whether it was given up."""
    tries = delivery.tries + 1
    over = now - delivery.made_at >= GIVE_UP_AFTER
    next_try = now + PAUSES[min(tries, len(PAUSES)) - 1]
    connection.execute(
        _NOTE_FAILED,
        {
            "tries": tries,
            "next_try_at": next_try,
            "given_up_at": now if over else None,
            "alert": delivery.alert,
            "channel": channel_id(channel.url),
        },
    )
    facts = {"alert": delivery.alert, "channel": str(channel), "error": why, "tries": tries}
    if over:
        _log.error("alert given up: check the channel in LEDGER_ALERT_URLS", **facts)
    else:
        _log.warning(
            "alert not sent, will be tried again", next_try_at=next_try.isoformat(), **facts
        )
    return over
