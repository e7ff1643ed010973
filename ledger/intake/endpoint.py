"""`POST /webhooks/flabs` and `POST /webhooks/flabs/{secret}`.

As plain ASGI, because a framework's request would cost this path as much as the rest of its work;
and for the server's protocol, which hands ordinary deliveries over without a request of ASGI.
"""

import asyncio
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from typing import TYPE_CHECKING, NamedTuple

import msgspec

from ledger.credentials import Secrets, without_scheme
from ledger.errors import AppendError
from ledger.eventlog.append import Delivery, Outcome
from ledger.eventlog.group_commit import GroupCommit
from ledger.metrics import REFUSED
from ledger.problems import MEDIA_TYPE, Problem

if TYPE_CHECKING:
    from litestar.types import HTTPScope, Receive, Send

PATH = "/webhooks/flabs"
_SECRET_PATH = PATH + "/"

RETRY_AFTER = 120
"""Seconds; the sender's own interval. It retries by its own clock, others may heed this one."""

_SMALL = 16 * 1024
"""Bytes up to which a body is read on the spot: in microseconds, in milliseconds at the worst."""

Header = tuple[bytes, bytes]


class Answer(NamedTuple):
    """What the sender is told; the headers are all but the length of the content."""

    status: int
    content: bytes
    headers: list[Header]


def problem_answer(status: int, detail: str, *headers: Header) -> Answer:
    """Make an answer of a problem."""
    content = msgspec.json.encode(Problem.of(status, detail))
    return Answer(status, content, [(b"content-type", MEDIA_TYPE.encode()), *headers])


class _RefusedError(Exception):
    """A delivery that is not stored, and what its sender is told."""

    def __init__(self, status: int, detail: str, *headers: Header) -> None:
        super().__init__(detail)
        self.status = status
        self.headers = headers

    def answer(self) -> Answer:
        REFUSED.labels(status=str(self.status)).inc()
        return problem_answer(self.status, str(self), *self.headers)


class Intake:
    """Answers deliveries."""

    def __init__(
        self, lane: GroupCommit, *, tokens: tuple[str, ...], header: str, max_body: int
    ) -> None:
        self._lane = lane
        self._tokens = Secrets(tokens)
        self._header = header.encode()
        self._max_body = max_body

    async def __call__(self, scope: "HTTPScope", receive: "Receive", send: "Send") -> None:
        """Answer one request."""
        received_at = datetime.now(UTC)
        try:
            self._admit(scope)
            body = await self._read_body(receive)
            answer = await self._store(body, received_at)
        except _RefusedError as refused:
            answer = refused.answer()
        length = (b"content-length", str(len(answer.content)).encode())
        await send(
            {
                "type": "http.response.start",
                "status": answer.status,
                "headers": [*answer.headers, length],
            }
        )
        await send({"type": "http.response.body", "body": answer.content, "more_body": False})

    def is_ordinary(self, path: str, headers: Iterable[Header]) -> bool:
        """Tell whether a POST is a delivery to `deliver`: with a token, and of no great length."""
        length, token = self._read_headers(path, headers)
        if length is None or length >= _SMALL or length > self._max_body:
            return False
        return self._tokens.accept(token)

    def deliver(self, body: bytes, received_at: datetime, tell: Callable[[Answer], object]) -> None:
        """Make an ordinary delivery durable, then tell the answer."""
        delivery = Delivery.of(body, received_at=received_at, source="webhook")

        def settled(outcome: Outcome | AppendError) -> None:
            if isinstance(outcome, AppendError):
                tell(_not_stored(outcome).answer())
            else:
                tell(_stored(delivery, outcome))

        self._lane.enqueue(delivery, settled)

    def _admit(self, scope: "HTTPScope") -> None:
        """Refuse what need not be read."""
        if scope["method"] != "POST":
            raise _RefusedError(405, "only POST is taken here", (b"allow", b"POST"))
        length, token = self._read_headers(scope["path"], scope["headers"])
        if not self._tokens.accept(token):
            raise _RefusedError(
                401,
                "the webhook token is missing or wrong: send it as Authorization: Bearer TOKEN, "
                "as Authorization: TOKEN, or as the last part of the path",
                (b"www-authenticate", b'Bearer realm="ledger"'),
            )
        if length is not None and length > self._max_body:
            raise self._too_large()

    async def _store(self, body: bytes, received_at: datetime) -> Answer:
        """Make the delivery durable and return the answer."""
        if len(body) < _SMALL:
            delivery = Delivery.of(body, received_at=received_at, source="webhook")
        else:  # one can be built to take a second to read, and the others shall not wait for it
            delivery = await asyncio.to_thread(
                Delivery.of, body, received_at=received_at, source="webhook"
            )
        try:
            return _stored(delivery, await self._lane.append(delivery))
        except AppendError as error:
            raise _not_stored(error) from error

    def _read_headers(self, path: str, headers: Iterable[Header]) -> tuple[int | None, bytes]:
        """Return the announced length, None if none is, and the token presented."""
        length, token = None, b""
        for name, value in headers:
            if name == b"content-length":
                length = int(value) if value.isdigit() else None
            elif name == self._header:
                token = without_scheme(value)
        if path.startswith(_SECRET_PATH):
            token = path.removeprefix(_SECRET_PATH).encode("utf-8", "replace")
        return length, token

    async def _read_body(self, receive: "Receive") -> bytes:
        """Return the whole body. Who got this far has a token, so nobody is timed."""
        message = await receive()
        parts, size = [], 0
        while message["type"] == "http.request":
            parts.append(message["body"])
            size += len(message["body"])
            if size > self._max_body:
                raise self._too_large()
            if not message.get("more_body"):
                return b"".join(parts)
            message = await receive()
        raise _RefusedError(400, "the connection was closed before the body had come")

    def _too_large(self) -> _RefusedError:
        # The rest of the body is not read, so the connection cannot be used again.
        detail = f"the body is longer than {self._max_body} bytes (LEDGER_MAX_BODY)"
        return _RefusedError(413, detail, (b"connection", b"close"))


def _stored(delivery: Delivery, outcome: Outcome) -> Answer:
    said = {"outcome": outcome.word(delivery), "position": outcome.position}
    return Answer(200, msgspec.json.encode(said), _JSON)


def _not_stored(error: AppendError) -> _RefusedError:
    return _RefusedError(
        503,
        f"the delivery was not stored, send it again: {error}",
        (b"retry-after", str(RETRY_AFTER).encode()),
    )


_JSON = [(b"content-type", b"application/json")]
