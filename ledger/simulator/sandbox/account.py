"""The account that the sandbox keeps: logins, labs, subscriptions. Pure: the time is given.

Each method returns the status and the JSON body of an answer.
"""

import itertools
import secrets
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, Literal

from ledger.event_types import EVENT_TYPES
from ledger.simulator.sender import Target

TOKEN_SECONDS = 600
"""How long a token of the documented API is valid."""

REFRESH_SECONDS = 30 * 86_400
"""How long a refresh token lives without being used."""

EVENTS = (*EVENT_TYPES, "lead.created", "booking.created")

Json = dict[str, Any]
Answered = tuple[int, Any]

Again = Literal["replace", "add", "refuse"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Options:
    """What the sandbox is: its secrets, and how it behaves where the documentation is silent.

    `again` is what a second subscription of a lab to an event does: the newer one replaces the
    older, both deliver, or it is refused with 409, as it is for a party.
    """

    client_id: str = "sandbox"
    client_secret: str = field(default="sandbox-secret", repr=False)
    parties: tuple[str, ...] = ()
    """Ids of corporate users; with some, the account is party-scoped."""
    again: Again = "replace"
    needs_https: bool = True
    """Whether an endpoint must begin with https, as documented."""


@dataclass(frozen=True, slots=True)
class Subscription:
    """One event type that goes to one target; `lab_id` is None for all labs."""

    number: int
    lab_id: str | None
    party: str | None
    event_type: str
    target: Target


class Account:
    """One account. `labs` maps the ids of its labs to their names."""

    def __init__(self, labs: Iterable[str], options: Options) -> None:
        self.options = options
        self.labs = {lab_id: f"Branch {lab_id}" for lab_id in labs}
        self.subscriptions: list[Subscription] = []
        self._numbers = itertools.count(1)
        self._tokens: dict[str, float] = {}
        self._refresh: dict[str, float] = {}

    def log_in(self, body: Json, now: float) -> Answered:
        """Answer POST /client/auth/token."""
        known = body.get("clientID") == self.options.client_id
        if not (known and body.get("clientSecret") == self.options.client_secret):
            return 401, _failure("Invalid client credentials")
        return self._issue(now)

    def refresh(self, body: Json, now: float) -> Answered:
        """Answer POST /client/auth/token/refresh."""
        until = self._refresh.pop(str(body.get("refreshToken")), 0.0)
        if body.get("clientID") != self.options.client_id or until <= now:
            return 401, _failure("Invalid refresh token")
        return self._issue(now)

    def knows(self, authorization: str, now: float) -> bool:
        """Return whether the value of an Authorization header is a token that is valid."""
        kind, _, token = authorization.partition(" ")
        return kind == "Bearer" and self._tokens.get(token, 0.0) > now

    def expire_tokens(self) -> None:
        """End all tokens now; refresh tokens stay."""
        self._tokens.clear()

    def list_labs(self) -> Answered:
        """Answer GET /client/labs."""
        return 200, {
            "success": True,
            "labs": [{"labID": lab_id, "name": name} for lab_id, name in self.labs.items()],
        }

    def subscribe(self, body: Json) -> Answered:
        """Answer POST /client/events/subscribe."""
        if fault := self._fault(body):
            return 400, _failure(fault)
        lab_id, party = body.get("labID"), _party(body)
        there = [
            one
            for one in self.subscriptions
            if one.lab_id == lab_id and one.party == party and one.event_type in body["events"]
        ]
        if there and (party or self.options.again == "refuse"):
            names = ", ".join(sorted({one.event_type for one in there}))
            return 409, _failure(f"A webhook already exists for: {names}")
        target = Target(body["endpoint"], body.get("authToken"))
        if self.options.again == "replace":
            self.subscriptions = [one for one in self.subscriptions if one not in there]
        else:
            same = {one.event_type for one in there if one.target == target}
            body = {**body, "events": [name for name in body["events"] if name not in same]}
        self.subscriptions += [
            Subscription(next(self._numbers), lab_id, party, event_type, target)
            for event_type in dict.fromkeys(body["events"])
        ]
        return 200, {"success": True, "message": "Events subscribed successfully"}

    def targets(self, lab_id: str, event_type: str) -> list[Target]:
        """Return where an event of a lab goes: each target once."""
        return list(
            dict.fromkeys(
                one.target
                for one in self.subscriptions
                if one.event_type == event_type and one.lab_id in {None, lab_id}
            )
        )

    def drop_subscriptions(self, lab_id: str) -> int:
        """Forget a lab's subscriptions without telling anybody; return how many there were."""
        kept = [one for one in self.subscriptions if one.lab_id != lab_id]
        dropped = len(self.subscriptions) - len(kept)
        self.subscriptions = kept
        return dropped

    def _issue(self, now: float) -> Answered:
        token, refresh = secrets.token_urlsafe(24), secrets.token_urlsafe(24)
        self._tokens[token] = now + TOKEN_SECONDS
        self._refresh[refresh] = now + REFRESH_SECONDS
        return 200, {"authToken": token, "refreshToken": refresh, "expiresIn": TOKEN_SECONDS}

    def _fault(self, body: Json) -> str | None:
        """Return why a subscription is refused with 400."""
        return self._fault_of_webhook(body) or self._fault_of_party(_party(body))

    def _fault_of_webhook(self, body: Json) -> str | None:
        events, endpoint = body.get("events"), body.get("endpoint")
        if not isinstance(events, list) or not events or not set(map(str, events)) <= {*EVENTS}:
            return f"events must be an array of some of {', '.join(EVENTS)}"
        begins = "https://" if self.options.needs_https else ("https://", "http://")
        if not isinstance(endpoint, str) or not endpoint.startswith(begins):
            return "endpoint must be an https URL"
        if body.get("protocol") != "https":
            return 'protocol must be "https"'
        if body.get("labID") is not None and body["labID"] not in self.labs:
            return "labID is not a lab of this account"
        return None

    def _fault_of_party(self, party: str | None) -> str | None:
        parties = self.options.parties
        if party is None:
            needed = "corporateUser or organization is required for this account"
            return needed if parties else None
        if not parties:
            return "this account is not scoped to parties"
        return None if party in parties else "corporateUser is not known to this account"


def _party(body: Json) -> str | None:
    return body.get("corporateUser") or body.get("organization")


def _failure(message: str) -> Json:
    return {"success": False, "message": message}
