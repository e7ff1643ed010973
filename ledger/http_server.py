"""Uvicorn's HTTP protocol with the bounds that it leaves to a proxy.

Without them anybody, token or not, could fill the memory with one request whose headers never end,
and take all connections by sending nothing on them.
"""

import asyncio

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

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

    def _stop_timer(self) -> None:
        if self._timer:
            self._timer.cancel()
            self._timer = None
