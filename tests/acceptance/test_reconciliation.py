"""The reconciliation over HTTP: what it holds, that it adds up, and that it can be had again."""

import itertools
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.answers import answers_of, assert_problem, parsed
from tests.support.operations import AT_ONCE, Desk, Item, found_report, lost_end, lost_report, named
from tests.support.payloads import BASE, event, lines
from tests.support.server import LedgerServer

REPORT = "/v1/reconciliation"
FORMS = {
    "json": "application/json",
    "csv": "text/csv",
    "markdown": "text/markdown",
    "xlsx": "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet",
    "text": "text/plain",
}


@pytest.fixture(scope="module")
def desk(module_database_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Desk]:
    """Give a server for which all is overdue at once."""
    folder = tmp_path_factory.mktemp("desk")
    with Desk(module_database_url, folder, settings=AT_ONCE) as started:
        yield started


@pytest.fixture
def own_desk(database_url: str, tmp_path: Path) -> Iterator[Desk]:
    """Give such a server with a database of the test's own."""
    settings = {**AT_ONCE, "LEDGER_ASK_AGAIN_AFTER": "0"}
    with Desk(database_url, tmp_path, settings=settings) as started:
        yield started


# --- what it holds ----------------------------------------------------------------------------


def test_a_report_has_the_fields_of_the_contract_and_adds_up(own_desk: Desk) -> None:
    desk = own_desk
    desk.lose("one", "asked", integrator="x")
    desk.ask()
    desk.lose("one", "over1", "over2")
    desk.lose("two", "over", "waived")
    desk.lose("three", "waived")
    for lab in ("two", "three"):
        desk.waive(lab, "waived")
    desk.record(*lost_end("two", "maybe"))
    desk.put("/v1/expected-bills/x", expected_by="2024-01-20T10:50:00Z")
    desk.put("/v1/expected-bills/unseen", expected_by="2024-01-20T10:50:00Z", lab_id="two")
    desk.settle()
    report = desk.report()
    totals = {"overdue": 4, "awaiting_retry": 0, "requested": 1, "waived": 2}
    listed = desk.missing()
    assert report == {
        "as_of": report["as_of"],
        "position": desk.head(),
        "totals": totals,
        "labs": [
            {
                "lab_id": lab,
                "overdue": overdue,
                "awaiting_retry": 0,
                "requested": requested,
                "oldest_due_at": min(item["due_at"] for item in listed if item["bill_id"] == first),
            }
            for lab, overdue, requested, first in (("one", 2, 1, "over1"), ("two", 2, 0, "over"))
        ],
        "missing_events": report["missing_events"],
        "loss_windows": [],
        "unseen_bills": [
            {"integrator_id": "unseen", "lab_id": "two", "expected_by": "2024-01-20T10:50:00Z"}
        ],
        "near_losses": report["near_losses"],
        "silences": [],
        "coverage": [],
    }
    assert sum(totals.values()) == len(listed)
    assert dict(Counter(item["state"] for item in listed)) == {k: n for k, n in totals.items() if n}
    by_bill = {(item["lab_id"], item["bill_id"]): item for item in listed}
    assert [(item["lab_id"], item["bill_id"]) for item in report["missing_events"]] == [
        ("one", "asked"), ("one", "over1"), ("one", "over2"), ("two", "over"), ("two", "maybe"),
    ]  # fmt: skip
    for item in report["missing_events"]:
        assert item == by_bill[item["lab_id"], item["bill_id"]]
    for lab in report["labs"]:
        of_lab = desk.report(lab_id=lab["lab_id"])
        assert of_lab["labs"] == [lab]
        assert of_lab["totals"]["overdue"] == lab["overdue"]
        assert {item["lab_id"] for item in of_lab["missing_events"]} == {lab["lab_id"]}


def test_near_losses_tell_with_which_attempt_events_came(server: LedgerServer, lab: str) -> None:
    now = int(time.time())
    ages = [0] * 6 + [120] * 2 + [360]
    sent = [event(lab, f"b{place}", at=now - age) for place, age in enumerate(ages)]
    server.record(*sent, *sent)
    server.record(event(lab, "long ago"))
    server.settle()
    found = server.get(REPORT, lab_id=lab).json()
    (day,) = found["near_losses"]
    assert day == {
        "lab_id": lab,
        "day": found["as_of"][:10],
        "deliveries": 10,
        "attempts": [6, 2, 0, 1],
        "unclear": 1,
        "last_attempt_share": pytest.approx(1 / 9, abs=0.001),
        "clock_skew_seconds": day["clock_skew_seconds"],
    }


# --- at which time ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "as_of", ["0001-01-01T00:00:00Z", "1969-12-31T23:59:59Z", "2024-01-01T00:00:00+05:30"]
)
def test_before_the_first_event_nothing_is_missing(desk: Desk, lab: str, as_of: str) -> None:
    desk.lose(lab)
    desk.put(f"/v1/expected-bills/{lab}", expected_by="2024-01-20T10:50:00Z")
    for form in FORMS:
        assert desk.get(REPORT, as_of=as_of, format=form).status_code == 200
    report = desk.report(as_of=as_of)
    assert set(report["totals"].values()) == {0}
    assert [report[name] for name in ("labs", "missing_events", "unseen_bills")] == [[], [], []]


def test_an_empty_log_gives_an_empty_report(own_desk: Desk) -> None:
    report = own_desk.report()
    assert report["position"] == 0
    assert not any(report["totals"].values())
    assert own_desk.run("reconcile", "--check").returncode == 0


