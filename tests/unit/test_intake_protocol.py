"""Which connections the protocol closes, whoever opened them, and that Uvicorn is as expected."""

import asyncio
import contextlib
import hashlib
import importlib
import inspect
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import pytest
from uvicorn import Config
from uvicorn.server import ServerState

from ledger.intake import connections, protocol
from ledger.intake.connections import ENDING, IN_BODY, WITHOUT_REQUEST, ConnectionLimits
from ledger.intake.protocol import HEAD_BYTES, BoundedProtocol

if TYPE_CHECKING:
    from litestar.types import Receive, Scope, Send

PATIENCE = 10.0
SHORT = 0.2
"""Seconds that anything may take in these tests."""

UVICORN = {
    "protocols.http.httptools_impl": "1d4e1c579df4168433a61a01f10c628b",
    "protocols.http.flow_control": "d39d16560df512f3ce907c329c2a0c3f",
    "supervisors.multiprocess": "53541976227fec0b9ace2c7a5ce8f592",
}
"""Digests of its undocumented modules, as of version 0.54.0."""

REQUEST = b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n"


LONG = 8 * 1024 * 1024
LONG_ONE = b"GET /long HTTP/1.1\r\nHost: x\r\n\r\n"
"""A request whose answer has that many bytes."""


async def echo(scope: "Scope", receive: "Receive", send: "Send") -> None:
    body, more = b"x" * LONG if scope["path"] == "/long" else b"", True
    while more:
        message: Any = await receive()
        body += message["body"]
        more = message["more_body"]
    headers = [(b"content-length", b"%d" % len(body))]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body, "more_body": False})


Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]


@asynccontextmanager
async def connected() -> AsyncIterator[Streams]:
    """Connect to a server of the protocol."""
    config = Config(echo, ws="none", lifespan="off", log_config=None, access_log=False)
    config.load()
    state = ServerState()
    server = await asyncio.get_running_loop().create_server(
        lambda: BoundedProtocol(config, state, {}), "127.0.0.1", 0
    )
    reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
    try:
        yield reader, writer
    finally:
        writer.close()
        server.close()


def run(use: Callable[[Streams], Awaitable[None]]) -> None:
    async def used() -> None:
        async with asyncio.timeout(PATIENCE), connected() as streams:
            await use(streams)

    asyncio.run(used())


async def rest(reader: asyncio.StreamReader) -> bytes:
    """Return what comes until the connection is closed."""
    try:
        return await reader.read()
    except ConnectionError:
        return b""


