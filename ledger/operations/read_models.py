"""The shapes of what the desk tells: over HTTP, in files, on the terminal. They are the contract.

Times are UTC. Lists inside are sorted as they are to be read.
"""

from collections.abc import Iterable
from datetime import date, datetime
from typing import Literal

import msgspec
from msgspec import Struct

from ledger.model.missing_events import Certainty, Evidence, MissingEvent, MissingState

WindowState = Literal["open", "requested", "closed"]
LineState = Literal["requested", "received", "closed"]
ExpectedState = Literal["awaited", "unseen", "seen"]


class MissingEventItem(Struct, frozen=True):
    """An event that another proves, or makes likely, to have been sent and lost.

    `test_id` is null where the event is of the bill or of a test that is not known; `count` is how
    many are missing. From `due_at` on it will not come by itself. `request` is the number of the
    support request that asks for it.
    """

    lab_id: str
    bill_id: str
    integrator_id: str | None
    event_type: str
    test_id: str | None
    certainty: Certainty
    count: int
    state: MissingState
    due_at: datetime
    evidence: Evidence
    request: int | None

    @classmethod
    def of(
        cls,
        missing: MissingEvent,
        key: tuple[str, str],
        integrator_id: str | None,
        *,
        state: MissingState,
        due_at: datetime,
    ) -> "MissingEventItem":
        """Join what the fold says with what depends on the time of the question."""
        return cls(
            lab_id=key[0],
            bill_id=key[1],
            integrator_id=integrator_id,
            event_type=missing.event_type,
            test_id=missing.test_id,
            certainty=missing.certainty,
            count=missing.count,
            state=state,
            due_at=due_at,
            evidence=missing.evidence,
            request=missing.request if state == "requested" else None,
        )


class LossWindow(Struct, frozen=True):
    """A time whose events were lost with all attempts: those of these labs, whatever they were.

    An event that happened at `begin` was lost, one that happened at `end` was not.
    """

    begin: datetime = msgspec.field(name="from")
    end: datetime = msgspec.field(name="to")
    labs: list[str]
    state: WindowState


class UnseenBill(Struct, frozen=True):
    """A bill that an integrator expected by a time, and of which no event has come."""

    integrator_id: str
    lab_id: str | None
    expected_by: datetime


class LabTotals(Struct, frozen=True):
    """How many missing events a lab has in each state; `oldest_due_at` is of those overdue."""

    lab_id: str
    overdue: int
    awaiting_retry: int
    requested: int
    oldest_due_at: datetime | None


class NearLoss(Struct, frozen=True):
    """With which attempt the first deliveries of a lab's events reached us on a day (UTC).

    `attempts` counts them from the first attempt to the last; `unclear` are those of which the
    times don't say it. `last_attempt_share` is of those that are clear, 0 to 1.
    `clock_skew_seconds` is how much later our clock is than the lab's, as far as can be told.
    """

    lab_id: str
    day: date
    deliveries: int
    attempts: list[int]
    unclear: int
    last_attempt_share: float
    clock_skew_seconds: int | None


class Report(Struct, frozen=True):
    """The reconciliation, all of it but the missing events, which can be many.

    `totals` counts missing events by state, over all labs; `labs` are those that have some.
    """

    as_of: datetime
    position: int
    totals: dict[MissingState, int]
    labs: list[LabTotals]
    loss_windows: list[LossWindow]
    unseen_bills: list[UnseenBill]
    near_losses: list[NearLoss]


class Reconciliation(Report, frozen=True, kw_only=True):
    """The whole report; `missing_events` are the overdue and the requested, lab by lab."""

    missing_events: list[MissingEventItem]


MissingEvents = Iterable[MissingEventItem]
"""Those of a report, lab by lab in the order of `Report.labs`, each lab's the oldest due first."""


class RequestLine(Struct, frozen=True):
    """One missing event that a support request asks for.

    What was asked stays as it was asked. `previous` is the request that asked for it in vain
    before. `reason` says why a line is closed; `received_position` is the log position of the event
    that came.
    """

    lab_id: str
    bill_id: str
    integrator_id: str | None
    event_type: str
    test_id: str | None
    certainty: Certainty
    count: int
    evidence: Evidence
    previous: int | None
    state: LineState
    received_position: int | None
    reason: str | None


class RequestItem(Struct, frozen=True):
    """A support request without its lines; `lines` counts them by state.

    `state` is `open` while a line or a window of it is.
    """

    number: int
    state: Literal["open", "closed"]
    made_at: datetime
    made_by: str
    lab_id: str | None
    note: str | None
    lines: dict[LineState, int]
    loss_windows: list[LossWindow]
    closed_reason: str | None


class SupportRequest(Struct, frozen=True):
    """A support request with its lines, lab by lab, bill by bill."""

    number: int
    state: Literal["open", "closed"]
    made_at: datetime
    made_by: str
    lab_id: str | None
    note: str | None
    lines: list[RequestLine]
    loss_windows: list[LossWindow]
    closed_reason: str | None
