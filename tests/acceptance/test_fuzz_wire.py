"""Bytes that Hypothesis makes up, at the socket: no fault, no hang, and only HTTP comes back.

The budget is fixed. The seed is printed at the start; LEDGER_TEST_FUZZ_SEED repeats a run, and
LEDGER_TEST_FUZZ_EXAMPLES makes it longer.
"""

import json
import os
import re
import socket
from collections.abc import Iterator
from contextlib import suppress

import psutil
import pytest
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st

from tests.support.payloads import distinct
from tests.support.server import KEY, TOKEN, LedgerServer, free_port, wait_until
from tests.support.wire import request

EXAMPLES = int(os.environ.get("LEDGER_TEST_FUZZ_EXAMPLES", "150"))
SEED = int(os.environ["LEDGER_TEST_FUZZ_SEED"])
PATIENCE = 5.0

STATUSES = {200, 204, 400, 401, 404, 405, 408, 413, 414, 431}
"""What a stranger can be told. 500 and 503 are not among them, for nothing is wrong here."""

fuzzed = settings(
    max_examples=EXAMPLES,
    deadline=None,
    database=None,
    phases=[Phase.explicit, Phase.generate, Phase.shrink],
    suppress_health_check=list(HealthCheck),
)


@pytest.fixture(scope="module")
def public_port() -> int:
    return free_port()


@pytest.fixture(scope="module")
def server(
    module_database_url: str, tmp_path_factory: pytest.TempPathFactory, public_port: int
) -> Iterator[LedgerServer]:
    """Give a server with two addresses; both speak the same protocol to strangers."""
    settings = {"LEDGER_LISTEN_INTAKE": f"127.0.0.1:{public_port}"}
    folder = tmp_path_factory.mktemp("fuzzed")
    with LedgerServer(module_database_url, folder, settings=settings, project=False) as started:
        yield started


# --- what is sent -----------------------------------------------------------------------------

LINE_END = st.sampled_from([b"\r\n"] * 8 + [b"\n", b"\r", b"\r\n\r\n", b"\n\n", b""])
METHOD = st.sampled_from([b"POST", b"GET", b"HEAD", b"OPTIONS", b"CONNECT", b"PRI", b"post", b""])
PATH = st.sampled_from(
    [
        b"/webhooks/flabs",
        b"/webhooks/flabs/" + TOKEN.encode(),
        b"/health/live",
        b"/v1/bills",
        b"/schema",
        b"//webhooks%2fflabs",
        b"*",
        b"http://x/webhooks/flabs",
        b"/\xff\x00",
        b"/" + b"a" * 70_000,
    ]
)
VERSION = st.sampled_from([b"HTTP/1.1"] * 5 + [b"HTTP/1.0", b"HTTP/2.0", b"HTTP/0.9", b"HTTP/x"])
HEADER = st.one_of(
    st.sampled_from(
        [
            b"Host: x",
            b"Content-Length: 2",
            b"Content-Length: 0",
            b"Content-Length: -1",
            b"Content-Length: 99999999999999999999999",
            b"Content-Length: 2, 3",
            b"Transfer-Encoding: chunked",
            b"Transfer-Encoding: identity, chunked",
            b"Transfer-Encoding : chunked",
            b"Expect: 100-continue",
            b"Connection: close",
            b"Connection: Upgrade",
            b"Upgrade: websocket",
            b"Upgrade: h2c",
            b"Authorization: Bearer " + TOKEN.encode(),
            b"Authorization: Bearer " + KEY.encode(),
            b"Authorization: \xff\xfe",
            b"X-Forwarded-For: 1.2.3.4, ::1, x",
            b" folded: value",
            b"no colon",
            b": no name",
            b"X: " + b"y" * 70_000,
        ]
    ),
    st.binary(max_size=40),
)
BODY = st.sampled_from(
    [
        b"",
        b"{}",
        b"2\r\n{}\r\n0\r\n\r\n",
        b"2;x=y\r\n{}\r\n0\r\nA: b\r\n\r\n",
        b"ffffffffffffffffffff\r\n{}",
        b"-1\r\n{}\r\n",
        b"0\r\n",
    ]
) | st.binary(max_size=40)


