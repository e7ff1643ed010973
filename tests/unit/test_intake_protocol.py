"""What a connection is closed for, whoever it is that opened it."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import pytest
from uvicorn import Config
from uvicorn.server import ServerState

from ledger.intake import protocol
from ledger.intake.protocol import HEAD_BYTES, BoundedProtocol

if TYPE_CHECKING:
    from litestar.types import Receive, Scope, Send

PATIENCE = 10.0
SHORT = 0.2
"""Seconds that a head may take in these tests."""

REQUEST = b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n"


async def echo(_scope: "Scope", receive: "Receive", send: "Send") -> None:
    body, more = b"", True
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
    except ConnectionResetError:
        return b""


async def answer(reader: asyncio.StreamReader) -> bytes:
    """Return the last line of an answer with a body of two bytes."""
    head = await reader.readuntil(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200")
    return await reader.readexactly(2)


@pytest.fixture
def short_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(protocol, "HEAD_SECONDS", SHORT)


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
        assert sent < 50 * HEAD_BYTES, "what is buffered on the way, and no more"
        assert await rest(reader) == b""

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
def test_a_body_may_take_its_time_and_any_length() -> None:
    async def use(streams: Streams) -> None:
        reader, writer = streams
        for _ in range(2):
            writer.write(REQUEST + b"1")
            await asyncio.sleep(2 * SHORT)
            writer.write(b"2")
            assert await answer(reader) == b"12"
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
