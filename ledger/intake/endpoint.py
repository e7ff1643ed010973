"""`POST /webhooks/flabs` and `POST /webhooks/flabs/{secret}`.

`Intake` is a plain ASGI application, because a framework's request costs as much as everything else
that is done for a delivery. It also takes deliveries from the server's protocol, without ASGI.
"""

import asyncio
import functools
import re
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, NamedTuple

import msgspec
import structlog

from ledger.credentials import without_scheme
from ledger.errors import AppendError
from ledger.eventlog.append import Delivery, Outcome, Spooled
from ledger.eventlog.group_commit import GroupCommit
from ledger.intake.allowance import Allowance
from ledger.intake.refused_box import RefusedBox
from ledger.intake.throttled_log import ThrottledLog
from ledger.intake.tokens import Token, WebhookTokens
from ledger.metrics import REFUSED
from ledger.problems import MEDIA_TYPE, Problem

if TYPE_CHECKING:
    from litestar.types import HTTPScope, Receive, Send

PATH = "/webhooks/flabs"
METHODS = b"POST, OPTIONS"

LONGEST_WAIT = 600
"""Seconds that a sender is asked to wait at most, however long its own interval is."""

_SMALL = 16 * 1024
"""Shorter bodies are parsed in the event loop: that takes microseconds, at worst milliseconds."""

_log = structlog.get_logger(__name__)

Header = tuple[bytes, bytes]


class Answer(NamedTuple):
    """A response. The header `content-length` is left to whatever sends it."""

    status: int
    content: bytes
    headers: list[Header]


def problem_answer(status: int, detail: str, *headers: Header) -> Answer:
    """Return a problem as a response."""
    content = msgspec.json.encode(Problem.of(status, detail))
    return Answer(status, content, [(b"content-type", MEDIA_TYPE.encode()), *headers])


class _RefusedError(Exception):
    """A delivery is not stored; the message is for its sender."""

    def __init__(self, status: int, detail: str, *headers: Header) -> None:
        super().__init__(detail)
        self.status = status
        self.headers = headers

    def answer(self) -> Answer:
        REFUSED.labels(status=str(self.status)).inc()
        return problem_answer(self.status, str(self), *self.headers)


