"""Passes ordinary deliveries from the connection to the intake, without an ASGI task.

That takes a third off their cost. It uses `RequestResponseCycle`, which Uvicorn does not document;
see `protocol`.
"""

import asyncio
from datetime import UTC, datetime

from uvicorn.protocols.http.httptools_impl import RequestResponseCycle

from ledger.intake.endpoint import Answer, Intake
from ledger.intake.protocol import UPLOAD_BYTES, BoundedProtocol
from ledger.intake.tokens import Token

DELIVERY_BYTES = 8 * 1024 * 1024
"""Most bytes of a delivery that count as held: one of the longest that LEDGER_MAX_BODY allows must
not be too much by itself."""


class DeliveryProtocol(BoundedProtocol):
    """Passes ordinary deliveries to the intake, and all other requests to the application.

    For the application a request is a task that is woken for its body and for its outcome, which
    costs twice as much as the rest of a delivery's way. The application takes deliveries of every
    form, so what is not plainly an ordinary one is left to it.
    """

    _intake: Intake | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Find out whether the application has an intake, at this address."""
        super().connection_made(transport)
        status_port = getattr(self.app, "status_port", None)
        if status_port is None or not self.server or self.server[1] != status_port:
            self._intake = getattr(self.app, "intake", None)

    def on_headers_complete(self) -> None:
        """Keep an ordinary delivery here."""
        token = self._token_of_ordinary_delivery()
        if token is not None:
            self.begin_body(wanted=True)
            self.cycle = _Delivery(self, token)
        else:
            super().on_headers_complete()
            if self._intake and self.in_body and self._intake.answers(self.scope["path"]):
                self.most_held = DELIVERY_BYTES
            else:
                self.most_held = UPLOAD_BYTES

    def on_message_complete(self) -> None:
        """Deliver a complete body."""
        delivery = self.cycle
        if self._intake and isinstance(delivery, _Delivery) and self.in_body:
            self.end_body()
            self._intake.deliver(
                bytes(delivery.body),
                datetime.now(UTC),
                delivery.token,
                self.client_host(),
                delivery.answer,
            )
        else:
            super().on_message_complete()

    def _token_of_ordinary_delivery(self) -> Token | None:
        if (
            self._intake is not None
            and self.parser.get_method() == b"POST"
            and self.parser.get_http_version() == "1.1"
            and self.parser.should_keep_alive()
            and not self.parser.should_upgrade()
            and not self.expect_100_continue
        ):
            return self._intake.ordinary_token(self.url.decode("latin-1"), self.headers)
        return None


class _Delivery(RequestResponseCycle):
    """A request that is answered here, with the attributes that Uvicorn and its base class read.

    So the next request on the connection waits for its answer, and so does a stop.
    """

    message_event = asyncio.Event()  # nobody waits for it

    def __init__(self, connection: DeliveryProtocol, token: Token) -> None:
        self.token = token
        self.body = bytearray()
        self.more_body = True
        self.response_started = False
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