@pytest.mark.parametrize(
    "question",
    [
        {"as_of": "yesterday"}, {"as_of": "2024-01-20"}, {"as_of": "2024-01-20T10:50:00"},
        {"as_of": ""}, {"position": "-1"}, {"position": "x"}, {"position": str(2**63)},
        {"position": "999999999"}, {"format": "pdf"}, {"format": ""}, {"formt": "csv"},
    ],
    ids=str,
)  # fmt: skip
def test_a_question_that_cannot_be_is_refused(desk: Desk, question: Item) -> None:
    assert_problem(desk.get(REPORT, **question), 400)


def steps(desk: Desk) -> Iterator[Callable[[], Any]]:
    """Give, one after the other, what happens at a desk in a day."""
    past, future = "2024-01-20T10:50:00Z", "2090-01-20T10:50:00Z"
    expected = "/v1/expected-bills"
    yield lambda: desk.lose("one", "b1", "b2", "b3", "b4", integrator="i1")
    yield lambda: desk.lose("two", "b1", "b2")
    yield lambda: desk.put(f"{expected}/i2", expected_by=past)
    yield lambda: desk.put(f"{expected}/i3", expected_by=past, lab_id="one")
    yield lambda: desk.waive("one", "b1")
    yield lambda: desk.ask(lab_id="one")
    yield lambda: desk.record(found_report("one", "b2"))
    yield lambda: desk.record(event("two", "b1", "bill.deleted", at=BASE + 99))
    yield lambda: desk.put(f"{expected}/i2", expected_by=future, lab_id="two")
    yield lambda: desk.api.delete(f"{expected}/i3")
    yield lambda: desk.record(event("three", "b", "report.completed", integrator="i2"))
    yield lambda: desk.ask(include_possible=True)
    yield lambda: desk.api.post("/v1/imports", content=lines(*lost_report("four")))
    yield lambda: desk.put("/v1/labs/two/subscription", events=["bill.created"])
    yield lambda: desk.record(event("one", "b3", at=BASE + 200, integrator="i9"))
    yield lambda: desk.post("/v1/support-requests/1/close", reason="r")
    yield lambda: desk.post("/v1/missing-events/waive-matching", certainty="certain", reason="r")
    yield lambda: desk.send(b"broken")
    yield lambda: desk.put("/v1/labs/two/subscription", events=None)
    yield lambda: desk.record(found_report("two", "b2"), found_report("one", "b4"))
    yield lambda: desk.record(event("one", "b1", "bill.deleted", at=BASE + 300))


def test_the_same_question_gives_the_same_answer_whatever_came_since(own_desk: Desk) -> None:
    desk = own_desk
    told: list[tuple[dict[str, str], bytes]] = []
    for number, step in enumerate(steps(desk)):
        step()
        desk.settle()
        for lab, form in itertools.product((None, "one"), ("json", "csv", "markdown", "text")):
            report = desk.report(lab_id=lab) if lab else desk.report()
            question = {"as_of": report["as_of"], "position": str(report["position"])}
            question |= {"format": form} | ({"lab_id": lab} if lab else {})
            told.append((question, desk.get(REPORT, **question).content))
            if form == "json":
                # Which labs are registered is known for now alone.
                assert report["coverage"] == []
                assert desk.get(REPORT, **question).json() == {**report, "coverage": None}, number
    for question, content in told:
        assert desk.get(REPORT, **question).content.decode() == content.decode(), question
    assert desk.run("rebuild", "--yes").returncode == 0
    for question, content in told:
        assert desk.get(REPORT, **question).content.decode() == content.decode(), question
    question, content = told[40]
    by_command = desk.run(
        "reconcile", "--format", "json", "--as-of", question["as_of"],
        "--position", question["position"],
    )  # fmt: skip
    assert by_command.stdout == content


def test_a_rebuild_brings_all_decisions_back(own_desk: Desk) -> None:
    desk = own_desk
    for step in steps(desk):
        step()
    desk.lose("two", "b9")
    desk.ask()
    desk.post("/v1/support-requests/3/close", reason="r", lines=[named("two", "b9")])
    desk.settle()

    def all_told() -> list[object]:
        requests = desk.items("/v1/support-requests")
        assert len(requests) == 3
        report = desk.report()
        del report["as_of"]
        return [
            answers_of(desk), requests, [desk.asked(number) for number in (1, 2, 3)], report,
            desk.items("/v1/expected-bills"), desk.items("/v1/loss-windows"),
            [desk.get(f"/v1/labs/{lab}/subscription").json() for lab in ("one", "two")],
            [desk.get(f"/v1/labs/one/bills/b{number}").json() for number in range(1, 5)],
        ]  # fmt: skip

    before = all_told()
    assert desk.run("verify").returncode == 0
    assert desk.run("rebuild", "--yes").returncode == 0
    assert all_told() == before
    assert desk.run("verify").returncode == 0


def test_a_request_is_known_from_the_time_that_it_names(desk: Desk, lab: str) -> None:
    desk.lose(lab)
    request = desk.ask(lab_id=lab)
    totals = desk.report(lab_id=lab, as_of=request["made_at"])["totals"]
    assert (totals["overdue"], totals["requested"]) == (0, 1)
    bill = desk.get(f"/v1/labs/{lab}/bills/b", known_at=request["made_at"]).json()
    assert [item["state"] for item in bill["missing_events"]] == ["requested"]
    due = desk.missing(lab_id=lab)[0]["due_at"]
    assert parsed(due) < parsed(request["made_at"])