class Intake:
    """Answers deliveries.

    `prefix` is a path, such as `/ledger`, that a proxy may leave before the endpoint's own.
    `retry_interval` is the sender's own interval: it retries by its own clock, and others may heed
    `Retry-After`.
    """

    def __init__(
        self,
        lane: GroupCommit,
        *,
        tokens: WebhookTokens,
        box: RefusedBox | None,
        header: str,
        max_body: int,
        retry_interval: timedelta,
        prefix: str = "",
    ) -> None:
        self._lane = lane
        self._tokens = tokens
        self._box = box
        self._allowance = Allowance()
        self._header = header.encode()
        self._max_body = max_body
        wait = min(max(int(retry_interval.total_seconds()), 1), LONGEST_WAIT)
        self._retry_after = (b"retry-after", str(wait).encode())
        self._address = _address(prefix)
        # Of its own: whatever else runs in threads must not hold up a delivery.
        self._threads = ThreadPoolExecutor(2, thread_name_prefix="bodies")
        self._log_refusal = ThrottledLog(
            _log.warning, "deliveries refused: the webhook token is missing or wrong"
        )

    async def __call__(self, scope: "HTTPScope", receive: "Receive", send: "Send") -> None:
        """Answer one request."""
        received_at = datetime.now(UTC)
        if scope["method"] == "OPTIONS":
            await send_answer(send, Answer(204, b"", [(b"allow", METHODS)]))
            return
        try:
            token = self._admit(scope)
            if token is None:
                await self._keep_refused(scope, receive, received_at)
                raise self._wrong_token(scope)
            body = await self._read_body(receive)
            answer = await self._store(body, received_at, token, _client(scope))
        except _RefusedError as refused:
            answer = refused.answer()
        await send_answer(send, answer)

    def answers(self, path: str) -> bool:
        """Return whether the endpoint has this path."""
        return self._secret_in(path) is not None

    def ordinary_token(self, url: str, headers: Iterable[Header]) -> Token | None:
        """Return the token of a POST that is for `deliver`, or None if it is not.

        It is if it goes to the endpoint, has a valid token, and is not long.
        """
        secret = self._secret_in(url)
        if secret is None:
            return None
        length, presented = self._read_headers(headers)
        if length is None or length >= _SMALL or length > self._max_body:
            return None
        return self._find_token(secret, presented)

    def deliver(
        self,
        body: bytes,
        received_at: datetime,
        token: Token,
        client: str,
        tell: Callable[[Answer], object],
    ) -> None:
        """Make an ordinary delivery durable, then pass the answer to `tell`."""
        delivery = Delivery.of(body, received_at=received_at, source="webhook")
        if not token.may_bring(delivery.columns.lab_id):
            tell(self._foreign(delivery, client).answer())
            return

        def settled(outcome: Outcome | Spooled | AppendError) -> None:
            if isinstance(outcome, AppendError):
                tell(self._not_stored(outcome).answer())
            else:
                tell(_stored(delivery, outcome))

        self._lane.enqueue(delivery, settled)

    def _admit(self, scope: "HTTPScope") -> Token | None:
        """Return the token, None for a wrong one. Refuse what can be before its body is read."""
        if scope["method"] != "POST":
            raise _RefusedError(405, "only POST is taken here", (b"allow", METHODS))
        length, presented = self._read_headers(scope["headers"])
        token = self._find_token(self._secret_in(scope["path"]) or "", presented)
        if token is None and not self._tokens.complete:
            raise _RefusedError(
                503,
                "the webhook tokens of the database are not known yet: send it again",
                self._retry_after,
                _CLOSE,
            )
        if token is not None and length is not None and length > self._max_body:
            raise self._too_large()
        return token

    async def _keep_refused(
        self, scope: "HTTPScope", receive: "Receive", received_at: datetime
    ) -> None:
        """Put a delivery with a wrong token into the box, if it looks like Flabs'."""
        if self._box is None or not self._box.has_room:
            return
        length, presented = self._read_headers(scope["headers"])
        client = _client(scope)
        body = await self._allowance.read(receive, length, client)
        if not body or len(body) > self._max_body:
            return
        began = time.perf_counter()
        delivery = Delivery.of(body, received_at=received_at, source="webhook")
        if delivery.columns.unreadable is None:
            is_missing = not (presented or self._secret_in(scope["path"]))
            self._box.add(delivery, "missing" if is_missing else "wrong", client)
        self._allowance.spend(client, time.perf_counter() - began)

    def _wrong_token(self, scope: "HTTPScope") -> _RefusedError:
        _, presented = self._read_headers(scope["headers"])
        is_missing = not (presented or self._secret_in(scope["path"]))
        self._log_refusal(token="missing" if is_missing else "wrong", client=_client(scope))
        return _RefusedError(
            401,
            "the webhook token is missing or wrong: send it as Authorization: Bearer TOKEN, "
            "as Authorization: TOKEN, or as the last part of the path",
            _AUTHENTICATE,
            _CLOSE,
        )

    def _foreign(self, delivery: Delivery, client: str) -> _RefusedError:
        """Keep a delivery whose token is for other labs, and return the refusal.

        It is kept even if it is unreadable: its sender is one of ours.
        """
        self._log_refusal(token="of other labs", client=client)  # noqa: S106 -- words
        if self._box is not None:
            self._box.add(delivery, "foreign_lab", client)
        return _RefusedError(
            401, "the webhook token is not for the lab that the body names", _AUTHENTICATE
        )

    async def _store(self, body: bytes, received_at: datetime, token: Token, client: str) -> Answer:
        """Make the delivery durable and return the answer."""
        if len(body) < _SMALL:
            delivery = Delivery.of(body, received_at=received_at, source="webhook")
        else:  # a hostile body can take a second to parse, which must not delay the others
            delivery = await asyncio.get_running_loop().run_in_executor(
                self._threads,
                functools.partial(Delivery.of, body, received_at=received_at, source="webhook"),
            )
        if not token.may_bring(delivery.columns.lab_id):
            raise self._foreign(delivery, client)
        try:
            return _stored(delivery, await self._lane.append(delivery))
        except AppendError as error:
            raise self._not_stored(error) from error

    def _not_stored(self, error: AppendError) -> _RefusedError:
        return _RefusedError(
            503, f"the delivery was not stored, send it again: {error}", self._retry_after
        )

    def _secret_in(self, path: str) -> str | None:
        """Return the secret in a path, '' if it has none, or None if it is another path."""
        if path == PATH:
            return ""
        match = self._address.fullmatch(path)
        return (match[1] or "") if match else None

    def _find_token(self, secret: str, presented: bytes) -> Token | None:
        """Return the token that is the path's secret, if it has one, or else the header's."""
        if secret:
            presented = secret.encode("utf-8", "replace")
        token = self._tokens.find(presented)
        if token is None and secret.endswith("/"):
            # The slash may belong to the token, so it is removed second.
            token = self._tokens.find(presented.rstrip(b"/"))
        return token

    def _read_headers(self, headers: Iterable[Header]) -> tuple[int | None, bytes]:
        """Return the announced length, None if there is none, and the token presented."""
        length, token = None, b""
        for name, value in headers:
            if name == b"content-length":
                length = int(value) if value.isdigit() else None
            elif name == self._header:
                token = without_scheme(value)
        return length, token

    async def _read_body(self, receive: "Receive") -> bytes:
        """Return the complete body."""
        body = bytearray()
        message = await receive()
        while message["type"] == "http.request":
            body += message["body"]
            if len(body) > self._max_body:
                raise self._too_large()
            if not message.get("more_body"):
                return bytes(body)
            message = await receive()
        raise _RefusedError(400, "the connection was closed before the body was complete")

    def _too_large(self) -> _RefusedError:
        # The rest of the body is not read, so the connection cannot be used again.
        detail = f"the body is longer than {self._max_body} bytes (LEDGER_MAX_BODY)"
        return _RefusedError(413, detail, _CLOSE)


