"""Loss windows: the times whose events were lost with all attempts, lab by lab."""

from collections import defaultdict
from datetime import UTC, datetime, timedelta
from typing import Any, LiteralString

from psycopg import Connection

from ledger.errors import UnknownSubjectError
from ledger.eventlog.liveness import LONGEST_GAP
from ledger.model.loss_windows import (
    Interval,
    difference,
    intersection,
    loss_windows,
    outages,
    union,
)
from ledger.model.operator_events import Span, WindowClosed
from ledger.model.operators import Labs, Operator, as_array
from ledger.operations.decisions import deciding, record, see
from ledger.operations.missing_events.queries import LAST_POSITION
from ledger.operations.policy import Policy
from ledger.operations.read_models import LossWindow, WindowState
from ledger.operations.refused_deliveries.decide import BATCH
from ledger.postgres.cluster import choose
from ledger.projection import store

ANY_LAB = ""
"""Stands for the lab of a window in which no lab is known to have sent."""

_ALIVE = "SELECT alive_from, alive_until FROM ledger.liveness"
_REFUSED = "SELECT refused_from, refused_until FROM ledger.refusal"

# Seen before and after: a lab that came later had nothing to lose, and of one that was not heard of
# since nobody knows yet whether it still sends.
_LABS = """
SELECT lab_id, first_received_at, last_received_at
FROM state.lab
WHERE %(labs)s::text[] IS NULL OR lab_id = ANY(%(labs)s::text[])
ORDER BY lab_id
"""

# Only so far after a window, for a lab may have been silent ever since.
_HEARD = """
SELECT EXISTS (
    SELECT
    FROM (
        SELECT lab_id, bill_id, position, received_at, source
        FROM ledger.event_log
        WHERE position > %s AND position <= %s
        ORDER BY position
        LIMIT 200000
    ) e
    WHERE e.lab_id = %s AND e.received_at BETWEEN %s AND %s AND e.source <> 'operator'
        AND NOT EXISTS (
            SELECT FROM state.unreadable_event u
            WHERE u.lab_id = e.lab_id AND u.bill_id = e.bill_id AND u.position = e.position
        )
)
"""

# EXISTS next to tables of the coordinator cannot be sent to the nodes, so it is asked apart.
_HEARD_ON_CLUSTER = """
WITH e AS MATERIALIZED (
    SELECT lab_id, bill_id, position, received_at, source
    FROM ledger.event_log
    WHERE position > %s AND position <= %s
    ORDER BY position
    LIMIT 200000
)
SELECT count(*) > 0
FROM e
WHERE e.lab_id = %s AND e.received_at BETWEEN %s AND %s AND e.source <> 'operator'
    AND NOT EXISTS (
        SELECT FROM state.unreadable_event u
        WHERE u.lab_id = e.lab_id AND u.bill_id = e.bill_id AND u.position = e.position
    )
"""

# Accepted deliveries were received long before they were appended. The decision that accepts them
# follows each batch of them, with its own time: never too early, and a batch too late at most.
_RECEIVED = f"""
SELECT max(received_at)
FROM (
    SELECT received_at
    FROM ledger.event_log
    WHERE position >= %s
    ORDER BY position
    LIMIT {BATCH + 1}
) e
"""  # noqa: S608 -- our own number

_REQUESTED = """
SELECT w.begins_at, w.ends_at, w.labs
FROM state.support_request r
JOIN state.support_request_window w ON w.lab_id = r.lab_id AND w.position = r.position
WHERE r.made_at <= %(now)s AND r.position <= %(position)s
"""

_CLOSED = """
SELECT w.begins_at, w.ends_at, w.labs
FROM state.support_request_window w
WHERE
    w.position <= %(position)s
    AND EXISTS (
        SELECT
        FROM state.support_request_closing c
        WHERE
            c.request = w.request
            AND c.labs = '{}'
            AND c.position > w.position
            AND c.closed_at <= %(now)s
            AND c.position <= %(position)s
    )
UNION ALL
SELECT c.begins_at, c.ends_at, c.labs
FROM state.loss_window_closing c
WHERE c.closed_at <= %(now)s AND c.position <= %(position)s
"""


def read_windows(
    connection: Connection,
    policy: Policy,
    now: datetime,
    *,
    position: int,
    labs: Labs = None,
) -> list[LossWindow]:
    """Return all windows known at the time `now`, in order; one is parted where its state changes.

    Decisions count up to the log position `position`. With `labs`, these alone are considered, and
    windows in which no lab is known to have sent are left out.
    """
    windows = _lost(connection, policy, now)
    if not windows:
        return []
    asked, closed = _decided(connection, now, position)
    sending = connection.execute(_LABS, {"labs": as_array(labs)}).fetchall()
    is_newest = position >= store.read_checkpoint(connection).position
    parts: dict[tuple[datetime, datetime, WindowState], list[str]] = defaultdict(list)
    for window in windows:
        concerned = [
            lab
            for lab, first, last in sending
            if first < window.end <= last
            and ((is_newest and last <= now) or _heard(connection, lab, window.end, now, position))
        ]
        for lab in concerned or ([ANY_LAB] if labs is None else []):
            # A window closed while no lab was known is closed for every lab.
            done = union([*closed[lab], *closed[ANY_LAB]])
            for state, some in _by_state([window], asked[lab], done):
                for part in some:
                    parts[part.begin, part.end, state].append(lab)
    return [
        LossWindow(begin, end, [lab for lab in labs_of if lab != ANY_LAB], state)
        for (begin, end, state), labs_of in sorted(parts.items())
    ]


