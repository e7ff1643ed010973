"""The private address of an intake that is served by itself: `/health/*` and `/metrics`.

The intake's own workers answer there, so that each says whether it could make a delivery durable.
"""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from prometheus_client import CONTENT_TYPE_LATEST
from prometheus_client.core import GaugeMetricFamily

from ledger import schema
from ledger.errors import AppendError, DatabaseUnavailableError, SchemaError, one_line
from ledger.eventlog.group_commit import GroupCommit
from ledger.intake.endpoint import Answer, problem_answer, send_answer
from ledger.metrics import exposition
from ledger.postgres.connect import connect
from ledger.spool.gauges import GAUGES, measure

if TYPE_CHECKING:
    from litestar.types import HTTPScope, Send

T = TypeVar("T")

LIVE = "/health/live"
READY = "/health/ready"
METRICS = "/metrics"

PROOF_SECONDS = 2.0
"""How long a probe waits for the proof; an orchestrator's own limit may be shorter."""

METHODS = b"GET, HEAD, OPTIONS"
ALIVE = Answer(200, b'{"status":"live"}', [(b"content-type", b"application/json")])
NO_METHOD = problem_answer(405, "only GET is taken here", (b"allow", METHODS))
OPTIONS = Answer(204, b"", [(b"allow", METHODS)])
NOTHING = problem_answer(404, "there is nothing here")
_READY = Answer(200, b'{"status":"ready"}', [(b"content-type", b"application/json")])


class StatusEndpoint:
    """Answers what arrives at the port. None: there is no such address."""

    def __init__(self, port: int | None, url: str, lane: GroupCommit, spool: Path | None) -> None:
        self.port = port
        self._url = url
        self._lane = lane
        self._spool = spool
        # Of its own: a database that hangs must hold up nothing else.
        self._threads = ThreadPoolExecutor(2, thread_name_prefix="status")

    async def __call__(self, scope: "HTTPScope", send: "Send") -> None:
        """Answer one request."""
        await send_answer(send, await self._answer(scope["path"], scope["method"]))

    def answers(self, scope: "HTTPScope") -> bool:
        """Return whether a request came to this address."""
        server = scope["server"]
        return self.port is not None and server is not None and server[1] == self.port

    async def _answer(self, path: str, method: str) -> Answer:
        if path not in {LIVE, READY, METRICS}:
            return NOTHING
        if method == "OPTIONS":
            return OPTIONS
        if method not in {"GET", "HEAD"}:
            return NO_METHOD
        if path == LIVE:
            return ALIVE
        return await (self._readiness() if path == READY else self._metrics())

    async def _readiness(self) -> Answer:
        """Say whether a delivery could be made durable now, in the log or in the spool."""
        if self._lane.is_spooling:
            return _READY
        try:
            await self._in_thread(self._check_schema)
        except SchemaError as error:
            return _not_ready(str(error))
        except DatabaseUnavailableError as error:
            if self._lane.can_spool:
                return _READY
            return _not_ready(f"the database does not answer: {one_line(error)}")
        try:
            await self._lane.prove(within=PROOF_SECONDS)
        except AppendError as error:
            return _not_ready(f"no delivery can be made durable: {error}")
        return _READY

    def _check_schema(self) -> None:
        with closing(connect(self._url, "status")) as connection:
            schema.judge(schema.current_version(connection))

    async def _metrics(self) -> Answer:
        values = await self._in_thread(lambda: measure(self._spool))
        gauges = [GaugeMetricFamily(name, GAUGES[name], value) for name, value in values.items()]
        return Answer(200, exposition(gauges), [(b"content-type", CONTENT_TYPE_LATEST.encode())])

    async def _in_thread(self, work: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._threads, work)


def _not_ready(detail: str) -> Answer:
    return problem_answer(503, detail, (b"retry-after", b"1"))
