"""The live stream of changed bills."""

import json
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager

import httpx
import pytest
from httpx_sse import ServerSentEvent, connect_sse

from tests.support.payloads import event
from tests.support.server import LedgerServer

READ_SECONDS = 10.0
"""A test fails when the stream is silent for that long."""


@contextmanager
def stream(
    server: LedgerServer, *, last_event_id: str | None = None, **parameters: int
) -> Iterator[Iterator[ServerSentEvent]]:
    headers = {} if last_event_id is None else {"Last-Event-ID": last_event_id}
    with (
        httpx.Client(
            base_url=server.url,
            headers={"Authorization": server.api.headers["authorization"]},
            timeout=READ_SECONDS,
            trust_env=False,
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


@pytest.mark.parametrize("last", ["x", "-1", "1.5", str(2**63)])
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
