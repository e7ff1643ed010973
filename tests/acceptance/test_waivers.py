"""Waivers: of one event by name or of all that match a filter; made, and taken back."""

from collections.abc import Iterator
from datetime import timedelta

import pytest

from tests.support.answers import assert_problem, parsed
from tests.support.commands import assert_sentence, run_on_terminal
from tests.support.operations import (
    AT_ONCE,
    DONE,
    HOSTILE,
    Desk,
    Item,
    lost_end,
    lost_report,
    named,
)
from tests.support.payloads import event

WAIVE = "/v1/missing-events/waive"
UNWAIVE = "/v1/missing-events/unwaive"
MATCHING = "/v1/missing-events/waive-matching"


@pytest.fixture(scope="module")
def desk(module_database_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Desk]:
    """Give a server for which all is overdue at once."""
    folder = tmp_path_factory.mktemp("desk")
    with Desk(module_database_url, folder, settings=AT_ONCE) as started:
        yield started


# --- one --------------------------------------------------------------------------------------


def test_a_waived_event_is_shown_as_such_and_never_asked_for(desk: Desk, lab: str) -> None:
    desk.lose(lab, "b1", "b2")
    answer = desk.waive(lab, "b1")
    assert answer.status_code == 200
    assert int(answer.headers["Ledger-Position"]) == desk.head()
    (waived,) = desk.missing(lab_id=lab, state="waived")
    assert answer.json() == waived
    assert (waived["bill_id"], waived["state"], waived["request"]) == ("b1", "waived", None)
    assert [line["bill_id"] for line in desk.ask(lab_id=lab)["lines"]] == ["b2"]
    totals = desk.report(lab_id=lab)["totals"]
    assert (totals["overdue"], totals["requested"], totals["waived"]) == (0, 1, 1)


def test_a_waiver_is_in_the_log_with_who_when_and_why(desk: Desk, lab: str) -> None:
    desk.lose(lab)
    said = {**named(lab), "reason": "older than the webhook"}
    assert desk.api.post(WAIVE, json=said, headers={"Ledger-Operator": "ann"}).status_code == 200
    item = desk.items(f"/v1/labs/{lab}/bills/b/events")[-1]
    assert item["source"] == "operator"
    assert item["body"]["by"] == "ann"
    assert item["body"]["reason"] == "older than the webhook"
    age = parsed(item["received_at"]) - parsed(item["body"]["at"])
    assert timedelta() <= age < timedelta(seconds=2)
    assert desk.get(f"/v1/labs/{lab}/bills/b").json()["events"] == 2


def test_waiving_twice_is_one_waiver(desk: Desk, lab: str) -> None:
    desk.lose(lab)
    first = desk.waive(lab)
    head = desk.head()
    again = desk.waive(lab, reason="another")
    assert (again.status_code, again.json()) == (200, first.json())
    assert desk.head() == head


def test_what_was_asked_for_can_still_be_waived(desk: Desk, lab: str) -> None:
    desk.lose(lab)
    desk.ask(lab_id=lab)
    assert desk.waive(lab).json()["state"] == "waived"
    assert desk.post("/v1/support-requests", lab_id=lab).status_code == 204


def test_waiving_what_is_not_missing_says_what_is(desk: Desk, lab: str) -> None:
    desk.lose(lab, test="t1")
    desk.record(*lost_end(lab, "complete"), event(lab, "complete", "bill.completed"))
    desk.settle()
    head = desk.head()
    wrongs: list[Item] = [{"test_id": "t2"}, {"test_id": None}, {"event_type": "bill.created"}]
    for wrong in wrongs:
        detail = assert_problem(desk.waive(lab, **{"test_id": "t1", **wrong}), 404)
        assert "report.completed" in detail
        assert "'t1'" in detail
    assert "nothing" in assert_problem(desk.waive(lab, "complete"), 404)
    assert "'no_bill'" in assert_problem(desk.waive(lab, "no_bill"), 404)
    assert "'no_lab'" in assert_problem(desk.waive("no_lab"), 404)
    assert desk.head() == head


