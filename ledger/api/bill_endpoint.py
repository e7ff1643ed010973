"""`GET /v1/labs/{lab_id}/bills/{bill_id}` without a query, as plain ASGI.

What is asked most often. A framework's request would cost it more than all the rest of its work, so
what is plainly a bill that is there is answered here, and everything else by the framework's route.
"""

from datetime import UTC, datetime
from typing import TYPE_CHECKING

from ledger.api.authentication import Authenticator
from ledger.api.bill_reader import BillReader
from ledger.api.handlers.bills import bill_content
from ledger.api.http.paths import identifier
from ledger.api.http.responses import POSITION_HEADER
from ledger.api.permissions import Caller
from ledger.api.rate_limit import RateLimit
from ledger.credentials import without_scheme
from ledger.eventlog.read import Key
from ledger.model.json_text import is_encodable
from ledger.operations.policy import Policy

if TYPE_CHECKING:
    from litestar.types import HTTPScope, Send

PREFIX = "/v1/labs/"

TEMPLATE = "/v1/labs/{lab_id}/bills/{bill_id}"

_POSITION_HEADER = POSITION_HEADER.lower().encode()


class BillEndpoint:
    """Answers requests for a bill."""

    def __init__(
        self, reader: BillReader, authenticator: Authenticator, rates: RateLimit, policy: Policy
    ) -> None:
        self._reader = reader
        self._authenticator = authenticator
        self._rates = rates
        self._policy = policy

    async def answered(self, scope: "HTTPScope", send: "Send") -> bool:
        """Answer the request if it can be answered here; tell whether it was."""
        match scope["path"].split("/"):
            case ["", "v1", "labs", lab, "bills", bill]:
                key = (identifier(lab), identifier(bill))
            case _:
                return False
        if scope["method"] != "GET" or scope["query_string"]:
            return False
        caller = self._caller(scope)
        if caller is None or not self._may_read(caller, key):
            return False
        stored = await self._reader.read(key)
        content = stored and bill_content(stored, self._policy, datetime.now(UTC))
        if not (stored and content):
            return False
        scope["path_template"] = TEMPLATE  # as the framework's router would
        self._rates.take(caller.key_id)  # the framework's route counts what it answers
        headers = [
            (b"content-type", b"application/json"),
            (b"content-length", b"%d" % len(content)),
            (_POSITION_HEADER, b"%d" % stored.position),
        ]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": content, "more_body": False})
        return True

    def _may_read(self, caller: Caller, key: Key) -> bool:
        if not (is_encodable(key[0]) and is_encodable(key[1])):  # there is no such bill
            return False
        return caller.sees(key[0]) and self._rates.allows(caller.key_id)

    def _caller(self, scope: "HTTPScope") -> Caller | None:
        for name, value in scope["headers"]:
            if name == b"authorization":
                return self._authenticator.known(without_scheme(value).decode("latin-1"))
        return None
