"""Labs that fall silent: what the log's counts by lab and hour say at a time.

Source: docs/rules.md, "Silence".
"""

import threading
from collections import defaultdict
from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from datetime import UTC, datetime, timedelta

from psycopg import Connection

from ledger.model.lab_silences import HISTORY, Past, look_back
from ledger.model.operators import Labs, as_array
from ledger.model.silence import (
    SHORTEST,
    Hearing,
    hours_of,
    judge_known,
    unobserved_hours,
)
from ledger.operations.loss_windows import position_at, read_outages
from ledger.operations.read_models import LabSilence
from ledger.operations.refused_deliveries.decide import BATCH
from ledger.postgres.cluster import choose
from ledger.projection.delivery_stats import HourKey

# An import may be of events that are older than all that a lab sent, so it counts for nothing.
_LAST = """
SELECT l.lab_id, h.last_received_at
FROM state.lab l
CROSS JOIN LATERAL (
    SELECT h.last_received_at
    FROM state.lab_hour h
    WHERE h.lab_id = l.lab_id AND h.hour <= %(now)s
    ORDER BY h.hour DESC
    LIMIT 1
) h
WHERE %(labs)s::text[] IS NULL OR l.lab_id = ANY(%(labs)s::text[])
ORDER BY l.lab_id
"""

_COUNTS = """
SELECT h.lab_id, extract(epoch FROM h.hour)::bigint / 3600, h.events
FROM unnest(%(labs)s::text[], %(since)s::timestamptz[]) AS l (lab_id, since)
JOIN state.lab_hour h ON h.lab_id = l.lab_id
WHERE h.hour > l.since - %(history)s AND h.hour <= l.since
"""

# The log is nearly in the order of reception: what waited in a spool or in the box is out of it.
_LAST_THEN = """
SELECT max(e.received_at)
FROM (
    SELECT e.received_at
    FROM ledger.event_log e
    WHERE
        e.lab_id = %(lab)s AND e.position <= %(position)s AND e.received_at <= %(now)s
        AND e.source = 'webhook'
        AND NOT EXISTS (
            SELECT FROM state.unreadable_event u
            WHERE u.lab_id = e.lab_id AND u.bill_id = e.bill_id AND u.position = e.position
        )
    ORDER BY e.position DESC
    LIMIT 100
) e
"""

# No join of the log with the state can be sent to the nodes: so only of the last thousand webhooks
# it is asked which could be read.
_LAST_THEN_ON_CLUSTER = """
WITH latest AS MATERIALIZED (
    SELECT e.lab_id, e.bill_id, e.position, e.received_at
    FROM ledger.event_log e
    WHERE
        e.lab_id = %(lab)s AND e.position <= %(position)s AND e.received_at <= %(now)s
        AND e.source = 'webhook'
    ORDER BY e.position DESC
    LIMIT 1000
)
SELECT max(e.received_at)
FROM (
    SELECT l.received_at
    FROM latest l
    WHERE NOT EXISTS (
        SELECT FROM state.unreadable_event u
        WHERE u.lab_id = l.lab_id AND u.bill_id = l.bill_id AND u.position = l.position
    )
    ORDER BY l.position DESC
    LIMIT 100
) e
"""

Pasts = dict[str, Past]


