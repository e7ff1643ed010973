"""The event log: its walls, its lane, and what the planner may do to it."""

import random
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from itertools import pairwise

import psycopg
import pytest
from msgspec.structs import replace
from psycopg import Connection
from psycopg.errors import InsufficientPrivilege, RestrictViolation

from ledger.eventlog import read
from ledger.eventlog.append import Delivery, Outcome, append
from ledger.model.digest import digest
from ledger.model.event import RANK
from ledger.postgres.connect import connect
from ledger.projection import store
from ledger.projection.projector import follow_once
from ledger.projection.rows import no_rows
from tests.support.histories import HOSTILE, RECEIVED, START, body, deliveries, delivery, respelled
from tests.support.sessions import one

CHANGES = {
    "update": "UPDATE {} SET position = position",
    "update of no row": "UPDATE {} SET position = position WHERE false",
    "update in a query": "WITH changed AS (UPDATE {} SET position = 7 RETURNING 1) TABLE changed",
    "delete": "DELETE FROM {}",
    "delete of no row": "DELETE FROM {} WHERE false",
    "truncate": "TRUNCATE {}",
    "truncate cascade": "TRUNCATE {} CASCADE",
    "merge that updates": "MERGE INTO {} t USING (VALUES (1::bigint)) v (n) ON t.position = v.n"
    " WHEN MATCHED THEN UPDATE SET lab_id = 'other'",
    "merge that deletes": "MERGE INTO {} t USING (VALUES (1::bigint)) v (n) ON t.position = v.n"
    " WHEN MATCHED THEN DELETE",
}
UPSERT = (
    "INSERT INTO ledger.event_log SELECT * FROM ledger.event_log"
    " ON CONFLICT (lab_id, bill_id, digest) DO UPDATE SET body = 'other'"
)
REFUSALS = [
    pytest.param(table, statement.format(table), id=f"{name} of {table}")
    for table in ("ledger.event_log", "ledger.erasable_body", "ledger.repeat_delivery")
    for name, statement in CHANGES.items()
] + [pytest.param("ledger.event_log", UPSERT, id="upsert of event_log")]


def log_with_a_repeat(connection: Connection) -> None:
    append(connection, [delivery(body()), delivery(body(), received=1), delivery(b"broken")])


def content(connection: Connection, table: str) -> list[tuple[object, ...]]:
    return connection.execute(f"SELECT * FROM {table}".encode()).fetchall()


AS_SERVICE = "SET LOCAL ROLE ledger_service"
BY_TRIGGER = (RestrictViolation, "append-only")
WHO = {
    "a superuser": ("", BY_TRIGGER),
    "a superuser whose triggers are off": (
        "SET LOCAL session_replication_role = replica",
        BY_TRIGGER,
    ),
    "the service": (AS_SERVICE, (InsufficientPrivilege, "permission denied")),
    "a service that was granted the right": (
        (
            "GRANT ALL ON ledger.event_log, ledger.erasable_body, ledger.repeat_delivery"
            f" TO ledger_service; {AS_SERVICE}"
        ),
        BY_TRIGGER,
    ),
}


@pytest.mark.parametrize("who", WHO)
@pytest.mark.parametrize(("table", "statement"), REFUSALS)
def test_a_change_is_refused(undone: Connection, table: str, statement: str, who: str) -> None:
    become, (error, words) = WHO[who]
    log_with_a_repeat(undone)
    before = content(undone, table)
    if become:
        undone.execute(become.encode())
    with pytest.raises(error, match=words), undone.transaction():
        undone.execute(statement.encode())
    assert content(undone, table) == before


@pytest.mark.parametrize("table", ["event_log", "erasable_body", "repeat_delivery", "policy"])
def test_the_service_holds_exactly_select_and_insert(undone: Connection, table: str) -> None:
    table = f"ledger.{table}"
    rights = ["SELECT", "INSERT", "UPDATE", "DELETE", "TRUNCATE", "REFERENCES", "TRIGGER"]
    held = [
        right
        for right in rights
        if one(undone, "SELECT has_table_privilege('ledger_service', %s, %s)", table, right)
    ]
    assert held == ["SELECT", "INSERT"]
    for right in ("UPDATE", "REFERENCES"):
        query = "SELECT has_any_column_privilege('ledger_service', %s, %s)"
        assert not one(undone, query, table, right)


