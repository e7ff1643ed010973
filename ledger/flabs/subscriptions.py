"""Subscribes labs at Flabs, and records each answer in the log.

Killed at any point, it can be run again: what the log says to be subscribed is not asked for again,
and what Flabs has already is no failure.
"""

from collections.abc import Iterable, Sequence
from contextlib import closing
from datetime import UTC, datetime
from typing import Literal

import msgspec
from msgspec import Struct
from psycopg import Connection

from ledger.errors import FlabsRefusedError, QuestionError
from ledger.event_types import EVENT_TYPES
from ledger.flabs.account import look
from ledger.flabs.client import FlabsClient, Party
from ledger.flabs.endpoint import (
    Token,
    one_at_a_time,
    presented,
    public_endpoint,
    revoke_made,
    token_for,
)
from ledger.model.operator_events import FlabsSubscribed
from ledger.model.operators import Operator, concerns
from ledger.operations.decisions import catch_up, deciding_without_state, record, see
from ledger.postgres.connect import connect
from ledger.settings import Settings

NEWER_EVENT_TYPES = ("lead.created", "booking.created")
"""Those that Ledger keeps and does not fold."""

KNOWN_EVENT_TYPES = (*EVENT_TYPES, *NEWER_EVENT_TYPES)

Outcome = Literal["subscribed", "already", "known", "refused", "planned"]

NAME = "Flabs"
"""What the tokens that are made for Flabs are for."""

_SUBSCRIBED = """
SELECT s.lab_id, s.party, s.endpoint, s.in_path, array_agg(DISTINCT e.event_type)
FROM state.flabs_subscription s
CROSS JOIN LATERAL unnest(s.events) AS e (event_type)
GROUP BY s.lab_id, s.party, s.endpoint, s.in_path
ORDER BY s.lab_id, s.party, s.endpoint, s.in_path
"""


class Wanted(Struct, frozen=True, kw_only=True):
    """What to subscribe: of a lab (None: of all at once), for a party, which event types."""

    lab_id: str | None
    party: str | None
    events: tuple[str, ...]
    in_path: bool = False


class SubscriptionItem(Struct, frozen=True, kw_only=True):
    """What became of one subscription.

    `subscribed`: Flabs took it; `already`: Flabs had it; `known`: the log has it, and Flabs was not
    asked; `refused`: Flabs does not take it; `planned`: it would be asked. `words` are Flabs' own.
    """

    lab_id: str | None
    party: str | None
    events: list[str]
    outcome: Outcome
    words: str = ""


class SubscriptionReport(Struct, frozen=True, kw_only=True):
    """What became of each subscription; the endpoint is shown without its token."""

    endpoint: str
    dry_run: bool
    subscriptions: list[SubscriptionItem]


class Choice(Struct, frozen=True, kw_only=True):
    """What an operator wants to have subscribed.

    `labs` None: all of the account. `again`: also what the log says to be subscribed already.
    `in_path`: the token goes into the endpoint's path, for who cannot send one.
    """

    labs: tuple[str, ...] | None
    events: tuple[str, ...]
    parties: tuple[Party, ...] = ()
    again: bool = False
    in_path: bool = False


def parse_party(text: str) -> Party:
    """Return a party written as `corporateUser:ID` or `organization:ID`. Raises `QuestionError`."""
    kind, _, party_id = text.partition(":")
    if kind == "corporateUser" and party_id:
        return Party("corporateUser", party_id)
    if kind == "organization" and party_id:
        return Party("organization", party_id)
    raise QuestionError(f"a party is corporateUser:ID or organization:ID, not {text!r}")


def subscribe(
    url: str,
    settings: Settings,
    client: FlabsClient,
    choice: Choice,
    *,
    by: Operator,
    patience: float,
    dry_run: bool = False,
) -> tuple[SubscriptionReport, int]:
    """Subscribe what is not subscribed; return what became of each, and the log position.

    Raises `SettingsError` for a public address that Flabs cannot take, `QuestionError` for labs or
    event types that do not exist, `FlabsError`, `DecisionError`.
    """
    endpoint = public_endpoint(settings)
    _check_events(choice)
    with one_at_a_time(url):
        return _subscribe(
            url, settings, client, choice, endpoint, by=by, patience=patience, dry_run=dry_run
        )


def _check_events(choice: Choice) -> None:
    unknown = [name for name in choice.events if name not in KNOWN_EVENT_TYPES]
    if unknown or not choice.events:
        raise QuestionError(f"events are some of {', '.join(KNOWN_EVENT_TYPES)}, not {unknown}")


def _subscribe(
    url: str,
    settings: Settings,
    client: FlabsClient,
    choice: Choice,
    endpoint: str,
    *,
    by: Operator,
    patience: float,
    dry_run: bool,
) -> tuple[SubscriptionReport, int]:
    with closing(connect(url, "flabs")) as connection:
        position = catch_up(url, connection, patience=patience)
        account = [lab.lab_id for lab in look(connection, settings, client)]
        wanted = _wanted(choice, account, by)
        known = {} if choice.again else _known(connection, endpoint, in_path=choice.in_path)
    items, asked = _split(wanted, known)
    if dry_run:
        items += [_item(one, one.events, "planned") for one in asked]
        report = SubscriptionReport(endpoint=endpoint, dry_run=True, subscriptions=items)
        return report, position
    if asked:
        token = token_for(url, settings, NAME, by=by)
        answered = [item for one in asked for item in ask(url, client, endpoint, one, token, by=by)]
        if all(item.outcome == "refused" for item in answered):  # nobody has it
            revoke_made(url, settings, token, by=by)
        items += answered
        with closing(connect(url, "flabs")) as connection:
            position = see(url, connection, patience=patience, position=None)
    return SubscriptionReport(endpoint=endpoint, dry_run=False, subscriptions=items), position