def _heard(
    connection: Connection, lab_id: str, since: datetime, until: datetime, position: int
) -> bool:
    """Return whether the log, up to a position, has an event of a lab received in a time.

    For questions about the past: the state knows only when a lab was heard of last.
    """
    after = position_at(connection, since - timedelta(minutes=1))
    heard = choose(connection, _HEARD, _HEARD_ON_CLUSTER).encode()
    row = connection.execute(heard, (after, position, lab_id, since, until)).fetchone()
    return bool(row and row[0])


def position_at(connection: Connection, moment: datetime) -> int:
    """Return a position before which all was received before a time: nearly so, as the log is."""
    row = connection.execute("SELECT ledger.last_position()").fetchone()
    low, high = 0, (row and row[0]) or 0
    while low < high:
        middle = (low + high) // 2
        row = connection.execute(_RECEIVED.encode(), (middle,)).fetchone()
        if row is None or row[0] is None or row[0] < moment:
            low = middle + 1
        else:
            high = middle
    return low - 1


def _lost(connection: Connection, policy: Policy, now: datetime) -> list[Interval]:
    return loss_windows(
        read_outages(connection, now),
        interval=policy.retry_interval,
        count=policy.retry_count,
    )


def read_outages(connection: Connection, now: datetime) -> list[Interval]:
    """Return the times up to `now` in which no delivery could be received, in order."""
    rows = _intervals(connection, _ALIVE)
    if not rows:
        return []
    # The last record is a moment old. That is no outage yet, and what is to come is none at all.
    now = min(now, datetime.now(UTC))
    newest = max(rows, key=lambda row: row.end)
    if newest.end <= now <= newest.end + timedelta(seconds=LONGEST_GAP):
        rows.append(Interval(newest.end, now))
    since = min(row.begin for row in rows)
    return outages(rows, _intervals(connection, _REFUSED), since=since, until=now)


def _intervals(connection: Connection, query: LiteralString) -> list[Interval]:
    return [
        Interval(begin.astimezone(UTC), end.astimezone(UTC))
        for begin, end in connection.execute(query)
    ]


Spans = defaultdict[str, list[Interval]]


def _decided(connection: Connection, now: datetime, position: int) -> tuple[Spans, Spans]:
    """Return, by lab, which times were asked for, and which are closed."""
    parameters = {"now": now, "position": position}
    return _spans(connection, _REQUESTED, parameters), _spans(connection, _CLOSED, parameters)


def closed_windows(connection: Connection) -> Spans:
    """Return, by lab, which times are closed now."""
    return _spans(connection, _CLOSED, {"now": _ANY_TIME, "position": LAST_POSITION})


_ANY_TIME = datetime(9999, 1, 1, tzinfo=UTC)


def _spans(connection: Connection, query: LiteralString, parameters: dict[str, Any]) -> Spans:
    by_lab = Spans(list)
    for begin, end, labs in connection.execute(query, parameters):
        for lab in labs or [ANY_LAB]:
            by_lab[lab] = union(
                [*by_lab[lab], Interval(begin.astimezone(UTC), end.astimezone(UTC))]
            )
    return by_lab


def _by_state(
    window: list[Interval], asked: list[Interval], closed: list[Interval]
) -> list[tuple[WindowState, list[Interval]]]:
    left = difference(window, closed)
    return [
        ("closed", intersection(window, closed)),
        ("requested", intersection(left, asked)),
        ("open", difference(left, asked)),
    ]


def close_window(
    url: str,
    policy: Policy,
    window: tuple[datetime, datetime],
    *,
    labs: list[str] | None,
    reason: str,
    by: Operator,
    patience: float,
) -> tuple[list[LossWindow], int]:
    """Close a loss window or a part of one, for these labs or for all; say how it is then.

    All are those that `by` may decide for.
    Returns its parts with the position for which that is true. Raises `UnknownSubjectError` with
    the windows that there are; `DecisionError`.
    """
    with deciding(url, patience=patience) as connection:
        begin, end = window
        found = read_windows(
            connection, policy, datetime.now(UTC), position=LAST_POSITION, labs=by.labs
        )
        within = [one for one in found if begin < one.end and one.begin < end]
        there = sorted({lab for one in within for lab in one.labs})
        unknown = sorted(set(labs or []) - set(there))
        if not within or unknown or begin >= end:
            raise UnknownSubjectError(_what_windows(found, unknown))
        position = None
        meant = set(labs or there)
        if any(one.state != "closed" and (not labs or meant & {*one.labs}) for one in within):
            decision = WindowClosed(
                at=datetime.now(UTC),
                by=by.name,
                by_key=by.key,
                window=Span(begin, end, labs or there),
                reason=reason,
            )
            position = record(connection, [decision])
        position = see(url, connection, patience=patience, position=position)
        now = read_windows(
            connection, policy, datetime.now(UTC), position=LAST_POSITION, labs=by.labs
        )
        return [one for one in now if begin < one.end and one.begin < end], position


def _what_windows(found: list[LossWindow], unknown: list[str]) -> str:
    if unknown:
        return (
            f"lab {unknown[0]!r} lost nothing in that window; GET /v1/loss-windows names the labs"
        )
    if not found:
        return "there is no loss window"
    last = found[-1]
    return (
        f"there is no loss window at that time; the last of {len(found)} is from "
        f"{last.begin:%FT%TZ} to {last.end:%FT%TZ}: GET /v1/loss-windows lists them"
    )
