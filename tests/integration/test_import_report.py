"""What an import says of itself: what it settled, what is still open, what was sent again."""

import io
import json
from collections.abc import Sequence

import pytest
from psycopg import Connection

from ledger.errors import DecisionError
from ledger.eventlog import read
from ledger.eventlog.append import append
from ledger.eventlog.import_files import ImportFile
from ledger.eventlog.import_values import Options
from ledger.operations.support_requests import imports
from ledger.operations.support_requests.imports import ImportReport, SettledLine, import_file
from ledger.operations.support_requests.make import make_request
from ledger.operations.support_requests.queries import read_request
from tests.support.decisions import OPERATOR, POLICY
from tests.support.histories import START, body, deliveries
from tests.support.sessions import LONG, drain, one

TEST: dict[str, str | None] = {"a": "completed"}
COMPLETED = body("bill.completed", at=9, tests=TEST)
"""It proves that bill.created and the report of test a were lost."""

CREATED = body(tests={"a": "open"})
REPORT = body("report.completed", at=5, tests=TEST)


@pytest.fixture
def asked(database_url: str, service: Connection) -> Connection:
    """Give a log in which support was asked for two events of bill B."""
    append(service, deliveries([COMPLETED]))
    made = make_request(
        database_url,
        POLICY,
        lab_id=None,
        include_possible=True,
        note=None,
        by=OPERATOR,
        patience=LONG,
    )
    assert made
    assert len(made[0].lines) == 2
    return service


def take(url: str, connection: Connection, *lines: bytes, exports: bool = False) -> ImportReport:
    file = ImportFile(io.BytesIO(b"\n".join(lines)))
    options = Options(by=OPERATOR, exports=exports)
    return import_file(url, connection, file, options, patience=LONG, on_progress=lambda _: None)


def counts(report: ImportReport) -> tuple[int, int, int]:
    return (report.recorded, report.duplicate, report.unreadable)


def names(lines: Sequence[SettledLine]) -> list[tuple[str, str | None, int | None]]:
    return [(line.event_type, line.test_id, line.received_position) for line in lines]


def test_it_says_what_it_settled_and_what_not(database_url: str, asked: Connection) -> None:
    report = take(database_url, asked, body(bill="other"), CREATED)
    assert counts(report) == (2, 0, 0)
    assert report.position == 6
    assert (report.settled_count, names(report.settled)) == (1, [("bill.created", None, 6)])
    assert (report.still_open_count, names(report.still_open)) == (
        1,
        [("report.completed", "a", None)],
    )
    assert {(line.request, line.lab_id, line.bill_id) for line in report.settled} == {(1, "L", "B")}
    assert [line.state for line in read_request(asked, 1).lines] == ["received", "requested"]


def test_an_import_of_nothing_that_was_asked_settles_nothing(
    database_url: str, asked: Connection
) -> None:
    report = take(database_url, asked, body(bill="other"))
    assert (report.settled, report.still_open_count, report.resent) == ([], 2, [])
    nothing = take(database_url, asked)
    assert (counts(nothing), nothing.settled, nothing.still_open_count) == ((0, 0, 0), [], 2)
    assert nothing.position == 5


def test_taken_in_again_it_tells_the_same(database_url: str, asked: Connection) -> None:
    first = take(database_url, asked, CREATED, REPORT)
    again = take(database_url, asked, REPORT, body(bill="other"), CREATED)
    assert counts(again) == (1, 2, 0)
    assert again.settled == first.settled
    assert (again.settled_count, again.still_open) == (2, [])


@pytest.mark.parametrize(
    "lines",
    [
        [CREATED, CREATED],
        [CREATED, body(bill="other"), CREATED],
        [body(bill="other"), CREATED, body(bill="other"), CREATED],
    ],
)
def test_a_line_is_told_once_however_often_the_file_holds_its_event(
    database_url: str, asked: Connection, lines: list[bytes]
) -> None:
    report = take(database_url, asked, *lines)
    assert report.settled_count == 1
    assert [line.event_type for line in report.settled] == ["bill.created"]


def test_what_a_webhook_brought_is_not_this_file_s_doing(
    database_url: str, asked: Connection
) -> None:
    append(asked, deliveries([CREATED]))
    report = take(database_url, asked, REPORT)
    assert names(report.settled) == [("report.completed", "a", 6)]
    assert report.still_open == []


def test_events_sent_again_with_another_time_are_named(
    database_url: str, asked: Connection
) -> None:
    twin = body("bill.completed", at=99, tests=TEST)
    report = take(database_url, asked, CREATED, twin)
    assert report.resent is not None
    [found] = report.resent
    assert (found.position, found.lab_id, found.bill_id, found.same_as_position) == (6, "L", "B", 1)
    # Those of another file are not this one's.
    assert take(database_url, asked, REPORT).resent == []
    # But those of this one are, when it is taken in again.
    assert take(database_url, asked, twin).resent == [found]
    assert one(asked, "SELECT extract(epoch FROM completed_at) FROM state.bill") == START + 9


def test_of_very_many_bills_it_is_not_looked_what_was_sent_again(
    database_url: str, asked: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ledger.eventlog.import_counts._KEYS_REMEMBERED", 3)
    events = [body(bill=f"C{number}") for number in range(4)]
    assert take(database_url, asked, *events[:3]).resent == []
    report = take(database_url, asked, *events, CREATED)
    assert report.resent is None
    assert report.settled_count == 1


def test_of_many_lines_the_first_are_listed_and_all_counted(
    database_url: str, asked: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(imports, "SHOWN", 1)
    before = take(database_url, asked)
    assert (before.still_open_count, names(before.still_open)) == (
        2,
        [("bill.created", None, None)],
    )
    after = take(database_url, asked, CREATED, REPORT)
    assert (after.settled_count, len(after.settled), after.still_open_count) == (2, 1, 0)


def test_values_that_are_no_webhook_are_reported_with_their_numbers(
    database_url: str, asked: Connection
) -> None:
    report = take(database_url, asked, CREATED, b"broken", b"", b"{}")
    assert counts(report) == (1, 0, 2)
    assert [(line.line, line.reason) for line in report.unreadable_lines] == [
        (2, "not_json"),
        (4, "missing_field"),
    ]
    assert (report.unreadable_recorded, report.position) == (0, 5)
    assert report.settled_count == 1


def test_an_array_over_many_lines_is_taken_by_its_elements(
    database_url: str, asked: Connection
) -> None:
    text = json.dumps([json.loads(CREATED), 7, json.loads(REPORT)], indent=1).encode()
    report = take(database_url, asked, text)
    assert counts(report) == (2, 0, 1)
    assert [line.line for line in report.unreadable_lines] == [2]
    assert report.settled_count == 2


def test_a_state_that_stays_behind_loses_nothing(database_url: str, asked: Connection) -> None:
    """The file is in the log; taking it in again tells what it settled."""
    asked.execute("SELECT pg_advisory_lock(7402, 4)")
    with pytest.raises(DecisionError, match=r"recorded 1, .*position 4 and the log at 5"):
        import_file(
            database_url,
            asked,
            ImportFile(io.BytesIO(CREATED)),
            Options(by=OPERATOR),
            patience=0,
            on_progress=lambda _: None,
        )
    assert read.head(asked) == 5
    asked.execute("SELECT pg_advisory_unlock(7402, 4)")
    report = take(database_url, asked, CREATED)
    assert (counts(report), report.settled_count) == ((0, 1, 0), 1)
    assert drain(asked) == 5
