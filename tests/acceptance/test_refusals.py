"""What is refused to those who read over HTTP, and in which words."""

import base64
import json

import pytest

from tests.support.answers import LISTS, READS, assert_problem
from tests.support.payloads import event
from tests.support.server import LedgerServer


@pytest.mark.parametrize("path", READS)
@pytest.mark.parametrize("authorization", [None, "Bearer wrong", "", "webhook-token-of-the-tests"])
def test_reading_needs_the_key(server: LedgerServer, path: str, authorization: str | None) -> None:
    headers = {} if authorization is None else {"Authorization": authorization}
    answer = server.anonymous.get(path, headers=headers)
    assert_problem(answer, 401)
    assert "bearer" in answer.headers["www-authenticate"].lower()


def test_an_unknown_bill_is_a_404_with_the_position_of_the_state(
    server: LedgerServer, lab: str
) -> None:
    server.record(event(lab, "b"))
    head = server.settle()
    for path in ("", "/events"):
        answer = server.get(f"/v1/labs/{lab}/bills/other{path}")
        assert "other" in assert_problem(answer, 404)
        assert answer.headers["ledger-position"] == str(head)


def test_a_bill_of_another_lab_is_unknown(server: LedgerServer, lab: str) -> None:
    server.record(event(lab, "b"))
    server.settle()
    assert_problem(server.get(f"/v1/labs/{lab}x/bills/b"), 404)


BILL = "/v1/labs/no_lab/bills/no_bill"
BAD_PARAMETERS = [
    *((path, "limit", value) for path in (*LISTS, f"{BILL}/events") for value in ("0", "1001")),
    *((path, "limit", value) for path in LISTS[:1] for value in ("", "ten", "-1", "1;2", "٣x")),
    *((path, "cursor", value) for path in (*LISTS, f"{BILL}/events") for value in ("", "x", "é")),
    *((path, "min_position", value) for path in (*READS, BILL) for value in ("-1", "x")),
    *((path, "wait_ms", value) for path in READS[:1] for value in ("-1", "x", "60001")),
    *((path, "after", value) for path in LISTS[2:5] for value in ("-1", "x", str(2**63))),
    ("/v1/bills", "state", "closed"),
    ("/v1/bills", "changed_after", "-1"),
    ("/v1/reports", "changed_after", str(2**63)),
    ("/v1/reports", "completed", "maybe"),
    ("/v1/missing-events", "state", "lost"),
    ("/v1/missing-events", "event_type", "bill.create"),
    ("/v1/missing-events", "certainty", "sure"),
    ("/v1/events/unreadable", "reason", "ugly"),
    *(
        (BILL, name, value)
        for name in ("known_at", "as_of")
        for value in (
            "", "x", "now", "2024-01-20", "2024-01-20T10:00:00", "2024-13-20T10:00:00Z",
            "1705747800", "1e10", "-1", "\x00",
        )
    ),
    ("/v1/bills", "lab_id", "\x00"),
    ("/v1/bills", "integrator_id", "a\x00b"),
    ("/v1/reports", "test_id", "\x00"),
    ("/v1/reports", "lab_id", "\x00"),
    ("/v1/missing-events", "lab_id", "\x00"),
]  # fmt: skip


@pytest.mark.parametrize(("path", "name", "value"), BAD_PARAMETERS)
def test_a_bad_query_parameter_is_refused_by_name(
    server: LedgerServer, path: str, name: str, value: str
) -> None:
    detail = assert_problem(server.get(path, **{name: value}), 400)
    assert name in detail
    assert "takes" in detail or "NUL" in detail


@pytest.mark.parametrize("name", ["known_at", "as_of"])
@pytest.mark.parametrize("value", ["9999-12-31T23:59:59-12:00", "0001-01-01T00:00:00+12:00"])
def test_a_time_at_the_end_of_the_calendar_is_no_fault_of_the_server(
    server: LedgerServer, name: str, value: str
) -> None:
    assert server.get(BILL, **{name: value}).status_code in {400, 404}


CURSORS = [[10**30], ["a"], [None], {}, [1, "\x00"], [1, "\ud800"], [10**17, "a", "b", "c", "d"]]
CURSORS += [[-(10**30), "a", "b", "c", "d"], [1, "\x00", "b", "c", "d"], [True], [1.5], [[]]]


@pytest.mark.parametrize("path", LISTS)
@pytest.mark.parametrize("content", CURSORS)
def test_a_forged_cursor_is_refused_or_harmless(
    server: LedgerServer, path: str, content: object
) -> None:
    cursor = base64.urlsafe_b64encode(json.dumps(content).encode()).decode().rstrip("=")
    assert server.get(path, cursor=cursor).status_code in {200, 400}


@pytest.mark.parametrize("path", [*READS, BILL])
def test_an_unknown_query_parameter_is_refused_by_name(server: LedgerServer, path: str) -> None:
    assert "labid" in assert_problem(server.get(path, labid="x"), 400)


def test_a_mistyped_parameter_is_answered_with_the_one_that_was_meant(
    server: LedgerServer,
) -> None:
    assert "changed_after" in assert_problem(server.get("/v1/bills", changed_afer=1), 400)


@pytest.mark.parametrize(
    "path", ["/nothing", "/v1", "/v1/bill", "/v1/labs/a/bills", "/webhooks/flabsy"]
)
def test_an_unknown_path_is_a_404_problem(server: LedgerServer, path: str) -> None:
    assert_problem(server.get(path), 404)


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE"])
def test_a_method_that_a_path_does_not_take_is_a_405_problem(
    server: LedgerServer, method: str
) -> None:
    answer = server.api.request(method, "/v1/bills")
    assert_problem(answer, 405)
    assert "GET" in answer.headers["allow"]
