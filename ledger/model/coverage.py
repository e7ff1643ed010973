"""Which labs are registered with Flabs as they should be. Source: docs/rules.md, "Coverage".

Three lists side by side: the labs of the account, what was subscribed, the labs that were heard of.
"""

from datetime import datetime
from typing import Literal

from msgspec import Struct

Finding = Literal["not_subscribed", "never_heard", "not_in_account", "events_not_subscribed"]

FINDINGS: dict[Finding, str] = {
    "not_subscribed": "in the account, but not subscribed",
    "never_heard": "subscribed, but never heard of",
    "not_in_account": "heard of, but not in the account",
    "events_not_subscribed": "not subscribed to all event types that are expected",
}
"""What each finding means."""


class LabFacts(Struct, frozen=True, kw_only=True):
    """What is known of a lab.

    `in_account` is None while nobody has listed the account's labs. `subscribed` are the event
    types that `ledger flabs subscribe` subscribed for it, `by_hand` those that an operator said to
    be; None: neither. `expected` are the event types that the policy expects of every lab.
    """

    in_account: bool | None
    subscribed: tuple[str, ...] | None
    by_hand: tuple[str, ...] | None
    expected: tuple[str, ...]
    heard_at: datetime | None


def is_subscribed(lab: LabFacts) -> bool:
    """Return whether any event type of a lab is known to be subscribed."""
    return bool(lab.subscribed or lab.by_hand)


def absent_events(lab: LabFacts) -> list[str]:
    """Return the event types that are expected of a lab and were not subscribed for it.

    Nothing can be said of a lab whose subscription is known by hand alone: there the operator's
    word is the expectation, too.
    """
    if not lab.subscribed:
        return []
    expected = lab.expected if lab.by_hand is None else lab.by_hand
    return [event_type for event_type in expected if event_type not in lab.subscribed]


def findings(lab: LabFacts) -> list[Finding]:
    """Return what is wrong with a lab's registration, in the order of `FINDINGS`."""
    subscribed = is_subscribed(lab)
    found: dict[Finding, bool] = {
        "not_subscribed": bool(lab.in_account) and not subscribed,
        "never_heard": subscribed and lab.heard_at is None,
        "not_in_account": lab.in_account is False and lab.heard_at is not None,
        "events_not_subscribed": bool(absent_events(lab)),
    }
    return [name for name, holds in found.items() if holds]
