"""Sends the alerts that `alerts.note` wrote down, and writes down what became of them."""

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
from ledger.postgres.binary import text_array

PAUSES = (timedelta(minutes=1), timedelta(minutes=5), timedelta(minutes=15), timedelta(hours=1))
"""After the first failure, the second, the third; the last one is for all after it."""

GIVE_UP_AFTER = timedelta(hours=24)
"""How old an alert is tried."""

FORGET_AFTER = timedelta(hours=1)
"""How long past its time a delivery waits for a process that knows its channel. While settings
change, one process may have the new channels and another still the old."""

AT_ONCE = 100
"""Alerts taken for one channel in one round."""

ROUND_SECONDS = 60.0
"""After which a round begins no more sends; the next round goes on."""


_log = structlog.get_logger(__name__)


class Round(Struct, frozen=True):
    """What a round of sending did: tries that went well, tries that failed, deliveries given up.

    Those given up count as failed, too.
    """

    sent: int
    failed: int
    given_up: int


class _Due(Struct, frozen=True):
    """A delivery whose time has come."""

    alert: int
    tries: int
    made_at: datetime
    title: str
    body: str


def send_due(connection: Connection, channels: Sequence[str], now: datetime) -> Round:
    """Send what is due, oldest first, and return what came of it; nothing if another process sends.

    The connection must be in autocommit mode: no transaction is open while a channel is waited for.
    May take `ROUND_SECONDS` and then what one send may take. A channel that fails is left alone
    until the next round, and keeps no other waiting. Raises `psycopg.Error`.

    At least once, not at most: whoever is killed between a send and its note sends it again after
    the restart, for an alert told twice does less harm than one never told.
    """
    urls = _places(channels)
    if not urls:
        return Round(0, 0, 0)  # not this process's business; see `note`
    with _turn(connection) as ours:
        if not ours:
            return Round(0, 0, 0)
        _forget_others(connection, urls, now)
        due = _take(connection, urls, now)
        known = {channel: channel_of(*urls[channel]) for channel in due}
        return _send_all(connection, known, due, now)


def _places(channels: Sequence[str]) -> dict[str, tuple[int, str]]:
    """Number the channels from 1 on; one that stands there twice has its first place."""
    places: dict[str, tuple[int, str]] = {}
    for number, url in enumerate(channels, start=1):
        places.setdefault(channel_id(url), (number, url))
    return places


@contextmanager
def _turn(connection: Connection) -> Iterator[bool]:
    """Tell whether it is this process's turn to send, and keep it until the end of the block.

    A lock of the session: it needs no open transaction, and ends with the process however that
    ends. If the connection is lost in the middle, another process may send the same once more.
    """
    row = connection.execute("SELECT pg_try_advisory_lock(7402, 12)").fetchone()
    ours = bool(row and row[0])
    try:
        yield ours
    finally:
        if ours:
            with suppress(psycopg.OperationalError):  # gone with its session
                connection.execute("SELECT pg_advisory_unlock(7402, 12)")


def _forget_others(connection: Connection, known: Iterable[str], now: datetime) -> None:
    """Give up what was to be told on channels that nobody has any more."""
    connection.execute(
        "UPDATE alert_delivery SET given_up_at = %s"
        " WHERE sent_at IS NULL AND given_up_at IS NULL"
        " AND next_try_at <= %s AND channel <> ALL(%s)",
        (now, now - FORGET_AFTER, text_array(known)),
    )


def _take(connection: Connection, known: Iterable[str], now: datetime) -> dict[str, deque[_Due]]:
    """Return what is due on each channel. So many of each, for one may have piled up many."""
    rows = connection.execute(
        "SELECT c.channel, d.alert_id, d.tries, a.made_at, a.title, a.body"
        " FROM unnest(%s) AS c (channel)"
        " CROSS JOIN LATERAL ("
        "  SELECT alert_id, tries FROM alert_delivery d"
        "  WHERE d.channel = c.channel AND d.next_try_at <= %s"
        "  AND d.sent_at IS NULL AND d.given_up_at IS NULL"
        "  ORDER BY alert_id LIMIT %s) AS d"
        " JOIN alert a ON a.id = d.alert_id ORDER BY d.alert_id",
        (text_array(known), now, AT_ONCE),
    )
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
    """Send to all channels side by side, one alert after the other on each.

    What became of each is noted as soon as it is known, whoever else is still waited for.
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
    """Wait until an attempt ends or its time is over; return its channel and why it failed."""
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
        "UPDATE alert_delivery SET tries = tries + 1, sent_at = %s"
        " WHERE alert_id = %s AND channel = %s",
        (now, delivery.alert, channel_id(channel.url)),
    )
    _log.info("alert sent", alert=delivery.alert, channel=str(channel))


def _note_failed(
    connection: Connection, channel: Channel, delivery: _Due, why: str, now: datetime
) -> bool:
    """Set the time of the next try, or give the delivery up; tell which."""
    tries = delivery.tries + 1
    over = now - delivery.made_at >= GIVE_UP_AFTER
    next_try = now + PAUSES[min(tries, len(PAUSES)) - 1]
    connection.execute(
        "UPDATE alert_delivery SET tries = %s, next_try_at = %s, given_up_at = %s"
        " WHERE alert_id = %s AND channel = %s",
        (tries, next_try, now if over else None, delivery.alert, channel_id(channel.url)),
    )
    told = {"alert": delivery.alert, "channel": str(channel), "error": why, "tries": tries}
    if over:
        _log.error("alert given up: check the channel in LEDGER_ALERT_URLS", **told)
    else:
        _log.warning("alert not sent; it is tried again", next_try_at=next_try.isoformat(), **told)
    return over