@pytest.mark.parametrize(
    "statement",
    [
        "ALTER TABLE ledger.event_log DISABLE TRIGGER ALL",
        "ALTER TABLE ledger.repeat_delivery DISABLE TRIGGER ALL",
        "DROP TRIGGER event_log_is_append_only ON ledger.event_log",
        "DROP TABLE ledger.event_log",
        "DROP TABLE ledger.repeat_delivery",
        "ALTER TABLE ledger.event_log RENAME TO forgotten",
        "CREATE RULE quiet AS ON INSERT TO ledger.event_log DO INSTEAD NOTHING",
        "CREATE OR REPLACE FUNCTION refuse_change() RETURNS trigger LANGUAGE sql AS 'SELECT 1'",
        "SELECT * FROM ledger.event_log FOR UPDATE",
        "SET session_replication_role = replica",
    ],
)
def test_the_service_cannot_take_the_walls_down(undone: Connection, statement: str) -> None:
    undone.execute(AS_SERVICE)
    with pytest.raises(InsufficientPrivilege), undone.transaction():
        undone.execute(statement.encode())


@pytest.mark.parametrize(
    "event",
    [
        pytest.param(bytes(range(256)), id="each byte"),
        pytest.param(b"", id="empty"),
        pytest.param(random.Random(7).randbytes(1024 * 1024), id="1 MiB"),
        pytest.param(body(), id="an event"),
        pytest.param(respelled(body()), id="an event with white space"),
        *(pytest.param(event, id=name) for name, event in HOSTILE.items()),
    ],
)
def test_a_body_is_kept_byte_for_byte(undone: Connection, event: bytes) -> None:
    assert append(undone, [delivery(event)]) == [Outcome(1, recorded=True)]
    rows = undone.execute("SELECT body, digest FROM ledger.logged_event").fetchall()
    assert rows == [(event, digest(event))]


def test_the_view_shows_what_jsonb_can_hold_and_null_for_the_rest(service: Connection) -> None:
    good, bad = body(), b"hello"
    append(service, deliveries([good, bad]))
    rows = service.execute(
        "SELECT body = convert_from(%s, 'UTF8')::jsonb FROM ledger.event ORDER BY position",
        (good,),
    ).fetchall()
    assert rows == [(True,), (None,)]


def test_the_view_fails_for_no_hostile_body(service: Connection) -> None:
    events = [
        *HOSTILE.values(),
        b'{"a":' * 100_000,
        b'"' + b"x" * 1_000_000 + b'"',
        b"[" + b"1," * 500_000 + b"1]",
        b'{"a":"\\uD83D"}',
        b'{"a":"\\uDE00\\uD83D"}',
        b"1e131073",
        b"-" + b"9" * 200_000,
        b"0." + b"0" * 20_000 + b"1",
    ]
    append(service, deliveries(events))
    shown = service.execute("SELECT position, body::text FROM ledger.event").fetchall()
    assert len(shown) == len({digest(event) for event in events})


@pytest.mark.parametrize(("number", "count"), [(b"1e131071", 9_000), (b"1e-16383", 70_000)])
def test_the_view_fails_for_no_body_that_is_small_in_jsonb_and_huge_as_text(
    undone: Connection, number: bytes, count: int
) -> None:
    append(undone, [delivery(b"[" + b",".join([number] * count) + b"]")])
    assert undone.execute("SELECT length(body::text) FROM ledger.event").fetchone()


def test_events_take_their_places_in_the_order_given(service: Connection) -> None:
    """Whatever their times are, and over several batches."""
    events = [body(bill=f"B{number}", at=-number) for number in range(50)]
    given = [delivery(event, received=-number) for number, event in enumerate(events)]
    outcomes = append(service, given[:20]) + append(service, given[20:])
    assert outcomes == [Outcome(number + 1, recorded=True) for number in range(50)]
    stored = service.execute("SELECT body FROM ledger.logged_event ORDER BY position").fetchall()
    assert [found for (found,) in stored] == events


def test_no_deliveries_are_no_events(service: Connection) -> None:
    assert append(service, []) == []
    assert read.head(service) == 0


def test_a_repeat_within_a_batch_has_the_position_of_the_first(service: Connection) -> None:
    one_event, other = body(bill="B1"), body(bill="B2")
    given = [one_event, other, respelled(one_event), one_event, other]
    assert append(service, deliveries(given)) == [
        Outcome(1, recorded=True),
        Outcome(2, recorded=True),
        Outcome(1, recorded=False),
        Outcome(1, recorded=False),
        Outcome(2, recorded=False),
    ]
    bodies = service.execute(
        "SELECT position, body FROM ledger.logged_event ORDER BY position"
    ).fetchall()
    assert bodies == [(1, one_event), (2, other)]


