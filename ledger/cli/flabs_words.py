"""The lines that `ledger flabs` prints."""

from datetime import datetime

from ledger.flabs.rotation import Rotation
from ledger.flabs.subscriptions import SubscriptionItem
from ledger.model.coverage import FINDINGS
from ledger.operations.coverage import LabCoverage
from ledger.operations.flabs_account import AccountCheck
from ledger.operations.render.words import clock, count, lasting

SUBSCRIPTION_COLUMNS = ("lab", "party", "events", "outcome", "Flabs says")
COVERAGE_COLUMNS = ("lab", "name", "in account", "subscribed", "last heard (UTC)", "findings")

_OUTCOMES = {
    "subscribed": "subscribed",
    "already": "subscribed already, Flabs says",
    "known": "subscribed already, the log says",
    "refused": "refused",
    "planned": "would be subscribed",
}


def subscription_cells(item: SubscriptionItem) -> tuple[str, ...]:
    """Return the row of a subscription."""
    return (
        item.lab_id or "all",
        item.party or "",
        ", ".join(item.events),
        _OUTCOMES[item.outcome],
        item.words,
    )


def coverage_cells(lab: LabCoverage) -> tuple[str, ...]:
    """Return the row of a lab."""
    return (
        lab.lab_id,
        lab.name or "",
        {True: "yes", False: "no", None: "not known"}[lab.in_account],
        _subscribed(lab),
        clock(lab.last_received_at) if lab.last_received_at else "never",
        "; ".join(FINDINGS[finding] for finding in lab.findings),
    )


def _subscribed(lab: LabCoverage) -> str:
    if lab.subscribed_events is not None:
        return ", ".join(lab.subscribed_events)
    if lab.own_events:
        return f"{', '.join(lab.own_events)} (by hand)"
    return "no"


def checked(last: AccountCheck | None, now: datetime) -> str:
    """Say when the account was last looked at, and how that ended."""
    if last is None:
        return "The account at Flabs was never looked at."
    if last.succeeded_at is None:
        return f"The account's labs were never listed: {last.failure}."
    listed = f"The account's labs were listed {clock(last.succeeded_at)} UTC"
    age = f"{listed}, {lasting(now - last.succeeded_at)} ago."
    if last.failed_since is None:
        return age
    return f"{age} Since {clock(last.failed_since)} UTC each look failed: {last.failure}."


def where_rotation_stands(found: Rotation) -> str:
    """Say how far a rotation has come."""
    old = count(len(found.replaced), "old token")
    if found.finished_at:
        return (
            f"Rotation {found.rotation} is finished: Flabs has token {found.token_id}; {old} "
            f"dropped {clock(found.finished_at)} UTC."
        )
    if found.drop_at:
        return (
            f"Rotation {found.rotation}: Flabs has token {found.token_id}. {old} dropped at "
            f"{clock(found.drop_at)} UTC, when the retries with them are over; until then all are "
            "valid."
        )
    return f"Rotation {found.rotation} has begun; nothing is dropped."
