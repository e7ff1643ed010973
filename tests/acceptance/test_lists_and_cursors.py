"""Lists over HTTP: what each filter leaves, and walks in parts."""

import pytest

from tests.support.payloads import BASE, event
from tests.support.server import LedgerServer

# --- filters ----------------------------------------------------------------------------------


def test_bills_are_filtered_by_each_of_their_filters(server: LedgerServer, lab: str) -> None:
    done: dict[str, str | None] = {"t": "completed"}
    server.record(
        event(lab, "open", integrator=f"{lab}-i1", tests={"t": None}),
        event(lab, "completed", "bill.completed", integrator=f"{lab}-i2", tests=done),
        event(lab, "deleted", "bill.deleted", integrator=f"{lab}-i2"),
        event(lab, "reopened", "bill.completed", tests=done),
    )
    last = server.record(event(lab, "reopened", "bill.created", at=BASE + 5, tests={"t": "new"}))[0]
    server.settle()

    def bills(**filters: object) -> list[str]:
        return [item["bill_id"] for item in server.items("/v1/bills", **filters)]

    assert bills(lab_id=lab) == ["reopened", "deleted", "completed", "open"]
    for state in ("open", "completed", "reopened", "deleted"):
        assert bills(lab_id=lab, state=state) == [state]
    assert bills(integrator_id=f"{lab}-i2") == ["deleted", "completed"]
    assert bills(integrator_id=f"{lab}-i2", state="deleted") == ["deleted"]
    assert bills(lab_id=lab, changed_after=last - 1) == ["reopened"]
    assert bills(lab_id=lab, changed_after=last) == []
    assert bills(lab_id="") == []


def test_reports_are_filtered_by_each_of_their_filters(server: LedgerServer, lab: str) -> None:
    first, second = server.record(
        event(lab, "b1", tests={f"{lab}-t1": " COMPLETED ", f"{lab}-t2": "pending"}),
        event(lab, "b2", tests={f"{lab}-t1": None}),
    )
    server.settle()

    def reports(**filters: object) -> set[tuple[str, str]]:
        items = server.items("/v1/reports", **filters)
        return {(item["bill_id"], item["test_id"].removeprefix(f"{lab}-")) for item in items}

    assert reports(lab_id=lab) == {("b1", "t1"), ("b1", "t2"), ("b2", "t1")}
    assert reports(test_id=f"{lab}-t1") == {("b1", "t1"), ("b2", "t1")}
    assert reports(lab_id=lab, completed="true") == {("b1", "t1")}
    assert reports(lab_id=lab, completed="false") == {("b1", "t2"), ("b2", "t1")}
    assert reports(lab_id=lab, changed_after=first) == {("b2", "t1")}
    assert reports(lab_id=lab, changed_after=second) == set()


def test_missing_events_are_filtered_by_each_of_their_filters(
    server: LedgerServer, lab: str
) -> None:
    server.record(
        event(lab, "b1", "bill.completed", tests={"t": "completed"}),
        event(lab, "b2", tests={"t": None}),
        event(lab, "b2", "report.completed", at=BASE + 1, tests={"t": "completed"}),
    )
    server.settle()

    def missing(**filters: object) -> set[tuple[str, str, str]]:
        items = server.items("/v1/missing-events", lab_id=lab, **filters)
        return {(item["bill_id"], item["event_type"], item["certainty"]) for item in items}

    created = ("b1", "bill.created", "certain")
    report = ("b1", "report.completed", "certain")
    completed = ("b2", "bill.completed", "possible")
    assert missing() == {created, report, completed}
    assert missing(certainty="certain") == {created, report}
    assert missing(certainty="possible") == {completed}
    assert missing(event_type="report.completed") == {report}
    assert missing(event_type="bill.deleted") == set()
    assert missing(state="awaiting_retry") == {created, report, completed}
    for state in ("overdue", "requested", "waived"):
        assert missing(state=state) == set()


