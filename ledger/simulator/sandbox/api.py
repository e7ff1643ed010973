"""The sandbox's HTTP API, as a plain ASGI application."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Any

import msgspec

from ledger.simulator.sandbox.account import Account, Answered, Json
from ledger.simulator.sandbox.faults import Faults, Trouble

MAX_BODY = 1024 * 1024

Message = dict[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

_JSON = b"application/json"
_NOT_FOUND = {"success": False, "message": "Not found"}
_UNAUTHORIZED = {"success": False, "message": "Invalid or expired token"}


class Api:
    """Answers the documented calls, and two of its own under /sandbox."""

    def __init__(self, account: Account, trouble: Trouble) -> None:
        self._account = account
        self._trouble = trouble

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            raise ValueError("the sandbox speaks HTTP only")
        body = b""
        while True:
            message = await receive()
            body += message.get("body", b"")
            if not message.get("more_body") or len(body) > MAX_BODY:
                break
        headers = {name.lower(): value.decode("latin-1") for name, value in scope["headers"]}
        status, content = await self._answer(scope["method"], scope["path"], headers, body)
        await send(
            {
                "type": "http.response.start",
                "status": status,
                "headers": [
                    (b"content-type", _JSON),
                    (b"content-length", str(len(content)).encode()),
                ],
            }
        )
        await send({"type": "http.response.body", "body": content})

    async def _answer(
        self, method: str, path: str, headers: dict[bytes, str], body: bytes
    ) -> tuple[int, bytes]:
        call = f"{method} {path}"
        if call == "POST /sandbox/faults":
            try:
                faults = msgspec.json.decode(body, type=Faults)
            except msgspec.DecodeError as error:
                return 400, msgspec.json.encode({"message": str(error)})
            self._trouble.add(faults, self._account)
            return 204, b""
        if call == "GET /sandbox/state":
            return 200, msgspec.json.encode(self._state())
        if pause := self._trouble.next_pause():
            await asyncio.sleep(pause)
        if said := self._trouble.next_answer():
            return said
        status, answered = self._documented(call, headers, body)
        return status, msgspec.json.encode(answered)

    def _documented(self, call: str, headers: dict[bytes, str], body: bytes) -> Answered:
        now = time.monotonic()
        if call == "POST /client/auth/token":
            return self._account.log_in(_object(body), now)
        if call == "POST /client/auth/token/refresh":
            return self._account.refresh(_object(body), now)
        if call not in {"GET /client/labs", "POST /client/events/subscribe"}:
            return 404, _NOT_FOUND
        if not self._account.knows(headers.get(b"authorization", ""), now):
            return 401, _UNAUTHORIZED
        if call == "GET /client/labs":
            return self._account.list_labs()
        return self._account.subscribe(_object(body))

    def _state(self) -> Json:
        """Return the labs and subscriptions, without tokens."""
        return {
            "labs": sorted(self._account.labs),
            "subscriptions": [
                {
                    "lab": one.lab_id,
                    "party": one.party,
                    "event": one.event_type,
                    "endpoint": one.target.endpoint,
                }
                for one in self._account.subscriptions
            ],
        }


def _object(body: bytes) -> Json:
    try:
        return msgspec.json.decode(body, type=dict[str, Any])
    except (msgspec.DecodeError, ValueError, RecursionError):
        return {}
