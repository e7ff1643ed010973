"""The live stream of changed bills."""

import itertools
import json
import signal
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import httpx
import pytest
from httpx_sse import ServerSentEvent, connect_sse

from ledger import schema
from ledger.api.change_feed import MOST_STREAMS
from tests.support.answers import assert_problem
from tests.support.payloads import event
from tests.support.postgres import PrivateServer
from tests.support.server import PLAIN, LedgerServer, wait_until

READ_SECONDS = 10.0
"""A test fails when the stream is silent for that long."""


@contextmanager
def stream(
    server: LedgerServer, *, last_event_id: str | None = None, **parameters: int | str
) -> Iterator[Iterator[ServerSentEvent]]:
    headers = {} if last_event_id is None else {"Last-Event-ID": last_event_id}
    with (
        httpx.Client(
            base_url=server.url,
            headers={"Authorization": server.api.headers["authorization"]},
            timeout=READ_SECONDS,
            trust_env=False,
            verify=PLAIN,
        ) as client,
        connect_sse(client, "GET", "/v1/changes", headers=headers, params=parameters) as source,
    ):
        # A comment is no change, although the client makes an event without data of it.
        yield (change for change in source.iter_sse() if change.data)


def test_a_change_comes_while_the_stream_is_open_with_the_position_as_its_id(
    server: LedgerServer, lab: str
) -> None:
    start = server.settle()
    with stream(server, after=start) as changes:
        for number in range(3):
            (position,) = server.record(event(lab, f"b{number}", integrator="x"))
            change = next(changes)
            assert (change.event, change.id) == ("bill", str(position))
            server.settle()
            (item,) = server.get("/v1/changes", after=position - 1).json()["items"]
            assert json.loads(change.data) == item
            assert (item["bill_id"], item["position"]) == (f"b{number}", position)


def test_a_change_comes_at_once(server: LedgerServer, lab: str) -> None:
    with stream(server, after=server.settle()) as changes:
        server.record(event(lab, "first"))
        next(changes)
        began = time.monotonic()
        server.record(event(lab, "second"))
        next(changes)
        assert time.monotonic() - began < 2


def test_the_stream_goes_on_after_the_last_event_id(server: LedgerServer, lab: str) -> None:
    server.settle()
    positions = server.record(*(event(lab, f"b{number}") for number in range(4)))
    with stream(server, after=positions[0] - 1) as changes:
        seen = [next(changes).id for _ in range(2)]
    with stream(server, last_event_id=seen[-1]) as changes:
        seen += [next(changes).id for _ in range(2)]
        server.record(event(lab, "b9"))
        assert json.loads(next(changes).data)["bill_id"] == "b9"
    assert seen == [str(position) for position in positions]


def test_the_last_event_id_wins_over_after(server: LedgerServer, lab: str) -> None:
    first, second = server.record(event(lab, "b1"), event(lab, "b2"))
    with stream(server, after=first - 1, last_event_id=str(first)) as changes:
        assert next(changes).id == str(second)


def test_without_a_start_the_stream_begins_with_the_first_change(
    server: LedgerServer, lab: str
) -> None:
    server.record(event(lab, "b"))
    server.settle()
    first = server.get("/v1/changes", limit=1).json()["items"][0]
    with stream(server) as changes:
        assert json.loads(next(changes).data) == first


def test_more_changes_than_one_part_all_come_in_order(server: LedgerServer, lab: str) -> None:
    start = server.settle()
    lines = b"".join(
        json.dumps(event(lab, f"b{number:04}")).encode() + b"\n" for number in range(1200)
    )
    assert server.run("import", "-", stdin=lines).returncode == 0
    with stream(server, after=start) as changes:
        ids = [int(next(changes).id) for _ in range(1200)]
    assert ids == list(range(start + 1, start + 1201))


def test_the_stream_goes_on_over_a_rebuild(server: LedgerServer, lab: str) -> None:
    with stream(server, after=server.settle()) as changes:
        for number in range(3):
            server.record(event(lab, f"b{number}"))
            assert json.loads(next(changes).data)["bill_id"] == f"b{number}"
            assert server.run("rebuild", "--yes", "--processes", "1").returncode == 0


def test_a_stream_holds_until_the_projector_is_back(server: LedgerServer, lab: str) -> None:
    with stream(server, after=server.settle()) as changes:
        with server.without_projector():
            (position,) = server.record(event(lab, "b"))
        assert next(changes).id == str(position)


@pytest.mark.parametrize("last", ["x", "-1", "1.5", str(2**63), "9" * 5000])
def test_a_last_event_id_that_is_none_of_ours_is_refused(server: LedgerServer, last: str) -> None:
    answer = server.api.get(
        "/v1/changes", headers={"Accept": "text/event-stream", "Last-Event-ID": last}
    )
    assert answer.status_code == 400
    assert "Last-Event-ID" in answer.json()["detail"]


