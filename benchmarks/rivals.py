"""What Ledger is measured against: servers that do less, or do it the obvious way."""

from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any

import msgspec
from litestar import Litestar, Request, Response, get, post
from psycopg_pool import AsyncConnectionPool

from ledger.intake.endpoint import Answer, Header
from ledger.intake.tokens import Token
from ledger.model.event import event_columns
from ledger.settings import Settings

SEQUENCE = "CREATE SEQUENCE public.obvious_position"
"""What the obvious handler takes its positions from: to be made in its database."""

INSERT = """
INSERT INTO ledger.event_log
    (position, received_at, event_time, source, lab_id, bill_id, event_type, digest, body)
VALUES (
    nextval('public.obvious_position'), %s, to_timestamp(%s), 'webhook', %s, %s, %s, %s, %s
)
ON CONFLICT DO NOTHING
RETURNING position
"""


async def raw(scope: Any, receive: Any, send: Any) -> None:  # noqa: ANN401 -- plain ASGI
    """Read the body, store nothing, answer 200: the ceiling of the server."""
    if scope["type"] == "lifespan":
        for said in ("startup", "shutdown"):
            await receive()
            await send({"type": f"lifespan.{said}.complete"})
        return
    body, more = b"", True
    while more:
        message = await receive()
        body += message["body"]
        more = message.get("more_body")
    headers = [*_AT_ONCE.headers, (b"content-length", b"%d" % len(_AT_ONCE.content))]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": _AT_ONCE.content, "more_body": False})


class Unasked:
    """An application whose intake stores nothing: the ceiling of the server's protocol."""

    def __init__(self) -> None:
        self.intake = self

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:  # noqa: ANN401 -- plain ASGI
        """Do what `raw` does with all else."""
        await raw(scope, receive, send)

    def ordinary_token(self, _path: str, _headers: Iterable[Header]) -> Token:
        """Say that it is valid."""
        return _ANY

    def deliver(
        self,
        _body: bytes,
        _at: datetime,
        _token: Token,
        _client: str,
        tell: Callable[[Answer], object],
    ) -> None:
        """Answer at once."""
        tell(_AT_ONCE)


_ANY = Token("", None)
_AT_ONCE = Answer(
    200, b'{"outcome":"recorded","position":1}', [(b"content-type", b"application/json")]
)


def make_obvious() -> Litestar:
    """Make the obvious handler: a route, a pool, one INSERT ... ON CONFLICT for each request."""
    settings = Settings.from_environment()
    pool = AsyncConnectionPool(settings.require_database(), min_size=8, max_size=8, open=False)
    authorization = f"Bearer {settings.webhook_tokens[0]}"

    @asynccontextmanager
    async def lifespan(_: Litestar) -> AsyncIterator[None]:
        await pool.open()
        yield
        await pool.close()

    @post("/webhooks/flabs", status_code=200)
    async def receive(request: Request[Any, Any, Any]) -> Response[bytes]:
        if request.headers.get("authorization") != authorization:
            return Response(b"", status_code=401)
        body = await request.body()
        said = event_columns(body)
        values = (
            datetime.now(UTC),
            said.event_time,
            said.lab_id,
            said.bill_id,
            said.event_type,
            said.digest,
            body,
        )
        async with pool.connection() as connection:
            row = await (await connection.execute(INSERT, values)).fetchone()
        answer = {"outcome": "recorded" if row else "duplicate", "position": row and row[0]}
        return Response(msgspec.json.encode(answer), media_type="application/json")

    return Litestar([receive], lifespan=[lifespan], openapi_config=None, logging_config=None)


def make_constant() -> Litestar:
    """Make the ceiling of a read: a route that answers a bill of five reports from memory."""
    reports = [
        {
            "test_id": f"test_{test}",
            "status": "completed",
            "completed_at": "2024-01-20T10:51:00Z",
            "evidence": "report.completed",
        }
        for test in range(5)
    ]
    content = msgspec.json.encode(
        {
            "lab_id": "lab_0", "bill_id": "bill_0", "integrator_id": "your_unique_integrator_id_0",
            "state": "completed", "flabs_status": "completed",
            "created_at": "2024-01-20T10:50:00Z", "completed_at": "2024-01-20T11:00:00Z",
            "deleted_at": None, "report_url": "https://reports.flabs.in/bill/bill_0",
            "reports_total": 5, "reports_completed": 5, "findings": [], "events": 7,
            "first_received_at": "2024-01-20T10:50:01.123456Z",
            "last_received_at": "2024-01-20T11:00:01.123456Z",
            "last_event_at": "2024-01-20T11:00:00Z", "position": 7,
            "reports": reports, "missing_events": [],
        }
    )  # fmt: skip

    @get("/v1/labs/{lab_id:str}/bills/{bill_id:str}")
    async def read(lab_id: str, bill_id: str) -> Response[bytes]:  # noqa: ARG001 -- as Ledger's
        return Response(content, media_type="application/json")

    return Litestar([read], openapi_config=None, logging_config=None)
