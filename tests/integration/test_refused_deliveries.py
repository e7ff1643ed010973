"""The box of refused deliveries: its bounds, and the way of a delivery out of it."""

import json
import threading
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from datetime import datetime, timedelta
from typing import Any

import psycopg
import pytest
from psycopg import Connection

from ledger.errors import DecisionError, UnknownSubjectError
from ledger.eventlog.append import Delivery, append
from ledger.intake.refused_box import RefusedBox
from ledger.model.operators import Operator
from ledger.operations import loss_windows
from ledger.operations.alerts.watcher import subjects
from ledger.operations.refused_deliveries import decide
from ledger.operations.refused_deliveries.decide import accept, drop
from ledger.operations.refused_deliveries.keep import Bounds, Kept, Refusal, Refused, keep
from ledger.operations.refused_deliveries.queries import Selection, count_refused, list_refused
from ledger.operations.silence import Hearings
from ledger.postgres.connect import connect
from ledger.projection.verify import verify
from tests.support.decisions import POLICY, WHO
from tests.support.histories import RECEIVED, body, delivery, respelled
from tests.support.sessions import (
    drain,
    in_thread,
    lane_held,
    one,
    pid_of,
    sessions_named,
    state_without_positions,
    terminate,
    wait_until,
    wait_until_blocked,
)

pytestmark = pytest.mark.slow

BOUNDS = Bounds(rows=8, bytes=100_000, age=timedelta(days=1))
ALL = Selection()
BY = Operator(WHO, "the key")


@pytest.fixture
def box(database_url: str) -> Iterator[Connection]:
    """Connect as the service; the log knows the lab `known`."""
    with closing(connect(database_url, "test")) as connection:
        append(connection, [delivery(body(lab="known", bill="first"))])
        yield connection


def refused(
    bill: str = "b",
    *,
    lab: str = "known",
    client: str = "1.1.1.1",
    received: float = 0,
    times: int = 1,
    reason: Refusal = "wrong",
    more: str = "",
) -> Refused:
    plain = body(lab=lab, bill=bill)
    content = body(lab=lab, bill=bill, reportURL=more) if more else plain
    made = delivery(content, received=received)
    return Refused(made, reason, client, times, made.received_at)


def several(count: int, prefix: str, **named: Any) -> list[Refused]:  # noqa: ANN401 -- of `refused`
    return [
        refused(f"{prefix}{number}", received=number, client=f"{prefix}{number}", **named)
        for number in range(count)
    ]


def put(
    connection: Connection,
    some: Iterable[Refused],
    bounds: Bounds = BOUNDS,
    now: datetime = RECEIVED,
) -> Kept:
    return keep(connection, list(some), bounds, now)


def there(connection: Connection) -> list[str]:
    return [item.bill_id for item in list_refused(connection, ALL, limit=1000)]


def decided(connection: Connection) -> list[dict[str, Any]]:
    query = "SELECT body FROM ledger.logged_event WHERE source = 'operator' ORDER BY position"
    return [json.loads(content) for (content,) in connection.execute(query)]


def test_a_delivery_is_kept_once_however_often_it_comes(box: Connection) -> None:
    assert put(box, [refused(times=2)]) == Kept(1, 0, 0, ["known"])
    again = refused(times=3, received=60)
    again.delivery = delivery(respelled(again.delivery.body), received=60)
    assert put(box, [again]) == Kept(0, 1, 0, ["known"])
    [item] = list_refused(box, ALL, limit=10)
    assert (item.times, item.received_at) == (5, RECEIVED)
    assert item.last_received_at == RECEIVED + timedelta(seconds=60)


def test_what_is_in_the_log_already_is_not_kept(box: Connection) -> None:
    assert put(box, [refused("first")]) == Kept(0, 0, 0, [])


def test_when_the_box_is_full_the_oldest_stay(box: Connection) -> None:
    put(box, several(8, "old", lab="unknown"))
    assert put(box, several(3, "new", lab="unknown")) == Kept(0, 0, 3, [])
    assert there(box) == [f"old{number}" for number in range(8)]