@st.composite
def nearly_http(draw: st.DrawFn) -> bytes:
    line = b" ".join([draw(METHOD), draw(PATH), draw(VERSION)])
    lines = [line, *draw(st.lists(HEADER, max_size=6))]
    head = b"".join(text + draw(LINE_END) for text in lines)
    return head + draw(LINE_END) + draw(BODY)


SENT = st.lists(st.one_of(nearly_http(), nearly_http(), st.binary(max_size=200)), max_size=3)


def pieces(data: bytes, cuts: list[int]) -> list[bytes]:
    places = sorted({cut % (len(data) + 1) for cut in cuts})
    return [data[a:b] for a, b in zip([0, *places], [*places, len(data)], strict=True)]


# --- what comes back --------------------------------------------------------------------------


def answers_to(port: int, sent: list[bytes]) -> bytes:
    """Send pieces, close that side, and return all that comes until the other side is closed."""
    received = bytearray()
    with socket.create_connection(("127.0.0.1", port), timeout=PATIENCE) as connection:
        with suppress(ConnectionError):
            for piece in sent:
                connection.sendall(piece)
            connection.shutdown(socket.SHUT_WR)
        with suppress(ConnectionError):
            while part := connection.recv(65536):
                received += part
    return bytes(received)


STATUS = re.compile(rb"HTTP/1\.1 (\d{3}) [^\r\n]*\r\n")
HEAD = re.compile(rb"(?:[!#-'*+.0-9A-Z^-z|~-]+: ?[^\r\n\x00]*\r\n)*\r\n")
LENGTH = re.compile(rb"content-length: (\d+)\r\n", re.IGNORECASE)


def assert_answers(data: bytes) -> None:
    """Check that the bytes are whole answers, one after the other, and nothing else."""
    place = 0
    while place < len(data):
        status = STATUS.match(data, place)
        assert status, data[place : place + 200]
        assert int(status[1]) in STATUSES | {100}, data[place : place + 300]
        head = HEAD.match(data, status.end())
        assert head, data[place : place + 300]
        place = head.end()
        length = LENGTH.search(head[0])
        if length and not data.startswith(b"HTTP/1.1 ", place):  # no answer to a HEAD
            content = data[place : place + int(length[1])]
            if b"json" in head[0].lower() and len(content) == int(length[1]):
                json.loads(content)
            place += int(length[1])


@pytest.mark.parametrize("address", ["public", "private"])
def test_no_bytes_bring_a_fault_or_a_hang(
    server: LedgerServer, public_port: int, lab: str, address: str
) -> None:
    port = public_port if address == "public" else server.port
    if address == "public":  # the private one was waited for when the server started
        wait_until(lambda: _listens(port), "the public address answers")
    workers = [process.pid for process in psutil.Process(server.serve.pid).children()]

    @seed(SEED)
    @fuzzed
    @given(sent=SENT, cuts=st.lists(st.integers(0, 2**16), max_size=3))
    def ask(sent: list[bytes], cuts: list[int]) -> None:
        assert_answers(answers_to(port, pieces(b"".join(sent), cuts)))

    ask()
    assert [process.pid for process in psutil.Process(server.serve.pid).children()] == workers
    for fault in ("Traceback", '"level": "error"', '"level": "critical"'):
        assert fault not in server.output
    if address == "public":
        body = json.dumps(distinct(lab, 1)[0]).encode()
        assert b'"recorded"' in answers_to(port, [request(body)])


def _listens(port: int) -> bool:
    with suppress(OSError):
        return b"200" in answers_to(port, [b"GET /health/live HTTP/1.1\r\nHost: x\r\n\r\n"])
    return False
