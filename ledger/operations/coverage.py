"""Compares the labs of the account at Flabs, what was subscribed, and what the log has heard of.

Reads only what is small: labs and subscriptions, no events.
"""

from collections import Counter
from datetime import UTC, datetime, timedelta
from typing import Any

from msgspec import Struct
from psycopg import Connection

from ledger.model.coverage import FINDINGS, Finding, LabFacts, absent_events, findings
from ledger.model.operators import Labs, as_array
from ledger.operations.flabs_account import AccountCheck, read_check
from ledger.operations.policy import Policy

NEVER_HEARD_FOR_LONG = timedelta(days=1)
"""How long nothing may come of a lab that was subscribed, before somebody should look."""

_LABS = """
WITH subscribed AS (
    SELECT s.lab_id, array_agg(DISTINCT e.event_type) AS events, max(s.subscribed_at) AS latest
    FROM state.flabs_subscription s
    CROSS JOIN LATERAL unnest(s.events) AS e (event_type)
    GROUP BY s.lab_id
),
by_hand AS (
    SELECT DISTINCT ON (s.lab_id) s.lab_id, s.position, s.events
    FROM state.subscription s
    ORDER BY s.lab_id, s.position DESC
),
named AS (
    SELECT l.lab_id FROM ledger.flabs_lab l
    UNION
    SELECT l.lab_id FROM state.lab l
    UNION
    SELECT s.lab_id FROM subscribed s WHERE s.lab_id <> ''
    UNION
    SELECT h.lab_id FROM by_hand h WHERE h.events IS NOT NULL
)
SELECT
    n.lab_id,
    a.name,
    a.lab_id IS NOT NULL,
    a.first_listed_at,
    s.events,
    s.latest,
    everywhere.events,
    everywhere.latest,
    h.events,
    CASE WHEN h.events IS NOT NULL THEN ledger.received_after(h.position - 1) END,
    l.first_received_at,
    l.last_received_at
FROM named n
LEFT JOIN ledger.flabs_lab a ON a.lab_id = n.lab_id
LEFT JOIN subscribed s ON s.lab_id = n.lab_id
LEFT JOIN subscribed everywhere ON everywhere.lab_id = ''
LEFT JOIN by_hand h ON h.lab_id = n.lab_id
LEFT JOIN state.lab l ON l.lab_id = n.lab_id
WHERE %(labs)s::text[] IS NULL OR n.lab_id = ANY(%(labs)s::text[])
ORDER BY n.lab_id
"""


class LabCoverage(Struct, frozen=True, kw_only=True):
    """A lab in the account, in what was subscribed, and in the log.

    `in_account` is null while the account's labs were never listed. `subscribed_events` are those
    that `ledger flabs subscribe` subscribed, null if none; `own_events` are those that an operator
    said to be subscribed, null if nobody did; `subscribed_at` is the newest of both.
    `absent_events` are expected and not subscribed.
    """

    lab_id: str
    name: str | None
    in_account: bool | None
    listed_at: datetime | None
    subscribed_events: list[str] | None
    subscribed_at: datetime | None
    own_events: list[str] | None
    first_received_at: datetime | None
    last_received_at: datetime | None
    absent_events: list[str]
    findings: list[Finding]


class Coverage(Struct, frozen=True):
    """Every lab that is known from anywhere, by id, and the last look at the account."""

    check: AccountCheck | None
    totals: dict[Finding, int]
    labs: list[LabCoverage]


class CoverageFinding(Struct, frozen=True):
    """Something wrong with the registration of a lab; `events` are those not subscribed."""

    lab_id: str
    finding: Finding
    events: list[str]


def read_coverage(connection: Connection, policy: Policy, *, labs: Labs = None) -> Coverage:
    """Return the coverage of all labs, or of some."""
    check = read_check(connection)
    listed = check is not None and check.succeeded_at is not None
    items = [
        _item(row, policy, listed=listed)
        for row in connection.execute(_LABS, {"labs": as_array(labs)})
    ]
    counts = Counter(finding for item in items for finding in item.findings)
    return Coverage(check, {finding: counts[finding] for finding in FINDINGS}, items)


def coverage_findings(coverage: Coverage) -> list[CoverageFinding]:
    """Return what is wrong, lab by lab."""
    return [
        CoverageFinding(
            item.lab_id,
            finding,
            item.absent_events if finding == "events_not_subscribed" else [],
        )
        for item in coverage.labs
        for finding in item.findings
    ]


def needs_a_person(lab: LabCoverage, finding: Finding, now: datetime) -> bool:
    """Return whether somebody should look after a finding now.

    A lab that is heard of was subscribed by somebody, with whatever means; one that was just
    subscribed has nothing to send yet.
    """
    if finding == "not_subscribed":
        return lab.last_received_at is None
    if finding == "never_heard":
        return lab.subscribed_at is None or now - lab.subscribed_at >= NEVER_HEARD_FOR_LONG
    return True


def count_unregistered(coverage: Coverage, now: datetime) -> int:
    """Return how many labs have a finding that somebody should look after now."""
    return sum(
        any(needs_a_person(lab, finding, now) for finding in lab.findings) for lab in coverage.labs
    )


def _item(row: tuple[Any, ...], policy: Policy, *, listed: bool) -> LabCoverage:
    (
        lab_id, name, in_account, listed_at, events, latest, of_all, of_all_latest, by_hand, set_at,
        first, last,
    ) = row  # fmt: skip
    subscribed = None if events is None and of_all is None else {*(events or ()), *(of_all or ())}
    facts = LabFacts(
        in_account=in_account if listed else None,
        subscribed=None if subscribed is None else tuple(subscribed),
        by_hand=None if by_hand is None else tuple(by_hand),
        expected=policy.events,
        heard_at=last,
    )
    at = max((each for each in (latest, of_all_latest, set_at) if each), default=None)
    return LabCoverage(
        lab_id=lab_id,
        name=name,
        in_account=facts.in_account,
        listed_at=_utc(listed_at),
        subscribed_events=None if subscribed is None else sorted(subscribed),
        subscribed_at=_utc(at),
        own_events=by_hand,
        first_received_at=_utc(first),
        last_received_at=_utc(last),
        absent_events=absent_events(facts),
        findings=findings(facts),
    )


def _utc(at: datetime | None) -> datetime | None:
    return at and at.astimezone(UTC)
