"""Labs in a list: when each was heard of, what is subscribed, and what of it is overdue."""

from datetime import UTC, datetime

from msgspec import Struct
from psycopg import Connection
from psycopg.sql import SQL

from ledger.model.operators import Labs, as_array
from ledger.model.silence import Hearing, HearingState
from ledger.operations.missing_events.queries import STATE, SUBSCRIBED, parameters
from ledger.operations.policy import Policy
from ledger.operations.silence import Hearings

_LIST = SQL("""
SELECT
    l.lab_id,
    l.first_received_at,
    l.last_received_at,
    coalesce(
        (
            SELECT s.events
            FROM state.subscription s
            WHERE s.lab_id = l.lab_id
            ORDER BY s.position DESC
            LIMIT 1
        ),
        %(events)s
    ),
    (
        SELECT count(*)
        FROM state.missing_event m
        WHERE m.lab_id = l.lab_id AND m.waived_at IS NULL AND {state} = 'overdue' AND {subscribed}
    )
FROM state.lab l
WHERE
    (%(labs)s::text[] IS NULL OR l.lab_id = ANY(%(labs)s::text[]))
    AND (%(after)s::text IS NULL OR l.lab_id > %(after)s)
ORDER BY l.lab_id
LIMIT %(limit)s
""").format(state=SQL(STATE), subscribed=SQL(SUBSCRIBED))


class ListedLab(Struct, frozen=True):
    """A lab. Times are UTC."""

    lab_id: str
    first_received_at: datetime
    last_received_at: datetime
    events: list[str]
    overdue: int


class LabItem(Struct, frozen=True):
    """A lab, with how unusual it is that nothing came from it since it was last heard of.

    `subscribed_events` are those that can be missing; `overdue` counts the missing ones that are.
    `state` and what follows it are about webhooks and null for a lab that only imports know; see
    `LabSilence`.
    """

    lab_id: str
    first_received_at: datetime
    last_received_at: datetime
    subscribed_events: list[str]
    overdue: int
    state: HearingState | None
    last_heard_at: datetime | None
    hours: float | None
    with_others: bool | None
    odds: str | None

    @classmethod
    def of(cls, lab: ListedLab, hearing: Hearing | None) -> "LabItem":
        """Join a lab with how it was judged."""
        return cls(
            lab_id=lab.lab_id,
            first_received_at=lab.first_received_at,
            last_received_at=lab.last_received_at,
            subscribed_events=lab.events,
            overdue=lab.overdue,
            state=hearing.state if hearing else None,
            last_heard_at=hearing.since if hearing else None,
            hours=hearing.hours if hearing else None,
            with_others=hearing.with_others if hearing else None,
            odds=hearing.odds if hearing else None,
        )


def list_lab_items(
    connection: Connection,
    policy: Policy,
    now: datetime,
    hearings: Hearings,
    *,
    labs: Labs,
    state: HearingState | None = None,
    after: str | None,
    limit: int,
) -> list[LabItem]:
    """Return labs with how they were judged, by id, those after `after`, those in a state."""
    judged = hearings.read(connection, now, labs=labs)
    if state is not None:
        labs = tuple(lab_id for lab_id, hearing in judged.items() if hearing.state == state)
    listed = list_labs(connection, policy, now, labs=labs, after=after, limit=limit)
    return [LabItem.of(lab, judged.get(lab.lab_id)) for lab in listed]


def list_labs(
    connection: Connection,
    policy: Policy,
    now: datetime,
    *,
    labs: Labs,
    after: str | None,
    limit: int,
) -> list[ListedLab]:
    """Return labs that an event was received from, by id, those after `after`."""
    values = {
        **parameters(policy, now), "labs": as_array(labs), "after": after, "limit": limit,
    }  # fmt: skip
    return [
        ListedLab(lab_id, first.astimezone(UTC), last.astimezone(UTC), events, overdue)
        for lab_id, first, last, events, overdue in connection.execute(_LIST, values)
    ]
