"""Alerts: each new subject is told once, on every channel, whatever fails meanwhile.

An outbox. `note` writes down what is new and to whom it must be told; `alert_sending.send_due`
tells it. What was alerted is kept by content, outside the state, so that a rebuild tells nothing
anew.
"""

from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime, timedelta
from itertools import islice

from psycopg import Connection

from ledger.operations.alerts.channels import channel_id
from ledger.operations.alerts.wording import Subject, Summary
from ledger.postgres.binary import text_array

BATCH = 5_000
"""Subjects looked up in one statement."""

KEEP = timedelta(days=30)
"""How long an alert can be looked up after it was told."""


def note(
    connection: Connection, subjects: Iterable[Subject], channels: Sequence[str], now: datetime
) -> int:
    """Make one alert of those subjects that are new, for each channel; return how many are new.

    Give all that there are, old and new: what was alerted already makes nothing. In a transaction
    of its own. Without channels nothing is noted: a command that was started without the setting
    must not take away what the service would tell, and who sets the first channel is told once
    what there is.
    """
    if not channels:
        return 0
    summary = Summary()
    with connection.transaction():
        # One at a time, so that two with the same subjects do not wait for each other crosswise.
        connection.execute("SELECT pg_advisory_xact_lock(7402, 11)")
        for some in _batches(subjects):
            for subject in _new(connection, some, now):
                summary.add(subject)
        if summary.count:
            _make_alert(connection, summary, channels, now)
            _drop_old(connection, now)
    return summary.count


def _batches(subjects: Iterable[Subject]) -> Iterator[list[Subject]]:
    rest = iter(subjects)
    while some := list(islice(rest, BATCH)):
        yield some


def _new(connection: Connection, subjects: list[Subject], now: datetime) -> list[Subject]:
    """Note these subjects, and return those that were not noted before, in their order."""
    by_key: dict[tuple[str, str], Subject] = {}
    for each in subjects:
        by_key.setdefault((each.kind, each.stored_key), each)
    rows = connection.execute(
        "INSERT INTO alert_subject (kind, subject, alerted_at)"
        " SELECT k.kind, k.subject, %s FROM unnest(%s, %s) AS k (kind, subject)"
        " ON CONFLICT DO NOTHING RETURNING kind, subject",
        (
            now,
            text_array(kind for kind, _ in by_key),
            text_array(key for _, key in by_key),
        ),
    )
    inserted = set(rows)
    return [each for key, each in by_key.items() if key in inserted]


def _make_alert(
    connection: Connection, summary: Summary, channels: Sequence[str], now: datetime
) -> None:
    connection.execute(
        "WITH made AS ("
        "  INSERT INTO alert (made_at, title, body) VALUES (%s, %s, %s) RETURNING id"
        ") INSERT INTO alert_delivery (alert_id, channel, next_try_at)"
        " SELECT made.id, c.channel, %s FROM made, unnest(%s) AS c (channel)",
        (
            now,
            summary.title(),
            summary.body(now),
            now,
            text_array({channel_id(url) for url in channels}),
        ),
    )


def _drop_old(connection: Connection, now: datetime) -> None:
    """Delete alerts that are long done with; what they were about stays noted."""
    old = [
        alert
        for (alert,) in connection.execute(
            "SELECT id FROM alert a WHERE made_at < %s AND NOT EXISTS ("
            "  SELECT FROM alert_delivery d"
            "  WHERE d.alert_id = a.id AND d.sent_at IS NULL AND d.given_up_at IS NULL)",
            (now - KEEP,),
        )
    ]
    if old:
        connection.execute("DELETE FROM alert_delivery WHERE alert_id = ANY(%s)", (old,))
        connection.execute("DELETE FROM alert WHERE id = ANY(%s)", (old,))
