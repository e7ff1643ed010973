"""Loss windows: outages of the receiver that outlast the sender's attempts, and what is done."""

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from ledger import schema
from tests.support.answers import assert_problem, parsed
from tests.support.commands import assert_sentence
from tests.support.operations import Desk, Item
from tests.support.payloads import BASE, event
from tests.support.postgres import PrivateServer, ready_database
from tests.support.server import LedgerServer, Process, free_port, wait_until

WINDOWS = "/v1/loss-windows"
CLOSE = "/v1/loss-windows/close"
SHORT = {
    "LEDGER_RETRY_INTERVAL": "1",
    "LEDGER_RETRY_COUNT": "2",
    "LEDGER_RETRY_TIMEOUT": "0",
}
PATTERN = timedelta(seconds=2)
BEAT = timedelta(seconds=5)
"""An instance was alive at most that long before it is known to have been."""


def pass_time(seconds: float) -> None:
    begin = time.monotonic()
    wait_until(lambda: time.monotonic() - begin > seconds, "time passes", seconds=60)


class Outage:
    """A server that was away for longer than the sender tries, and when."""

    def __init__(self, desk: Desk) -> None:
        self.desk = desk
        desk.record(*(event(lab, "b") for lab in ("both", "too", "before")))
        self.killed = datetime.now(UTC)
        desk.kill_server()
        pass_time(4)
        self.started = datetime.now(UTC)
        desk.start_server()
        self.back = datetime.now(UTC)

    def hear(self) -> None:
        """Let labs send again, one of them for the first time."""
        later = {"both": "b2", "too": "b2", "after": "b"}
        self.desk.record(*(event(lab, bill, at=BASE + 1) for lab, bill in later.items()))
        self.desk.settle()


@contextmanager
def outage(url: str, folder: Path) -> Iterator[Outage]:
    with Desk(url, folder, settings=SHORT) as desk:
        yield Outage(desk)


@pytest.fixture(scope="module")
def past(
    postgres_url: str, migrated_template: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Outage]:
    """Give an outage after which labs were heard of again; decide nothing about it."""
    with (
        ready_database(postgres_url, migrated_template) as url,
        outage(url, tmp_path_factory.mktemp("past")) as found,
    ):
        # As soon as the new process has told that it lives.
        wait_until(lambda: found.desk.items(WINDOWS), "the window is there")
        assert [window["labs"] for window in found.desk.items(WINDOWS)] == [[]]
        found.hear()
        yield found


@pytest.fixture
def own(database_url: str, tmp_path: Path) -> Iterator[Outage]:
    """Give such an outage of the test's own."""
    with outage(database_url, tmp_path) as found:
        found.hear()
        yield found


# --- when there is one ------------------------------------------------------------------------


def test_a_window_reaches_from_the_outage_to_the_last_event_that_had_no_attempt_left(
    past: Outage,
) -> None:
    (window,) = past.desk.items(WINDOWS)
    begin, end = parsed(window["from"]), parsed(window["to"])
    assert past.killed - BEAT <= begin <= past.killed
    assert past.started - PATTERN <= end <= past.back - PATTERN + timedelta(seconds=1)
    assert window == {**window, "labs": ["both", "too"], "state": "open"}
    assert set(window) == {"from", "to", "labs", "state"}


@pytest.mark.one_server("its time limits are those of one server")
def test_the_report_lists_the_window_but_not_before_it_was(past: Outage) -> None:
    report = past.desk.report()
    assert report["loss_windows"] == past.desk.items(WINDOWS)
    earlier = (past.killed - BEAT).isoformat()
    assert past.desk.report(as_of=earlier)["loss_windows"] == []


def test_windows_are_listed_by_lab_and_state(past: Outage) -> None:
    def labs(**filters: object) -> list[list[str]]:
        return [window["labs"] for window in past.desk.items(WINDOWS, **filters)]

    assert labs(lab_id="both") == [["both"]]
    assert labs(lab_id="before") == []
    assert labs(lab_id="after") == []
    assert labs(state="open", limit=1) == [["both", "too"]]
    assert labs(state="requested") == []
    assert labs(state="closed") == []
    assert [w["labs"] for w in past.desk.report(lab_id="too")["loss_windows"]] == [["too"]]
    assert_problem(past.desk.get(WINDOWS, state="lost"), 400)


