"""Uvicorn's HTTP protocol, with bounds that it leaves to a proxy and a short way for deliveries.

Without the bounds anybody, token or not, could fill the memory with one request whose headers never
end, and take all connections by sending nothing on them.
"""

import asyncio
from datetime import UTC, datetime

from uvicorn.protocols.http.httptools_impl import (
    STATUS_LINE,
    HttpToolsProtocol,
    RequestResponseCycle,
)

from ledger.intake.endpoint import PATH, Answer, Intake, problem_answer

_PATH = PATH.encode()
_SECRET_PATH = _PATH + b"/"
_OF_BODIES = (b"content-length", b"transfer-encoding")

HEAD_BYTES = 64 * 1024
"""How long a request line and its headers may be, beside what comes with their first byte."""

HEAD_SECONDS = 30.0
"""How many seconds they may take to come."""


class BoundedProtocol(HttpToolsProtocol):
    """Closes connections on which no whole request line and headers come."""

    _in_head = True
    _head_bytes = 0
    _timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin to wait for the first request."""
        super().connection_made(transport)
        self._timer = self.loop.call_later(HEAD_SECONDS, transport.close)

    def connection_lost(self, exc: Exception | None) -> None:
        """Wait no longer."""
        super().connection_lost(exc)
        self._stop_timer()

    def data_received(self, data: bytes) -> None:
        """Take what came, and close the connection if that leaves a head too long unfinished."""
        self._head_bytes += len(data)
        super().data_received(data)
        if not self._in_head:
            self._stop_timer()
        elif self._head_bytes > HEAD_BYTES:
            self.transport.close()
        elif self._timer is None:
            self._timer = self.loop.call_later(HEAD_SECONDS, self.transport.close)

    def on_message_begin(self) -> None:
        """Note that a head begins, of which what came with its first byte does not count.

        Before that byte may stand the body of another request, as long as it likes.
        """
        super().on_message_begin()
        self._in_head = True
        self._head_bytes = 0

    def on_headers_complete(self) -> None:
        """Note that a head is whole."""
        super().on_headers_complete()
        self._in_head = False

    def _should_upgrade(self) -> bool:
        """Have `handle_websocket_upgrade` called where there is a body; pass over it elsewhere."""
        return any(name in _OF_BODIES and value != b"0" for name, value in self.headers)

    def handle_websocket_upgrade(self) -> None:
        """Refuse the request: the parser takes its body for the other protocol's."""
        detail = "no connection is upgraded here: send the request without the header Upgrade"
        self.answer(problem_answer(400, detail), keep_alive=False)

    def answer(self, answer: Answer, *, keep_alive: bool) -> None:
        """Send an answer, and close the connection after it unless that is to be kept."""
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
            self.transport.close()

    def _stop_timer(self) -> None:
        if self._timer:
            self._timer.cancel()
            self._timer = None


class DeliveryProtocol(BoundedProtocol):
    """Hands ordinary deliveries to the intake, and all else to the application.

    To the application a request is a task that is woken for its body and for its outcome, which
    costs twice what all the rest of a delivery's way does. It takes deliveries, too, whatever their
    form; so what is not plainly an ordinary one is left to it.
    """

    _intake: Intake | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Look whether the application has an intake."""
        super().connection_made(transport)
        self._intake = getattr(self.app, "intake", None)

    def on_headers_complete(self) -> None:
        """Keep the body of an ordinary delivery here."""
        if self._is_ordinary_delivery():
            self._in_head = False
            self.cycle = _Delivery(self)
        else:
            super().on_headers_complete()

    def on_message_complete(self) -> None:
        """Deliver a body that is whole."""
        delivery = self.cycle
        if self._intake and isinstance(delivery, _Delivery) and delivery.more_body:
            delivery.more_body = False
            self._intake.deliver(bytes(delivery.body), datetime.now(UTC), delivery.answer)
        else:
            super().on_message_complete()

    def _is_ordinary_delivery(self) -> bool:
        url = self.url
        return (
            (url == _PATH or url.startswith(_SECRET_PATH))
            and self._intake is not None
            and self.parser.get_method() == b"POST"
            and self.parser.get_http_version() == "1.1"
            and self.parser.should_keep_alive()
            and not self.parser.should_upgrade()
            and not self.expect_100_continue
            and not self.flow.write_paused
            and getattr(self.cycle, "response_complete", True)  # there is none at first
            and self._intake.is_ordinary(url.decode("latin-1"), self.headers)
        )


class _Delivery(RequestResponseCycle):
    """A request of the server's that is answered here and has what the server looks at.

    So the next request on the connection waits for its answer, and so does a stop.
    """

    message_event = asyncio.Event()  # nobody waits for it

    def __init__(self, connection: DeliveryProtocol) -> None:
        self.body = bytearray()
        self.more_body = True
        self.response_complete = False
        self.disconnected = False
        self.keep_alive = True
        self._connection = connection

    def answer(self, answer: Answer) -> None:
        """Send the answer, unless the sender is gone."""
        self.response_complete = True
        if self.disconnected:
            return
        self._connection.answer(answer, keep_alive=self.keep_alive)
        self._connection.on_response_complete()
