"""Support requests: asked once, numbered, settled by what comes, closed with a reason."""

import csv
import io
import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest

from tests.support.answers import assert_problem, parsed
from tests.support.operations import AT_ONCE, DONE, Desk, Item, found_report, lost_end, named
from tests.support.payloads import BASE, event, lines
from tests.support.server import wait_until

REQUESTS = "/v1/support-requests"
AGAIN = {**AT_ONCE, "LEDGER_ASK_AGAIN_AFTER": "0"}


@pytest.fixture(scope="module")
def desk(module_database_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Desk]:
    """Give a server for which all is overdue at once."""
    folder = tmp_path_factory.mktemp("desk")
    with Desk(module_database_url, folder, settings=AT_ONCE) as started:
        yield started


@pytest.fixture
def own_desk(database_url: str, tmp_path: Path) -> Iterator[Desk]:
    """Give such a server with a database of the test's own."""
    with Desk(database_url, tmp_path, settings=AT_ONCE) as started:
        yield started


def bills(request: Item, *states: str) -> list[str]:
    return [line["bill_id"] for line in request["lines"] if not states or line["state"] in states]


# --- asking -----------------------------------------------------------------------------------


def test_a_request_tells_what_is_asked_for_and_why(desk: Desk, lab: str) -> None:
    desk.lose(lab, integrator="i1")
    (missing,) = desk.missing(lab_id=lab)
    said = {"lab_id": lab, "note": "urgent"}
    answer = desk.api.post(REQUESTS, json=said, headers={"Ledger-Operator": "ann"})
    assert answer.status_code == 201
    made = answer.json()
    assert answer.headers["Location"] == f"{REQUESTS}/{made['number']}"
    assert desk.asked(made["number"]) == made
    same = ("lab_id", "bill_id", "integrator_id", "event_type", "test_id", "certainty", "count")
    assert made["lines"] == [
        {
            **{name: missing[name] for name in (*same, "evidence")},
            "previous": None,
            "state": "requested",
            "received_position": None,
            "reason": None,
        }
    ]
    assert (made["made_by"], made["note"], made["lab_id"]) == ("ann", "urgent", lab)
    (item, *_) = desk.items(REQUESTS)
    assert item == {**made, "lines": {"requested": 1, "received": 0, "closed": 0}}


def test_requests_are_numbered_from_1_and_listed_newest_first(own_desk: Desk, lab: str) -> None:
    assert own_desk.items(REQUESTS) == []
    assert "none" in assert_problem(own_desk.get(f"{REQUESTS}/1"), 404)
    for number in (1, 2, 3):
        assert own_desk.post(REQUESTS).status_code == 204
        own_desk.lose(lab, f"b{number}")
        assert own_desk.ask()["number"] == number
    for limit in (1, 2, 3):
        assert [item["number"] for item in own_desk.items(REQUESTS, limit=limit)] == [3, 2, 1]
    for unknown in (4, 0, 99999999999):
        for answer in (
            own_desk.get(f"{REQUESTS}/{unknown}"),
            own_desk.post(f"{REQUESTS}/{unknown}/close", reason="r"),
        ):
            assert "1 to 3" in assert_problem(answer, 404)


def test_ten_who_press_at_once_make_one_request(own_desk: Desk, lab: str) -> None:
    own_desk.lose(lab, *(f"b{number}" for number in range(5)))

    def press(_: int) -> httpx.Response:
        return own_desk.post(REQUESTS)

    with ThreadPoolExecutor(10) as pool:
        codes = sorted(answer.status_code for answer in pool.map(press, range(10)))
    assert codes == [201] + [204] * 9
    (request,) = own_desk.items(REQUESTS)
    assert request["lines"]["requested"] == 5


def test_a_lab_can_be_asked_for_alone(desk: Desk, lab: str) -> None:
    other = f"{lab}-other"
    desk.lose(lab, "b1")
    desk.lose(other, "b2")
    assert bills(desk.ask(lab_id=lab)) == ["b1"]
    assert desk.post(REQUESTS, lab_id=lab).status_code == 204
    assert bills(desk.ask(lab_id=other)) == ["b2"]
    assert "'no_lab'" in assert_problem(desk.post(REQUESTS, lab_id="no_lab"), 404)


def test_what_is_only_possible_is_asked_for_when_told_to(desk: Desk, lab: str) -> None:
    desk.record(*lost_end(lab, "maybe"))
    desk.lose(lab, "sure")
    assert bills(desk.ask(lab_id=lab)) == ["sure"]
    assert desk.post(REQUESTS, lab_id=lab).status_code == 204
    request = desk.ask(lab_id=lab, include_possible=True)
    assert [(line["bill_id"], line["certainty"]) for line in request["lines"]] == [
        ("maybe", "possible")
    ]