class Hearings:
    """Judges the labs at the present time.

    What it learned of a lab it keeps until the lab is heard of again or an outage is found, so that
    it can be asked again soon: at night most labs are silent, and each takes some milliseconds.
    """

    def __init__(self) -> None:
        # To learn a thousand labs takes the processor for seconds: once, however many ask.
        self._learning = threading.Lock()
        self._known: Pasts = {}
        self._true_for: AbstractSet[int] = frozenset()

    def read(
        self, connection: Connection, now: datetime, *, labs: Labs = None
    ) -> dict[str, Hearing]:
        """Return how unusual the silence of each of these labs is, by lab, in order."""
        unobserved = unobserved_hours(read_outages(connection, now), now)
        with self._learning:
            pasts = self._pasts(connection, now, unobserved, labs)
        return judge_known(pasts, now, unobserved)

    def _pasts(
        self, connection: Connection, now: datetime, unobserved: AbstractSet[int], labs: Labs
    ) -> Pasts:
        if unobserved != self._true_for:
            self._known, self._true_for = {}, unobserved
        known = self._known
        values = {"now": now, "labs": as_array(labs)}
        lasts: dict[str, datetime] = dict(connection.execute(_LAST, values).fetchall())
        pasts, unknown = {}, {}
        for lab_id, last in lasts.items():
            since = hours_of(last)
            past = known.get(lab_id)
            if hours_of(now) - since < SHORTEST:
                pasts[lab_id] = Past(since)
            elif past and past.since == since:
                pasts[lab_id] = past
            else:
                pasts[lab_id] = Past(since)  # in its place
                unknown[lab_id] = last
        learned = _look_back(connection, unknown, unobserved, {})
        known |= learned
        return pasts | learned


def read_hearings_then(
    connection: Connection,
    now: datetime,
    *,
    position: int,
    since_then: Mapping[HourKey, tuple[int, datetime]],
    labs: Labs,
) -> dict[str, Hearing]:
    """Return the same at a time and at a log position that may be past.

    `since_then` counts what was received after that position.
    """
    unobserved = unobserved_hours(read_outages(connection, now), now)
    # It may be a batch too early, and what is too late is left out by its time.
    upto = min(position, position_at(connection, now + timedelta(minutes=1)) + BATCH)
    changed = {lab_id for lab_id, _, _ in since_then}
    lasts: dict[str, datetime] = {}
    values = {"now": now, "labs": as_array(labs)}
    query = choose(connection, _LAST_THEN, _LAST_THEN_ON_CLUSTER)
    for lab_id, last in connection.execute(_LAST, values).fetchall():
        found: datetime | None = last
        if last > now or lab_id in changed:
            asked = {"lab": lab_id, "position": upto, "now": now}
            row = connection.execute(query, asked).fetchone()
            found = row[0] if row else None
        if found:
            lasts[lab_id] = found
    pasts = _look_back(connection, lasts, unobserved, since_then)
    return judge_known(pasts, now, unobserved)


def _look_back(
    connection: Connection,
    lasts: Mapping[str, datetime],
    unobserved: AbstractSet[int],
    since_then: Mapping[HourKey, tuple[int, datetime]],
) -> Pasts:
    """Return what is known of labs by when each was heard of last."""
    if not lasts:
        return {}
    counts: dict[str, dict[int, int]] = defaultdict(dict)
    values = {
        "labs": list(lasts),
        "since": list(lasts.values()),
        "history": timedelta(hours=HISTORY),
    }
    for lab_id, hour, events in connection.execute(_COUNTS, values):
        counts[lab_id][hour] = events
    for (lab_id, day, hour_of_day), (events, _) in since_then.items():
        hour = int(hours_of(datetime(day.year, day.month, day.day, hour_of_day, tzinfo=UTC)))
        if hour in counts.get(lab_id, {}):
            counts[lab_id][hour] -= events
    return {
        lab_id: look_back(
            {hour: events for hour, events in counts[lab_id].items() if events > 0},
            hours_of(last),
            unobserved,
        )
        for lab_id, last in lasts.items()
    }


def silences_of(hearings: Mapping[str, Hearing]) -> list[LabSilence]:
    """Return the labs that are not heard of as usual: the silent ones first, the longest first."""
    found = [
        LabSilence(
            lab_id=lab_id,
            state=hearing.state,
            last_heard_at=hearing.since,
            hours=hearing.hours,
            with_others=hearing.with_others,
            odds=hearing.odds,
        )
        for lab_id, hearing in hearings.items()
        if hearing.state != "usual"
    ]
    return sorted(found, key=lambda one: (one.state != "silent", -one.hours, one.lab_id))
