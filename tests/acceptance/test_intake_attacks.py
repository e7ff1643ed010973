"""What strangers may do to the server without harm: its memory is bounded, deliveries get in."""

import socket
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil
import pytest

from tests.support.payloads import event
from tests.support.server import TOKEN, LedgerServer, wait_until
from tests.support.wire import Wire, chunked, request

MEGABYTE = 1024 * 1024
MEMORY = 48 * MEGABYTE
"""How much the server may grow in each of these tests; all send more, and could send any amount."""

FLOOD = 160 * MEGABYTE
ANSWER_SECONDS = 1.0
OPEN_FILES = 256


@pytest.fixture(scope="module")
def server(
    module_database_url: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[LedgerServer]:
    folder = tmp_path_factory.mktemp("attacked")
    with LedgerServer(module_database_url, folder, open_files=OPEN_FILES, project=False) as started:
        yield started


def memory(server: LedgerServer) -> int:
    """Return the resident bytes of the largest process of the server."""
    parent = psutil.Process(server.serve.pid)
    return max(process.memory_info().rss for process in parent.children(recursive=True))


def assert_deliveries_get_in(server: LedgerServer, lab: str, *, count: int = 5) -> None:
    """Deliver on a new connection each; all are recorded, each within a second."""
    for number in range(count):
        began = time.monotonic()
        with Wire(server) as wire:
            wire.send(request(str(event(lab, f"b{number}")).encode()))
            assert wire.answer()[0] == 200
        assert time.monotonic() - began < ANSWER_SECONDS


BEGUN = chunked(b"{}").removesuffix(b"\r\n")
BEGUN_WITHOUT_TOKEN = chunked(b"{}", token=None).removesuffix(b"\r\n")
LONG_BODY = request(b"", token=None).replace(b": 0", b": 1000000000")
PIPELINED = b"GET /health/live HTTP/1.1\r\nHost: x\r\n\r\n"
WITH_BODY = PIPELINED.replace(b"\r\n\r\n", b"\r\nContent-Length: 9\r\n\r\n123456789")

ENDLESS = {
    "request line": (b"", b"GET /" + b"x" * 64_000),
    "header": (b"GET / HTTP/1.1\r\nx: ", b"y" * 64_000),
    "headers": (b"GET / HTTP/1.1\r\n", b"x: y\r\n" * 10_000),
    "empty lines": (b"", b"\r\n" * 32_000),
    "trailers": (BEGUN, b"x: y\r\n" * 10_000),
    "trailer": (BEGUN + b"x: ", b"y" * 64_000),
    "trailers without a token": (BEGUN_WITHOUT_TOKEN, b"x: y\r\n" * 10_000),
    "trailer without a token": (BEGUN_WITHOUT_TOKEN + b"x: ", b"y" * 64_000),
    "chunk extension": (BEGUN.removesuffix(b"0\r\n") + b"1;x=", b"y" * 64_000),
    "chunks of one byte": (BEGUN.removesuffix(b"0\r\n"), b"1\r\nx\r\n" * 10_000),
    "body without a token": (LONG_BODY, b"x" * 64_000),
    "health checks": (b"", PIPELINED * 2_000),
    "health checks with bodies": (b"", WITH_BODY * 1_000),
    "requests for the schema": (b"", PIPELINED.replace(b"/health/live", b"/schema") * 1_000),
    "requests without a token": (b"", PIPELINED.replace(b"/health/live", b"/v1/bills") * 1_000),
    "deliveries": (b"", request(b"{}") * 500),
}  # fmt: skip
"""By what never ends: how it begins, and what is sent again and again, reading no answer."""


@pytest.mark.parametrize("what", ENDLESS)
def test_input_without_end_takes_bounded_memory_and_delays_nobody(
    server: LedgerServer, lab: str, what: str
) -> None:
    begin, more = ENDLESS[what]
    before = memory(server)
    with Wire(server) as wire:
        wire.send(begin)
        assert wire.flood(more, most=FLOOD) < FLOOD, "it ends or is no longer read"
        assert_deliveries_get_in(server, lab)
        assert memory(server) - before < MEMORY
    assert_deliveries_get_in(server, lab)


def test_a_client_that_reads_may_send_many_requests_at_once(server: LedgerServer) -> None:
    count = 5_000
    with Wire(server) as wire, ThreadPoolExecutor(1) as sender:
        sent = sender.submit(wire.send, (PIPELINED + request(b"{}")) * count)
        for _ in range(2 * count):
            assert wire.answer()[0] == 200
        sent.result()


DRIPPING = request(b"", token=None).replace(b": 0", b": 900000")
HELD_OPEN = {
    "nothing": b"",
    "half a head": b"POST /webhooks/flabs HTTP/1.1\r\nHost: x\r\nX: ",
    "a long half of a head": b"POST /webhooks/flabs HTTP/1.1\r\nX: " + b"y" * 60_000,
    "a body without a token": DRIPPING,
    "a body to be continued": DRIPPING.replace(b"Host", b"Expect: 100-continue\r\nHost"),
    "a body where none is read": DRIPPING.replace(b"/webhooks/flabs", b"/health/live"),
    "an answered request": PIPELINED,
    "half of a delivery": request(b"{}")[:-1],
}
"""By what was sent: connections that their owners never close."""


@pytest.mark.parametrize("what", HELD_OPEN)
def test_deliveries_get_in_while_others_hold_more_connections_than_there_may_be(
    server: LedgerServer, lab: str, what: str
) -> None:
    before = memory(server)
    held: list[socket.socket] = []
    try:
        for number in range(3 * OPEN_FILES):
            held.append(socket.create_connection(("127.0.0.1", server.port)))
            held[-1].sendall(HELD_OPEN[what])
            if number % OPEN_FILES == 0:
                assert_deliveries_get_in(server, lab, count=2)
        assert_deliveries_get_in(server, lab)
        assert memory(server) - before < MEMORY
        workers = psutil.Process(server.serve.pid).children(recursive=True)
        assert max(worker.num_fds() for worker in workers) < OPEN_FILES
    finally:
        for connection in held:
            connection.close()
    if what == "nothing":
        wait_until(lambda: "too many connections" in server.output, "a line in the log")
    assert server.output.count("too many connections") < 20, "not a line for each"


def test_the_soft_limit_of_open_files_is_raised(server: LedgerServer) -> None:
    workers = psutil.Process(server.serve.pid).children(recursive=True)
    assert {worker.rlimit(psutil.RLIMIT_NOFILE) for worker in workers} == {(OPEN_FILES, OPEN_FILES)}


def test_wrong_tokens_are_logged_at_once_and_then_counted(
    database_url: str, tmp_path: Path, lab: str
) -> None:
    with LedgerServer(database_url, tmp_path, project=False) as server:
        for _ in range(20):
            assert server.send(event(lab, "b"), token="not-the-secret").status_code == 401
        assert server.send(event(lab, "b"), token="").status_code == 401

        def lines() -> list[str]:
            return [line for line in server.output.splitlines() if "deliveries refused" in line]

        [first] = wait_until(lines, "a line")
        assert '"times": 1' in first
        assert '"token": "wrong"' in first
        again = wait_until(lambda: lines()[1:], "a line with a count", seconds=15)
        assert '"times": 20' in again[0]
        assert '"token": "missing"' in again[0]
        assert "127.0.0.1" in again[0]
        assert "not-the-secret" not in server.output
        assert TOKEN not in server.output
