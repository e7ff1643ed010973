"""What a sender may do with a connection: in pieces, one request after the other, or gone."""

import json
import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing

import psycopg
import pytest

from tests.support.payloads import distinct
from tests.support.postgres import lane_waits
from tests.support.server import KEY, TOKEN, LedgerServer, wait_until

PATIENCE = 10.0

Answer = tuple[int, dict[bytes, bytes], bytes]


@pytest.fixture(scope="module")
def server(
    module_database_url: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[LedgerServer]:
    with LedgerServer(module_database_url, tmp_path_factory.mktemp("wire")) as started:
        yield started


class Wire:
    """A connection on which bytes are sent as they stand."""

    def __init__(self, server: LedgerServer) -> None:
        host, port = server.url.removeprefix("http://").split(":")
        self.socket = socket.create_connection((host, int(port)), timeout=PATIENCE)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._reader = self.socket.makefile("rb")

    def close(self) -> None:
        self._reader.close()
        self.socket.close()

    def send(self, data: bytes) -> None:
        self.socket.sendall(data)

    def line(self) -> bytes:
        """Return the next line that comes."""
        return self._reader.readline()

    def answer(self) -> Answer:
        """Return status, headers and content of the next answer."""
        status = int(self._reader.readline().split()[1])
        headers: dict[bytes, bytes] = {}
        while (line := self._reader.readline().strip()) != b"":
            name, value = line.split(b": ", 1)
            headers[name] = value
        return status, headers, self._reader.read(int(headers[b"content-length"]))

    def is_at_end(self) -> bool:
        return self._reader.read(1) == b""


@pytest.fixture
def wire(server: LedgerServer) -> Iterator[Wire]:
    with closing(Wire(server)) as connected:
        yield connected


def request(
    body: bytes,
    *,
    method: str = "POST",
    path: str = "/webhooks/flabs",
    token: str | None = TOKEN,
    version: str = "1.1",
    **headers: str,
) -> bytes:
    given = {"Host": "ledger", "Content-Length": str(len(body)), **headers}
    if token is not None:
        given["Authorization"] = f"Bearer {token}"
    lines = [f"{method} {path} HTTP/{version}", *(f"{n}: {v}" for n, v in given.items())]
    return "\r\n".join([*lines, "", ""]).encode() + body


def bodies(lab: str, count: int) -> list[bytes]:
    return [json.dumps(payload).encode() for payload in distinct(lab, count)]


def outcome(answer: Answer) -> tuple[int, str]:
    """Return the status and what became of the delivery."""
    status, headers, content = answer
    assert headers[b"content-type"] == b"application/json"
    return status, json.loads(content)["outcome"]


def position(answer: Answer) -> int:
    return int(json.loads(answer[2])["position"])


def test_a_delivery_may_come_a_byte_at_a_time(wire: Wire, server: LedgerServer, lab: str) -> None:
    [body] = bodies(lab, 1)
    for byte in request(body):
        wire.send(bytes([byte]))
    answer = wire.answer()
    assert outcome(answer) == (200, "recorded")
    [logged] = server.items("/v1/events", after=position(answer) - 1, limit=1)
    assert logged["body"] == json.loads(body)


def test_deliveries_follow_each_other_on_a_connection(wire: Wire, lab: str) -> None:
    first, second = bodies(lab, 2)
    for body, word in ((first, "recorded"), (second, "recorded"), (first, "duplicate")):
        wire.send(request(body))
        assert outcome(wire.answer()) == (200, word)


def test_requests_sent_at_once_are_answered_in_their_order(wire: Wire, lab: str) -> None:
    """Deliveries of every form, and other requests among them."""
    first, second, third = bodies(lab, 3)
    read = request(b"", method="GET", path="/v1/labs/none/bills/none", token=KEY)
    wire.send(
        request(first)
        + request(first)
        + read
        + request(second, token="wrong")
        + request(second, path=f"/webhooks/flabs/{TOKEN}", token=None)
        + read
        + request(third, path="/webhooks/flabs?x=y")
    )
    answers = [wire.answer() for _ in range(7)]
    assert [status for status, _, _ in answers] == [200, 200, 404, 401, 200, 404, 200]
    assert outcome(answers[0]) == (200, "recorded")
    assert outcome(answers[1]) == (200, "duplicate")
    assert position(answers[1]) == position(answers[0])
    assert outcome(answers[4]) == (200, "recorded")
    assert outcome(answers[6]) == (200, "recorded")


def test_a_refused_delivery_leaves_its_connection_as_it_was(wire: Wire, lab: str) -> None:
    [body] = bodies(lab, 1)
    wire.send(request(body, token="wrong"))
    assert wire.answer()[0] == 401
    wire.send(request(body))
    assert outcome(wire.answer()) == (200, "recorded")


@pytest.mark.parametrize("size", [0, 16 * 1024 - 1, 16 * 1024, 100_000])
def test_a_body_of_any_length_is_taken_whole(wire: Wire, lab: str, size: int) -> None:
    body = (f"{lab} ".encode() + b"x" * size)[:size]
    for word in ("unreadable", "duplicate"):
        wire.send(request(body))
        assert outcome(wire.answer()) == (200, word)


def test_who_waits_for_leave_to_send_the_body_gets_it(wire: Wire, lab: str) -> None:
    [body] = bodies(lab, 1)
    whole = request(body, Expect="100-continue")
    wire.send(whole.removesuffix(body))
    assert wire.line() == b"HTTP/1.1 100 Continue\r\n"
    wire.line()
    wire.send(body)
    assert outcome(wire.answer()) == (200, "recorded")


@pytest.mark.parametrize(
    ("version", "connection"), [("1.0", "close"), ("1.0", "keep-alive"), ("1.1", "close")]
)
def test_a_connection_that_shall_end_ends_with_the_answer(
    wire: Wire, lab: str, version: str, connection: str
) -> None:
    [body] = bodies(lab, 1)
    wire.send(request(body, version=version, Connection=connection))
    answer = wire.answer()
    assert outcome(answer) == (200, "recorded")
    assert answer[1][b"connection"] == b"close"
    assert wire.is_at_end()


@pytest.mark.parametrize("protocol", ["h2c", "websocket"])
def test_a_delivery_whose_body_would_be_another_protocols_is_refused(
    wire: Wire, server: LedgerServer, lab: str, protocol: str
) -> None:
    first, second = bodies(lab, 2)
    wire.send(request(first))
    recorded = wire.answer()
    assert outcome(recorded) == (200, "recorded")
    wire.send(request(second, Connection="upgrade", Upgrade=protocol))
    status, headers, content = wire.answer()
    assert (status, headers[b"content-type"]) == (400, b"application/problem+json")
    assert b"Upgrade" in content
    assert wire.is_at_end()
    assert server.head() == position(recorded)


def test_who_offers_to_upgrade_without_a_body_is_answered_as_anybody(wire: Wire) -> None:
    offer = {"Connection": "Upgrade, HTTP2-Settings", "Upgrade": "h2c", "HTTP2-Settings": "x"}
    asked = request(b"", method="GET", path="/v1/labs/none/bills/none", token=KEY, **offer)
    for sent in (asked, asked.replace(b"Content-Length: 0\r\n", b"")):
        wire.send(sent)
        assert wire.answer()[0] == 404


def test_a_secret_in_the_path_may_be_percent_encoded(wire: Wire, lab: str) -> None:
    [body] = bodies(lab, 1)
    encoded = "".join(f"%{ord(letter):02X}" for letter in TOKEN)
    wire.send(request(body, path=f"/webhooks/flabs/{encoded}", token=None))
    assert outcome(wire.answer()) == (200, "recorded")


def test_what_only_begins_like_the_path_of_deliveries_is_none(wire: Wire, lab: str) -> None:
    [body] = bodies(lab, 1)
    for path in ("/webhooks/flabsx", f"/webhooks/flabs/{TOKEN}/x", "/webhooks"):
        wire.send(request(body, path=path))
        assert wire.answer()[0] in {401, 404}


def test_a_delivery_is_kept_when_its_sender_does_not_wait_for_the_answer(
    server: LedgerServer, module_database_url: str, lab: str
) -> None:
    gone, after = bodies(lab, 2)
    with psycopg.connect(module_database_url) as connection, closing(Wire(server)) as wire:
        connection.execute("SELECT pg_advisory_xact_lock(7402, 1)")
        wire.send(request(gone))
        wait_until(lambda: lane_waits(connection), "the lane waits")
        wire.close()
    with closing(Wire(server)) as wire:
        wire.send(request(gone))
        assert outcome(wire.answer()) == (200, "duplicate")
        wire.send(request(after))
        assert outcome(wire.answer()) == (200, "recorded")


def test_a_stop_answers_the_delivery_that_waits_and_ends_its_connection(
    database_url: str, tmp_path_factory: pytest.TempPathFactory, lab: str
) -> None:
    [body] = bodies(lab, 1)
    folder = tmp_path_factory.mktemp("stopped")
    with (
        LedgerServer(database_url, folder, project=False) as server,
        ThreadPoolExecutor(1) as stopper,
        closing(Wire(server)) as wire,
        closing(Wire(server)) as idle,
    ):
        idle.send(request(b"", method="GET", path="/health/live", token=None))
        assert idle.answer()[0] == 200
        with psycopg.connect(database_url) as connection:
            connection.execute("SELECT pg_advisory_xact_lock(7402, 1)")
            wire.send(request(body))
            wait_until(lambda: lane_waits(connection), "the lane waits")
            stopped = stopper.submit(server.serve.terminate)
            assert idle.is_at_end(), "the worker knows that it shall stop"
        answer = wire.answer()
        assert outcome(answer) == (200, "recorded")
        assert answer[1][b"connection"] == b"close"
        assert wire.is_at_end()
        assert stopped.result() == 0
