"""Uvicorn's HTTP protocol, with the limits that the open internet needs.

This module, `delivery_protocol` and `supervisor` use parts of Uvicorn that Uvicorn does not
document. Here they are `HttpToolsProtocol`, `FlowControl` and `RequestResponseCycle`, because
Uvicorn has no hook between its parser and the application.

TLS begins here as well, with the event loop's own protocol for it (`SSLProtocol`, undocumented):
started by the event loop, it would hide connections that never finish a handshake, which could then
not be counted.

`LEDGER_FAST_INTAKE=off` runs Uvicorn's documented parts alone: slower, and without the limits
below. The dependency is pinned, and a test compares these parts with the ones this was written for.

What a worker holds at most:

- `MAX_CONNECTIONS` connections, of which one address that is no trusted proxy's has at most half;
- `MAX_HELD_BYTES` of unfinished input of all connections together: incomplete heads and bodies, and
  requests that came before their turn. Of more, the oldest are closed, whoever sends them;
- for each connection one answer and the 64 KiB that its transport buffers, with TLS 256 KiB more.
"""

import asyncio
import resource
from asyncio.sslproto import SSLProtocol
from typing import Any
from weakref import WeakKeyDictionary

import uvloop
import uvloop.loop
from httptools import HttpParserError, HttpParserUpgrade, HttpRequestParser
from uvicorn.config import Config
from uvicorn.protocols.http.flow_control import HIGH_WATER_LIMIT, FlowControl
from uvicorn.protocols.http.httptools_impl import (
    STATUS_LINE,
    HttpToolsProtocol,
    RequestResponseCycle,
)
from uvicorn.server import ServerState

from ledger.intake.connections import (
    ENDING,
    IN_BODY,
    NEVER,
    WITHOUT_REQUEST,
    ConnectionLimits,
)
from ledger.intake.endpoint import Answer, problem_answer
from ledger.intake.listener import Listener
from ledger.intake.proxies import neighbourhood
from ledger.intake.tls import Certificate

HEAD_BYTES = 64 * 1024
"""Longest request line with headers; also the longest trailers, and the longest chunk header."""

_CONTINUE = b"HTTP/1.1 100"

HEAD_LINES = 256
"""Most lines in a head."""

HEAD_SECONDS = 30.0
"""How long a head may take, from the connection or from its first byte on."""

BODY_SECONDS = 30.0
"""A body is cut off if less than `BODY_RATE` of it came in this time."""

BODY_RATE = 1024
"""Bytes a second."""

WRITE_SECONDS = 30.0
"""A connection is cut off if its peer takes no `WRITE_RATE` of an answer in this time."""

WRITE_RATE = 1024
"""Bytes a second."""

LINGER_SECONDS = 5.0
"""How long a connection stays after its last answer, for its peer to read that."""

LINGER_BYTES = 2 * 1024 * 1024
"""Most input that is discarded in this time."""

PIPELINED_BYTES = 1024 * 1024
"""Most bytes that may come before the request before them is answered. Reading stops with the first
such byte, so this is reached only by what was on its way."""

UPLOAD_BYTES = 4 * 1024 * 1024
"""Most bytes of a body that count as held: the API keeps longer ones on disk."""

_END_OF_HEAD = b"\r\n\r\n"
_BODY_HEADERS = (b"content-length", b"transfer-encoding")

_limits: WeakKeyDictionary[ServerState, ConnectionLimits] = WeakKeyDictionary()


def limits_of(state: ServerState, loop: asyncio.AbstractEventLoop) -> ConnectionLimits:
    """Return the limits that the connections of one server share."""
    found = _limits.get(state)
    if found is None:
        descriptors, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        found = _limits[state] = ConnectionLimits(loop, descriptors=descriptors)
    return found


_PLAIN = Listener()


class _NoTrailers(list[tuple[bytes, bytes]]):
    """A list that stays empty."""

    def append(self, _: tuple[bytes, bytes], /) -> None:
        """Drop a trailer: it is not a header."""


_NO_TRAILERS = _NoTrailers()


def _tls_protocol(loop: asyncio.AbstractEventLoop) -> Any:  # noqa: ANN401 -- one of two classes
    """Return what an event loop itself uses to speak TLS."""
    return uvloop.loop.SSLProtocol if isinstance(loop, uvloop.Loop) else SSLProtocol  # type: ignore[attr-defined]  # its stub