def test_unreadable_events_are_filtered_by_reason(server: LedgerServer, lab: str) -> None:
    broken = server.send(f"broken {lab}".encode()).json()["position"]
    wrong = server.send({**event(lab, "b"), "labID": 1}).json()["position"]
    server.settle()

    def positions(**filters: object) -> list[int]:
        items = server.items("/v1/events/unreadable", after=broken - 1, **filters)
        return [item["position"] for item in items]

    assert positions() == [broken, wrong]
    assert positions(reason="not_json") == [broken]
    assert positions(reason="wrong_type") == [wrong]


def test_a_bill_comes_first_in_the_list_when_it_changed_last(
    server: LedgerServer, lab: str
) -> None:
    server.record(event(lab, "b1"), event(lab, "b2"))
    server.record(event(lab, "b1", "bill.deleted"))
    server.settle()
    assert [item["bill_id"] for item in server.items("/v1/bills", lab_id=lab)] == ["b1", "b2"]
    changes = server.items("/v1/changes", after=server.head() - 3)
    assert [item["bill_id"] for item in changes] == ["b2", "b1"]


def test_changes_are_filtered_by_lab_and_say_when_they_happened(
    server: LedgerServer, lab: str
) -> None:
    start = server.settle()
    server.record(event(lab, "b1"), event(f"{lab}-other", "b2"), event(lab, "b3"))
    server.record(event(lab, "b1", "bill.deleted"))
    server.settle()
    changes = server.items("/v1/changes", lab_id=lab, after=start, limit=1)
    assert [item["bill_id"] for item in changes] == ["b3", "b1"]
    for item in changes:
        events = server.items(f"/v1/labs/{lab}/bills/{item['bill_id']}/events")
        assert item["changed_at"] == events[-1]["received_at"]


# --- cursors ----------------------------------------------------------------------------------


@pytest.mark.parametrize("limit", [1, 2, 3])
def test_every_list_walked_in_parts_shows_each_item_once_and_in_order(
    server: LedgerServer, lab: str, limit: int
) -> None:
    tests: dict[str, str | None] = dict.fromkeys(("t1", "t2", "t3"), "completed")
    start = server.head()
    server.record(*(event(lab, f"b{n}", "bill.completed", tests=tests) for n in range(3)))
    server.record(*(event(lab, "b0", at=BASE + n) for n in range(2)))
    for n in range(3):
        server.send(f"broken {lab} {n}".encode())
    server.settle()
    lists: dict[str, dict[str, object]] = {
        "/v1/bills": {"lab_id": lab},
        "/v1/reports": {"lab_id": lab},
        "/v1/missing-events": {"lab_id": lab},
        "/v1/changes": {"after": start},
        "/v1/events": {"after": start},
        "/v1/events/unreadable": {"after": start},
        f"/v1/labs/{lab}/bills/b0/events": {},
    }
    for path, filters in lists.items():
        whole = server.get(path, **filters, limit=1000).json()
        assert whole["next"] is None
        assert len(whole["items"]) >= 3
        assert server.items(path, **filters, limit=limit) == whole["items"], path


def test_the_last_part_of_a_list_has_no_next_even_when_it_is_full(
    server: LedgerServer, lab: str
) -> None:
    server.record(event(lab, "b1"), event(lab, "b2"))
    server.settle()
    assert server.get("/v1/bills", lab_id=lab, limit=2).json()["next"] is None


def test_a_list_has_a_hundred_items_unless_told_otherwise(server: LedgerServer, lab: str) -> None:
    tests: dict[str, str | None] = {f"t{n:03}": None for n in range(101)}
    server.record(event(lab, "b", tests=tests))
    server.settle()
    page = server.get("/v1/reports", lab_id=lab).json()
    assert len(page["items"]) == 100
    assert page["next"]


def test_a_walk_newest_first_is_not_disturbed_by_what_changes_meanwhile(
    server: LedgerServer, lab: str
) -> None:
    server.record(*(event(lab, f"b{n}") for n in range(4)))
    server.settle()
    page = server.get("/v1/bills", lab_id=lab, limit=2).json()
    server.record(event(lab, "b9"), event(lab, "b3", "bill.deleted"))
    server.settle()
    rest = server.get("/v1/bills", lab_id=lab, limit=9, cursor=page["next"]).json()
    assert [item["bill_id"] for item in rest["items"]] == ["b1", "b0"]
