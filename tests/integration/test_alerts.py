"""Alerts against a real HTTP server: each is told once, and no channel holds another up."""

import json
import threading
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import psycopg
import pytest
from apprise import Apprise
from psycopg import Connection
from structlog.testing import capture_logs

from ledger.operations.alerts import channels as alert_channels
from ledger.operations.alerts import sending
from ledger.operations.alerts.channels import MOST_HANGING
from ledger.operations.alerts.outbox import note
from ledger.operations.alerts.sending import Round, send_due
from ledger.operations.alerts.wording import Kind, Subject
from ledger.postgres.connect import connect
from ledger.projection import store
from tests.support.server import free_port
from tests.support.sessions import in_thread, one, pid_of, terminate, wait_until, wait_until_blocked

pytestmark = pytest.mark.slow

NOW = datetime(2024, 1, 20, 3, tzinfo=UTC)
MINUTE = timedelta(minutes=1)
HOUR = timedelta(hours=1)


class Receiver:
    """A server that takes alerts; what it answers depends on the path's name."""

    def __init__(self) -> None:
        self.got: list[tuple[str, dict[str, Any]]] = []
        self.status: dict[str, int] = {}
        self.held: set[str] = set()
        self.release = threading.Event()
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                name = self.path.strip("/")
                receiver.got.append((name, json.loads(body)))
                if name in receiver.held:
                    receiver.release.wait(20)
                self.send_response(receiver.status.get(name, 200))
                self.end_headers()

            def log_message(self, *_: object) -> None:
                """Say nothing; the tests look at stderr."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=partial(self._server.serve_forever, 0.01))
        self._thread.start()

    def channel(self, name: str) -> str:
        return f"json://user:SECRET-password@127.0.0.1:{self._server.server_port}/{name}"

    def count(self, name: str) -> int:
        return sum(path == name for path, _ in self.got)

    def texts(self, name: str) -> list[str]:
        return [payload["message"] for path, payload in self.got if path == name]

    def stop(self) -> None:
        self.release.set()
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


@pytest.fixture
def receiver(monkeypatch: pytest.MonkeyPatch) -> Iterator[Receiver]:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    made = Receiver()
    yield made
    made.stop()


@pytest.fixture(autouse=True)
def nothing_hangs() -> Iterator[None]:
    yield
    for threads in alert_channels._hanging.values():  # noqa: SLF001 -- no test may leave a thread
        for thread in threads:
            thread.join(20)
    alert_channels._hanging.clear()  # noqa: SLF001 -- the same


def subjects(*numbers: int, kind: Kind = "overdue") -> list[Subject]:
    return [
        Subject(kind, f"key {number}", f"lab_{number % 3}", f"bill_{number}: report.completed")
        for number in numbers
    ]


def deliveries(connection: Connection, *columns: str) -> list[tuple[Any, ...]]:
    query = f"SELECT {', '.join(columns)} FROM ledger.alert_delivery ORDER BY alert_id, channel"
    return connection.execute(query.encode()).fetchall()


def alerts(connection: Connection) -> int:
    return int(one(connection, "SELECT count(*) FROM ledger.alert"))


@contextmanager
def another(url: str) -> Iterator[Connection]:
    with connect(url, "another") as connection:
        yield connection


# --- noting -----------------------------------------------------------------------------------


def test_what_is_new_makes_one_alert_for_each_channel(
    service: Connection, receiver: Receiver
) -> None:
    channels = [receiver.channel("one"), receiver.channel("two")]
    assert note(service, subjects(1, 2, 3), channels, NOW) == 3
    assert alerts(service) == 1
    assert deliveries(service, "tries", "next_try_at", "sent_at", "given_up_at") == [
        (0, NOW, None, None),
        (0, NOW, None, None),
    ]


def test_what_was_noted_makes_nothing_and_only_what_is_new_is_told(
    service: Connection, receiver: Receiver
) -> None:
    channels = [receiver.channel("one")]
    note(service, subjects(1, 2), channels, NOW)
    assert note(service, subjects(1, 2), channels, NOW + HOUR) == 0
    assert alerts(service) == 1
    assert note(service, subjects(1, 2, 3), channels, NOW + HOUR) == 1
    send_due(service, channels, NOW + HOUR)
    second = receiver.texts("one")[1]
    assert "bill_3" in second
    assert "bill_1" not in second
    assert second.startswith("1 event overdue.")


def test_nothing_makes_nothing(service: Connection, receiver: Receiver) -> None:
    assert note(service, [], [receiver.channel("one")], NOW) == 0
    assert alerts(service) == 0


def test_the_same_key_of_another_kind_is_another_subject(
    service: Connection, receiver: Receiver
) -> None:
    channels = [receiver.channel("one")]
    assert note(service, subjects(1), channels, NOW) == 1
    assert note(service, subjects(1, kind="parked_bill"), channels, NOW) == 1


def test_a_subject_that_is_given_twice_is_told_once_in_its_first_words(
    service: Connection, receiver: Receiver
) -> None:
    channels = [receiver.channel("one")]
    given = [Subject("overdue", "k", None, "first"), Subject("overdue", "k", None, "second")]
    assert note(service, given, channels, NOW) == 1
    send_due(service, channels, NOW)
    assert "- first\n" in receiver.texts("one")[0]


def test_subjects_are_told_in_the_order_in_which_they_were_given(
    service: Connection, receiver: Receiver
) -> None:
    channels = [receiver.channel("one")]
    note(service, subjects(5, 3, 9, 1), channels, NOW)
    send_due(service, channels, NOW)
    told = [line for line in receiver.texts("one")[0].splitlines() if line.startswith("- ")]
    assert told == [f"- bill_{number}: report.completed" for number in (5, 3, 9, 1)]


def test_a_channel_that_stands_there_twice_is_one(service: Connection, receiver: Receiver) -> None:
    channels = [receiver.channel("one")] * 2
    note(service, subjects(1), channels, NOW)
    assert send_due(service, channels, NOW) == Round(1, 0, 0)
    assert receiver.count("one") == 1


def test_a_rebuild_alerts_nothing_anew(
    service: Connection, owner: Connection, receiver: Receiver
) -> None:
    channels = [receiver.channel("one")]
    note(service, subjects(1, 2, 3), channels, NOW)
    send_due(service, channels, NOW)
    owner.execute("DROP SCHEMA state CASCADE")
    store.create_if_absent(owner)
    assert note(service, subjects(3, 2, 1), channels, NOW + HOUR) == 0
    assert send_due(service, channels, NOW + HOUR) == Round(0, 0, 0)
    assert receiver.count("one") == 1


def test_without_channels_nothing_is_noted_and_nothing_given_up(
    service: Connection, receiver: Receiver
) -> None:
    channels = [receiver.channel("one")]
    assert note(service, subjects(1), [], NOW) == 0
    assert note(service, subjects(1), channels, NOW) == 1
    assert send_due(service, [], NOW + 9 * HOUR) == Round(0, 0, 0)
    assert send_due(service, channels, NOW + 9 * HOUR) == Round(1, 0, 0)


def test_a_failure_while_noting_leaves_nothing_noted(
    service: Connection, receiver: Receiver
) -> None:
    def breaks() -> Iterator[Subject]:
        yield from subjects(*range(6000))
        raise RuntimeError("the reader broke")

    channels = [receiver.channel("one")]
    with pytest.raises(RuntimeError):
        note(service, breaks(), channels, NOW)
    assert note(service, subjects(1), channels, NOW) == 1


def test_hostile_subjects_are_noted_and_told(service: Connection, receiver: Receiver) -> None:
    hostile = ["a\nb", "a\x00b", "\ud800", "<b>", "x" * 200, "я" * 4000, "\u202eabc", "'; --"]
    given = [
        Subject("overdue", f"{text} {text}", text, f"bill {text} of {text}") for text in hostile
    ]
    channels = [receiver.channel("one")]
    assert note(service, given, channels, NOW) == len(hostile)
    assert note(service, given, channels, NOW) == 0
    assert send_due(service, channels, NOW) == Round(1, 0, 0)
    told = [line for line in receiver.texts("one")[0].splitlines() if line.startswith("- ")]
    assert len(told) == len(hostile)
    assert all(line.isprintable() and len(line) < 250 for line in told)


def test_fifty_thousand_subjects_give_one_message_of_bounded_size(
    service: Connection, receiver: Receiver
) -> None:
    many = [
        Subject("overdue", f"{number} " + "k" * 300, f"lab_{number}", "w" * 500)
        for number in range(50_000)
    ]
    channels = [receiver.channel("one")]
    assert note(service, many, channels, NOW) == 50_000
    assert note(service, reversed(many), channels, NOW) == 0
    assert send_due(service, channels, NOW) == Round(1, 0, 0)
    assert send_due(service, channels, NOW) == Round(0, 0, 0)
    [text] = receiver.texts("one")
    assert len(text) < 2000
    assert text.startswith("50,000 events overdue.")
    assert "and 49,990 more: ledger reconcile" in text


def test_two_that_note_the_same_at_once_alert_once(
    service: Connection, owner: Connection, database_url: str, receiver: Receiver
) -> None:
    channels = [receiver.channel("one")]
    counts: list[int] = []
    with another(database_url) as second:

        def note_too() -> None:
            counts.append(note(second, reversed(subjects(*range(100))), channels, NOW))

        with service.transaction():
            assert note(service, subjects(*range(100)), channels, NOW) == 100
            begun = in_thread(note_too)
            begun.__enter__()
            wait_until_blocked(owner, pid_of(second))
        begun.__exit__(None, None, None)
    assert counts == [0]
    assert alerts(service) == 1


def test_many_that_note_at_once_count_each_subject_once(
    service: Connection, database_url: str, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ledger.operations.alerts.outbox.BATCH", 7)
    channels = [receiver.channel("one")]
    numbers = list(range(200))
    counts: list[int] = []

    def work(given: Sequence[int]) -> None:
        with another(database_url) as connection:
            counts.append(note(connection, subjects(*given), channels, NOW))

    orders = [numbers, numbers[::-1], numbers[100:] + numbers[:100], numbers[::-1]]
    threads = [threading.Thread(target=work, args=(order,)) for order in orders]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert sorted(counts) == [0, 0, 0, 200]
    assert alerts(service) == 1


def test_old_alerts_are_deleted_when_a_new_one_is_made_but_not_what_they_were_about(
    service: Connection, receiver: Receiver
) -> None:
    channels = [receiver.channel("one")]
    note(service, subjects(1), channels, NOW)
    send_due(service, channels, NOW)
    note(service, subjects(2), channels, NOW)  # never sent: it must stay
    later = NOW + timedelta(days=31)
    assert note(service, subjects(1, 2, 3), channels, later) == 1
    made = service.execute("SELECT title, made_at FROM ledger.alert ORDER BY id").fetchall()
    assert [at for _, at in made] == [NOW, later]
    assert len(deliveries(service, "channel")) == 2
    assert one(service, "SELECT count(*) FROM ledger.alert_subject") == 3


# --- sending ----------------------------------------------------------------------------------


def test_an_alert_is_sent_once_on_each_channel(service: Connection, receiver: Receiver) -> None:
    channels = [receiver.channel("one"), receiver.channel("two")]
    note(service, subjects(1), channels, NOW)
    assert send_due(service, channels, NOW) == Round(2, 0, 0)
    assert send_due(service, channels, NOW + HOUR) == Round(0, 0, 0)
    assert Counter(name for name, _ in receiver.got) == {"one": 1, "two": 1}
    _, payload = receiver.got[0]
    assert payload["title"] == "Ledger: 1 event overdue"
    assert payload["type"] == "warning"
    assert "\n- bill_1: report.completed\n" in payload["message"]
    assert deliveries(service, "tries", "sent_at", "given_up_at") == [(1, NOW, None)] * 2


def test_alerts_are_sent_oldest_first(service: Connection, receiver: Receiver) -> None:
    channels = [receiver.channel("one")]
    for number in range(5):
        note(service, subjects(number), channels, NOW + number * MINUTE)
    assert send_due(service, channels, NOW + HOUR) == Round(5, 0, 0)
    found = [text.split("- ")[1].split(":")[0] for text in receiver.texts("one")]
    assert found == [f"bill_{number}" for number in range(5)]


def test_what_is_not_due_yet_waits(service: Connection, receiver: Receiver) -> None:
    channels = [receiver.channel("one")]
    note(service, subjects(1), channels, NOW)
    assert send_due(service, channels, NOW - MINUTE) == Round(0, 0, 0)


def test_a_failing_channel_is_tried_again_later_and_holds_no_other_up(
    service: Connection, receiver: Receiver
) -> None:
    channels = [receiver.channel("bad"), receiver.channel("good")]
    receiver.status["bad"] = 500
    note(service, subjects(1), channels, NOW)
    with capture_logs() as logs:
        assert send_due(service, channels, NOW) == Round(1, 1, 0)
    assert receiver.count("good") == 1
    warnings = [line for line in logs if line["log_level"] == "warning"]
    assert warnings == [
        {
            "event": "alert not sent, will be tried again",
            "log_level": "warning",
            "alert": 1,
            "channel": "channel 1 (json)",
            "error": "it failed",
            "tries": 1,
            "next_try_at": "2024-01-20T03:01:00+00:00",
        }
    ]
    assert send_due(service, channels, NOW + timedelta(seconds=59)) == Round(0, 0, 0)
    receiver.status["bad"] = 200
    assert send_due(service, channels, NOW + MINUTE) == Round(1, 0, 0)
    assert Counter(name for name, _ in receiver.got) == {"bad": 2, "good": 1}


def test_pauses_grow_and_after_a_day_it_is_given_up(
    service: Connection, receiver: Receiver
) -> None:
    channels = [receiver.channel("bad")]
    receiver.status["bad"] = 503
    note(service, subjects(1), channels, NOW)
    now, tried = NOW, []
    with capture_logs() as logs:
        while now < NOW + timedelta(hours=30):
            if send_due(service, channels, now).failed:
                tried.append((now - NOW) // MINUTE)
            now += MINUTE
    assert tried == [0, 1, 6, *range(21, 24 * 60 + 60, 60)]
    errors = [line for line in logs if line["log_level"] == "error"]
    assert len(errors) == 1
    assert "given up" in errors[0]["event"]
    assert errors[0]["channel"] == "channel 1 (json)"
    [(given_up, sent)] = deliveries(service, "given_up_at", "sent_at")
    assert given_up == NOW + tried[-1] * MINUTE
    assert sent is None


def test_what_is_sent_at_last_after_a_day_is_not_given_up(
    service: Connection, receiver: Receiver
) -> None:
    channels = [receiver.channel("one")]
    note(service, subjects(1), channels, NOW)
    assert send_due(service, channels, NOW + timedelta(days=3)) == Round(1, 0, 0)


def test_a_channel_that_fails_is_not_tried_with_its_other_alerts_in_the_same_round(
    service: Connection, receiver: Receiver
) -> None:
    channels = [receiver.channel("bad"), receiver.channel("good")]
    receiver.status["bad"] = 500
    for number in range(4):
        note(service, subjects(number), channels, NOW)
    assert send_due(service, channels, NOW) == Round(4, 1, 0)
    assert send_due(service, channels, NOW) == Round(0, 1, 0)
    receiver.status["bad"] = 200
    assert send_due(service, channels, NOW) == Round(2, 0, 0)
    assert send_due(service, channels, NOW + MINUTE) == Round(2, 0, 0)


def test_many_alerts_of_a_dead_channel_do_not_crowd_another_out(
    service: Connection, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sending, "AT_ONCE", 2)
    receiver.status["bad"] = 500
    bad, good = receiver.channel("bad"), receiver.channel("good")
    for number in range(5):
        note(service, subjects(number), [bad], NOW)
    for number in range(6, 9):
        note(service, subjects(number), [bad, good], NOW)
    assert send_due(service, [bad, good], NOW) == Round(2, 1, 0)
    assert receiver.count("good") == 2


def test_a_round_begins_nothing_more_after_its_time(
    service: Connection, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sending, "ROUND_SECONDS", 0)
    channels = [receiver.channel("one")]
    for number in range(3):
        note(service, subjects(number), channels, NOW)
    for _ in range(3):
        assert send_due(service, channels, NOW) == Round(1, 0, 0)
    assert receiver.count("one") == 3


def test_a_server_that_hangs_is_given_up_and_holds_no_other_up(
    service: Connection, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(alert_channels, "SEND_SECONDS", 0.5)
    channels = [receiver.channel("hangs"), receiver.channel("good")]
    receiver.held.add("hangs")
    for number in range(3):
        note(service, subjects(number), channels, NOW)
    with capture_logs() as logs:
        assert send_due(service, channels, NOW) == Round(3, 1, 0)
    [failure] = [line for line in logs if line["log_level"] == "warning"]
    assert failure["channel"] == "channel 1 (json)"
    assert failure["error"] == "it did not end within 0.5 s"
    assert receiver.count("good") == 3


def test_the_good_channel_is_noted_as_sent_while_another_still_hangs(
    service: Connection, owner: Connection, receiver: Receiver
) -> None:
    channels = [receiver.channel("hangs"), receiver.channel("good")]
    receiver.held.add("hangs")
    note(service, subjects(1), channels, NOW)
    sent = "SELECT count(*) FROM ledger.alert_delivery WHERE sent_at IS NOT NULL"
    with in_thread(lambda: send_due(service, channels, NOW)):
        wait_until(lambda: one(owner, sent) == 1, "the good channel's delivery is noted")
        assert receiver.count("hangs") == 1
        receiver.release.set()
    assert one(owner, sent) == 2


def test_a_channel_that_hangs_does_not_gather_threads(
    service: Connection, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(alert_channels, "SEND_SECONDS", 0.2)
    channels = [receiver.channel("hangs")]
    receiver.held.add("hangs")
    now = NOW
    note(service, subjects(1), channels, now)
    with capture_logs() as logs:
        for _ in range(MOST_HANGING + 2):
            assert send_due(service, channels, now).failed == 1
            now += HOUR
    assert receiver.count("hangs") == MOST_HANGING
    assert logs[-1]["error"] == "3 earlier attempts have not ended yet"


def test_no_transaction_is_open_while_a_channel_is_waited_for(
    service: Connection, owner: Connection, receiver: Receiver
) -> None:
    channels = [receiver.channel("slow")]
    receiver.held.add("slow")
    note(service, subjects(1), channels, NOW)
    with in_thread(lambda: send_due(service, channels, NOW)):
        wait_until(lambda: receiver.count("slow"), "the server got it")
        state = one(owner, "SELECT state FROM pg_stat_activity WHERE pid = %s", pid_of(service))
        receiver.release.set()
    assert state == "idle"


def test_what_hangs_cannot_keep_the_process_from_ending(
    service: Connection, receiver: Receiver
) -> None:
    channels = [receiver.channel("slow")]
    receiver.held.add("slow")
    note(service, subjects(1), channels, NOW)
    with in_thread(lambda: send_due(service, channels, NOW)):
        wait_until(lambda: receiver.count("slow"), "the server got it")
        threads = {thread.name: thread.daemon for thread in threading.enumerate()}
        receiver.release.set()
    assert threads["alert channel 1 (json)"]
    pools = [name for name in threads if name.startswith("ThreadPoolExecutor")]
    assert pools == [], "the end of a process waits for pools"


def test_a_server_that_is_away_is_tried_again(
    service: Connection, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1,away.invalid")
    channels = [
        f"json://127.0.0.1:{free_port()}/",
        "json://away.invalid/",
        receiver.channel("good"),
    ]
    note(service, subjects(1), channels, NOW)
    assert send_due(service, channels, NOW) == Round(1, 2, 0)
    assert send_due(service, channels, NOW + MINUTE) == Round(0, 2, 0)
    assert receiver.count("good") == 1


def test_a_channel_that_calls_itself_optional_is_not_taken_at_its_word(
    service: Connection, receiver: Receiver
) -> None:
    channels = [receiver.channel("bad") + "?optional=yes"]
    receiver.status["bad"] = 500
    note(service, subjects(1), channels, NOW)
    assert send_due(service, channels, NOW) == Round(0, 1, 0)


def test_a_url_that_apprise_does_not_understand_fails_like_any_channel(
    service: Connection, receiver: Receiver
) -> None:
    channels = ["SECRET://SECRET", receiver.channel("good")]
    note(service, subjects(1), channels, NOW)
    with capture_logs() as logs:
        assert send_due(service, channels, NOW) == Round(1, 1, 0)
    [failure] = [line for line in logs if line["log_level"] == "warning"]
    assert failure["channel"] == "channel 1 (unknown)"
    assert failure["error"] == "Apprise does not understand its URL"


def test_a_plugin_that_raises_is_one_failed_try(
    service: Connection, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    def breaks(*_: object) -> None:
        raise ZeroDivisionError("SECRET")

    monkeypatch.setattr(alert_channels, "_send", breaks)
    channels = [receiver.channel("one")]
    note(service, subjects(1), channels, NOW)
    with capture_logs() as logs:
        assert send_due(service, channels, NOW) == Round(0, 1, 0)
    assert logs[-1]["error"] == "it failed with ZeroDivisionError"


def test_markup_in_an_id_is_only_text_where_the_channel_takes_html(
    service: Connection, receiver: Receiver
) -> None:
    channels = [receiver.channel("one") + "?format=html"]
    note(service, [Subject("overdue", "k", None, "<b>bill</b>")], channels, NOW)
    assert send_due(service, channels, NOW) == Round(1, 0, 0)
    [text] = receiver.texts("one")
    assert "<b>" not in text
    assert "&lt;b&gt;bill" in text


def test_a_text_too_long_for_the_channel_loses_its_end(
    service: Connection, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    channels = [receiver.channel("one")]
    found = Apprise.instantiate(channels[0])
    assert found
    monkeypatch.setattr(type(found), "body_maxlen", 120)
    note(service, subjects(*range(20)), channels, NOW)
    assert send_due(service, channels, NOW) == Round(1, 0, 0)
    [text] = receiver.texts("one")
    assert len(text) <= 120
    assert text.startswith("20 events overdue.")


# --- channels that come and go ----------------------------------------------------------------


def test_a_channel_added_later_gets_only_new_alerts(
    service: Connection, receiver: Receiver
) -> None:
    old, new = receiver.channel("old"), receiver.channel("new")
    note(service, subjects(1), [old], NOW)
    send_due(service, [old, new], NOW)
    note(service, subjects(1, 2), [old, new], NOW)
    send_due(service, [old, new], NOW)
    assert Counter(name for name, _ in receiver.got) == {"old": 2, "new": 1}
    assert "bill_2" in receiver.texts("new")[0]


def test_what_was_for_a_channel_that_is_gone_is_given_up_quietly_after_an_hour(
    service: Connection, receiver: Receiver
) -> None:
    gone, kept = receiver.channel("gone"), receiver.channel("kept")
    note(service, subjects(1), [gone, kept], NOW)
    with capture_logs() as logs:
        send_due(service, [kept], NOW)
        send_due(service, [kept], NOW + HOUR - MINUTE)
        assert deliveries(service, "given_up_at") == [(None,), (None,)]
        send_due(service, [kept], NOW + HOUR)
    given_up = sorted(deliveries(service, "given_up_at", "tries"), key=repr)
    assert given_up == sorted([(NOW + HOUR, 0), (None, 1)], key=repr)
    assert [line["event"] for line in logs] == ["alert sent"]
    assert send_due(service, [gone, kept], NOW + 2 * HOUR) == Round(0, 0, 0)


def test_a_process_with_the_old_channels_does_not_take_a_new_one_away(
    service: Connection, database_url: str, receiver: Receiver
) -> None:
    old, new = receiver.channel("old"), receiver.channel("new")
    note(service, subjects(1), [new], NOW)
    with another(database_url) as other:
        send_due(other, [old], NOW)
    assert send_due(service, [new], NOW) == Round(1, 0, 0)


# --- several processes, and crashes -----------------------------------------------------------


def test_two_that_send_at_once_send_once(
    service: Connection, database_url: str, receiver: Receiver
) -> None:
    channels = [receiver.channel("slow")]
    receiver.held.add("slow")
    note(service, subjects(1), channels, NOW)
    rounds: list[Round] = []
    with in_thread(lambda: rounds.append(send_due(service, channels, NOW))):
        wait_until(lambda: receiver.count("slow"), "the first is sending")
        with another(database_url) as other:
            assert send_due(other, channels, NOW) == Round(0, 0, 0)
        receiver.release.set()
    assert rounds == [Round(1, 0, 0)]
    with another(database_url) as other:
        assert send_due(other, channels, NOW) == Round(0, 0, 0)
        note(other, subjects(2), channels, NOW)
        assert send_due(other, channels, NOW) == Round(1, 0, 0)  # the turn was given back
    assert receiver.count("slow") == 2


def test_who_loses_the_database_between_a_send_and_its_note_tells_it_twice_not_never(
    service: Connection, owner: Connection, database_url: str, receiver: Receiver
) -> None:
    channels = [receiver.channel("slow")]
    receiver.held.add("slow")
    note(service, subjects(1), channels, NOW)
    lost: list[BaseException] = []

    def loses() -> None:
        try:
            send_due(service, channels, NOW)
        except psycopg.Error as error:
            lost.append(error)

    with in_thread(loses):
        wait_until(lambda: receiver.count("slow"), "the server got it")
        terminate(owner, pid_of(service))
        receiver.release.set()
    assert len(lost) == 1
    with another(database_url) as other:
        assert send_due(other, channels, NOW) == Round(1, 0, 0)
        assert send_due(other, channels, NOW + HOUR) == Round(0, 0, 0)
    assert receiver.count("slow") == 2


# --- secrets and counters ---------------------------------------------------------------------


def test_no_secret_is_ever_said(
    service: Connection,
    receiver: Receiver,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(alert_channels, "SEND_SECONDS", 1.0)
    caplog.set_level(0)
    receiver.status["SECRET-bad"] = 500
    receiver.held.add("SECRET-hangs")
    channels = [
        *(receiver.channel(f"SECRET-{name}") for name in ("good", "bad", "hangs")),
        f"json://user:SECRET@127.0.0.1:{free_port()}/SECRET?+X-Key=SECRET",
        "slack://SECRET",
        "SECRET",
    ]
    note(service, subjects(1), channels, NOW)
    assert send_due(service, channels, NOW) == Round(1, 5, 0)
    assert send_due(service, channels, NOW + timedelta(days=2)) == Round(0, 5, 5)
    receiver.release.set()
    said = "".join(capfd.readouterr())
    assert said.count("channel 2 (json)") == 2, "the log must be what is looked at"
    kept = service.execute(
        "SELECT string_agg(a::text, ' ') || string_agg(d::text, ' ')"
        " FROM ledger.alert a, ledger.alert_delivery d"
    ).fetchone()
    assert "SECRET" not in said + caplog.text + str(kept)