class BoundedProtocol(HttpToolsProtocol):
    """Parses one request at a time, and closes connections that take too long or send too much.

    The parser gets input only up to the end of a head or a body, so it never holds the beginning
    of another request. While an answer is owed, further input is kept unparsed and reading stops.
    """

    _in_head = True
    in_body = False
    _body_left: int | None = 0
    """Bytes of the body that have not come; None if it comes in chunks."""

    _body_wanted = False
    """Whether the application has asked for the body. One that refuses the request does not."""

    _body_received = 0
    """Bytes since the body's last deadline."""

    _chunked_tail = b""
    """The last bytes of a chunked body, in which its end may have begun."""

    _overhead = 0
    """Bytes of chunk headers or trailers since the last byte of a body."""

    _unparsed = b""
    _body_held = 0
    """Bytes of the body that are held until all of it has come."""

    most_held = UPLOAD_BYTES

    _unsent = 0
    """Bytes of answers that waited at the last deadline."""

    _half_closed = False
    _discarding = False
    _discarded = 0

    _is_counted = False
    _is_open = False
    """Whether requests may come: the handshake, if there is one, is over."""

    neighbourhood: str | None = None
    """Whose connections are counted together; None for a trusted proxy's, which are not."""

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        super().__init__(config, server_state, app_state, _loop)
        self._limits = limits_of(server_state, self.loop)
        self._listener: Listener = getattr(self.app, "listener", None) or _PLAIN
        self._is_proxied = False
        self.deadline = NEVER

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Count a connection and begin its handshake; called again once TLS is established."""
        super().connection_made(transport)
        if not self._is_counted:
            self._count()
            if self._listener.certificate:
                self._shake_hands(transport, self._listener.certificate)
                return
        self._is_open = True
        self.flow = self._flow = _Flow(self)
        self._answers = _AnswerTransport(self)
        self._await_head()

    def _count(self) -> None:
        self._is_counted = True
        if self.client:
            host = self.client[0]
            self._is_proxied = self._listener.proxies.trust(host)
            self.neighbourhood = None if self._is_proxied else neighbourhood(host)
        self._await_head()
        self._limits.add(self)

    def _await_head(self) -> None:
        self._since = self.loop.time()
        self.deadline = self._since + HEAD_SECONDS

    def _shake_hands(self, transport: asyncio.Transport, certificate: Certificate) -> None:
        """Let TLS have what comes, and this protocol what that makes of it."""

        def done(handshake: asyncio.Future[None]) -> None:
            error = handshake.exception()
            if not self._is_open:
                self.connection_lost(error if isinstance(error, Exception) else None)

        handshake = self.loop.create_future()
        handshake.add_done_callback(done)
        secure = _tls_protocol(self.loop)(
            self.loop,
            self,
            certificate.context(),
            handshake,
            server_side=True,
            ssl_handshake_timeout=HEAD_SECONDS,
            ssl_shutdown_timeout=LINGER_SECONDS,
        )
        # At once: what has come already is not for this protocol.
        transport.set_protocol(secure)
        secure.connection_made(transport)

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the connection."""
        super().connection_lost(exc)
        self._limits.remove(self)
        self._keep(b"")
        self._hold_body(0)

    # --- input --------------------------------------------------------------------------------

    def data_received(self, data: bytes) -> None:
        """Parse what came, up to the end of one request."""
        if self._discarding:
            self._discarded += len(data)
            if self._discarded > LINGER_BYTES:
                self.transport.abort()
            return
        if self._unparsed:
            data = self._unparsed + data
            self._keep(b"")
        try:
            self._parse(data)
        except HttpParserError:
            self._refuse(400, "this is no HTTP request that can be understood")
        if self.in_body and not self._discarding:
            self._body_received += len(data)
            if self.deadline == NEVER:
                self._body_received = 0
                self.deadline = self.loop.time() + BODY_SECONDS

    def eof_received(self) -> bool:  # type: ignore[override]  # asyncio's return type
        """Keep a connection of which the peer closed its side until the request is answered."""
        waits = self._is_owed() and not self.in_body and not self._discarding
        # Once an answer has begun, the end of the input means that nobody reads the rest.
        if not waits or getattr(self.cycle, "response_started", False):
            return False
        self._half_closed = True
        return True

    def _parse(self, data: bytes) -> None:
        start = 0
        while start < len(data) and not self._discarding:
            if self.in_body:
                if not self._body_wanted or len(self.cycle.body) > HIGH_WATER_LIMIT:
                    self.flow.pause_reading()
                    self._keep(data[start:])
                    break
                start = self._parse_body(data, start)
            elif self._is_owed() or self.flow.write_paused:
                self.flow.pause_reading()
                self._keep(data[start:])
                if len(self._unparsed) > PIPELINED_BYTES:
                    self.transport.abort()
                break
            else:
                start = self._parse_head(data, start)

    def _parse_head(self, data: bytes, start: int) -> int:
        """Parse a head if it is complete, and return where the rest begins."""
        if data[start] in b"\r\n":  # a request line may have an empty line before it, but not many
            before = data[start : start + 4]
            start += len(before) - len(before.lstrip(b"\r\n"))
            if start == len(data):
                return start
        end = data.find(_END_OF_HEAD, start)
        size = (end if end >= 0 else len(data)) - start
        if not data[start : start + 1].isalpha():
            self._refuse(400, "a request begins with the name of its method")
        elif size > HEAD_BYTES:
            self._refuse(431, f"the request line and headers are longer than {HEAD_BYTES} bytes")
        elif data.count(b"\n", start, start + size) > HEAD_LINES:
            self._refuse(431, f"there are more than {HEAD_LINES} headers")
        elif end < 0:
            if not self._in_head:
                self._in_head = True
                self.deadline = self.loop.time() + HEAD_SECONDS
            self._keep(data[start:])
            return len(data)
        else:
            end += len(_END_OF_HEAD)
            self._feed_head(data[start:end])
            return end
        return len(data)

    def _feed_head(self, head: bytes) -> None:
        try:
            self.parser.feed_data(head)
        except HttpParserUpgrade:
            # The parser takes the body for the other protocol's. The offer may be ignored, so the
            # request is parsed again without it.
            method = self.parser.get_method()
            if method == b"CONNECT":
                self._refuse(405, "this is no proxy")
                return
            version = self.parser.get_http_version().encode()
            lines = [b"%s %s HTTP/%s" % (method, self.url, version)]
            lines += [b"%s: %s" % header for header in self.headers if header[0] != b"upgrade"]
            self.parser = HttpRequestParser(self)
            self.parser.feed_data(b"\r\n".join(lines) + _END_OF_HEAD)

    def _parse_body(self, data: bytes, start: int) -> int:
        """Parse a body up to its end, and return where the rest begins."""
        if self._body_left is None:
            return self._parse_chunks(data, start)
        end = min(len(data), start + self._body_left, start + HIGH_WATER_LIMIT)
        self._body_left -= end - start
        self.parser.feed_data(memoryview(data)[start:end])
        if self.in_body and not self._body_left:
            raise HttpParserError("the parser does not end a body at its length")
        return end

    def _parse_chunks(self, data: bytes, start: int) -> int:
        body = self.cycle.body
        size = len(body)
        end = self._end_of_chunked(data, start)
        self.parser.feed_data(memoryview(data)[start:end])
        self._overhead = 0 if len(body) > size else self._overhead + end - start
        if self._overhead > HEAD_BYTES:
            self._refuse(431, f"trailers or chunk headers are longer than {HEAD_BYTES} bytes")
        return end

    def _end_of_chunked(self, data: bytes, start: int) -> int:
        """Return where the next empty line ends. Only there can the body end."""
        tail = self._chunked_tail
        overlap = tail + data[start : start + len(_END_OF_HEAD) - 1]
        found = overlap.find(_END_OF_HEAD)
        if found >= 0:
            self._chunked_tail = b""
            return start + found + len(_END_OF_HEAD) - len(tail)
        found = data.find(_END_OF_HEAD, start)
        if found >= 0:
            self._chunked_tail = b""
            return found + len(_END_OF_HEAD)
        self._chunked_tail = (tail + data[max(start, len(data) - 3) :])[-3:]
        return len(data)

    def _keep(self, data: bytes) -> None:
        """Keep input for later, instead of what was kept before."""
        change = len(data) - len(self._unparsed)
        if change:
            self._unparsed = data
            self._limits.hold(change)

    def want_body(self) -> None:
        """Parse the body: the application has asked for it, or for more of it."""
        if self.in_body and not self._discarding:
            self._body_wanted = True
            if self._unparsed:
                self.data_received(b"")

    def _continue(self) -> None:
        """Parse what was kept while an answer was owed."""
        if self.transport.is_closing() or self._is_owed():
            return
        if self._unparsed:
            self.data_received(b"")
        if not self._is_owed():
            if self._half_closed:
                self.transport.close()
            else:
                self._flow.read_on()
        elif not self._unparsed:
            self._flow.read_on()

    # --- what the parser found ----------------------------------------------------------------

    def on_headers_complete(self) -> None:
        """Start the request."""
        if self.parser.should_upgrade():
            return
        if self._is_proxied:
            self.scope["client"] = (self.client_host(), 0)
        super().on_headers_complete()
        self._answers.is_new = True
        self.cycle.transport = self._answers  # type: ignore[assignment]
        self.begin_body(wanted=False)

    def client_host(self) -> str:
        """Return the address of the client, which a trusted proxy tells."""
        host = self.client[0] if self.client else "unknown"
        return self._listener.proxies.client_of(host, self.headers) if self._is_proxied else host

    def on_body(self, body: bytes) -> None:
        """Take a part of the body."""
        super().on_body(body)
        if not self.cycle.response_complete:
            self._hold_body(min(self._body_held + len(body), self.most_held))

    def _hold_body(self, size: int) -> None:
        """Count what is held of the body."""
        change, self._body_held = size - self._body_held, size
        if change:
            self._limits.hold(change)

    def on_message_complete(self) -> None:
        """Finish the request, unless it is to be parsed again."""
        if self.in_body:
            self.end_body()
            super().on_message_complete()

    def begin_body(self, *, wanted: bool) -> None:
        """Expect the body that the headers announce; `wanted`: whether to parse it at once."""
        length: int | None = 0
        for name, value in self.headers:
            if name in _BODY_HEADERS:
                length = int(value) if name == b"content-length" else None
        self._body_left = length
        if length is None:
            self._overhead = 0
            self._chunked_tail = b""
            self.headers = _NO_TRAILERS  # the base class adds trailers to its headers
        self._in_head, self.in_body, self._body_wanted = False, True, wanted
        self._since = self.loop.time()
        self.deadline = NEVER

    def end_body(self) -> None:
        """Take the body as complete."""
        self.in_body = False
        self.deadline = NEVER
        self._hold_body(0)

    # --- answers ------------------------------------------------------------------------------

    def answer(self, answer: Answer, *, keep_alive: bool) -> None:
        """Send an answer, and end the connection after it unless it is to be kept."""
        headers = [
            *self.server_state.default_headers,
            *answer.headers,
            (b"content-length", b"%d" % len(answer.content)),
        ]
        if not keep_alive:
            headers.append((b"connection", b"close"))
        head = [b"%s: %s\r\n" % header for header in headers]
        self.transport.write(b"".join([STATUS_LINE[answer.status], *head, b"\r\n", answer.content]))
        if not keep_alive:
            self.finish()

    def on_response_complete(self) -> None:
        """Wait for the next request, or parse it if it has come."""
        self.server_state.total_requests += 1
        if self.transport.is_closing() or self._discarding:
            return
        if self.in_body and self._unparsed and len(self._unparsed) < HEAD_BYTES:
            self.want_body()  # to drop it: the application has answered without it
        if self.in_body:
            self.finish()
            return
        if self.flow.write_paused:  # its time limit holds, and no request is parsed until then
            return
        self._wait_for_request()
        if self._unparsed or self._half_closed:
            self.loop.call_soon(self._continue)
        else:
            self._flow.read_on()

    def pause_writing(self) -> None:
        """Start the time limit of a peer that does not read its answers."""
        super().pause_writing()
        self._unsent = self.transport.get_write_buffer_size()
        self.deadline = self.loop.time() + WRITE_SECONDS

    def resume_writing(self) -> None:
        """Go on with what waited for the peer to read."""
        super().resume_writing()
        if self._discarding or self.transport.is_closing():
            return
        if self.in_body:
            self._body_received, self.deadline = 0, self.loop.time() + BODY_SECONDS
        elif self._is_owed():
            self.deadline = NEVER
        else:
            self._wait_for_request()
            self.loop.call_soon(self._continue)

    def finish(self) -> None:
        """End the connection once the peer had time to read its answer.

        A connection that is closed while its peer sends is reset, which can destroy the answer.
        """
        if self._discarding:
            return
        self.deadline = self.loop.time() + LINGER_SECONDS
        still_sends = self.in_body or self._unparsed
        # TLS has no half-closed connections; its transport discards what comes after `close`.
        waits = still_sends and not self._half_closed and self.transport.can_write_eof()
        if not waits or self.transport.is_closing():
            self.transport.close()
            return
        self._discarding = True
        self._keep(b"")
        self._flow.read_on()
        self.transport.write_eof()

    def begin_answer(self) -> bool:
        """End the connection with the answer that begins now; return whether that is news.

        So it is if the rest of the request would have to be waited for only to be dropped.
        """
        has_come = self._body_left is not None and self._body_left <= len(self._unparsed)
        ends = self.cycle.keep_alive and self.in_body and not has_come
        if ends:
            self.cycle.keep_alive = False
        return ends

    def _is_owed(self) -> bool:
        cycle: RequestResponseCycle | None = self.cycle  # there is none at first
        return cycle is not None and not cycle.response_complete

    def _wait_for_request(self) -> None:
        self._since = self.loop.time()
        self.deadline = self._since + self.timeout_keep_alive

    def _refuse(self, status: int, detail: str) -> None:
        """Answer what cannot be parsed or does not come, and end the connection."""
        cycle = self.cycle
        if self._is_owed():
            if getattr(cycle, "response_started", False):
                self.transport.abort()
                return
            cycle.disconnected = True
            cycle.message_event.set()
        self.in_body = True  # how much of it is still to come is not known
        self.answer(problem_answer(status, detail), keep_alive=False)

    # --- limits -------------------------------------------------------------------------------

    @property
    def held(self) -> int:
        """Bytes of unparsed input, and of the unfinished body."""
        return len(self._unparsed) + self._body_held

    def claim(self) -> tuple[int, float] | None:
        """Return whether the connection ends, waits for a request or for the body of one."""
        if self._discarding or self.transport.is_closing():
            return (ENDING, self.deadline)
        if not self._is_owed():
            return (WITHOUT_REQUEST, self._since)
        return (IN_BODY, self._since) if self.in_body else None

    def shed(self) -> None:
        """Close the connection at once."""
        self._discarding = True
        self._keep(b"")
        self._hold_body(0)
        self.transport.abort()

    def expire(self, now: float) -> None:
        """End a connection whose time is over, unless there was progress."""
        if self._discarding or self.transport.is_closing():
            self.transport.abort()
        elif self.flow.write_paused:
            unsent = self.transport.get_write_buffer_size()
            if self._unsent - unsent < WRITE_SECONDS * WRITE_RATE:
                self.transport.abort()
            self._unsent, self.deadline = unsent, now + WRITE_SECONDS
        elif self.in_body:
            # Reading is paused when it is the application that takes its time.
            if self.flow.read_paused or self._body_received >= BODY_SECONDS * BODY_RATE:
                self._body_received, self.deadline = 0, now + BODY_SECONDS
            else:
                self._refuse(408, f"less than {BODY_RATE} bytes of the body came in a second")
        else:
            self.finish()


class _Flow(FlowControl):
    """Flow control that notices when the application asks for a body."""

    def __init__(self, connection: BoundedProtocol) -> None:
        super().__init__(connection.transport)
        self._connection = connection

    def resume_reading(self) -> None:
        """Read and parse the body; called for each part of it that the application asks for."""
        self.read_on()
        self._connection.want_body()

    def read_on(self) -> None:
        """Read, without parsing a body that the application has not asked for."""
        super().resume_reading()


class _AnswerTransport:
    """The transport that a response is written to; it ends the connection with patience."""

    def __init__(self, connection: BoundedProtocol) -> None:
        self._connection = connection
        self.is_new = True
        """Whether no answer to the current request has begun."""
        self.is_closing = connection.transport.is_closing
        self.close = connection.finish

    def write(self, data: bytes) -> None:
        """Send a part of an answer, and say in its head if the connection ends with it."""
        if self.is_new and not data.startswith(_CONTINUE):
            self.is_new = False
            if self._connection.begin_answer():
                data = data[:-2] + b"connection: close\r\n\r\n"
        self._connection.transport.write(data)
