"""Searches of the log: nothing is left out between two parts, and none looks at too much."""

from collections.abc import Iterator
from contextlib import closing

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from psycopg import Connection

from ledger.eventlog.append import append
from ledger.operations import log_search
from ledger.operations.log_search import FoundEvents, LogSearch, found, search_query
from ledger.postgres.connect import connect
from tests.support.examples import examples
from tests.support.histories import body, delivery

pytestmark = pytest.mark.slow

EVENTS = 40
TYPES = ("bill.created", "bill.completed", "lead.created")
LABS = ("lab_0", "lab_1", "lab_2")


@pytest.fixture(scope="module")
def log(module_database_url: str) -> Iterator[Connection]:
    """Give a connection to a log in which types and labs alternate."""
    with closing(connect(module_database_url, "test")) as connection:
        deliveries = [
            delivery(body(TYPES[n % 3], bill=f"b{n}", lab=LABS[n // 3 % 3])) for n in range(EVENTS)
        ]
        append(connection, deliveries)
        yield connection


def search(log: Connection, wanted: LogSearch) -> FoundEvents:
    query, values = search_query(wanted)
    return found(wanted, log.execute(query, values).fetchall())


@settings(max_examples=examples(30))
@given(
    limit=st.integers(1, 9),
    looked_at=st.integers(1, 12),
    backwards=st.booleans(),
    event_type=st.sampled_from([None, *TYPES]),
    labs=st.sampled_from([None, ("lab_1",), ("lab_0", "lab_2"), ("nowhere",)]),
)
def test_parts_hold_each_event_once(
    log: Connection,
    *,
    limit: int,
    looked_at: int,
    backwards: bool,
    event_type: str | None,
    labs: tuple[str, ...] | None,
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(log_search, "LOOKED_AT", looked_at)
        start: int | None = EVENTS if backwards else 1
        seen: list[int] = []
        while start is not None:
            wanted = LogSearch(
                start=start, backwards=backwards, limit=limit, labs=labs, event_type=event_type
            )
            part = search(log, wanted)
            assert part.head == EVENTS
            assert len(part.events) <= limit
            seen += [one.position for one in part.events]
            step = -1 if backwards else 1
            if len(part.events) == limit:
                start = part.events[-1].position + step
            else:
                start = part.stopped_at + step if part.stopped_at else None
    expected = [
        n + 1
        for n in range(EVENTS)
        if event_type in (None, TYPES[n % 3]) and (labs is None or LABS[n // 3 % 3] in labs)
    ]
    assert seen == (expected[::-1] if backwards else expected)
