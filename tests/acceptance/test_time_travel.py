"""Bills as they were known, or as they were, at another time; and times in any zone."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import psycopg
import pytest

from tests.support.answers import assert_problem, at, parsed
from tests.support.payloads import BASE, event, whole_day
from tests.support.server import LedgerServer, wait_until


def test_known_at_folds_what_had_been_received_by_then(server: LedgerServer, lab: str) -> None:
    late_first = list(reversed(whole_day(lab)))
    server.record(*late_first)
    server.settle()
    path = f"/v1/labs/{lab}/bills/bill_12345"
    items = server.items(f"{path}/events")
    for count, item in enumerate(items, start=1):
        bill = server.get(path, known_at=item["received_at"]).json()
        assert (bill["events"], bill["position"]) == (count, item["position"])
    only_completion = server.get(path, known_at=items[0]["received_at"]).json()
    assert only_completion["created_at"] is None
    assert {missing["event_type"] for missing in only_completion["missing_events"]} == {
        "bill.created",
        "report.completed",
    }
    before = parsed(items[0]["received_at"]) - timedelta(microseconds=1)
    assert_problem(server.get(path, known_at=before.isoformat()), 404)


def test_as_of_folds_what_had_happened_by_then(server: LedgerServer, lab: str) -> None:
    server.record(*reversed(whole_day(lab)))
    path = f"/v1/labs/{lab}/bills/bill_12345"
    seen = [
        server.get(path, as_of=at(BASE + offset)).json() for offset in (0, 59, 60, 120, 179, 180)
    ]
    assert [bill["reports_completed"] for bill in seen] == [0, 0, 1, 2, 2, 2]
    assert [bill["state"] for bill in seen] == ["open"] * 5 + ["completed"]
    assert_problem(server.get(path, as_of=at(BASE - 1)), 404)


def test_known_at_and_as_of_together_both_hold(server: LedgerServer, lab: str) -> None:
    server.record(*reversed(whole_day(lab)))
    path = f"/v1/labs/{lab}/bills/bill_12345"
    items = server.items(f"{path}/events")
    both = server.get(path, known_at=items[1]["received_at"], as_of=at(BASE + 120)).json()
    assert (both["events"], both["completed_at"], both["created_at"]) == (1, None, None)


def test_known_at_the_end_equals_now(server: LedgerServer, lab: str) -> None:
    server.record(*whole_day(lab)[1:])
    server.settle()
    path = f"/v1/labs/{lab}/bills/bill_12345"
    now = server.get(path).json()
    assert now["missing_events"]
    assert server.get(path, known_at=datetime.now(UTC).isoformat()).json() == now


def state_at(server: LedgerServer, path: str, moment: datetime) -> str:
    (missing,) = server.get(path, known_at=moment.isoformat()).json()["missing_events"]
    state: str = missing["state"]
    return state


def test_what_is_missing_is_judged_at_the_time_asked_for(
    database_url: str, tmp_path: Path, lab: str
) -> None:
    settings = {"LEDGER_RETRY_COUNT": "0", "LEDGER_RETRY_TIMEOUT": "1"}
    path = f"/v1/labs/{lab}/bills/c"
    with LedgerServer(database_url, tmp_path, settings=settings) as server:
        server.record(event(lab, "c", "bill.completed"))
        received = parsed(server.items(f"{path}/events")[0]["received_at"])
        due = received + timedelta(seconds=1)
        wait_until(lambda: datetime.now(UTC) > due, "the missing event is overdue")
        assert state_at(server, path, received) == "awaiting_retry"
        assert state_at(server, path, due - timedelta(milliseconds=1)) == "awaiting_retry"
        assert state_at(server, path, due) == "overdue"


def test_a_time_to_come_does_not_foretell_what_will_be_overdue(
    server: LedgerServer, lab: str
) -> None:
    server.record(event(lab, "c", "bill.completed"))
    server.settle()
    path = f"/v1/labs/{lab}/bills/c"
    assert state_at(server, path, datetime(2100, 1, 1, tzinfo=UTC)) == "awaiting_retry"
    report = server.get("/v1/reconciliation", lab_id=lab, as_of="2100-01-01T00:00:00Z").json()
    assert report["totals"] == {"awaiting_retry": 1, "overdue": 0, "requested": 0, "waived": 0}
    assert parsed(report["as_of"]) <= datetime.now(UTC)


@pytest.mark.parametrize(
    "time_text",
    [
        "2100-01-01T00:00:00Z",
        "2100-01-01T00:00:00z",
        "2100-01-01T00:00:00.123456Z",
        "2100-01-01T00:00:00%2B00:00",
        "2100-01-01T00:00:00+00:00",
        "2100-01-01T05:30:00+05:30",
        "2100-01-01T00:00:00-08:00",
    ],
)
@pytest.mark.parametrize("name", ["known_at", "as_of"])
def test_a_time_may_have_any_zone_and_an_unescaped_plus(
    server: LedgerServer, lab: str, name: str, time_text: str
) -> None:
    server.record(event(lab, "b"))
    answer = server.api.get(f"/v1/labs/{lab}/bills/b?{name}={time_text}")
    assert answer.status_code == 200, answer.text


def test_times_are_in_utc_whatever_the_zone_of_the_database(
    own_server: LedgerServer, database_url: str, lab: str
) -> None:
    with psycopg.connect(database_url, autocommit=True) as connection:
        name = connection.info.dbname
        connection.execute(f"ALTER DATABASE \"{name}\" SET timezone = 'Asia/Kolkata'".encode())
    own_server.kill_server()
    own_server.kill_projector()
    own_server.start()
    own_server.record(*whole_day(lab)[1:])
    own_server.settle()
    text = "".join(
        own_server.get(path).text
        for path in (
            "/v1/events",
            "/v1/bills",
            "/v1/missing-events",
            f"/v1/labs/{lab}/bills/bill_12345",
            f"/v1/labs/{lab}/bills/bill_12345/events",
        )
    )
    assert "+05:30" not in text
    assert own_server.run("verify").returncode == 0