@pytest.mark.parametrize(
    "wrong",
    [
        {"lab_id": 1}, {"lab_id": ""}, {"lab_id": "x" * 201}, {"include_possible": 1},
        {"include_possible": "true"}, {"include_possible": None}, {"note": ""}, {"note": 5},
        {"note": "x" * 2001}, {"labid": "x"},
    ],
    ids=str,
)  # fmt: skip
def test_a_request_that_is_not_right_is_refused(desk: Desk, lab: str, wrong: Item) -> None:
    desk.lose(lab)
    head = desk.head()
    assert next(iter(wrong)) in assert_problem(desk.post(REQUESTS, **wrong), 400)
    assert_problem(desk.api.post(REQUESTS, content=b"[]"), 400)
    assert desk.head() == head
    assert desk.post(REQUESTS).status_code == 201


# --- settling ---------------------------------------------------------------------------------


def test_a_line_is_received_when_the_event_comes_by_webhook_or_import(desk: Desk, lab: str) -> None:
    desk.lose(lab, "b1", "b2", "b3")
    number = desk.ask(lab_id=lab)["number"]
    (by_webhook,) = desk.record(found_report(lab, "b1"))
    assert desk.api.post("/v1/imports", content=lines(found_report(lab, "b2"))).status_code == 200
    desk.settle()
    request = desk.asked(number)
    assert request["state"] == "open"
    assert [line["state"] for line in request["lines"]] == ["received", "received", "requested"]
    assert request["lines"][0]["received_position"] == by_webhook
    assert request["lines"][1]["received_position"] == by_webhook + 1
    (listed,) = [item for item in desk.items(REQUESTS) if item["number"] == number]
    assert listed["lines"] == {"requested": 1, "received": 2, "closed": 0}
    desk.record(found_report(lab, "b3"))
    desk.settle()
    assert desk.asked(number)["state"] == "closed"


def test_an_event_of_another_test_settles_no_line(desk: Desk, lab: str) -> None:
    tests: dict[str, str | None] = {"t1": DONE, "t2": DONE}
    desk.record(event(lab, "b", tests=tests), event(lab, "b", "bill.completed", tests=tests))
    desk.settle()
    number = desk.ask(lab_id=lab)["number"]
    desk.record(event(lab, "b", "report.completed", tests={"t2": DONE, "t1": "pending"}))
    desk.settle()
    states = {line["test_id"]: line["state"] for line in desk.asked(number)["lines"]}
    assert states == {"t1": "requested", "t2": "received"}


def test_of_a_bill_that_is_deleted_no_line_stays_open(desk: Desk, lab: str) -> None:
    desk.lose(lab)
    number = desk.ask(lab_id=lab)["number"]
    desk.record(event(lab, "b", "bill.deleted", at=BASE + 99))
    desk.settle()
    assert desk.missing(lab_id=lab) == []
    assert bills(desk.asked(number), "requested") == []


def test_a_line_that_is_waived_leaves_the_letter(desk: Desk, lab: str) -> None:
    desk.lose(lab, "b1", "b2")
    number = desk.ask(lab_id=lab)["number"]
    desk.waive(lab, "b1", reason="the patient left")
    request = desk.asked(number)
    assert [(line["state"], line["reason"]) for line in request["lines"]] == [
        ("closed", "waived: the patient left"),
        ("requested", None),
    ]
    letter = desk.get(f"{REQUESTS}/{number}", format="markdown").text
    assert "`b2`" in letter
    assert "`b1`" not in letter
    assert "the patient left" not in letter
    desk.waive(lab, "b2")
    assert desk.asked(number)["state"] == "closed"
    desk.unwaive(lab, "b1")
    assert bills(desk.asked(number), "requested") == ["b1"]
    assert "`b1`" in desk.get(f"{REQUESTS}/{number}", format="markdown").text


# --- the letter -------------------------------------------------------------------------------


def test_the_letter_names_the_sender_and_holds_the_note(database_url: str, tmp_path: Path) -> None:
    settings = {
        **AT_ONCE,
        "LEDGER_SENDER_NAME": "Asha Rao",
        "LEDGER_SENDER_ORGANISATION": "Example Diagnostics",
        "LEDGER_SENDER_CONTACT": "ops@labs.example",
        "LEDGER_PUBLIC_URL": "https://ledger.example",
    }
    with Desk(database_url, tmp_path, settings=settings) as desk:
        desk.lose("lab")
        number = desk.ask(note="Please answer by Friday")["number"]
        letter = desk.get(f"{REQUESTS}/{number}", format="markdown").text
        assert "- Account: Example Diagnostics\n" in letter
        assert "- Webhook endpoint: `https://ledger.example/webhooks/flabs`\n" in letter
        assert "- Contact: ops@labs.example\n" in letter
        assert "\n> Please answer by Friday\n" in letter
        assert letter.endswith("\nAsha Rao, Example Diagnostics\n")
        assert desk.run("request", str(number), "--format", "markdown").stdout.decode() == letter