def test_a_known_lab_takes_the_room_of_the_newest_of_unknown_ones(box: Connection) -> None:
    put(box, several(3, "real"))
    put(box, several(5, "junk", lab="unknown"))
    assert put(box, several(2, "more")).new == 2
    assert sorted(there(box)) == [
        "junk0", "junk1", "junk2", "more0", "more1", "real0", "real1", "real2",
    ]  # fmt: skip
    assert put(box, several(9, "most")) == Kept(3, 0, 6, ["known"])
    assert [name for name in there(box) if name.startswith("junk")] == []
    assert len(there(box)) == 8


def test_one_address_gets_half_of_the_box_even_for_known_labs(box: Connection) -> None:
    flood = [refused(f"flood{number}", client="6.6.6.6", received=number) for number in range(50)]
    assert put(box, flood[:25]) == Kept(4, 0, 21, ["known"])
    assert put(box, flood[25:]) == Kept(0, 0, 25, [])
    assert put(box, several(4, "real")).new == 4


def test_the_bytes_are_bounded_too_and_for_each_address(box: Connection) -> None:
    bounds = Bounds(rows=1000, bytes=10_000, age=BOUNDS.age)
    long = "x" * 1000
    flood = [refused(f"flood{number}", more=long, received=number) for number in range(20)]
    assert put(box, flood, bounds).new == 4
    put(box, several(20, "other", more=long), bounds)
    assert 8_000 < one(box, "SELECT sum(bytes) FROM ledger.refused_delivery") <= 10_000


def test_what_is_too_old_goes(box: Connection) -> None:
    put(box, [refused("old"), refused("young", received=3600)])
    put(box, [], now=RECEIVED + BOUNDS.age + timedelta(seconds=1))
    assert there(box) == ["young"]


def test_the_service_and_readers_cannot_put_anything_into_the_box_themselves(
    box: Connection,
) -> None:
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        box.execute("INSERT INTO ledger.refused_delivery DEFAULT VALUES")
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        box.execute("UPDATE ledger.refused_delivery SET body = ''")
    box.execute("RESET ROLE")
    box.execute("SET ROLE ledger_reader")
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        put(box, [refused()])


def test_accepted_deliveries_enter_the_log_once_as_they_were_received(
    box: Connection, database_url: str
) -> None:
    put(box, [refused("a", received=7), refused("b", received=5, times=4), refused("c")])
    ids = {item.bill_id: item.delivery_id for item in list_refused(box, ALL, limit=9)}
    made, position = accept(database_url, Selection(ids=(ids["a"], ids["b"])), by=BY, dry_run=False)
    assert (made.accepted, made.recorded, made.labs) == (2, 2, {"known": 2})
    query = (
        "SELECT bill_id, received_at, source FROM ledger.event_log WHERE position > 1"
        " AND source <> 'operator' ORDER BY position"
    )
    assert box.execute(query).fetchall() == [
        ("b", RECEIVED + timedelta(seconds=5), "webhook"),
        ("a", RECEIVED + timedelta(seconds=7), "webhook"),
    ]
    [decision] = decided(box)
    assert (decision["decision"], decision["by"], decision["by_key"]) == (
        "deliveries.accepted", WHO, "the key",
    )  # fmt: skip
    assert (decision["count"], decision["recorded"], decision["positions"]) == (2, 2, [2, 3])
    assert position == 4
    assert there(box) == ["c"]
    with pytest.raises(UnknownSubjectError, match=ids["a"]):
        accept(database_url, Selection(ids=(ids["a"], ids["c"])), by=BY, dry_run=False)
    assert there(box) == ["c"], "nothing was decided"


