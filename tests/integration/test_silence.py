"""Silence on a real log: what is counted, what is asked again, what is listed and alerted about."""

import json
import threading
from collections.abc import Iterator
from contextlib import closing
from datetime import datetime, timedelta
from typing import Any

import pytest
from click.testing import CliRunner
from psycopg import Connection

from ledger.cli.labs import labs as command
from ledger.eventlog.append import Delivery, Source, append
from ledger.model import lab_silences
from ledger.model.lab_silences import Past
from ledger.operations import silence
from ledger.operations.alerts.outbox import note
from ledger.operations.alerts.watcher import subjects
from ledger.operations.alerts.wording import Subject
from ledger.operations.lab_list import LabItem, list_lab_items
from ledger.operations.read_models import LabSilence
from ledger.operations.reconciliation.report import Question, reconcile
from ledger.operations.silence import Hearings
from ledger.postgres.connect import connect
from tests.support.decisions import POLICY
from tests.support.labs import HOUR, MONDAY
from tests.support.sessions import drain, in_thread

DAYS = 29
STOPPED = MONDAY + timedelta(days=DAYS - 1, hours=10)
"""When nothing more came from the lab "gone": on a Monday."""

NOW = STOPPED + 3 * HOUR
CHANNELS = ["json://localhost"]


def delivery(lab: str, at: datetime, source: Source = "webhook") -> Delivery:
    body = {"labID": lab, "eventType": "lead.created", "eventTime": int(at.timestamp())}
    return Delivery.of(json.dumps(body).encode(), received_at=at, source=source)


def history(here: str = "here", gone: str = "gone") -> Iterator[Delivery]:
    """Give the events of two labs in each ten minutes of working hours, by their time."""
    for day in range(DAYS):
        for minute in range(7 * 60, 19 * 60, 10):
            at = MONDAY + timedelta(days=day, minutes=minute)
            if day % 7 == 6 or at >= NOW:
                continue
            yield delivery(here, at)
            if at < STOPPED:
                yield delivery(gone, at)


@pytest.fixture
def log(database_url: str) -> Iterator[Connection]:
    with closing(connect(database_url, "test")) as connection:
        append(connection, list(history()))
        drain(connection)
        yield connection


def states(log: Connection, now: datetime = NOW) -> dict[str, str]:
    return {lab: one.state for lab, one in Hearings().read(log, now).items()}


def silences(log: Connection, **question: Any) -> list[LabSilence]:  # noqa: ANN401 -- a `Question`'s
    with reconcile(log, POLICY, Question(**question)) as (report, _):
        return report.silences


def come(log: Connection, *deliveries: Delivery) -> None:
    append(log, list(deliveries))
    drain(log)


def test_a_lab_that_stops_is_silent_until_it_is_heard_of_again(log: Connection) -> None:
    assert states(log, STOPPED + HOUR) == {"gone": "usual", "here": "usual"}
    hearings = Hearings()
    found = hearings.read(log, NOW)["gone"]
    assert (found.state, found.since) == ("silent", STOPPED - 10 * HOUR / 60)
    assert hearings.read(log, NOW) == hearings.read(log, NOW, labs=("gone", "here"))

    come(log, delivery("gone", NOW - HOUR, source="import"))
    assert hearings.read(log, NOW)["gone"].state == "silent", "support sent it, not the lab"
    come(log, delivery("gone", NOW - HOUR / 60))
    assert hearings.read(log, NOW)["gone"].state == "usual"


