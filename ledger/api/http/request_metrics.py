"""Counts requests by route, method and status, and measures the time to their first byte."""

import time
from contextlib import suppress
from functools import cache
from typing import TYPE_CHECKING

from prometheus_client import Counter, Histogram

from ledger import tracing
from ledger.metrics import HTTP_REQUESTS, HTTP_SECONDS

if TYPE_CHECKING:
    from litestar.types import HTTPScope, Message, Send

NOT_COUNTED = frozenset({"/metrics", "/health/live", "/health/ready"})
"""What machines ask every few seconds."""

OTHER = "other"
"""The route of a path that does not exist: paths are the caller's, and each would be a series."""

METHODS = frozenset({"GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})


@cache
def _series(route: str, method: str, status: int) -> tuple[Counter, Histogram]:
    """Return where such requests are counted; to look that up takes longer than to count."""
    return HTTP_REQUESTS.labels(route, method, str(status)), HTTP_SECONDS.labels(route)


class RequestMetrics:
    """Watches the answer to one request."""

    def __init__(self, scope: "HTTPScope", send: "Send") -> None:
        self._scope = scope
        self._send = send
        self._began = time.perf_counter()

    async def send(self, message: "Message") -> None:
        """Count the answer when it begins, and pass it on."""
        if message["type"] == "http.response.start":
            self._count(message["status"])
        await self._send(message)

    def _count(self, status: int) -> None:
        # The router has put it there by now, unless it knows no such path.
        route = self._scope.get("path_template") or OTHER
        if route in NOT_COUNTED:
            return
        given = str(self._scope["method"])
        method = given if given in METHODS else OTHER
        requests, times = _series(route, method, status)
        requests.inc()
        seconds = time.perf_counter() - self._began
        times.observe(seconds)
        if tracing.spans is not None:
            given_by = {b"traceparent", b"tracestate"}
            headers = {
                name.decode("latin-1"): value.decode("latin-1")
                for name, value in self._scope["headers"]
                if name in given_by
            }
            with suppress(Exception):  # no trace is worth an answer
                tracing.spans.requested(method, route, status, seconds, headers)