@pytest.mark.parametrize(
    "wrong",
    [
        {"reason": None}, {"reason": ""}, {"reason": " \t\n"}, {"reason": 1}, {"reason": ["x"]},
        {"reason": "x" * 2001}, {"reason": "a\x00b"}, {"lab_id": 1}, {"lab_id": ""},
        {"lab_id": None}, {"bill_id": {}}, {"test_id": 1}, {"test_id": "x" * 201},
        {"event_type": "bill.exploded"}, {"event_type": None}, {"tests": ["t"]}, {"Reason": "x"},
    ],
    ids=str,
)  # fmt: skip
def test_a_waiver_that_is_not_right_is_refused(desk: Desk, lab: str, wrong: object) -> None:
    desk.lose(lab)
    head = desk.head()
    assert isinstance(wrong, dict)
    detail = assert_problem(desk.waive(lab, **wrong), 400)
    assert next(iter(wrong)) in detail or "NUL" in detail
    assert desk.head() == head


@pytest.mark.parametrize("body", [b"", b"[]", b"null", b"{", b"\xff", b'{"a":' * 9999, b"{}x"])
def test_a_body_that_is_no_waiver_is_refused(desk: Desk, body: bytes) -> None:
    for path in (WAIVE, UNWAIVE, MATCHING):
        assert_problem(desk.api.post(path, content=body), 400)


def test_a_waiver_needs_each_of_its_parts(desk: Desk, lab: str) -> None:
    whole = {**named(lab), "reason": "r"}
    for name in set(whole) - {"test_id"}:
        without = {key: value for key, value in whole.items() if key != name}
        assert name in assert_problem(desk.post(WAIVE, **without), 400)


def test_an_operator_with_too_long_a_name_is_told_so(desk: Desk, lab: str) -> None:
    desk.lose(lab)
    said = {**named(lab), "reason": "r"}
    answer = desk.api.post(WAIVE, json=said, headers={"Ledger-Operator": "x" * 201})
    assert "Ledger-Operator" in assert_problem(answer, 400)


def test_missing_events_are_waived_whatever_their_names_hold(desk: Desk, lab: str) -> None:
    for number, text in enumerate(HOSTILE):
        desk.record(*lost_report(lab, text, test=HOSTILE[-number]))
    desk.settle()
    for number, text in enumerate(HOSTILE):
        assert desk.waive(lab, text, test_id=HOSTILE[-number], reason=text).status_code == 200
    assert {item["state"] for item in desk.missing(lab_id=lab)} == {"waived"}


# --- taken back -------------------------------------------------------------------------------


def test_a_waiver_that_is_taken_back_lets_the_event_be_asked_for(desk: Desk, lab: str) -> None:
    desk.lose(lab)
    desk.waive(lab)
    assert desk.post("/v1/support-requests", lab_id=lab).status_code == 204
    answer = desk.unwaive(lab)
    assert answer.status_code == 200
    assert int(answer.headers["Ledger-Position"]) == desk.head()
    (missing,) = desk.missing(lab_id=lab)
    assert answer.json() == missing
    assert missing["state"] == "overdue"
    assert [line["bill_id"] for line in desk.ask(lab_id=lab)["lines"]] == ["b"]


def test_taking_a_waiver_back_is_in_the_log_with_who_and_why(desk: Desk, lab: str) -> None:
    desk.lose(lab)
    desk.waive(lab)
    said = {**named(lab), "reason": "waived by mistake"}
    assert desk.api.post(UNWAIVE, json=said, headers={"Ledger-Operator": "ann"}).status_code == 200
    item = desk.items(f"/v1/labs/{lab}/bills/b/events")[-1]
    assert (item["source"], item["event_type"]) == ("operator", "event.unwaived")
    assert (item["body"]["by"], item["body"]["reason"]) == ("ann", "waived by mistake")