def test_a_repeat_in_a_later_batch_has_the_position_of_the_first(service: Connection) -> None:
    append(service, deliveries([body(bill="B1"), body(bill="B2")]))
    outcomes = append(service, deliveries([body(bill="B3"), respelled(body(bill="B2")), b"x"]))
    assert outcomes == [
        Outcome(3, recorded=True),
        Outcome(2, recorded=False),
        Outcome(4, recorded=True),
    ]


def test_a_repeat_of_what_is_no_json_is_one_of_equal_bytes(service: Connection) -> None:
    outcomes = append(service, deliveries([b"hello", b"hello ", b"hello"]))
    assert [outcome.position for outcome in outcomes] == [1, 2, 1]


def test_events_whose_digests_begin_alike_are_two(service: Connection) -> None:
    first = delivery(body(bill="B"))
    alike = first.columns.digest[:31] + bytes(1)
    second = replace(delivery(body(bill="B", at=1)), columns=replace(first.columns, digest=alike))
    assert append(service, [first, second]) == [
        Outcome(1, recorded=True),
        Outcome(2, recorded=True),
    ]


def test_each_repeat_is_noted_with_its_event_and_its_own_time(service: Connection) -> None:
    event, unreadable = body(lab="L7"), b"hello"
    append(service, [delivery(event), delivery(event, received=2), delivery(unreadable)])
    append(service, [delivery(respelled(event), received=5, source="import")])
    append(service, [delivery(unreadable, received=6), delivery(body(bill="new"), received=7)])
    noted = service.execute(
        "SELECT lab_id, position, received_at, source FROM ledger.repeat_delivery"
        " ORDER BY received_at"
    ).fetchall()
    assert noted == [
        ("L7", 1, RECEIVED + timedelta(seconds=2), "webhook"),
        ("L7", 1, RECEIVED + timedelta(seconds=5), "import"),
        ("", 2, RECEIVED + timedelta(seconds=6), "webhook"),
    ]


def test_a_repeat_changes_nothing_of_its_event(service: Connection) -> None:
    append(service, [delivery(body())])
    before = content(service, "ledger.event_log")
    append(service, [delivery(respelled(body()), received=60, source="import")])
    assert content(service, "ledger.event_log") == before


@pytest.mark.parametrize("source", ["webhook", "import"])
def test_the_columns_hold_what_a_readable_body_says(undone: Connection, source: str) -> None:
    event = body("report.completed", lab="lab", bill="bill", at=5)
    moment = datetime(2024, 5, 6, 7, 8, 9, 123456, tzinfo=UTC)
    append(undone, [Delivery.of(event, received_at=moment, source=source)])  # type: ignore[arg-type]  # each of the two
    row = undone.execute(
        "SELECT position, received_at, event_time, source, lab_id, bill_id, event_type"
        " FROM ledger.event"
    ).fetchone()
    happened = datetime.fromtimestamp(START + 5, UTC)
    assert row == (1, moment, happened, source, "lab", "bill", "report.completed")


@pytest.mark.parametrize("event_type", [*RANK, "lead.created", "r", "=r", "é" * 200])
def test_a_type_is_shown_as_it_was_sent(undone: Connection, event_type: str) -> None:
    """Also one that looks like what stands for another in the log."""
    append(undone, [delivery(body(event_type))])
    assert one(undone, "SELECT event_type FROM ledger.event") == event_type


@pytest.mark.parametrize("second", [946_684_800, 4_133_980_799])
def test_each_time_that_an_event_can_have_fits(undone: Connection, second: int) -> None:
    append(undone, [delivery(body(at=second - START))])
    moment = one(undone, "SELECT event_time FROM ledger.event")
    assert moment == datetime.fromtimestamp(second, UTC)


@pytest.mark.slow
@pytest.mark.parametrize("size", [332, 336, 341, 350])
def test_an_event_takes_at_most_2_2_times_its_body(service: Connection, size: int) -> None:
    """With indexes, of the usual size and with ids that count up, which suit the key least."""
    events = []
    for number in range(9_000):
        bill = f"bill_size0_{number // 5}"
        start = body("report.completed", lab="lab_67890", bill=bill, at=number)
        events.append(start + b" " * (size - len(start)))
    append(service, deliveries(events))
    query = "SELECT sum(octet_length(body)) * 2.2 > pg_total_relation_size('ledger.event_log')"
    assert one(service, f"{query} FROM ledger.event_log")
    assert one(service, "SELECT max(octet_length(body)) FROM ledger.logged_event") == size


