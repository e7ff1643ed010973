"""The public views: a contract in SQL, for people and report tools."""

from datetime import UTC, datetime, timedelta

import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from psycopg import Connection

from ledger import schema
from ledger.errors import SchemaError
from ledger.eventlog.append import append
from ledger.model.missing_events import Evidence, MissingEvent
from ledger.operations import policy
from ledger.operations.loss_windows import read_windows
from ledger.operations.missing_events.queries import LAST_POSITION
from ledger.operations.policy import Policy
from ledger.operations.read_models import LossWindow
from ledger.operations.support_requests.queries import read_request
from ledger.projection import rebuild
from ledger.projection.store import VIEWS
from ledger.settings import Settings
from tests.support.decisions import (
    decided,
    report_of,
    request_closed,
    request_made,
    requested,
    span,
    waived,
    window_closed,
)
from tests.support.histories import RECEIVED, body, deliveries, delivery
from tests.support.sessions import drain, one
from tests.support.sql_document import PATH, sql_document

pytestmark = pytest.mark.slow

SECOND = timedelta(seconds=1)
DEFAULT = Policy.of(Settings())


def fill(connection: Connection) -> None:
    """Append two bills, of which one lacks a report that was asked for and one was waived."""
    both: dict[str, str | None] = {"a": "completed", "b": "completed"}
    events = [
        body(bill="whole", tests={"a": None}, integratorID="i1"),
        body("report.completed", bill="whole", at=5, tests={"a": "completed"}),
        body("bill.completed", bill="whole", at=9, tests={"a": "completed"}, status="completed"),
        body(bill="B", tests={"a": None, "b": None}, integratorID="i2"),
        body("bill.completed", bill="B", at=9, tests=both, status="completed"),
        b"not JSON",
    ]
    append(connection, deliveries(events))
    append(connection, [delivery(events[0], received=60)])
    append(
        connection,
        [
            decided(request_made(lines=1)),
            decided(requested(report_of("a"))),
            decided(waived(report_of("b"))),
        ],
    )
    drain(connection)


def test_the_document_describes_the_views(database_url: str) -> None:
    assert PATH.read_text(encoding="utf-8") == sql_document(database_url), "run make sql-schema"


def test_every_view_and_column_has_a_comment(owner: Connection) -> None:
    query = """
        SELECT c.relname, a.attname
        FROM pg_class c
        JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0
        WHERE
            c.relnamespace = 'ledger'::regnamespace AND c.relname = ANY(%s)
            AND (obj_description(c.oid) IS NULL OR col_description(c.oid, a.attnum) IS NULL)
    """
    assert owner.execute(query, (list(VIEWS),)).fetchall() == []


def test_a_reader_reads_the_views_and_nothing_else(service: Connection, owner: Connection) -> None:
    fill(service)
    owner.execute("SET ROLE ledger_reader")
    for view in VIEWS:
        owner.execute(f"SELECT * FROM ledger.{view}".encode()).fetchall()
    owner.execute("RESET ROLE")
    others = owner.execute(
        """
        SELECT c.oid::regclass::text
        FROM pg_class c
        WHERE
            c.relnamespace IN ('ledger'::regnamespace, 'state'::regnamespace)
            AND c.relkind IN ('r', 'v') AND c.relname <> ALL(%s)
            AND has_table_privilege('ledger_reader', c.oid, 'SELECT, INSERT, UPDATE, DELETE')
        """,
        ([*VIEWS],),
    ).fetchall()
    assert others == []
    assert not one(owner, "SELECT has_schema_privilege('ledger_reader', 'state', 'USAGE')")
    assert not one(owner, "SELECT has_schema_privilege('ledger_reader', 'ledger', 'CREATE')")
    for view in VIEWS:
        query = "SELECT has_table_privilege('ledger_reader', %s, 'INSERT, UPDATE, DELETE')"
        assert not one(owner, query, f"ledger.{view}")


def test_nothing_is_in_the_schema_public(owner: Connection) -> None:
    query = "SELECT count(*) FROM pg_class WHERE relnamespace = 'public'::regnamespace"
    assert one(owner, query) == 0


def test_a_view_that_others_built_survives_a_rebuild(
    database_url: str, service: Connection, owner: Connection
) -> None:
    fill(service)
    owner.execute("CREATE VIEW public.open_bills AS SELECT * FROM ledger.bill WHERE missing > 0")
    owner.execute("GRANT SELECT ON public.open_bills TO ledger_reader")
    before = owner.execute("SELECT * FROM public.open_bills").fetchall()
    assert before
    rebuild.rebuild(database_url, processes=1, started_at=RECEIVED, on_progress=lambda *_: None)
    assert owner.execute("SELECT * FROM public.open_bills").fetchall() == before
    append(service, deliveries([body(bill="new", integratorID="i3")]))
    drain(service)
    owner.execute("SET ROLE ledger_reader")
    assert one(owner, "SELECT integrator_id FROM ledger.bill WHERE bill_id = 'new'") == "i3"


