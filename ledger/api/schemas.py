"""The JSON shapes of responses: they are the HTTP contract."""

import base64
from datetime import datetime, timedelta
from typing import Generic, Literal, TypeVar

import msgspec
from msgspec import UNSET, Struct, UnsetType

from ledger.eventlog.append import Source
from ledger.eventlog.read import LoggedDelivery
from ledger.model.bill import BillSummary, Report
from ledger.model.digest import is_json
from ledger.operations.read_models import MissingEventItem
from ledger.operations.refused_deliveries.queries import RefusedDelivery

T = TypeVar("T")


class Bill(BillSummary, frozen=True, kw_only=True):
    """A bill with its reports and missing events, both sorted by test."""

    reports: list[Report]
    missing_events: list[MissingEventItem]


class BillItem(BillSummary, frozen=True, kw_only=True):
    """A bill in a list, with the number of its missing events."""

    missing: int


class ChangeItem(BillItem, frozen=True, kw_only=True):
    """A bill that changed, and when."""

    changed_at: datetime


class ReportItem(Report, frozen=True, kw_only=True):
    """A report in a list across bills."""

    lab_id: str
    bill_id: str
    integrator_id: str | None


NoBody = Literal["withheld", "erased"]


class BillEventItem(Struct, frozen=True):
    """An event of a bill. A body that is not JSON is in `raw` instead of `body`.

    Both are null if the body is withheld or erased, and then `no_body` says so.
    """

    position: int
    event_type: str
    event_time: datetime | None
    received_at: datetime
    source: Source
    attempt: int | None
    body: msgspec.Raw
    raw: str | None
    no_body: NoBody | UnsetType = UNSET
    erased_at: datetime | UnsetType = UNSET


class EventItem(BillEventItem, frozen=True, kw_only=True):
    """An event of the log."""

    lab_id: str
    bill_id: str


class UnreadableEventItem(EventItem, frozen=True, kw_only=True):
    """An event that cannot be read, and why."""

    reason: str
    path: str
    detail: str


class RefusedDeliveryItem(RefusedDelivery, frozen=True, kw_only=True):
    """A refused delivery with its body. One that is not JSON is in `raw` instead of `body`."""

    body: msgspec.Raw
    raw: str | None


class Page(Struct, Generic[T], frozen=True):
    """A page of a list."""

    items: list[T]
    next: str | None


class Checkpoint(Struct, frozen=True):
    """A signed statement of how many events the log had, and of the root over them."""

    tree_size: int
    key_id: str
    root: str
    sealed_at: datetime
    note: str


class RebuildProgress(Struct, frozen=True):
    """The progress of a running rebuild."""

    events_done: int
    events_total: int
    started_at: datetime


class Replica(Struct, frozen=True):
    """The replica that answers the reads of this server."""

    answers: bool
    position: int
    lag_events: int


class Projection(Struct, frozen=True):
    """How far the projection has followed the log."""

    version: int
    position: int
    head: int
    lag_events: int
    lag_seconds: float
    parked: int
    rebuild: RebuildProgress | None
    replica: Replica | None


class Health(Struct, frozen=True):
    """The service is healthy."""

    status: Literal["live", "ready"]


NULL = msgspec.Raw(b"null")


def shown_body(body: bytes) -> tuple[msgspec.Raw, str | None]:
    """Return a body as JSON and no base64, or as null and base64."""
    if is_json(body):
        return msgspec.Raw(body), None
    return NULL, base64.b64encode(body).decode()


def attempt(row: LoggedDelivery, interval: timedelta, count: int) -> int | None:
    """Return the sender's attempt that brought a webhook, as `attempt_of` does."""
    return attempt_of(row.source, row.event_time, row.received_at, interval, count)


def attempt_of(
    source: str, event_time: datetime | None, received_at: datetime, interval: timedelta, count: int
) -> int | None:
    """Return the sender's attempt that brought a webhook, 0 to `count`; None if it is unclear.

    Attempts are `interval` apart, so the nearest multiple of it tells the attempt. A delay outside
    that range means that the event was sent late, or that the clocks differ.
    """
    if event_time is None or source != "webhook":
        return None
    nearest = round((received_at - event_time) / interval)
    return nearest if 0 <= nearest <= count else None