@pytest.mark.parametrize(
    ("event", "said"),
    [
        (b"hello", ("", "", "", None)),
        (b"[]", ("", "", "", None)),
        (b'{"labID":"L"}', ("L", "", "", None)),
        (b'{"labID":7,"data":{"billID":"B"}}', ("", "B", "", None)),
        (b'{"labID":"L","data":"B","eventType":"bill.created"}', ("L", "", "bill.created", None)),
        (b'{"labID":"L","data":{"billID":""},"eventTime":"x"}', ("L", "", "", None)),
        (
            b'{"labID":"L\\u0000","eventTime":1705747800,"data":{"billID":"\\ud800"}}',
            ("", "", "", START),
        ),
        (b'{"labID":"' + b"x" * 201 + b'","data":{"billID":"B"}}', ("", "B", "", None)),
        (b'{"labID":"L","eventTime":1e400}', ("L", "", "", None)),
        (b'{"labID":"L","eventTime":99999999999}', ("L", "", "", None)),
        (b'{"labID":"L","eventTime":' + b"9" * 5000 + b"}", ("L", "", "", None)),
    ],
)
def test_the_columns_hold_what_an_unreadable_body_says_in_spite_of_it(
    undone: Connection, event: bytes, said: tuple[str, str, str, int | None]
) -> None:
    append(undone, [delivery(event)])
    query = "SELECT lab_id, bill_id, event_type, extract(epoch FROM event_time)::bigint"
    assert undone.execute(f"{query} FROM ledger.event".encode()).fetchall() == [said]


def test_ids_of_the_greatest_length_fit_every_key(service: Connection) -> None:
    """200 characters of four bytes each, of random ones, which no index can compress."""
    chance = random.Random(3)

    def long_id() -> str:
        return "".join(chr(chance.randrange(0x10000, 0x10FFFF)) for _ in range(200))

    tests: dict[str, str | None] = {long_id(): "completed", long_id(): "pending"}
    event = body("bill.completed", lab=long_id(), bill=long_id(), tests=tests)
    append(service, [delivery(event)])
    read.keep_to_indexes(service)
    follow_once(service, 1)
    assert one(service, "SELECT count(*) FROM state.report") == 2
    assert one(service, "SELECT count(*) FROM state.parked_bill") == 0


def test_the_head_of_an_empty_log_is_0(service: Connection) -> None:
    assert read.head(service) == 0


def test_the_head_is_the_last_position(service: Connection) -> None:
    append(service, deliveries([body(), b"1", body()]))
    assert read.head(service) == 2


def test_an_append_that_is_rolled_back_leaves_no_gap(service: Connection) -> None:
    append(service, [delivery(body(bill="B1"))])
    with service.transaction(force_rollback=True):
        assert append(service, deliveries([b"1", b"2", b"3"]))[-1].position == 4
    assert append(service, [delivery(body(bill="B2"))]) == [Outcome(2, recorded=True)]
    assert read.head(service) == 2


def test_an_event_whose_append_was_rolled_back_is_new_the_next_time(service: Connection) -> None:
    with service.transaction(force_rollback=True):
        append(service, [delivery(body()), delivery(body())])
    assert append(service, [delivery(body())]) == [Outcome(1, recorded=True)]
    assert content(service, "ledger.repeat_delivery") == []


def test_appends_of_one_transaction_follow_each_other(service: Connection) -> None:
    with service.transaction():
        first = append(service, [delivery(body(bill="B1"))])
        with service.transaction(force_rollback=True):
            append(service, [delivery(b"undone")])
        second = append(service, [delivery(body(bill="B1")), delivery(body(bill="B2"))])
    assert first == [Outcome(1, recorded=True)]
    assert second == [Outcome(1, recorded=False), Outcome(2, recorded=True)]


def test_a_batch_of_which_one_is_refused_is_not_stored_at_all(
    service: Connection, owner: Connection
) -> None:
    owner.execute("ALTER TABLE ledger.event_log ADD CONSTRAINT no CHECK (bill_id <> 'refused')")
    batch = deliveries([body(bill="B1"), body(bill="refused"), body(bill="B1")])
    with pytest.raises(psycopg.errors.CheckViolation):
        append(service, batch)
    assert content(service, "ledger.event_log") == content(service, "ledger.repeat_delivery") == []


def test_an_append_gives_a_hint_when_it_is_committed(
    service: Connection, owner: Connection
) -> None:
    owner.execute("LISTEN ledger_event_log")
    with service.transaction(force_rollback=True):
        append(service, [delivery(b"undone")])
    append(service, [delivery(body())])
    hints = list(owner.notifies(timeout=10, stop_after=1))
    assert [hint.channel for hint in hints] == ["ledger_event_log"]


# --- the planner ------------------------------------------------------------------------------