def test_a_check_finds_an_open_window(past: Outage) -> None:
    assert past.desk.report()["totals"]["overdue"] == 0
    assert past.desk.run("reconcile", "--check").returncode == 3
    assert past.desk.run("reconcile", "--check", "--lab", "after").returncode == 0


@pytest.mark.parametrize(
    ("wrong", "status"),
    [
        ({"reason": None}, 400), ({"reason": ""}, 400), ({"reason": " "}, 400), ({"from": 1}, 400),
        ({"to": "2024-01-20T10:50:00"}, 400), ({"from": None}, 400), ({"more": 1}, 400),
        ({"labs": "both"}, 400), ({"labs": ["before"]}, 404), ({"labs": ["no_lab"]}, 404),
        ({"from": "2024-01-20T10:50:00Z", "to": "2024-01-20T10:51:00Z"}, 404),
        ({"from": "2090-01-20T10:50:00Z", "to": "2090-01-20T10:51:00Z"}, 404),
    ],
    ids=str,
)  # fmt: skip
def test_closing_a_window_wrongly_is_refused(past: Outage, wrong: Item, status: int) -> None:
    (window,) = past.desk.items(WINDOWS)
    whole = {"from": window["from"], "to": window["to"], "reason": "r"}
    head = past.desk.head()
    assert_problem(past.desk.post(CLOSE, **{**whole, **wrong}), status)
    assert past.desk.head() == head


# --- when there is none -----------------------------------------------------------------------


def test_a_restart_that_the_retries_outlast_loses_nothing(
    own_server: LedgerServer, lab: str
) -> None:
    own_server.record(event(lab, "b"))
    own_server.kill_server()
    own_server.start_server()
    own_server.record(event(lab, "b2"))
    own_server.settle()
    assert own_server.items(WINDOWS) == []


def test_nothing_is_lost_before_the_first_start_or_after_now(
    database_url: str, tmp_path: Path, lab: str
) -> None:
    with Desk(database_url, tmp_path, settings=SHORT) as desk:
        assert desk.items(WINDOWS) == []
        desk.record(event(lab, "b"))
        desk.settle()
        for moment in ("2001-01-01T00:00:00Z", "2090-01-01T00:00:00Z"):
            assert desk.report(as_of=moment)["loss_windows"] == []
        assert desk.items(WINDOWS) == []
        assert desk.post(CLOSE, **{"from": "x"}).status_code == 400
        assert "no loss window" in assert_problem(
            desk.post(
                CLOSE,
                **{"from": "2024-01-20T10:50:00Z", "to": "2024-01-20T10:51:00Z", "reason": "r"},
            ),
            404,
        )


@pytest.mark.one_server("its time limits are those of one server")
def test_nothing_is_lost_while_another_instance_is_alive(database_url: str, tmp_path: Path) -> None:
    with Desk(database_url, tmp_path, settings=SHORT) as desk:
        port = str(free_port())
        settings = {**desk.settings, "LEDGER_PORT": port}
        second = Process("serve", settings=settings, output=tmp_path / "second.log")
        try:
            wait_until(lambda: '"serving"' in second.output, "the second serves")
            pass_time(3)  # until it has recorded that it lives
            found = Outage(desk)
            found.hear()
            assert desk.items(WINDOWS) == []
        finally:
            second.kill()


# --- the database away ------------------------------------------------------------------------


def test_time_without_the_database_is_an_outage_though_the_server_runs(
    postgres_server: PrivateServer, tmp_path: Path, lab: str
) -> None:
    schema.migrate(postgres_server.dsn())
    with Desk(postgres_server.dsn(), tmp_path, settings=SHORT) as desk:
        desk.record(event(lab, "b"))
        killed = datetime.now(UTC)
        postgres_server.kill()
        pass_time(4)
        started = datetime.now(UTC)
        postgres_server.start()
        desk.wait_until_ready()
        wait_until(lambda: desk.send(event(lab, "b2")).status_code == 200, "it takes again")
        back = datetime.now(UTC)
        (window,) = wait_until(lambda: desk.items(WINDOWS, lab_id=lab), "the window is known")
        assert killed - BEAT <= parsed(window["from"]) <= killed + timedelta(seconds=1)
        assert started - PATTERN <= parsed(window["to"]) <= back - PATTERN + BEAT
        assert desk.serve.running