def test_what_came_with_the_right_token_meanwhile_is_a_repeat(
    box: Connection, database_url: str
) -> None:
    put(box, [refused("a"), refused("b")])
    append(box, [delivery(body(lab="known", bill="a"), received=500)])
    made, _ = accept(database_url, ALL, by=BY, dry_run=False)
    assert (made.accepted, made.recorded) == (2, 1)
    assert one(box, "SELECT count(*) FROM ledger.repeat_delivery") == 1


def test_dropped_deliveries_are_named_in_the_log(box: Connection, database_url: str) -> None:
    put(box, [refused("a"), refused("b", lab="other", received=1)])
    preview, _ = drop(database_url, Selection(labs=("other",)), by=BY, dry_run=True)
    assert (preview.dropped, preview.dry_run, there(box)) == (1, True, ["a", "b"])
    drop(database_url, Selection(labs=("other",)), by=BY, dry_run=False)
    [decision] = decided(box)
    [named] = decision["deliveries"]
    digest = refused("b", lab="other").delivery.columns.digest.hex()
    assert named == {
        "lab_id": "other", "bill_id": "b", "event_type": "bill.created", "digest": digest,
    }  # fmt: skip
    assert (decision["decision"], decision["by"], decision["count"]) == (
        "deliveries.dropped", WHO, 1,
    )  # fmt: skip
    assert there(box) == ["a"]


def test_one_killed_between_the_box_and_the_log_has_done_nothing(
    box: Connection, database_url: str
) -> None:
    put(box, [refused("a"), refused("b")])

    def accept_in_vain() -> None:
        with pytest.raises((psycopg.OperationalError, DecisionError)):
            accept(database_url, ALL, by=BY, dry_run=False)

    with (
        psycopg.connect(database_url, autocommit=True) as owner,
        lane_held(database_url),
        in_thread(accept_in_vain),
    ):
        wait_until(lambda: sessions_named(owner, "desk"), "one decides")
        [pid] = sessions_named(owner, "desk")
        wait_until_blocked(owner, pid)
        terminate(owner, pid)
    assert sorted(there(box)) == ["a", "b"]
    assert decided(box) == []
    assert accept(database_url, ALL, by=BY, dry_run=False)[0].recorded == 2
    assert one(box, "SELECT count(*) FROM ledger.event_log WHERE bill_id IN ('a', 'b')") == 2