def test_a_lab_is_learned_once_however_many_ask(
    log: Connection, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    learned: list[float] = []
    again = threading.Event()

    def look_back(*given: Any) -> Past:  # noqa: ANN401 -- as the function takes them
        learned.append(given[1])
        if len(learned) > 1:
            again.set()
        again.wait(1)  # for who asks at the same time
        return lab_silences.look_back(*given)

    monkeypatch.setattr(silence, "look_back", look_back)
    hearings = Hearings()

    def ask() -> None:
        with closing(connect(database_url, "test")) as connection:
            assert hearings.read(connection, NOW)["gone"].state == "silent"

    with in_thread(ask), in_thread(ask):
        pass
    assert hearings.read(log, NOW + 2 * HOUR, labs=("gone",))["gone"].state == "silent"
    assert len(learned) == 1


def test_an_outage_of_the_receiver_is_no_silence(log: Connection) -> None:
    def alive(begin: datetime, end: datetime) -> None:
        log.execute("INSERT INTO ledger.liveness VALUES (gen_random_uuid(), %s, %s)", (begin, end))

    alive(MONDAY, STOPPED)
    alive(NOW - HOUR / 2, NOW)
    assert states(log) == {"gone": "usual", "here": "usual"}
    alive(STOPPED, NOW)
    assert states(log) == {"gone": "silent", "here": "usual"}


def test_the_reconciliation_has_the_same_silences_when_it_is_asked_again(log: Connection) -> None:
    [before] = silences(log, as_of=NOW)
    assert (before.lab_id, before.state, before.with_others) == ("gone", "silent", False)
    row = log.execute("SELECT position FROM state.checkpoint").fetchone()
    position = row and row[0]

    come(
        log,
        delivery("gone", STOPPED + HOUR / 10),  # it waited in a spool
        delivery("gone", NOW + HOUR),
        delivery("new", NOW - HOUR),
    )

    assert silences(log, as_of=NOW, position=position) == [before]
    assert silences(log, as_of=NOW) != [before]
    assert silences(log, as_of=NOW + HOUR) == []
    assert silences(log, as_of=NOW, position=position, labs=("here",)) == []


def test_labs_are_listed_with_their_state(log: Connection) -> None:
    come(log, delivery("only imports", NOW, source="import"))

    def listed(**values: Any) -> list[LabItem]:  # noqa: ANN401 -- those of `list_lab_items`
        given = {"labs": None, "after": None, "limit": 10, **values}
        return list_lab_items(log, POLICY, NOW, Hearings(), **given)

    assert [(lab.lab_id, lab.state) for lab in listed()] == [
        ("gone", "silent"), ("here", "usual"), ("only imports", None),
    ]  # fmt: skip
    assert [lab.lab_id for lab in listed(state="silent")] == ["gone"]
    assert [lab.lab_id for lab in listed(state="silent", labs=("here",))] == []
    assert [lab.lab_id for lab in listed(after="gone", limit=1)] == ["here"]


def alerted(log: Connection, now: datetime) -> list[Subject]:
    found = [
        each for each in subjects(log, POLICY, now, Hearings())
        if each.kind in {"silence", "silence_of_many", "heard_again"}
    ]  # fmt: skip
    number = note(log, found, CHANNELS, now)
    return found if number else []


def test_a_silence_is_alerted_about_once_and_taken_back_once(log: Connection) -> None:
    [silence] = alerted(log, NOW)
    assert (silence.kind, silence.lab_id) == ("silence", "gone")
    assert silence.words.startswith("lab gone: last heard of 2024-01-29 09:50:00 UTC; ")
    assert alerted(log, NOW + HOUR) == []

    come(log, delivery("gone", NOW + HOUR))
    [again] = alerted(log, NOW + HOUR)
    assert (again.kind, again.lab_id) == ("heard_again", "gone")
    assert again.words == (
        "lab gone: silent since 2024-01-29 09:50:00, heard of 2024-01-29 14:00:00 UTC"
    )
    assert alerted(log, NOW + HOUR) == []


def test_labs_that_do_not_open_at_once_are_one_alert(log: Connection) -> None:
    come(log, *history("here too", "gone too"))
    labs = ("gone", "gone too", "here", "here too")
    rest = (STOPPED + number * HOUR / 6 for number in range(9 * 6))
    come(log, *(delivery(lab, at) for at in rest for lab in labs))
    holiday = NOW + timedelta(days=1)

    found = alerted(log, holiday)

    assert [each.kind for each in found] == ["silence_of_many"]
    assert found[0].words == (
        "4 labs, the first last heard of 2024-01-29 18:50:00 UTC: gone, gone too, here, here too"
    )
    assert alerted(log, holiday + HOUR) == []


@pytest.mark.usefixtures("log")
def test_the_command_lists_silent_labs(database_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LEDGER_DATABASE_URL", database_url)

    result = CliRunner().invoke(command, ["--state", "silent", "--json"])

    assert result.exit_code == 0, result.output
    lines = [json.loads(line) for line in result.stdout.splitlines()]
    # Long ago by now, so both are silent.
    assert [(line["lab_id"], line["state"]) for line in lines] == [
        ("gone", "silent"), ("here", "silent"),
    ]  # fmt: skip
    assert CliRunner().invoke(command, ["--state", "quiet"]).stderr == (
        "There is no lab that matches.\n"
    )