def test_taking_a_waiver_back_twice_records_it_once(desk: Desk, lab: str) -> None:
    desk.lose(lab)
    desk.waive(lab)
    first = desk.unwaive(lab)
    head = desk.head()
    again = desk.unwaive(lab)
    assert (again.status_code, again.json()) == (200, first.json())
    assert desk.head() == head
    assert desk.waive(lab).json()["state"] == "waived"
    assert desk.unwaive(lab).json()["state"] == "overdue"
    assert desk.head() == head + 2


def test_what_was_never_waived_stays_as_it_is(desk: Desk, lab: str) -> None:
    desk.lose(lab)
    desk.ask(lab_id=lab)
    head = desk.head()
    assert desk.unwaive(lab).json()["state"] == "requested"
    assert "'t2'" in assert_problem(desk.unwaive(lab, test_id="t2"), 404)
    assert "'no_bill'" in assert_problem(desk.unwaive(lab, "no_bill"), 404)
    assert desk.head() == head


def test_an_event_whose_line_was_closed_can_be_asked_for_again(desk: Desk, lab: str) -> None:
    desk.lose(lab)
    number = desk.ask(lab_id=lab)["number"]
    desk.post(f"/v1/support-requests/{number}/close", reason="not found")
    assert desk.unwaive(lab).json()["state"] == "overdue"
    assert desk.asked(number)["state"] == "closed"
    assert [line["bill_id"] for line in desk.ask(lab_id=lab)["lines"]] == ["b"]


def test_the_past_knows_a_waiver_that_was_taken_back_since(desk: Desk, lab: str) -> None:
    desk.lose(lab)
    desk.waive(lab)
    waived_at = desk.head()
    desk.unwaive(lab)
    decisions = desk.items(f"/v1/labs/{lab}/bills/b/events")[-2:]
    states = [
        desk.get(f"/v1/labs/{lab}/bills/b", known_at=each["received_at"]).json()["missing_events"]
        for each in decisions
    ]
    assert [missing["state"] for (missing,) in states] == ["waived", "overdue"]
    totals = desk.report(lab_id=lab, position=waived_at)["totals"]
    assert (totals["waived"], totals["overdue"]) == (1, 0)


def test_a_rebuild_keeps_what_is_waived_and_what_is_not(desk: Desk, lab: str) -> None:
    desk.lose(lab, "b1", "b2")
    for bill in ("b1", "b2"):
        desk.waive(lab, bill)
    desk.unwaive(lab, "b1")
    before = desk.missing(lab_id=lab)
    assert desk.run("verify").returncode == 0
    assert desk.run("rebuild", "--yes").returncode == 0
    assert desk.missing(lab_id=lab) == before
    assert [item["state"] for item in before] == ["overdue", "waived"]


@pytest.mark.parametrize(
    "wrong",
    [
        {"reason": ""}, {"reason": " "}, {"reason": 1}, {"reason": "x" * 2001}, {"lab_id": None},
        {"lab_id": ""}, {"bill_id": {}}, {"event_type": "bill.exploded"}, {"count": 1},
    ],
    ids=str,
)  # fmt: skip
def test_taking_back_wrongly_is_refused(desk: Desk, lab: str, wrong: Item) -> None:
    desk.lose(lab)
    desk.waive(lab)
    head = desk.head()
    assert next(iter(wrong)) in assert_problem(desk.unwaive(lab, **wrong), 400)
    assert desk.head() == head


# --- many -------------------------------------------------------------------------------------


def old_and_new(desk: Desk, lab: str) -> str:
    """Record bills with something missing; return a time between the first two and the rest."""
    for bill in ("old1", "old2"):
        desk.record(event(lab, bill, "bill.completed", tests={"t": DONE}))
    desk.record(*lost_report(f"{lab}-other"))
    between = desk.record(*lost_report(lab, "new"))[0]
    desk.record(*lost_end(lab, "maybe"))
    desk.settle()
    received: str = desk.items("/v1/events", after=between - 1, limit=1)[0]["received_at"]
    return received