async def answer(reader: asyncio.StreamReader) -> bytes:
    """Return the last line of an answer with a body of two bytes."""
    head = await reader.readuntil(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200")
    return await reader.readexactly(2)


@pytest.fixture
def short_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have all time limits but that of idle connections be short."""
    for name in ("HEAD_SECONDS", "BODY_SECONDS", "WRITE_SECONDS", "LINGER_SECONDS"):
        monkeypatch.setattr(protocol, name, SHORT)
    monkeypatch.setattr(connections, "SWEEP_SECONDS", SHORT / 4)


@pytest.mark.parametrize("begin", [b"GET /", b"GET / HTTP/1.1\r\nHost: x\r\nname: "])
def test_a_head_that_never_ends_is_cut_off(begin: bytes) -> None:
    async def use(streams: Streams) -> None:
        reader, writer = streams
        writer.write(begin)
        sent = 0
        try:
            while sent < 100 * HEAD_BYTES and not reader.at_eof():
                writer.write(b"a" * 4096)
                await writer.drain()
                sent += 4096
                await asyncio.sleep(0)
        except ConnectionError:
            pass
        assert sent < 100 * HEAD_BYTES, "what is buffered on the way and discarded, and no more"
        assert (await rest(reader))[:12] in {b"", b"HTTP/1.1 431"}

    run(use)


@pytest.mark.usefixtures("short_time")
@pytest.mark.parametrize("sent", [b"", b"POST / HT", REQUEST[:-2]])
def test_a_connection_on_which_no_whole_head_comes_is_closed(sent: bytes) -> None:
    async def use(streams: Streams) -> None:
        reader, writer = streams
        writer.write(sent)
        assert await rest(reader) == b""

    run(use)


@pytest.mark.usefixtures("short_time")
def test_a_second_request_has_as_long_as_the_first() -> None:
    async def use(streams: Streams) -> None:
        reader, writer = streams
        writer.write(REQUEST + b"12")
        assert await answer(reader) == b"12"
        await asyncio.sleep(2 * SHORT)  # idle connections are another timer's
        writer.write(REQUEST[:10])
        assert await rest(reader) == b""

    run(use)


@pytest.mark.usefixtures("short_time")
@pytest.mark.parametrize("chunked", [False, True])
def test_a_body_that_does_not_come_is_answered_with_408(*, chunked: bool) -> None:
    begun = REQUEST + b"1"
    if chunked:
        begun = REQUEST.replace(b"Content-Length: 2", b"Transfer-Encoding: chunked") + b"1\r\nx"

    async def use(streams: Streams) -> None:
        reader, writer = streams
        writer.write(REQUEST + b"12" + begun)
        assert await answer(reader) == b"12"
        assert (await rest(reader)).startswith(b"HTTP/1.1 408")

    run(use)


@pytest.mark.usefixtures("short_time")
def test_a_body_that_comes_a_byte_at_a_time_is_answered_with_408() -> None:
    async def use(streams: Streams) -> None:
        reader, writer = streams
        writer.write(REQUEST.replace(b" 2", b" 900000"))
        came = asyncio.create_task(rest(reader))
        while not came.done():
            writer.write(b"x")
            await asyncio.sleep(SHORT / 10)
        assert came.result().startswith(b"HTTP/1.1 408")

    run(use)


@pytest.mark.usefixtures("short_time")
def test_a_body_that_comes_steadily_may_take_longer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(protocol, "BODY_RATE", 10 / SHORT)
    parts = 60

    async def use(streams: Streams) -> None:
        reader, writer = streams
        writer.write(REQUEST.replace(b" 2", b" %d" % (100 * parts)))
        for _ in range(parts):
            writer.write(b"x" * 100)
            await asyncio.sleep(SHORT / 10)
        head = await reader.readuntil(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 200")

    run(use)


@pytest.mark.usefixtures("short_time")
def test_a_connection_whose_answers_are_not_read_is_cut_off() -> None:
    async def use(streams: Streams) -> None:
        reader, writer = streams
        writer.write(LONG_ONE)
        await asyncio.sleep(5 * SHORT)
        assert len(await rest(reader)) < LONG

    run(use)


@pytest.mark.usefixtures("short_time")
def test_a_long_answer_may_be_read_slowly() -> None:
    async def use(streams: Streams) -> None:
        reader, writer = streams
        writer.write(LONG_ONE)
        for _ in range(32):
            await reader.readexactly(LONG // 32)
            await asyncio.sleep(SHORT / 8)

    run(use)


@pytest.mark.usefixtures("short_time")
def test_a_sender_that_goes_on_after_a_refusal_is_cut_off() -> None:
    async def use(streams: Streams) -> None:
        reader, writer = streams
        writer.write(b"!")
        assert (await rest(reader)).startswith(b"HTTP/1.1 400")
        with contextlib.suppress(ConnectionError):
            while True:
                writer.write(b"x")
                await writer.drain()
                await asyncio.sleep(SHORT / 10)

    run(use)


def test_a_body_may_have_any_length() -> None:
    async def use(streams: Streams) -> None:
        reader, writer = streams
        size = 3 * HEAD_BYTES
        writer.write(REQUEST.replace(b" 2", b" %d" % size) + b"b" * size)
        head = await reader.readuntil(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 200")
        assert await reader.readexactly(size) == b"b" * size

    run(use)


def test_a_request_may_come_with_the_end_of_a_long_one_before_it() -> None:
    async def use(streams: Streams) -> None:
        reader, writer = streams
        size = 2 * HEAD_BYTES
        long_one = REQUEST.replace(b" 2", b" %d" % size) + b"b" * size
        for cut in (4, len(REQUEST) - 1):
            writer.write(long_one + REQUEST[:cut])
            await reader.readuntil(b"\r\n\r\n")
            assert await reader.readexactly(size) == b"b" * size
            writer.write(REQUEST[cut:] + b"12")
            assert await answer(reader) == b"12"

    run(use)


@pytest.mark.parametrize("path", ["/x", "x.example:443"])
def test_connect_is_refused(path: str) -> None:
    async def use(streams: Streams) -> None:
        reader, writer = streams
        writer.write(f"CONNECT {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        assert (await rest(reader))[:12] in {b"HTTP/1.1 405", b"HTTP/1.1 400"}

    run(use)


class Held:
    """A connection as the limits see it."""

    deadline = connections.NEVER

    def __init__(
        self, doing: int | None, since: float, held: int = 0, neighbourhood: str | None = None
    ) -> None:
        self.doing = doing
        self.neighbourhood = neighbourhood
        self.since = since
        self.held = held
        self.is_closed = False

    def claim(self) -> tuple[int, float] | None:
        return None if self.doing is None else (self.doing, self.since)

    def shed(self) -> None:
        self.is_closed = True

    def expire(self, now: float) -> None:
        raise AssertionError(now)


def shed_of(*held: Held, more: int = 0) -> list[bool]:
    """Return which connections are closed when one more than the ceiling has come."""

    async def add() -> None:
        loop = asyncio.get_running_loop()
        limits = ConnectionLimits(loop, descriptors=len(held) * 4 // 3)
        assert limits.ceiling == len(held)
        for connection in held:
            limits.add(connection)
        assert not any(connection.is_closed for connection in held)
        limits.add(Held(WITHOUT_REQUEST, 1000))
        limits.hold(more)

    asyncio.run(add())
    return [connection.is_closed for connection in held]


def test_the_connection_that_waits_longest_for_a_request_is_closed_first() -> None:
    held = [Held(None, 1), Held(IN_BODY, 2), Held(WITHOUT_REQUEST, 4), Held(WITHOUT_REQUEST, 3)]
    assert shed_of(*held, Held(None, 0), Held(None, 0)) == [False] * 3 + [True] + [False] * 2


def test_a_connection_that_ends_is_closed_before() -> None:
    held = [Held(None, 1), Held(WITHOUT_REQUEST, 2), Held(ENDING, 3)]
    assert shed_of(*held) == [False, False, True]


def test_those_in_a_body_do_not_keep_all_others_out() -> None:
    held = [Held(WITHOUT_REQUEST, 1), Held(IN_BODY, 4), Held(IN_BODY, 3), Held(IN_BODY, 5)]
    assert shed_of(*held, Held(None, 0), Held(None, 0)) == [True, False, False, False, False, False]
    held = [Held(WITHOUT_REQUEST, 1), Held(IN_BODY, 4), Held(IN_BODY, 3)]
    assert shed_of(*held) == [False, False, True]


def test_an_address_may_have_half_of_all_connections_and_loses_its_own_idlest() -> None:
    others = [Held(WITHOUT_REQUEST, 0, neighbourhood=str(number)) for number in range(8)]
    its = [Held(WITHOUT_REQUEST, since, neighbourhood="a") for since in (3, 1, 2)]
    busy = [Held(doing, 0, neighbourhood="a") for doing in (None, None, IN_BODY, None, IN_BODY)]
    proxied = [Held(WITHOUT_REQUEST, 0)]

    async def add() -> None:
        limits = ConnectionLimits(asyncio.get_running_loop(), descriptors=20)
        assert limits.ceiling == 15
        for connection in [*others[:4], *proxied, *its, *busy[:4]]:
            limits.add(connection)
        assert not any(each.is_closed for each in [*others, *its, *busy])
        limits.add(busy[4])
        assert [each.is_closed for each in its] == [False, True, False]
        limits.remove(busy[0])
        limits.remove(busy[0])
        limits.add(Held(WITHOUT_REQUEST, 9, neighbourhood="a"))
        assert sum(each.is_closed for each in its) == 1, "one had gone"

    asyncio.run(add())
    assert not any(each.is_closed for each in [*others, *busy, *proxied])


def test_unfinished_bodies_hold_so_much_input_together(monkeypatch: pytest.MonkeyPatch) -> None:
    """The oldest are closed, so that one that comes at once is never."""
    size, count = 100_000, 12
    monkeypatch.setattr(connections, "MAX_HELD_BYTES", 10 * size)
    begun = REQUEST.replace(b" 2", b" %d" % size) + b"x" * (size - 1)

    async def use(first: Streams, port: int) -> None:
        slow = [first]
        slow += [await asyncio.open_connection("127.0.0.1", port) for _ in range(count)]
        for _, writer in slow:
            writer.write(begun)
            await writer.drain()
            await asyncio.sleep(0.01)
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(begun + b"x")
        assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 200")
        assert await rest(slow[0][0]) == b""
        slow[-1][1].write(b"x")
        assert (await slow[-1][0].readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 200")
        for _, each in [*slow, (reader, writer)]:
            each.close()

    async def used() -> None:
        async with asyncio.timeout(PATIENCE), connected() as streams:
            await use(streams, streams[1].get_extra_info("peername")[1])

    asyncio.run(used())


def test_the_oldest_that_hold_input_are_closed_when_it_is_too_much() -> None:
    most = connections.MAX_HELD_BYTES
    held = [
        Held(WITHOUT_REQUEST, 1),
        Held(WITHOUT_REQUEST, 3, most),
        Held(WITHOUT_REQUEST, 2, most),
    ]
    assert shed_of(*held, more=most + 1) == [True, False, True]


def test_the_parts_of_uvicorn_that_are_used_are_those_the_protocol_was_written_for() -> None:
    """A new version may change them: read what changed, run all tests, then change these."""
    for module, digest in UVICORN.items():
        source = inspect.getsource(importlib.import_module(f"uvicorn.{module}"))
        assert hashlib.sha256(source.encode()).hexdigest()[:32] == digest, module
