"""`GET /v1/labs/{lab_id}/bills/{bill_id}` without a query, as plain ASGI.

What is asked most often. A framework's request would cost it more than all the rest of its work, so
what is plainly a bill that is there is answered here, and everything else by the framework's route.
"""

from datetime import UTC, datetime
from typing import TYPE_CHECKING

from ledger.api.bill_reader import BillReader
from ledger.api.handlers.bills import bill_content
from ledger.api.http.paths import identifier
from ledger.api.http.responses import POSITION_HEADER
from ledger.credentials import Secrets, without_scheme
from ledger.model.json_text import is_encodable
from ledger.operations.policy import Policy

if TYPE_CHECKING:
    from litestar.types import HTTPScope, Send

PREFIX = "/v1/labs/"

_POSITION_HEADER = POSITION_HEADER.lower().encode()


class BillEndpoint:
    """Answers requests for a bill."""

    def __init__(self, reader: BillReader, keys: Secrets, policy: Policy) -> None:
        self._reader = reader
        self._keys = keys
        self._policy = policy

    async def answered(self, scope: "HTTPScope", send: "Send") -> bool:
        """Answer the request if it can be answered here; tell whether it was."""
        match scope["path"].split("/"):
            case ["", "v1", "labs", lab, "bills", bill]:
                key = (identifier(lab), identifier(bill))
            case _:
                return False
        if scope["method"] != "GET" or scope["query_string"] or not self._admits(scope):
            return False
        if not (is_encodable(key[0]) and is_encodable(key[1])):  # there is no such bill
            return False
        stored = await self._reader.read(key)
        if stored is None:
            return False
        content = bill_content(stored, self._policy, datetime.now(UTC))
        if content is None:
            return False
        headers = [
            (b"content-type", b"application/json"),
            (b"content-length", b"%d" % len(content)),
            (_POSITION_HEADER, b"%d" % stored.position),
        ]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": content, "more_body": False})
        return True

    def _admits(self, scope: "HTTPScope") -> bool:
        for name, value in scope["headers"]:
            if name == b"authorization":
                return self._keys.accept(without_scheme(value))
        return False