def _split(
    wanted: Iterable[Wanted], known: dict[tuple[str, str], set[str]]
) -> tuple[list[SubscriptionItem], list[Wanted]]:
    """Return what is known to be subscribed, and what is not."""
    items: list[SubscriptionItem] = []
    asked: list[Wanted] = []
    for one in wanted:
        party = one.party or ""
        there = known.get((one.lab_id or "", party), set()) | known.get(("", party), set())
        if old := [name for name in one.events if name in there]:
            items.append(_item(one, old, "known"))
        if new := tuple(name for name in one.events if name not in there):
            asked.append(msgspec.structs.replace(one, events=new))
    return items, asked


def ask(
    url: str, client: FlabsClient, endpoint: str, wanted: Wanted, token: Token, *, by: Operator
) -> list[SubscriptionItem]:
    """Ask Flabs for one subscription and record what it took or had.

    Of several event types of which Flabs has one, it is not known whether it took the others; so
    each is then asked for by itself. Raises `FlabsError`, but not for a refusal.
    """
    address, auth_token = presented(endpoint, token, in_path=wanted.in_path)
    party = None if wanted.party is None else parse_party(wanted.party)

    def call(events: tuple[str, ...]) -> SubscriptionItem:
        try:
            answer = client.subscribe(
                events=events,
                endpoint=address,
                lab_id=wanted.lab_id,
                auth_token=auth_token,
                party=party,
            )
        except FlabsRefusedError as error:
            return _item(wanted, events, "refused", str(error))
        return _item(wanted, events, answer.outcome, answer.words)

    items = [call(wanted.events)]
    if items[0].outcome == "already" and len(wanted.events) > 1:
        items = [call((name,)) for name in wanted.events]
    decisions = [
        FlabsSubscribed(
            at=datetime.now(UTC),
            by=by.name,
            by_key=by.key,
            lab_id=wanted.lab_id,
            party=wanted.party,
            events=item.events,
            endpoint=endpoint,
            in_path=wanted.in_path,
            # Which token Flabs has already is not known.
            token_id=token.token_id if item.outcome == "subscribed" else None,
            outcome=item.outcome,
        )
        for item in items
        if item.outcome in {"subscribed", "already"}
    ]
    if decisions:
        with deciding_without_state(url) as connection:
            record(connection, decisions)
    return items


def subscribed(connection: Connection) -> list[Wanted]:
    """Return what is subscribed, as the log says, whatever endpoint it was subscribed for."""
    found: dict[tuple[str, str, bool], set[str]] = {}
    for lab_id, party, _, in_path, events in connection.execute(_SUBSCRIBED):
        found.setdefault((lab_id, party, in_path), set()).update(events)
    return [
        Wanted(
            lab_id=lab_id or None,
            party=party or None,
            events=_in_order(events),
            in_path=in_path,
        )
        for (lab_id, party, in_path), events in found.items()
    ]


def _wanted(choice: Choice, account: Sequence[str], by: Operator) -> list[Wanted]:
    labs = account if choice.labs is None else list(dict.fromkeys(choice.labs))
    if unknown := [lab_id for lab_id in labs if lab_id not in account]:
        seen = [lab_id for lab_id in account if concerns(by.labs, lab_id)]
        raise QuestionError(
            f"the account at Flabs has no lab {', '.join(unknown[:10])}; it has "
            f"{', '.join(seen[:20]) or ('none' if by.labs is None else 'none of yours')}"
        )
    if not labs:
        raise QuestionError("the account at Flabs has no lab to subscribe")
    parties: list[str | None] = [str(party) for party in choice.parties]
    return [
        Wanted(lab_id=lab_id, party=party, events=_in_order(choice.events), in_path=choice.in_path)
        for lab_id in labs
        for party in parties or [None]
    ]


def _known(
    connection: Connection, endpoint: str, *, in_path: bool
) -> dict[tuple[str, str], set[str]]:
    """Return by lab and party the event types that are subscribed for this endpoint."""
    return {
        (lab_id, party): set(events)
        for lab_id, party, at, path, events in connection.execute(_SUBSCRIBED)
        if (at, path) == (endpoint, in_path)
    }


def _in_order(events: Iterable[str]) -> tuple[str, ...]:
    there = set(events)
    known = [name for name in KNOWN_EVENT_TYPES if name in there]
    return (*known, *sorted(there.difference(known)))


def _item(
    wanted: Wanted, events: Iterable[str], outcome: Outcome, words: str = ""
) -> SubscriptionItem:
    return SubscriptionItem(
        lab_id=wanted.lab_id,
        party=wanted.party,
        events=list(events),
        outcome=outcome,
        words=words,
    )