# --- closing ----------------------------------------------------------------------------------


def close(desk: Desk, number: int, **body: object) -> httpx.Response:
    return desk.post(f"{REQUESTS}/{number}/close", **body)


def test_what_is_closed_is_never_asked_for_again(database_url: str, tmp_path: Path) -> None:
    with Desk(database_url, tmp_path, settings=AGAIN) as desk:
        desk.lose("lab", "b1", "b2", "b3")
        number = desk.ask()["number"]
        desk.record(found_report("lab", "b1"))
        desk.settle()
        part = close(desk, number, reason="not found", lines=[named("lab", "b2")])
        assert part.status_code == 200
        assert bills(part.json(), "closed") == ["b2"]
        assert part.json()["state"] == "open"
        assert bills(desk.ask()) == ["b3"]
        done = close(desk, number + 1, reason="no answer").json()
        assert done["state"] == "closed"
        assert [line["reason"] for line in done["lines"]] == ["no answer"]
        assert desk.post(REQUESTS).status_code == 204
        assert desk.run("verify").returncode == 0


def test_closing_again_changes_nothing(desk: Desk, lab: str) -> None:
    desk.lose(lab)
    number = desk.ask(lab_id=lab)["number"]
    first = close(desk, number, reason="first").json()
    head = desk.head()
    again = close(desk, number, reason="second")
    assert (again.status_code, again.json()) == (200, first)
    assert desk.head() == head


def test_an_event_that_comes_after_all_is_taken(desk: Desk, lab: str) -> None:
    desk.lose(lab)
    number = desk.ask(lab_id=lab)["number"]
    close(desk, number, reason="lost for good")
    desk.record(found_report(lab))
    desk.settle()
    assert desk.missing(lab_id=lab) == []
    assert desk.get(f"/v1/labs/{lab}/bills/b").json()["missing_events"] == []


@pytest.mark.parametrize(
    ("wrong", "status"),
    [
        ({}, 400), ({"reason": None}, 400), ({"reason": ""}, 400), ({"reason": "  "}, 400),
        ({"reason": 1}, 400), ({"reason": "r", "lines": []}, 400), ({"reason": "r", "x": 1}, 400),
        ({"reason": "r", "lines": [{}]}, 400), ({"reason": "r", "lines": "b"}, 400),
        ({"reason": "r", "lines": [named("lab", "nobill")]}, 404),
        ({"reason": "r", "lines": [named("lab", "b", test=None)]}, 404),
    ],
    ids=str,
)  # fmt: skip
def test_closing_wrongly_is_refused(desk: Desk, lab: str, wrong: Item, status: int) -> None:
    desk.lose(lab)
    number = desk.ask(lab_id=lab)["number"]
    head = desk.head()
    detail = assert_problem(close(desk, number, **wrong), status)
    assert "reason" in detail or "line" in detail
    assert (desk.head(), desk.asked(number)["state"]) == (head, "open")


# --- asking again -----------------------------------------------------------------------------


def test_what_was_not_answered_in_time_is_asked_for_again(
    database_url: str, tmp_path: Path
) -> None:
    settings = {**AT_ONCE, "LEDGER_ASK_AGAIN_AFTER": "2"}
    with Desk(database_url, tmp_path, settings=settings) as desk:
        desk.lose("lab", "b1", "b2")
        first = desk.ask()
        assert desk.post(REQUESTS).status_code == 204
        desk.record(found_report("lab", "b1"))
        wait_until(lambda: desk.post(REQUESTS).status_code == 201, "it is asked for again")
        again = desk.asked(2)
        assert [(line["bill_id"], line["previous"]) for line in again["lines"]] == [("b2", 1)]
        waited = parsed(again["made_at"]) - parsed(first["made_at"])
        assert waited.total_seconds() >= 2
        assert desk.post(REQUESTS).status_code == 204
        (item,) = desk.missing()
        assert (item["state"], item["request"]) == ("requested", 2)
        assert bills(desk.asked(1), "requested") == []
        letter = desk.get(f"{REQUESTS}/2", format="markdown").text
        assert "request 1" in letter
        rows = list(csv.DictReader(io.StringIO(desk.get(f"{REQUESTS}/2", format="csv").text)))
        assert [row["previous"] for row in rows] == ["1"]
        assert json.loads(desk.run("request", "2", "--format", "json").stdout) == again
