"""The list of reports: what it reads of the state for a few of very many."""

from collections.abc import Iterator
from typing import Any

import pytest
from msgspec.structs import asdict
from psycopg import Connection
from psycopg.sql import Composed

from ledger.api import reports
from ledger.api.reports import Wanted, list_queries
from ledger.database import connect
from ledger.eventlog.append import append
from tests.integration.histories import body, deliveries
from tests.integration.sessions import drain, one
from tests.support.version_2 import TO_VERSION_2

BILLS = 20_000
MIDDLE = BILLS // 2
LIMIT = 10
NEAR = 100
"""Bills that are gone through for a test, here."""
FEW_PAGES = 300

# One test is of every bill, one of each hundredth, many of each thousandth, one of a single bill.
_FILL = f"""
INSERT INTO state.bill (lab_id, bill_id, position, state, summary, reports, test_ids, completed)
SELECT
    'L' || n % 20, 'B' || n, n, 'open', '{{}}',
    (SELECT json_agg(json_build_object('test_id', test)) FROM unnest(tests) AS test),
    tests, ARRAY[n % 500 <> 1, true, n <> 7]
FROM (
    SELECT
        n,
        ARRAY[
            'all',
            CASE n % 100 WHEN 3 THEN 'some' ELSE 'few' || n % 1000 END,
            CASE n WHEN 7 THEN 'one' ELSE 'own' || n END
        ] AS tests
    FROM generate_series(1, {BILLS}) AS n
) AS bills;
"""

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
def large(shared_database_url: str) -> Iterator[Connection]:
    """A connection like those of the API to a state of many bills."""
    with connect(shared_database_url, "test") as connection:
        connection.execute("ALTER TABLE state.bill SET (autovacuum_enabled = off)")
        connection.execute(_FILL.encode())
        connection.execute("ANALYZE state.bill")
        connection.execute("SET enable_seqscan = off")
        yield connection


@pytest.fixture(autouse=True)
def few_are_near(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reports, "NEAR", NEAR)


def asked(connection: Connection, wanted: Wanted, query: Composed) -> list[tuple[Any, ...]]:
    return connection.execute(query, {**asdict(wanted), "limit": LIMIT}).fetchall()


def listed(connection: Connection, wanted: Wanted) -> list[tuple[Any, ...]]:
    """Return the rows of the first query that fills the list, or of the last."""
    rows: list[tuple[Any, ...]] = []
    for query in list_queries(wanted):
        rows = asked(connection, wanted, query)
        if len(rows) == LIMIT:
            break
    return rows


@pytest.mark.parametrize("wanted", QUESTIONS, ids=str)
def test_of_many_reports_only_those_are_read_that_are_listed(
    large: Connection, wanted: Wanted
) -> None:
    """Pages of tables and indexes, that is: few, whatever is asked for."""
    pages = 0
    for query in list_queries(wanted):
        explained = b"EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) " + query.as_bytes(large)
        values = {**asdict(wanted), "limit": LIMIT}
        ((plan,),) = large.execute(explained, values).fetchall()
        top = plan[0]["Plan"]
        pages += top["Shared Hit Blocks"] + top["Shared Read Blocks"]
        if top["Actual Rows"] == LIMIT:
            break
    assert pages < FEW_PAGES


@pytest.mark.parametrize("wanted", QUESTIONS, ids=str)
def test_a_list_of_reports_is_that_of_all_bills_whose_rest_is_left_out(
    large: Connection, wanted: Wanted
) -> None:
    """However it is found: as the view has it when all of it is read and sorted."""
    (whole,) = list_queries(wanted, version=2)
    assert listed(large, wanted) == asked(large, wanted, whole)


def test_state_with_a_table_of_reports_is_listed_as_well(service: Connection) -> None:
    append(service, deliveries(body(bill=f"B{n}", tests={"T": "completed"}) for n in range(3)))
    drain(service)
    questions = [Wanted(test_id="T"), Wanted(completed=True), Wanted(completed=False), Wanted()]
    before = [listed(service, wanted) for wanted in questions]
    assert list(map(len, before)) == [3, 3, 1, 3]  # one row of nothing tells the position
    service.execute(TO_VERSION_2.encode())
    for wanted, rows in zip(questions, before, strict=True):
        (query,) = list_queries(wanted, version=2)
        assert asked(service, wanted, query) == rows


def test_what_is_done_with_a_bill_is_done_with_its_reports(service: Connection) -> None:
    tests: dict[str, str | None] = {"A": None, "B": "completed"}
    append(service, deliveries([body(bill="B", tests=tests)]))
    drain(service)
    append(service, deliveries([body("report.completed", bill="B", tests={"A": "completed"})]))
    head = drain(service)
    query = (
        "SELECT test_id, position, is_completed, report ->> 'test_id' FROM state.report ORDER BY 1"
    )
    found = service.execute(query).fetchall()
    assert found == [("A", head, True, "A"), ("B", head, True, "B")]
    arrays = "SELECT (test_ids, completed)::text FROM state.bill"
    assert one(service, arrays) == '("{A,B}","{t,t}")'
