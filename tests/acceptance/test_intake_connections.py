"""What a sender may do with a connection: in pieces, one request after the other, or gone."""

import json
import shutil
import socket
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing

import psycopg
import pytest

from tests.support.payloads import distinct
from tests.support.postgres import lane_waits
from tests.support.server import KEY, TOKEN, LedgerServer, wait_until
from tests.support.wire import Wire, chunked, outcome, position, request


@pytest.fixture(scope="module", params=["on", "off"], ids=["fast", "plain"])
def server(
    module_database_url: str,
    tmp_path_factory: pytest.TempPathFactory,
    request: pytest.FixtureRequest,
) -> Iterator[LedgerServer]:
    """Give a server with Ledger's own HTTP protocol and one with Uvicorn's."""
    settings = {"LEDGER_FAST_INTAKE": request.param}
    folder = tmp_path_factory.mktemp("wire")
    with LedgerServer(module_database_url, folder, settings=settings) as started:
        yield started


@pytest.fixture
def wire(server: LedgerServer) -> Iterator[Wire]:
    with closing(Wire(server)) as connected:
        yield connected


def bodies(lab: str, count: int) -> list[bytes]:
    return [json.dumps(payload).encode() for payload in distinct(lab, count)]


def test_a_delivery_may_come_a_byte_at_a_time(wire: Wire, server: LedgerServer, lab: str) -> None:
    [body] = bodies(lab, 1)
    for byte in request(body):
        wire.send(bytes([byte]))
    answer = wire.answer()
    assert outcome(answer) == (200, "recorded")
    [logged] = server.items("/v1/events", after=position(answer) - 1, limit=1)
    assert logged["body"] == json.loads(body)


@pytest.mark.parametrize("length", [100, 1_000_000])
def test_an_answer_before_the_body_says_if_the_connection_ends(wire: Wire, length: int) -> None:
    """A client sends its next request on a connection of which it was told nothing else."""
    body = b"x" * length
    wire.send(request(body, path="/v1/missing-events/waive", token="wrong")[:-length])
    status, headers, _ = wire.answer()
    assert status == 401
    ends = headers.get(b"connection") == b"close"
    if not ends:
        wire.send(body + request(b"", method="GET", path="/v1/labs/l/bills/b", token=KEY))
        assert wire.answer()[0] == 404


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
        + request(second, path=f"/webhooks/flabs/{TOKEN}", token=None)
        + chunked(first[:9], first[9:])
        + read
        + request(third, path="/webhooks/flabs?x=y")
        + request(third, token="wrong")
        + read
    )
    answers = [wire.answer() for _ in range(8)]
    assert [status for status, _, _ in answers] == [200, 200, 404, 200, 200, 404, 200, 401]
    assert outcome(answers[0]) == (200, "recorded")
    assert outcome(answers[1]) == outcome(answers[4]) == (200, "duplicate")
    assert position(answers[1]) == position(answers[4]) == position(answers[0])
    assert outcome(answers[3]) == (200, "recorded")
    assert outcome(answers[6]) == (200, "recorded")
    assert wire.is_at_end(), "a refusal ends the connection"


@pytest.mark.parametrize("size", [0, 2, 60_000, 1_000_000])
def test_a_refusal_arrives_and_ends_the_connection(wire: Wire, size: int) -> None:
    wire.send(request(b"x" * size, token="wrong"))
    status, headers, _ = wire.answer()
    assert (status, headers[b"connection"]) == (401, b"close")
    assert wire.is_at_end()


@pytest.mark.parametrize("size", [0, 16 * 1024 - 1, 16 * 1024, 100_000])
def test_a_body_of_any_length_is_taken_whole(wire: Wire, lab: str, size: int) -> None:
    body = (f"{lab} ".encode() + b"x" * size)[:size]
    wire.send(request(body))
    assert outcome(wire.answer()) in {(200, "unreadable"), (200, "duplicate" if not size else "")}
    wire.send(request(body))
    assert outcome(wire.answer()) == (200, "duplicate")


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


H2C = {"Connection": "Upgrade, HTTP2-Settings", "Upgrade": "h2c", "HTTP2-Settings": "AAMAAABk"}