def waived(desk: Desk, lab: str) -> set[tuple[str, str]]:
    items = desk.missing(lab_id=lab, state="waived")
    return {(item["bill_id"], item["event_type"]) for item in items}


@pytest.mark.parametrize("dry_run", [True, False])
def test_many_are_waived_by_filter_or_only_counted(desk: Desk, lab: str, *, dry_run: bool) -> None:
    between = old_and_new(desk, lab)

    def matching(**filters: object) -> int:
        answer = desk.post(MATCHING, lab_id=lab, reason="old", dry_run=dry_run, **filters)
        assert answer.status_code == 200, answer.text
        said = answer.json()
        assert said["dry_run"] is dry_run
        assert sum(sum(types.values()) for types in said["labs"].values()) == said["waived"]
        assert set(said["labs"]) <= {lab}
        count: int = said["waived"]
        return count

    head = desk.head()
    assert matching(event_type="bill.created", before=between) == 2
    olds = {("old1", "bill.created"), ("old2", "bill.created")}
    assert waived(desk, lab) == (set() if dry_run else olds)
    assert matching(certainty="possible") == 1
    assert matching(certainty="certain", before=between) == (4 if dry_run else 2)
    assert matching() == (6 if dry_run else 1)
    assert matching() == (6 if dry_run else 0)
    assert waived(desk, f"{lab}-other") == set()
    assert len(waived(desk, lab)) == (0 if dry_run else 6)
    assert desk.head() == head + (0 if dry_run else 6)


def test_what_was_asked_for_is_not_waived_with_the_rest(desk: Desk, lab: str) -> None:
    desk.lose(lab, "asked")
    desk.ask(lab_id=lab)
    desk.lose(lab, "b")
    assert desk.post(MATCHING, lab_id=lab, reason="r").json()["waived"] == 1
    assert waived(desk, lab) == {("b", "report.completed")}


@pytest.mark.parametrize(
    "wrong",
    [
        {}, {"lab_id": None}, {"dry_run": "yes"}, {"before": "soon"}, {"before": 1705747800},
        {"before": "2024-01-01"}, {"before": "2024-01-01T00:00:00"}, {"certainty": "sure"},
        {"event_type": ["bill.created"]}, {"labid": "x"}, {"lab_id": "x", "reason": ""},
    ],
    ids=str,
)  # fmt: skip
def test_waiving_by_no_filter_or_a_wrong_one_is_refused(desk: Desk, wrong: object) -> None:
    assert isinstance(wrong, dict)
    head = desk.head()
    assert_problem(desk.post(MATCHING, **{"reason": "r", **wrong}), 400)
    assert desk.head() == head


# --- on the command line ----------------------------------------------------------------------


def test_the_command_says_what_it_will_do_before_it_does(desk: Desk, lab: str) -> None:
    between = old_and_new(desk, lab)
    wanted = ["waive", "--lab", lab, "--type", "bill.created", "--before", between]
    wanted += ["--reason", "older than the webhook", "--by", "ann"]
    head = desk.head()
    dry = desk.run(*wanted, "--dry-run")
    assert dry.returncode == 0
    assert lab.encode() in dry.stdout
    assert b"2" in dry.stdout + dry.stderr
    assert desk.head() == head
    assert waived(desk, lab) == set()
    assert desk.run(*wanted, "--yes").returncode == 0
    assert waived(desk, lab) == {("old1", "bill.created"), ("old2", "bill.created")}
    item = desk.items("/v1/events", after=head, limit=1)[0]
    assert (item["body"]["by"], item["body"]["reason"]) == ("ann", "older than the webhook")
    again = desk.run(*wanted, "--yes")
    assert (again.returncode, desk.head()) == (0, head + 2)


