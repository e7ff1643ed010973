"""`ledger bill`: a bill with its reports, missing events, findings and events."""

import json

from tests.support.commands import assert_sentence
from tests.support.payloads import BASE, event
from tests.support.server import LedgerServer


def test_a_bill_is_shown_as_over_http_with_findings_and_events(
    server: LedgerServer, lab: str
) -> None:
    server.record(
        event(lab, "b", tests={"t1": None, "t2": None}, integrator="i"),
        event(lab, "b", "bill.completed", at=BASE + 60, tests={"t1": "completed", "t2": "drawn"}),
    )
    server.settle()
    shown = json.loads(server.run("bill", lab, "b", "--json").stdout)
    bill = server.get(f"/v1/labs/{lab}/bills/b").json()
    assert shown["bill"] == bill
    assert bill["missing_events"]
    assert shown["findings"] == server.items(f"/v1/labs/{lab}/bills/b/findings")
    events = server.items(f"/v1/labs/{lab}/bills/b/events")
    for mine, theirs in zip(shown["events"], events, strict=True):
        assert mine == {**{name: theirs[name] for name in mine if name != "says"}, **says(mine)}
    text = server.run("bill", lab, "b").stdout.decode()
    assert f"Bill b of lab {lab} is completed." in text
    assert "Reports: 1 of 2 completed" in text
    assert "report.completed\tt1\tcertain\tawaiting_retry" in text
    assert "completed_with_open_reports: the newest bill.completed lists" in text
    assert "t1 completed, t2 drawn" in text


def says(item: dict[str, object]) -> dict[str, object]:
    return {"says": item["says"]}


def test_a_bill_is_right_though_no_projector_runs(server: LedgerServer, lab: str) -> None:
    with server.without_projector():
        server.record(event(lab, "b"))
        assert f"Bill b of lab {lab} is open." in server.run("bill", lab, "b").stdout.decode()


def test_a_decision_is_among_the_events(server: LedgerServer, lab: str) -> None:
    server.record(event(lab, "b", "report.completed", tests={"t": "completed"}))
    server.settle()
    wanted = ["waive", "--lab", lab, "--type", "bill.created", "--reason", "too old", "--by", "ann"]
    assert server.run(*wanted, "--yes").returncode == 0
    shown = json.loads(server.run("bill", lab, "b", "--json").stdout)
    decision = shown["events"][-1]
    assert (decision["event_type"], decision["source"]) == ("event.waived", "operator")
    assert decision["says"] == "by ann: too old"
    assert [one["state"] for one in shown["bill"]["missing_events"]] == ["waived"]


def test_a_bill_of_unreadable_events_alone_is_shown_without_a_state(
    server: LedgerServer, lab: str
) -> None:
    wrong = event(lab, "b")
    wrong["data"]["billData"] = "none"
    server.record(wrong)
    text = server.run("bill", lab, "b").stdout.decode()
    assert f"Bill b of lab {lab} has 1 event and no state." in text
    assert "unreadable: wrong_type at $.data.billData" in text
    assert json.loads(server.run("bill", lab, "b", "--json").stdout)["bill"] is None


def test_an_unknown_bill_is_a_sentence(server: LedgerServer, lab: str) -> None:
    assert_sentence(server.run("bill", lab, "b"), f"no event of bill 'b' of lab {lab!r}")