LARGE = 15_000
ROUND = 300
SMALL = 3


class Scans:
    """Counts how a table was read since the count began."""

    def __init__(self, url: str, table: str, *connections: Connection) -> None:
        self._url = url
        self._table = table
        self._connections = connections
        self._before = self._read()

    def _read(self) -> tuple[int, int]:
        for connection in self._connections:
            connection.execute("SELECT pg_stat_force_next_flush()")
        with psycopg.connect(self._url) as connection:
            row = connection.execute(
                "SELECT t.seq_scan, sum(i.idx_tup_read)::bigint FROM pg_stat_all_tables t"
                " JOIN pg_stat_all_indexes i USING (relid)"
                " WHERE t.relid = %s::regclass GROUP BY t.seq_scan",
                (self._table,),
            ).fetchone()
        assert row
        return (row[0], row[1])

    def since(self) -> tuple[int, int]:
        """Return the sequential scans, and the entries read from indexes."""
        before, now = self._before, self._read()
        return (now[0] - before[0], now[1] - before[1])


STATE_TABLES = ("state.bill", "state.missing_event", "state.parked_bill")


@pytest.fixture(params=["never analyzed", "log analyzed while small"])
def grown(
    request: pytest.FixtureRequest, database_url: str, owner: Connection
) -> Iterator[tuple[str, Connection, Connection, list[Delivery]]]:
    """Give a log and a state that grew from empty in one session each.

    What the planner knows of their size is wrong, and it planned when they were small.
    """
    for table in (
        "ledger.event_log",
        "ledger.repeat_delivery",
        *STATE_TABLES,
        "state.unreadable_event",
    ):
        owner.execute(f"ALTER TABLE {table} SET (autovacuum_enabled = off)".encode())
    events = deliveries(
        body(event_type, bill=f"B{bill}", lab=f"L{bill % 7}", tests={"T": "completed"})
        for bill in range(LARGE // 3)
        for event_type in ("report.completed", "bill.completed", "bill.created")
    )
    with connect(database_url, "test") as writer, connect(database_url, "test") as projector:
        read.keep_to_indexes(projector)
        small = list(range(0, 20 * SMALL, SMALL))
        large = list(range(20 * SMALL, LARGE, ROUND))
        for start, end in pairwise([*small, *large, LARGE]):
            append(writer, events[start:end])
            assert follow_once(projector, end).events == end - start
            if start == 0 and request.param == "log analyzed while small":
                owner.execute("ANALYZE ledger.event_log, ledger.repeat_delivery")
        known = one(
            owner, "SELECT reltuples FROM pg_class WHERE oid = 'ledger.event_log'::regclass"
        )
        assert known == (-1 if request.param == "never analyzed" else SMALL)
        yield database_url, writer, projector, events


@pytest.mark.slow
def test_a_log_grown_from_empty_is_never_scanned(
    grown: tuple[str, Connection, Connection, list[Delivery]],
) -> None:
    """Not by the lane, the projector or the replacement of a bill's rows, whatever was planned."""
    url, writer, projector, events = grown

    log = Scans(url, "ledger.event_log", writer)
    new = deliveries(body(bill=f"new{number}") for number in range(ROUND))
    append(writer, new + events[:: LARGE // ROUND])
    read.head(writer)
    scans, entries = log.since()
    assert scans == 0
    assert entries <= 4 * ROUND, "an index was read from end to end"

    log = Scans(url, "ledger.event_log", projector)
    rows = list(read.after(projector, LARGE - 50, LARGE + ROUND, 100))
    scans, entries = log.since()
    assert (len(rows), scans) == (100, 0)
    assert entries <= 200

    keys = [(f"L{bill % 7}", f"B{bill}") for bill in range(0, LARGE // 3, 40)]
    log = Scans(url, "ledger.event_log", projector)
    history = list(read.of_bills(projector, keys, LARGE))
    scans, entries = log.since()
    assert (len(history), scans) == (3 * len(keys), 0)
    assert entries <= 10 * len(keys)

    states = {table: Scans(url, table, projector) for table in STATE_TABLES}
    store.replace_bills(projector, "state", keys, no_rows())
    for table, count in states.items():
        scans, entries = count.since()
        assert scans == 0, table
        assert entries <= 4 * len(keys), table

    counts = {table: Scans(url, table, projector) for table in ("ledger.event_log", *STATE_TABLES)}
    assert follow_once(projector, LARGE + ROUND).bills == ROUND
    for table, count in counts.items():
        scans, entries = count.since()
        assert scans == 0, table
        assert entries <= 8 * ROUND, table
