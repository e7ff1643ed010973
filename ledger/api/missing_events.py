"""Missing events over HTTP: of one bill, and of all."""

from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, Literal

import msgspec
from litestar import Response, get
from litestar.params import QueryParameter
from msgspec import Struct
from psycopg.sql import SQL, Composable

from ledger.api.answers import answer, ok, page
from ledger.api.guards import READ
from ledger.api.parameters import (
    DEFAULT_LIMIT,
    CursorText,
    Limit,
    read_cursor,
    write_cursor,
)
from ledger.api.services import Services
from ledger.api.wire import MissingEventItem, Page
from ledger.model.missing import Certainty, Evidence, MissingEvent, MissingState, retry_budget
from ledger.projection.rows import encode
from ledger.settings import Settings

EventType = Literal["bill.created", "report.completed", "bill.completed", "bill.deleted"]

AS_JSON_ARRAY = """json_build_array(
    m.event_type, m.test_id, m.certainty, m.count, m.evidence_position, m.evidence_event_type,
    m.evidence_event_time, m.evidence_received_at
)"""
"""A row of state.missing_event m, to be decoded as `StoredMissing`."""


class StoredMissing(Struct, frozen=True, array_like=True):
    """A missing event as it comes out of the database."""

    event_type: str
    test_id: str
    certainty: Certainty
    count: int
    evidence_position: int
    evidence_event_type: str
    evidence_event_time: datetime
    evidence_received_at: datetime

    def folded(self) -> MissingEvent:
        """Return it as the fold made it."""
        return MissingEvent(
            event_type=self.event_type,
            test_id=self.test_id or None,
            certainty=self.certainty,
            count=self.count,
            evidence=Evidence(
                position=self.evidence_position,
                event_type=self.evidence_event_type,
                event_time=self.evidence_event_time.astimezone(UTC),
                received_at=self.evidence_received_at.astimezone(UTC),
            ),
        )


decode_one = msgspec.json.Decoder(StoredMissing).decode
decode_many = msgspec.json.Decoder(list[StoredMissing]).decode


def items(
    missing: Iterable[MissingEvent],
    key: tuple[str, str],
    integrator_id: str | None,
    *,
    now: datetime,
    settings: Settings,
) -> list[MissingEventItem]:
    """Return those that are subscribed, as they are at the time `now`."""
    budget = _budget(settings)
    return [
        MissingEventItem.of(
            one,
            key,
            integrator_id,
            state=one.state(now, budget),
            due_at=one.due_at(budget),
        )
        for one in missing
        if one.event_type in settings.events
    ]


def _budget(settings: Settings) -> timedelta:
    return retry_budget(
        interval=settings.retry_interval,
        count=settings.retry_count,
        timeout=settings.retry_timeout,
    )


_LIST = """
SELECT c.position, m.lab_id, m.bill_id, m.integrator_id, {as_json}
FROM state.checkpoint c
LEFT JOIN LATERAL (
    SELECT * FROM state.missing_event m
    WHERE {where}
    ORDER BY m.evidence_received_at, m.lab_id, m.bill_id, m.test_id, m.event_type
    LIMIT %s
) m ON true
ORDER BY m.evidence_received_at, m.lab_id, m.bill_id, m.test_id, m.event_type
"""


@get(
    "/v1/missing-events",
    opt=READ,
    operation_id="ListMissingEvents",
    responses={200: ok(Page[MissingEventItem], description="Oldest first.")},
)
async def list_missing_events(
    services: Services,
    missing_state: Annotated[
        MissingState | None,
        QueryParameter(name="state", description="What is to be said of it now.", required=False),
    ] = None,
    lab_id: str | None = None,
    event_type: EventType | None = None,
    certainty: Certainty | None = None,
    limit: Limit = DEFAULT_LIMIT,
    cursor: CursorText = None,
) -> Response[bytes]:
    """List the events that were sent and never came, the one missing longest first."""
    now = datetime.now(UTC)
    conditions: list[Composable] = [SQL("m.event_type = ANY(%s)")]
    values: list[Any] = [list(services.settings.events)]
    overdue_since = now - _budget(services.settings)
    if missing_state == "overdue":
        conditions.append(SQL("m.evidence_received_at <= %s"))
        values.append(overdue_since)
    elif missing_state == "awaiting_retry":
        conditions.append(SQL("m.evidence_received_at > %s"))
        values.append(overdue_since)
    elif missing_state is not None:  # nothing can be requested or waived yet
        conditions.append(SQL("false"))
    for column, value in (("lab_id", lab_id), ("event_type", event_type), ("certainty", certainty)):
        if value is not None:
            conditions.append(SQL(f"m.{column} = %s"))
            values.append(value)
    if after := read_cursor(cursor, int, str, str, str, str):
        conditions.append(
            SQL(
                "(m.evidence_received_at, m.lab_id, m.bill_id, m.test_id, m.event_type)"
                " > (%s, %s, %s, %s, %s)"
            )
        )
        values += [_from_microseconds(after[0]), *after[1:]]
    query = SQL(_LIST).format(as_json=SQL(AS_JSON_ARRAY), where=SQL(" AND ").join(conditions))
    rows = await services.fetch(query, [*values, limit + 1])
    found = [(row, decode_one(row[4])) for row in rows if row[1] is not None]
    shown = [
        item
        for row, stored in found[:limit]
        for item in items(
            [stored.folded()], (row[1], row[2]), row[3], now=now, settings=services.settings
        )
    ]
    following = None
    if len(found) > limit:
        row, last = found[limit - 1]
        received = _to_microseconds(last.evidence_received_at)
        following = write_cursor(received, row[1], row[2], last.test_id, last.event_type)
    return answer(page(map(encode, shown), following), rows[0][0])


_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def _to_microseconds(moment: datetime) -> int:
    return (moment - _EPOCH) // timedelta(microseconds=1)


def _from_microseconds(number: int) -> datetime:
    try:
        return _EPOCH + timedelta(microseconds=number)
    except OverflowError:
        return datetime.max.replace(tzinfo=UTC)  # a forged cursor: there is nothing after it