@pytest.mark.parametrize(
    "offer", [H2C, {"connection": "upgrade", "upgrade": "websocket"}, {"UPGRADE": "h2c"}]
)
@pytest.mark.parametrize("cut", [None, 1, 30, -1])
def test_an_offer_to_upgrade_is_ignored(
    wire: Wire, lab: str, offer: dict[str, str], cut: int | None
) -> None:
    """Whichever way the request is cut into pieces, and with the next one right behind it."""
    first, second, third, fourth = bodies(lab, 4)
    offered = chunked(third).replace(b"\r\n", b"\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n", 1)
    sent = request(first, **offer) + request(second) + offered + request(fourth, **offer)
    place = len(request(first, **offer)) - len(first) + cut if cut else 0
    wire.send(sent[:place])
    wire.send(sent[place:])
    for _ in range(4):
        assert outcome(wire.answer()) == (200, "recorded")


@pytest.mark.skipif(shutil.which("curl") is None, reason="needs curl")
def test_curl_with_http2_is_recorded(server: LedgerServer, lab: str) -> None:
    [body] = bodies(lab, 1)
    authorization = f"Authorization: Bearer {TOKEN}"
    command = ["curl", "-sS", "--http2", "-H", authorization, "--data-binary", "@-"]
    done = subprocess.run(
        [*command, f"{server.url}/webhooks/flabs"], input=body, capture_output=True, check=True
    )
    assert json.loads(done.stdout)["outcome"] == "recorded"


@pytest.mark.parametrize("version", ["1.0", "1.1"])
@pytest.mark.parametrize("path", ["/webhooks/flabs", "/webhooks/flabs?by=asgi"])
def test_a_sender_that_closes_its_side_after_the_request_is_answered(
    server: LedgerServer, wire: Wire, lab: str, version: str, path: str
) -> None:
    if server.settings["LEDGER_FAST_INTAKE"] == "off":
        pytest.skip("Uvicorn closes the connection instead of answering")
    [body] = bodies(lab, 1)
    wire.send(request(body, version=version, path=path))
    wire.socket.shutdown(socket.SHUT_WR)
    assert outcome(wire.answer()) == (200, "recorded")
    assert wire.is_at_end()


def test_a_token_in_a_trailer_is_none(wire: Wire, lab: str) -> None:
    [body] = bodies(lab, 1)
    trailers = f"Authorization: Bearer {TOKEN}\r\n".encode()
    wire.send(chunked(body, token=None, trailers=trailers))
    assert wire.answer()[0] == 401


def test_trailers_are_ignored_and_do_not_reach_the_next_request(wire: Wire, lab: str) -> None:
    first, second = bodies(lab, 2)
    trailers = f"X: y\r\nAuthorization: Bearer {TOKEN}\r\n".encode()
    wire.send(chunked(first, trailers=trailers))
    assert outcome(wire.answer()) == (200, "recorded")
    wire.send(request(second, token=None))
    assert wire.answer()[0] == 401


@pytest.mark.parametrize(
    "part", [b"\r\n\r\n", b"0\r\n\r\n", b"\r\n0\r\n\r\nGET / HTTP/1.1\r\n\r\n"]
)
@pytest.mark.parametrize("cut", range(1, 12))
def test_what_looks_like_the_end_of_chunks_inside_one_is_not(
    wire: Wire, lab: str, part: bytes, cut: int
) -> None:
    body = lab.encode() + part
    sent = chunked(lab.encode(), part)
    for start in range(0, len(sent), cut * 20):
        wire.send(sent[start : start + cut * 20])
    wire.send(b"")
    assert outcome(wire.answer()) == (200, "unreadable")
    wire.send(sent[:-cut])
    wire.send(sent[-cut:] + request(body))
    assert outcome(wire.answer()) == (200, "duplicate")
    assert outcome(wire.answer()) == (200, "duplicate")


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


@pytest.mark.parametrize("path", ["/webhooks/flabsx", f"/webhooks/flabs/{TOKEN}/x", "/webhooks"])
def test_a_path_that_only_begins_like_the_endpoints_is_another(
    wire: Wire, lab: str, path: str
) -> None:
    [body] = bodies(lab, 1)
    wire.send(request(body, path=path))
    assert wire.answer()[0] in {401, 404}


@pytest.mark.parametrize(
    "path",
    [
        "/webhooks/flabs/",
        "//webhooks/flabs",
        "/webhooks//flabs//",
        f"/webhooks/flabs/{TOKEN}/",
        f"//webhooks//flabs//{TOKEN}//",
        f"/webhooks/flabs/{TOKEN}/?x=y",
    ],
)
@pytest.mark.parametrize("size", [0, 20_000])
def test_a_wrong_number_of_slashes_is_forgiven(wire: Wire, lab: str, path: str, size: int) -> None:
    [body] = bodies(lab, 1)
    token = None if TOKEN in path else TOKEN
    wire.send(request(body + b" " * size, path=path, token=token))
    assert outcome(wire.answer()) == (200, "recorded")


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