# --- what is done about one -------------------------------------------------------------------


def test_a_request_asks_for_all_of_a_window_once_and_closing_it_closes_the_window(
    own: Outage,
) -> None:
    desk = own.desk
    (window,) = desk.items(WINDOWS)
    request = desk.ask()
    assert (request["lines"], request["state"]) == ([], "open")
    assert request["loss_windows"] == [{**window, "state": "requested"}]
    assert desk.items(WINDOWS) == request["loss_windows"]
    assert desk.items(WINDOWS, state="open") == []
    assert desk.post("/v1/support-requests").status_code == 204
    assert desk.run("reconcile", "--check").returncode == 0
    letter = desk.get("/v1/support-requests/1", format="markdown").text
    assert "both" in letter
    assert window["from"][:10] in letter
    assert "before" not in letter.split("both")[1]
    closed = desk.post("/v1/support-requests/1/close", reason="all came")
    assert closed.json()["state"] == "closed"
    assert [one["state"] for one in desk.items(WINDOWS)] == ["closed"]
    assert desk.post("/v1/support-requests").status_code == 204
    assert desk.run("rebuild", "--yes").returncode == 0
    assert [one["state"] for one in desk.items(WINDOWS)] == ["closed"]


def test_a_window_is_closed_for_some_labs_and_asked_of_the_others(own: Outage) -> None:
    desk = own.desk
    (window,) = desk.items(WINDOWS)
    span = {"from": window["from"], "to": window["to"]}
    answer = desk.post(CLOSE, **span, labs=["too"], reason="the lab was shut")
    assert answer.status_code == 200
    parts = {tuple(one["labs"]): one["state"] for one in desk.items(WINDOWS)}
    assert parts == {("both",): "open", ("too",): "closed"}
    assert [one["labs"] for one in desk.ask()["loss_windows"]] == [["both"]]
    head = desk.head()
    assert desk.post(CLOSE, **span, labs=["too"], reason="again").status_code == 200
    assert desk.head() == head
    assert desk.post(CLOSE, **span, reason="done").status_code == 200
    assert desk.asked(1)["state"] == "closed"
    assert {one["state"] for one in desk.items(WINDOWS)} == {"closed"}


def test_a_window_is_listed_and_closed_by_command(own: Outage) -> None:
    desk = own.desk
    wait_until(lambda: desk.items(WINDOWS), "the window is known")
    own.hear()
    done = desk.run("windows", "--json")
    assert [json.loads(line) for line in done.stdout.splitlines()] == desk.items(WINDOWS)
    names, row = (line.split("\t") for line in desk.run("windows").stdout.decode().splitlines())
    assert names == ["from", "to", "state", "labs"]
    assert row[2:] == ["open", "both, too"]
    close = ["windows", "--close", *row[:2], "--reason", "shut", "--by", "ann"]
    head = desk.head()
    assert_sentence(desk.run(*close), "--yes", code=2)
    assert desk.run(*close, "--dry-run").returncode == 0
    assert desk.head() == head
    assert desk.run(*close, "--lab", "too", "--yes").returncode == 0
    assert {tuple(one["labs"]): one["state"] for one in desk.items(WINDOWS)} == {
        ("both",): "open", ("too",): "closed"
    }  # fmt: skip
    assert desk.run("windows", "--state", "open").stdout.decode().count("\n") == 2
    done = desk.run(*close, "--yes")
    assert done.returncode == 0, done.stderr
    assert {one["state"] for one in desk.items(WINDOWS)} == {"closed"}
    elsewhere = ["2024-01-20T10:00:00Z", "2024-01-20T11:00:00Z"]
    done = desk.run("windows", "--close", *elsewhere, "--reason", "r", "--yes")
    assert_sentence(done, "no such loss window")
