"""The shapes of answers. They are the contract; what the fold makes is encoded to fit them."""

import base64
from datetime import datetime
from typing import Generic, Literal, TypeVar

import msgspec
from msgspec import Struct

from ledger.eventlog.append import Source
from ledger.eventlog.read import LoggedDelivery
from ledger.model.bill import BillSummary, Report
from ledger.model.digest import is_json
from ledger.operations.policy import Policy
from ledger.operations.read_models import MissingEventItem

T = TypeVar("T")


class Bill(BillSummary, frozen=True, kw_only=True):
    """A bill with its reports and missing events, both sorted by test."""

    reports: list[Report]
    missing_events: list[MissingEventItem]


class BillItem(BillSummary, frozen=True, kw_only=True):
    """A bill in a list; `missing` is how many missing events it has."""

    missing: int


class ReportItem(Report, frozen=True, kw_only=True):
    """A report in a list across bills."""

    lab_id: str
    bill_id: str
    integrator_id: str | None


class BillEventItem(Struct, frozen=True):
    """One event of a bill. `body` is the JSON as received; `raw` is base64 where it is not JSON.

    `attempt` says which attempt of the sender reached us, 0 to 3, where both clocks allow to tell.
    """

    position: int
    event_type: str
    event_time: datetime | None
    received_at: datetime
    source: Source
    attempt: int | None
    body: msgspec.Raw
    raw: str | None


class EventItem(BillEventItem, frozen=True, kw_only=True):
    """One event of the log; ids are empty where the body says none that is usable."""

    lab_id: str
    bill_id: str


class UnreadableEventItem(EventItem, frozen=True, kw_only=True):
    """An event that cannot be read: why, where in the body, and in words."""

    reason: str
    path: str
    detail: str


class Page(Struct, Generic[T], frozen=True):
    """A part of a list. `next` is the `cursor` of the next part, null in the last."""

    items: list[T]
    next: str | None


class RebuildProgress(Struct, frozen=True):
    """How far a rebuild that runs is."""

    events_done: int
    events_total: int
    started_at: datetime


class Projection(Struct, frozen=True):
    """How far the state is. `lag_seconds` is the age of the oldest event that is not folded yet."""

    version: int
    position: int
    head: int
    lag_events: int
    lag_seconds: float
    parked: int
    rebuild: RebuildProgress | None


class Health(Struct, frozen=True):
    """All is well."""

    status: Literal["live", "ready"]


NULL = msgspec.Raw(b"null")


def shown_body(body: bytes) -> tuple[msgspec.Raw, str | None]:
    """Return a body as JSON and no base64, or as null and base64."""
    if is_json(body):
        return msgspec.Raw(body), None
    return NULL, base64.b64encode(body).decode()


def attempt(row: LoggedDelivery, policy: Policy) -> int | None:
    """Return which attempt of the sender arrived, 0 for the first, or None if the times don't tell.

    Attempts are an interval apart, so the nearest multiple names it. A delivery that is further off
    than half an interval was not sent when the event occurred, or by another clock.
    """
    if row.event_time is None or row.source != "webhook":
        return None
    nearest = round((row.received_at - row.event_time) / policy.retry_interval)
    return nearest if 0 <= nearest <= policy.retry_count else None