def test_one_test_of_one_bill_is_waived_by_command(desk: Desk, lab: str) -> None:
    for test in ("t1", "t2"):
        desk.lose(lab, "b1", "b2", test=test)
    wanted = ["waive", "--lab", lab, "--bill", "b1", "--test", "t1", "--reason", "r", "--yes"]
    assert desk.run(*wanted).returncode == 0
    (waived,) = desk.missing(lab_id=lab, state="waived")
    assert (waived["bill_id"], waived["test_id"]) == ("b1", "t1")


def test_without_a_terminal_nothing_is_waived_unless_it_is_confirmed(desk: Desk, lab: str) -> None:
    desk.lose(lab)
    head = desk.head()
    for stdin in (b"", b"n\n", b"y\n"):
        done = desk.run("waive", "--lab", lab, "--reason", "r", stdin=stdin)
        assert_sentence(done, "--yes", code=2)
    assert desk.head() == head


@pytest.mark.parametrize(
    ("typed", "code", "states"),
    [("\n", 1, {"overdue"}), ("n\n", 1, {"overdue"}), ("y\n", 0, {"waived"})],
)
def test_on_a_terminal_a_waiver_is_asked_for_and_the_default_is_no(
    desk: Desk, lab: str, typed: str, code: int, states: set[str]
) -> None:
    desk.lose(lab)
    wanted = ["waive", "--lab", lab, "--reason", "r"]
    ended, screen = run_on_terminal(*wanted, settings=desk.settings, typed=typed)
    assert "1 missing event will be waived." in screen
    assert "[y/N]" in screen
    assert ended == code
    desk.settle()
    assert {one["state"] for one in desk.missing(lab_id=lab)} == states


def test_the_command_takes_back_the_waivers_that_match(desk: Desk, lab: str) -> None:
    desk.lose(lab, "b1", "b2")
    desk.lose(f"{lab}-other")
    for each, bill in ((lab, "b1"), (lab, "b2"), (f"{lab}-other", "b")):
        desk.waive(each, bill)
    wanted = ["waive", "--undo", "--lab", lab, "--by", "ann"]
    dry = desk.run(*wanted, "--dry-run")
    assert "2 waivers will be taken back." in dry.stderr.decode()
    assert len(waived(desk, lab)) == 2
    done = desk.run(*wanted, "--yes", "--reason", "by mistake")
    assert (done.returncode, done.stdout.decode().splitlines()[-1]) == (0, "Took back 2 waivers.")
    assert waived(desk, lab) == set()
    assert len(waived(desk, f"{lab}-other")) == 1
    body = desk.items(f"/v1/labs/{lab}/bills/b1/events")[-1]["body"]
    assert (body["decision"], body["by"], body["reason"]) == ("event.unwaived", "ann", "by mistake")
    head = desk.head()
    assert b"No event that matches is waived." in desk.run(*wanted, "--yes").stderr
    assert desk.head() == head


def test_the_command_counts_one_event_in_the_singular(desk: Desk, lab: str) -> None:
    desk.lose(lab)
    done = desk.run("waive", "--lab", lab, "--reason", "r", "--yes")
    assert "1 missing event will be waived." in done.stderr.decode()
    assert "Waived 1 missing event." in done.stdout.decode()


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        (["--undo"], "--lab"),
        (["--reason", "r"], "--lab"),
        (["--lab", "l"], "--reason"),
        (["--lab", "l", "--reason", ""], "reason"),
        (["--lab", "l", "--reason", " "], "reason"),
        (["--lab", "l", "--reason", "r", "--before", "soon"], "--before"),
        (["--lab", "l", "--reason", "r", "--type", "bill.exploded"], "--type"),
    ],
)
def test_a_wrong_command_is_wrong_usage(desk: Desk, arguments: list[str], word: str) -> None:
    assert_sentence(desk.run("waive", *arguments, "--yes"), word, code=2)
