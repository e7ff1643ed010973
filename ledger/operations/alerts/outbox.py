"""The outbox of alerts: records each new subject once, and for which channels it must be sent.

`note` records what is new; `sending.send_due` sends it. What was alerted is recorded by content and
outside the state, so that a rebuild alerts nobody again.
"""

from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime, timedelta
from itertools import islice

from psycopg import Connection

from ledger.operations.alerts.channels import channel_id
from ledger.operations.alerts.wording import AlertMessage, Subject
from ledger.postgres.locks import Lock, lock_transaction

BATCH = 5_000
"""Subjects looked up in one statement."""

KEEP = timedelta(days=30)
"""How long an alert is kept after it was made."""

_NOTE_SUBJECTS = """
INSERT INTO ledger.alert_subject (kind, subject, alerted_at)
SELECT
    given.kind,
    given.subject,
    %(now)s
FROM unnest(%(kinds)s::text[], %(subjects)s::text[]) AS given (kind, subject)
ON CONFLICT DO NOTHING
RETURNING kind, subject
"""
"""Returns only those that were not recorded before."""

_MAKE_ALERT = """
WITH made AS (
    INSERT INTO ledger.alert (made_at, title, body)
    VALUES (%(now)s, %(title)s, %(body)s)
    RETURNING id
)
INSERT INTO ledger.alert_delivery (alert_id, channel, next_try_at)
SELECT
    made.id,
    given.channel,
    %(now)s
FROM made, unnest(%(channels)s::text[]) AS given (channel)
"""

_FIND_OLD = """
SELECT a.id
FROM ledger.alert a
WHERE a.made_at < %s
    AND NOT EXISTS (
        SELECT FROM ledger.alert_delivery d
        WHERE d.alert_id = a.id AND d.sent_at IS NULL AND d.given_up_at IS NULL
    )
"""


def note(
    connection: Connection, subjects: Iterable[Subject], channels: Sequence[str], now: datetime
) -> int:
    """Make one alert of the subjects that are new, for each channel; return how many are new.

    Give all subjects there are, old and new: those alerted before are skipped. Runs in its own
    transaction. Without channels nothing is recorded: a command that was started without the
    setting must not suppress what the service would send, and the first channel that is ever set
    gets one alert about everything there is.
    """
    if not channels:
        return 0
    message = AlertMessage()
    with connection.transaction():
        # One process at a time, so that two with the same subjects cannot deadlock.
        lock_transaction(connection, Lock.ALERT_OUTBOX)
        for some in _batches(subjects):
            for subject in _new(connection, some, now):
                message.add(subject)
        if message.count:
            _make_alert(connection, message, channels, now)
            _drop_old(connection, now)
    return message.count


def _batches(subjects: Iterable[Subject]) -> Iterator[list[Subject]]:
    rest = iter(subjects)
    while some := list(islice(rest, BATCH)):
        yield some


def _new(connection: Connection, subjects: list[Subject], now: datetime) -> list[Subject]:
    """Record these subjects and return, in their order, those that were not recorded before."""
    by_key: dict[tuple[str, str], Subject] = {}
    for each in subjects:
        by_key.setdefault((each.kind, each.stored_key), each)
    rows = connection.execute(
        _NOTE_SUBJECTS,
        {
            "now": now,
            "kinds": [kind for kind, _ in by_key],
            "subjects": [key for _, key in by_key],
        },
    )
    inserted = set(rows)
    return [each for key, each in by_key.items() if key in inserted]


def _make_alert(
    connection: Connection, message: AlertMessage, channels: Sequence[str], now: datetime
) -> None:
    connection.execute(
        _MAKE_ALERT,
        {
            "now": now,
            "title": message.title(),
            "body": message.body(now),
            "channels": list({channel_id(url) for url in channels}),
        },
    )


def _drop_old(connection: Connection, now: datetime) -> None:
    """Delete alerts that were dealt with long ago; their subjects stay recorded."""
    old = [alert for (alert,) in connection.execute(_FIND_OLD, (now - KEEP,))]
    if old:
        connection.execute("DELETE FROM ledger.alert_delivery WHERE alert_id = ANY(%s)", (old,))
        connection.execute("DELETE FROM ledger.alert WHERE id = ANY(%s)", (old,))
