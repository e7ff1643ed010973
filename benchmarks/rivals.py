"""What Ledger is measured against: servers that do less, or do it the obvious way."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any

import msgspec
from litestar import Litestar, Request, Response, post
from psycopg_pool import AsyncConnectionPool

from ledger.model.event import examine
from ledger.settings import Settings

INSERT = """
INSERT INTO event_log
    (position, received_at, event_time, source, lab_id, bill_id, event_type, digest, body)
VALUES (nextval('obvious_position'), %s, to_timestamp(%s), 'webhook', %s, %s, %s, %s, %s)
ON CONFLICT (digest, lab_id) DO NOTHING
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
    content = b'{"outcome":"recorded","position":1}'
    headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(content))]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": content, "more_body": False})


def make_obvious() -> Litestar:
    """Make the obvious handler: a route, a pool, one INSERT ... ON CONFLICT for each request."""
    settings = Settings.from_environment()
    pool = AsyncConnectionPool(settings.require_database(), min_size=8, max_size=8, open=False)
    authorization = f"Bearer {settings.require_tokens()[0]}"

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
        said = examine(body)
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