def test_two_who_accept_at_once_accept_each_once(
    box: Connection, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(decide, "BATCH", 3)  # several transactions each
    put(box, several(8, "b"))
    with ThreadPoolExecutor(2) as pool:
        made = [pool.submit(accept, database_url, ALL, by=BY, dry_run=False) for _ in range(2)]
    assert sum(one_of.result()[0].accepted for one_of in made) == 8
    assert one(box, "SELECT count(*) FROM ledger.event_log WHERE source = 'webhook'") == 9
    assert one(box, "SELECT count(*) FROM ledger.repeat_delivery") == 0
    assert sum(decision["count"] for decision in decided(box)) == 8


def test_accepted_deliveries_fold_as_if_they_had_been_taken(
    database_url: str, box: Connection
) -> None:
    tests: dict[str, str | None] = {"t": "completed"}

    def of(lab: str) -> list[Delivery]:
        early = body("report.completed", lab=lab, bill="x", at=60, tests=tests)
        late = body("bill.completed", lab=lab, bill="x", at=90, tests=tests)
        return [delivery(early, received=1), delivery(late, received=900)]

    append(box, of("taken"))
    early, late = of("refused")
    put(box, [Refused(early, "missing", "1.1.1.1", 1, early.received_at)])
    append(box, [late])
    accept(database_url, ALL, by=BY, dry_run=False)
    drain(box)
    state = state_without_positions(box)
    state["delay"] = box.execute("SELECT * FROM state.delay").fetchall()
    state["lab"] = box.execute("SELECT * FROM state.lab").fetchall()

    def rows(lab: str) -> dict[str, list[Any]]:
        return {table: [row[1:] for row in all_ if row[0] == lab] for table, all_ in state.items()}

    assert rows("refused") == rows("taken")
    assert rows("taken")["bill"]
    verified = verify(database_url, processes=1, on_progress=lambda *_: None)
    assert verified.difference is None
    assert verified.position == 6


def test_accepted_deliveries_do_not_mislead_who_looks_for_a_time_in_the_log(
    box: Connection, database_url: str
) -> None:
    """The log is nearly in the order of reception, which questions about the past rely on."""
    append(box, [delivery(body(lab="known", bill=f"{n}"), received=1000 + n) for n in range(9)])
    put(box, several(8, "accepted"))
    accept(database_url, ALL, by=BY, dry_run=False)
    for moment in (0, 500, 1004, 1008, 10**6):
        after = loss_windows.position_at(box, RECEIVED + timedelta(seconds=moment))
        query = (
            "SELECT coalesce(min(position), 0) FROM ledger.event_log"
            " WHERE received_at >= %s AND source = 'webhook'"
        )
        first = one(box, query, RECEIVED + timedelta(seconds=moment))
        assert after < first or not first


def test_each_known_lab_is_alerted_about_by_day_and_power_of_ten(box: Connection) -> None:
    bounds = Bounds(rows=1000, bytes=10**6, age=BOUNDS.age)
    put(box, [refused("a", times=3), refused("b", lab="unknown")], bounds)

    def keys() -> set[tuple[str, str]]:
        found = subjects(box, POLICY, RECEIVED, Hearings())
        return {(each.key, each.words) for each in found if each.kind == "refused_delivery"}

    [(first, words)] = keys()
    assert words == (
        "lab known: 1 delivery with a wrong token, received 3 times, the first "
        "2024-01-20 12:00:00 UTC"
    )
    put(box, several(8, "c", reason="missing"), bounds)
    [(same, words)] = keys()
    assert same == first, "no second alert for nine"
    assert "9 deliveries with no token or a wrong token" in words
    put(box, several(1, "d"), bounds)
    [(other, _)] = keys()
    assert other != first, "but for ten"
    assert count_refused(box).known_labs == 1


def test_while_the_log_knows_no_lab_every_lab_counts(database_url: str) -> None:
    with closing(connect(database_url, "test")) as connection:
        put(connection, [refused("b", lab="first day")])
        assert count_refused(connection).of_known_labs == 1


def test_the_writer_gathers_and_keeps_what_waits_while_the_database_refuses(
    box: Connection, database_url: str
) -> None:
    writer = RefusedBox(database_url, BOUNDS)
    writer.start()
    with psycopg.connect(database_url, autocommit=True) as owner:
        owner.execute("SELECT pg_advisory_lock(7402, 21)")  # as if another wrote for long
        for number in range(3):
            writer.add(refused(f"b{number}").delivery, "wrong", "1.1.1.1")
        wait_until(lambda: sessions_named(owner, "refused"), "it writes")
        [pid] = sessions_named(owner, "refused")
        wait_until_blocked(owner, pid)
        terminate(owner, pid)
        writer.add(refused("b0", received=9).delivery, "wrong", "1.1.1.1")
        owner.execute("SELECT pg_advisory_unlock(7402, 21)")
        wait_until(lambda: len(there(box)) == 3, "all are in the box")
    writer.stop()
    assert {item.bill_id: item.times for item in list_refused(box, ALL, limit=9)} == {
        "b0": 2, "b1": 1, "b2": 1,
    }  # fmt: skip
    assert pid_of(box)


def test_the_writer_holds_a_bounded_number(database_url: str) -> None:
    writer = RefusedBox(database_url, BOUNDS)  # not started: nothing is written
    threads_before = threading.active_count()
    for number in range(2_000):
        writer.add(refused(f"b{number}").delivery, "wrong", "1.1.1.1")
    assert not writer.has_room
    assert len(writer._waiting) == 1_000  # noqa: SLF001 -- what it holds
    assert threading.active_count() == threads_before