def test_the_views_answer_an_operators_questions(service: Connection) -> None:
    fill(service)

    def ask(query: str) -> list[tuple[object, ...]]:
        return list(service.execute(query.encode()))

    where = "WHERE bill_id = 'B'"
    assert ask(f"SELECT state, reports_total, missing, overdue FROM ledger.bill {where}") == [
        ("completed", 2, 2, 0)
    ]
    assert ask("SELECT bill_id FROM ledger.bill WHERE integrator_id = 'i1'") == [("whole",)]
    assert ask("SELECT evidence FROM ledger.report WHERE bill_id = 'whole'") == [
        ("report.completed",)
    ]
    assert ask("SELECT test_id, state, is_overdue, request FROM ledger.missing_event") == [
        ("a", "requested", False, 1),
        ("b", "waived", False, None),
    ]
    assert ask("SELECT number, state, lines_requested, made_by FROM ledger.support_request") == [
        (1, "open", 1, "ann")
    ]
    assert ask("SELECT number, bill_id, test_id, state FROM ledger.support_request_line") == [
        (1, "B", "a", "requested")
    ]
    assert ask("SELECT lab_id, missing, overdue FROM ledger.lab") == [("L", 2, 0)]
    assert ask("SELECT position, is_first FROM ledger.delivery WHERE NOT is_first") == [(1, False)]
    assert ask("SELECT unreadable_reason FROM ledger.event WHERE unreadable_path = '$'") == [
        ("not_json",)
    ]
    assert ask("SELECT body -> 'data' ->> 'billID' FROM ledger.event WHERE position = 4") == [
        ("B",)
    ]


def test_what_is_overdue_depends_on_the_policy(service: Connection) -> None:
    now = datetime.now(UTC)
    seconds = (now - RECEIVED).total_seconds()
    proof = body("bill.completed", tests={"a": "completed"})
    append(service, [delivery(proof, received=int(seconds) - 500)])
    drain(service)
    query = "SELECT DISTINCT is_overdue FROM ledger.missing_event"
    assert one(service, query) is True
    policy.store(service, {"retry_interval": 3_600}, by="ann")
    assert one(service, query) is False
    assert one(service, "SELECT overdue FROM ledger.bill") == 0


_moments = st.none() | st.integers(-3, 3).map(lambda seconds: RECEIVED + seconds * SECOND)


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(_moments, _moments, st.integers(-3, 3), st.integers(-3, 3))
def test_the_state_of_a_missing_event_is_the_same_in_sql(
    undone: Connection,
    requested_at: datetime | None,
    waived_at: datetime | None,
    received: int,
    asked: int,
) -> None:
    now, budget = RECEIVED + asked * SECOND, 2 * SECOND
    evidence = Evidence(1, "bill.created", RECEIVED, RECEIVED + received * SECOND)
    missing = MissingEvent(
        event_type="bill.completed",
        test_id=None,
        certainty="certain",
        count=1,
        evidence=evidence,
        requested_at=requested_at,
        waived_at=waived_at,
    )
    query = (
        "SELECT ledger.missing_event_state(%s::timestamptz, %s::timestamptz, %s::timestamptz,"
        " %s::timestamptz)"
    )
    in_sql = one(undone, query, waived_at, requested_at, missing.due_at(budget), now)
    assert in_sql == missing.state(now, budget)


def told_by_view(connection: Connection) -> list[tuple[object, ...]]:
    query = "SELECT begins_at, ends_at, lab_id, state FROM ledger.loss_window"
    return sorted(connection.execute(query), key=repr)


def _labs(window: LossWindow) -> list[str | None]:
    return [*window.labs] or [None]


def told_by_python(connection: Connection) -> list[tuple[object, ...]]:
    # One transaction, so that now() and the rows are those of one moment.
    now = one(connection, "SELECT now()")
    return sorted(
        (
            (window.begin, window.end, lab, window.state)
            for window in read_windows(connection, DEFAULT, now, position=LAST_POSITION)
            for lab in _labs(window)
        ),
        key=repr,
    )


def test_loss_windows_are_the_same_in_sql(owner: Connection, service: Connection) -> None:
    def alive(begin: int, end: int) -> None:
        owner.execute(
            "INSERT INTO ledger.liveness VALUES (gen_random_uuid(), %s, %s)",
            (RECEIVED + begin * SECOND, RECEIVED + end * SECOND),
        )

    for begin, end in ((0, 100), (90, 110), (2_000, 2_100), (2_300, 2_400), (9_000, 10_000)):
        alive(begin, end)
    append(
        service,
        [
            delivery(body(lab="K", bill="1"), received=50),
            delivery(body(lab="K", bill="2"), received=9_500),
            delivery(body(lab="M", bill="3"), received=60),
            delivery(body(lab="M", bill="4"), received=2_050),
        ],
    )
    drain(service)
    with service.transaction():
        assert told_by_view(service) == told_by_python(service)
        assert len(told_by_view(service)) > 3
    first = span(RECEIVED + 110 * SECOND, RECEIVED + 900 * SECOND, "K")
    middle = span(RECEIVED + 300 * SECOND, RECEIVED + 500 * SECOND)
    append(
        service,
        [
            decided(request_made(1, windows=[first])),
            decided(window_closed(middle)),
            decided(request_made(2, windows=[span(first.begin, first.end, "M")])),
            decided(request_closed(2)),
        ],
    )
    drain(service)
    with service.transaction():
        found = told_by_view(service)
        assert found == told_by_python(service)
    assert {state for *_, state in found} == {"open", "requested", "closed"}
    for number in (1, 2):
        state = one(service, "SELECT state FROM ledger.support_request WHERE number = %s", number)
        assert state == read_request(service, number).state


def test_somebody_elses_schema_is_refused_before_anything_is_touched(
    empty_database_url: str,
) -> None:

    with psycopg.connect(empty_database_url, autocommit=True) as owner:
        owner.execute("CREATE SCHEMA state; CREATE TABLE state.bill (theirs text)")
        with pytest.raises(SchemaError, match="schema state that is not Ledger's"):
            schema.migrate(empty_database_url)
        assert one(owner, "SELECT to_regnamespace('ledger') IS NULL")
