"""The list of reports: what it reads of the state for a few of very many."""

from collections.abc import Iterator
from typing import Any

import pytest
from msgspec.structs import asdict
from psycopg import Connection
from psycopg.sql import SQL, Composed

from ledger.api.handlers.reports import Wanted, list_query
from ledger.eventlog.append import append
from ledger.postgres.connect import connect
from tests.support.histories import body, deliveries
from tests.support.sessions import drain, one

BILLS = 20_000
MIDDLE = BILLS // 2
LIMIT = 10
FEW_PAGES = 400

# One test is of every bill, one of each hundredth, many of each thousandth, one of a single bill.
_FILL = f"""
INSERT INTO state.report (lab_id, bill_id, test_id, completed_at, evidence, position)
SELECT
    'L' || n % 20,
    'B' || n,
    t.test_id,
    CASE WHEN t.completed THEN now() END,
    CASE WHEN t.completed THEN 'report.completed' END,
    n
FROM generate_series(1, {BILLS}) AS n
CROSS JOIN LATERAL (
    VALUES
        ('all', n % 500 <> 1),
        (CASE n % 100 WHEN 3 THEN 'some' ELSE 'few' || n % 1000 END, true),
        (CASE n WHEN 7 THEN 'one' ELSE 'own' || n END, n <> 7)
) AS t (test_id, completed);
INSERT INTO state.bill (
    lab_id, bill_id, state, reports_total, reports_completed, findings, events,
    first_received_at, last_received_at, last_event_at, position, missing
)
SELECT
    lab_id, bill_id, 'open', count(*), count(evidence), '{{}}', 1, now(), now(), now(), position, 0
FROM state.report
GROUP BY lab_id, bill_id, position;
"""

_WHOLE = SQL("""
SELECT
    c.position,
    r.position,
    r.lab_id,
    r.bill_id,
    r.integrator_id,
    r.test_id,
    r.status,
    r.completed_at,
    r.evidence
FROM state.checkpoint c
LEFT JOIN LATERAL (
    SELECT *
    FROM ledger.report r
    WHERE (%(lab_id)s::text IS NULL OR r.lab_id = %(lab_id)s)
        AND (%(test_id)s::text IS NULL OR r.test_id = %(test_id)s)
        AND (%(completed)s::boolean IS NULL OR (r.completed_at IS NOT NULL) = %(completed)s)
        AND (%(changed_after)s::bigint IS NULL OR r.position > %(changed_after)s)
        AND (
            %(position)s::bigint IS NULL
            OR (r.position, r.test_id) < (%(position)s, %(test)s::text COLLATE "C")
        )
    ORDER BY r.position DESC, r.test_id DESC
    LIMIT %(limit)s
) r ON true
ORDER BY r.position DESC, r.test_id DESC
""")

QUESTIONS = [
    Wanted(),
    Wanted(completed=True),
    Wanted(completed=False),
    Wanted(lab_id="L3"),
    Wanted(lab_id="nobody"),
    Wanted(lab_id="L1", completed=False),
    Wanted(test_id="all"),
    Wanted(test_id="all", completed=True),
    Wanted(test_id="all", completed=False),
    Wanted(test_id="some"),
    Wanted(test_id="some", completed=False),
    Wanted(test_id="one"),
    Wanted(test_id="one", completed=True),
    Wanted(test_id="one", completed=False),
    Wanted(test_id="nobody"),
    Wanted(lab_id="L3", test_id="all"),
    Wanted(lab_id="L7", test_id="one"),
    Wanted(position=MIDDLE, test="all"),
    Wanted(position=MIDDLE, test="all", completed=False),
    Wanted(position=MIDDLE, test="all", test_id="all"),
    Wanted(changed_after=BILLS - 100),
    Wanted(changed_after=BILLS - 100, test_id="all"),
    Wanted(changed_after=5, test_id="one"),
]


@pytest.fixture(scope="module")
def large(module_database_url: str) -> Iterator[Connection]:
    """A connection like those of the API to a state of many bills."""
    with connect(module_database_url, "test") as connection:
        connection.execute("ALTER TABLE state.bill SET (autovacuum_enabled = off)")
        connection.execute("ALTER TABLE state.report SET (autovacuum_enabled = off)")
        connection.execute(_FILL.encode())
        connection.execute("ANALYZE state.bill, state.report")
        connection.execute("SET enable_seqscan = off")
        yield connection


def asked(connection: Connection, wanted: Wanted, query: SQL | Composed) -> list[tuple[Any, ...]]:
    return connection.execute(query, {**asdict(wanted), "limit": LIMIT}).fetchall()


@pytest.mark.parametrize("wanted", QUESTIONS, ids=str)
def test_of_many_reports_only_those_are_read_that_are_listed(
    large: Connection, wanted: Wanted
) -> None:
    """Pages of tables and indexes, that is: few, whatever is asked for."""
    explained = b"EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) " + list_query(wanted).as_bytes(large)
    values = {**asdict(wanted), "limit": LIMIT}
    ((plan,),) = large.execute(explained, values).fetchall()
    top = plan[0]["Plan"]
    pages = top["Shared Hit Blocks"] + top["Shared Read Blocks"]
    assert pages < FEW_PAGES


@pytest.mark.parametrize("wanted", QUESTIONS, ids=str)
def test_a_list_of_reports_is_that_of_all_bills_whose_rest_is_left_out(
    large: Connection, wanted: Wanted
) -> None:
    """However it is found: as the view has it when all of it is read and sorted."""
    assert asked(large, wanted, list_query(wanted)) == asked(large, wanted, _WHOLE)


def test_what_is_done_with_a_bill_is_done_with_its_reports(service: Connection) -> None:
    tests: dict[str, str | None] = {"A": None, "B": "completed"}
    append(service, deliveries([body(bill="B", tests=tests)]))
    drain(service)
    append(service, deliveries([body("report.completed", bill="B", tests={"A": "completed"})]))
    head = drain(service)
    query = "SELECT test_id, position, evidence FROM state.report ORDER BY 1"
    found = service.execute(query).fetchall()
    assert found == [("A", head, "report.completed"), ("B", head, "bill.created")]
    assert one(service, "SELECT reports_completed FROM state.bill") == 2