def _address(prefix: str) -> re.Pattern[str]:
    """Return a pattern of the endpoint's paths whose group is the secret.

    A wrong number of slashes is forgiven: the sender would get a 401 and its event would be lost.
    """
    names = [re.escape(name) for name in prefix.split("/") if name]
    optional = f"(?:/+{'/+'.join(names)})?" if names else ""
    return re.compile(rf"{optional}/+webhooks/+flabs(?:/+(.*))?", re.DOTALL)


async def send_answer(send: "Send", answer: Answer) -> None:
    """Send a response to one request."""
    headers = answer.headers
    if answer.status != 204:  # noqa: PLR2004 -- the status that has no content
        headers = [*headers, (b"content-length", b"%d" % len(answer.content))]
    await send({"type": "http.response.start", "status": answer.status, "headers": headers})
    await send({"type": "http.response.body", "body": answer.content, "more_body": False})


def _stored(delivery: Delivery, outcome: Outcome | Spooled) -> Answer:
    if isinstance(outcome, Spooled):
        return Answer(202, b'{"outcome":"spooled"}', _JSON)
    said = {"outcome": outcome.word(delivery), "position": outcome.position}
    return Answer(200, msgspec.json.encode(said), _JSON)


def _client(scope: "HTTPScope") -> str:
    client = scope["client"]
    return client[0] if client else "unknown"


_AUTHENTICATE = (b"www-authenticate", b'Bearer realm="ledger"')
_CLOSE = (b"connection", b"close")
_JSON = [(b"content-type", b"application/json")]
