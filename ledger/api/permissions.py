"""Who may do what: the only place that decides it.

A key has a scope (`read` < `operate` < `admin`) and is for all labs or for some. A handler gets its
`Caller` and passes `caller.labs` to its queries, which leave out other labs in SQL, so that pages,
counts and cursors are true. What the key is not for looks as if it did not exist.
"""

from collections.abc import Callable
from datetime import datetime

from msgspec import Struct

from ledger.errors import ForbiddenError
from ledger.eventlog.read import Key
from ledger.model.event import RANK
from ledger.model.operators import Labs, concerns
from ledger.operations.api_keys import SCOPES, Grant, Scope

ADMIN_KEY_ID = "admin"
"""The id of `LEDGER_ADMIN_KEY`; those of other keys are longer."""

_NOWHERE = "-" * 201
"""Longer than an identifier may be, so that no lab has this id."""


BodyRule = Callable[[str], bool]
"""Tells by the type of an event that is not folded whether its body is shown."""


class Caller(Struct, frozen=True):
    """Who sent a request: the id of the key, and what the key may do."""

    key_id: str
    scope: Scope
    labs: Labs
    expires_at: datetime | None = None

    def require(self, scope: Scope) -> None:
        """Raise `ForbiddenError` unless the key has a scope, or one that includes it."""
        if SCOPES.index(self.scope) < SCOPES.index(scope):
            raise ForbiddenError(
                f"this needs an API key with the scope {scope}, and the key {self.key_id} has the "
                f"scope {self.scope}"
            )

    def body_rule(self, *, asked: bool) -> "BodyRule":
        """Return the rule by which bodies are shown of events that are not folded, by their type.

        They may hold a person's contact data. A key with the scope `operate` sees unreadable ones,
        and those of other types if it asks for them. Raises `ForbiddenError` if another key asks.
        """
        if asked:
            self.require("operate")
            return lambda _: True
        if SCOPES.index(self.scope) < SCOPES.index("operate"):
            return lambda _: False
        # One without a type, or of a type that is folded, is unreadable.
        return lambda event_type: not event_type or event_type in RANK

    def sees(self, lab_id: str) -> bool:
        """Return whether the key is for a lab."""
        return concerns(self.labs, lab_id)

    def bill_key(self, lab_id: str, bill_id: str) -> Key:
        """Return the key to look a bill up by; that of no bill if the API key is not for its lab.

        So a foreign bill is looked for and not found like one that does not exist.
        """
        return (lab_id, bill_id) if self.sees(lab_id) else (_NOWHERE, bill_id)

    def narrowed(self, lab_id: str | None) -> Labs:
        """Return the labs of a question that is limited to a lab, or to none."""
        if lab_id is None:
            return self.labs
        return (lab_id,) if self.sees(lab_id) else ()

    def require_lab(self, lab_id: str) -> None:
        """Raise `ForbiddenError` unless the key is for a lab, whether the lab exists or not."""
        if not self.sees(lab_id):
            raise ForbiddenError(f"the API key {self.key_id} is not for lab {lab_id!r}")

    def require_labs(self, labs: Labs) -> None:
        """Raise `ForbiddenError` unless the key is for all of some labs; None are all there are."""
        if self.labs is not None and (labs is None or not {*labs} <= {*self.labs}):
            raise ForbiddenError(
                f"the API key {self.key_id} is for labs {', '.join(self.labs)}, so a token that it "
                "makes names some of these in labs"
            )

    def require_all_labs(self) -> None:
        """Raise `ForbiddenError` unless the key is for all labs."""
        if self.labs is not None:
            raise ForbiddenError(
                f"the API key {self.key_id} is for labs {', '.join(self.labs)}, and this concerns "
                "the account at Flabs as a whole"
            )

    def require_grant(self, grant: Grant) -> None:
        """Raise `ForbiddenError` if a key with this grant could do more than this one."""
        self.require(grant.scope)
        if self.labs is not None and (grant.labs is None or not {*grant.labs} <= {*self.labs}):
            raise ForbiddenError(
                f"the API key {self.key_id} is for labs {', '.join(self.labs)}, so a key that it "
                "makes names some of these in labs"
            )
        if self.expires_at is not None and (
            grant.expires_at is None or grant.expires_at > self.expires_at
        ):
            raise ForbiddenError(
                f"the API key {self.key_id} expires at {self.expires_at:%FT%TZ}, and a key that it "
                "makes not later: name expires_at"
            )