def test_the_stream_needs_the_key(server: LedgerServer) -> None:
    answer = server.anonymous.get("/v1/changes", headers={"Accept": "text/event-stream"})
    assert answer.status_code == 401


def test_an_open_stream_does_not_hold_up_a_clean_end(own_server: LedgerServer, lab: str) -> None:
    with stream(own_server) as changes:
        own_server.record(event(lab, "b"))
        next(changes)
        began = time.monotonic()
        own_server.serve.send_signal(signal.SIGTERM)
        with pytest.raises(StopIteration):
            next(changes)
        assert own_server.serve.wait() == 0
        assert time.monotonic() - began < 5


def test_a_stream_of_one_lab_has_no_bill_of_another(server: LedgerServer, lab: str) -> None:
    start = server.settle()
    server.record(event(lab, "old"), event(f"{lab}-other", "old"))
    server.settle()
    with stream(server, after=start, lab_id=lab) as changes:
        assert json.loads(next(changes).data)["bill_id"] == "old"
        server.record(event(f"{lab}-other", "new"), event(lab, "new"))
        change = json.loads(next(changes).data)
        assert (change["lab_id"], change["bill_id"]) == (lab, "new")


def test_many_streams_all_get_each_change_once_and_in_order(server: LedgerServer, lab: str) -> None:
    start = server.settle()
    with ExitStack() as streams:
        several = [streams.enter_context(stream(server, after=start)) for _ in range(20)]
        positions = server.record(*(event(lab, f"b{number}") for number in range(30)))
        server.settle()
        for changes in several:
            assert [int(next(changes).id) for _ in positions] == positions


def test_a_stream_that_is_far_behind_catches_up_and_goes_on(
    own_server: LedgerServer, lab: str
) -> None:
    lines = b"".join(
        json.dumps(event(lab, f"b{number:04}")).encode() + b"\n" for number in range(6000)
    )
    with stream(own_server) as follower:
        assert own_server.run("import", "-", stdin=lines).returncode == 0
        assert [int(next(follower).id) for _ in range(6000)] == list(range(1, 6001))
    own_server.settle()
    with stream(own_server, last_event_id="100") as late:  # before what is kept in memory
        assert [int(next(late).id) for _ in range(5900)] == list(range(101, 6001))
        own_server.record(event(lab, "new"))
        assert next(late).id == "6001"


def test_a_stream_says_that_nothing_has_its_position_yet(server: LedgerServer) -> None:
    head = server.settle()
    with server.api.stream(
        "GET",
        "/v1/changes",
        params={"after": head + 1000},
        headers={"Accept": "text/event-stream"},
    ) as answer:
        first, second = itertools.islice(filter(None, answer.iter_lines()), 2)
    assert (first, second) == (f": changes after {head + 1000}", f": the projection is at {head}")


def test_a_position_that_the_log_has_not_reached_finds_nothing_at_once(
    server: LedgerServer,
) -> None:
    for path, name in (
        ("/v1/changes", "after"),
        ("/v1/events", "after"),
        ("/v1/bills", "changed_after"),
        ("/v1/reports", "changed_after"),
    ):
        answer = server.get(path, **{name: 10**15})
        assert answer.json() == {"items": [], "next": None}
        assert int(answer.headers["ledger-position"]) < 10**15


def test_streams_beyond_the_bound_are_refused_and_lists_are_still_served(
    own_server: LedgerServer,
) -> None:
    headers = {
        "Accept": "text/event-stream",
        "Authorization": own_server.api.headers["authorization"],
    }
    limits = httpx.Limits(max_connections=None)
    with (
        httpx.Client(base_url=own_server.url, trust_env=False, limits=limits, timeout=30) as client,
        ExitStack() as streams,
    ):

        def opened() -> httpx.Response:
            return streams.enter_context(client.stream("GET", "/v1/changes", headers=headers))

        served = [opened() for _ in range(MOST_STREAMS)]
        assert {answer.status_code for answer in served} == {200}
        refused = opened()
        refused.read()
        assert "no further stream" in assert_problem(refused, 503)
        assert refused.headers["retry-after"] == "30"
        assert own_server.get("/v1/changes").status_code == 200
        served[0].close()
        wait_until(lambda: opened().status_code == 200, "another stream is served")


def test_a_stream_outlives_an_outage_of_the_database(
    postgres_server: PrivateServer, tmp_path: Path, lab: str
) -> None:
    schema.migrate(postgres_server.dsn())
    with LedgerServer(postgres_server.dsn(), tmp_path) as server, stream(server) as changes:
        server.record(event(lab, "before"))
        assert json.loads(next(changes).data)["bill_id"] == "before"
        postgres_server.kill()
        postgres_server.start()
        server.wait_until_ready()
        wait_until(lambda: server.send(event(lab, "after")).status_code == 200, "a delivery")
        assert json.loads(next(changes).data)["bill_id"] == "after"
