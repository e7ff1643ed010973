"""The shapes of operations' answers over HTTP, in files and on the terminal. They are a contract.

Times are UTC. Lists are in the order in which they should be read.
"""

from collections.abc import Iterable
from datetime import date, datetime
from typing import Literal

import msgspec
from msgspec import Struct

from ledger.event_types import EventType
from ledger.model.missing_events import Certainty, Evidence, MissingEvent, MissingState
from ledger.model.request_lines import LineState
from ledger.model.silence import HearingState
from ledger.operations.coverage import CoverageFinding

WindowState = Literal["open", "requested", "closed"]
ExpectedState = Literal["awaited", "unseen", "seen"]


class MissingEventItem(Struct, frozen=True):
    """An event that was sent and lost, as another event proves or makes likely.

    `test_id` is null if the event concerns the whole bill or a test that is not known; `count` is
    how many are missing. After `due_at` the sender does not try again. `request` is the number of
    the support request that asks for it.
    """

    lab_id: str
    bill_id: str
    integrator_id: str | None
    event_type: EventType
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
        """Join a folded missing event with its bill and with what depends on the current time."""
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
    """A period in which every event of these labs was lost with all its attempts.

    An event that happened at `from` was lost; one that happened at `to` was not.
    """

    begin: datetime = msgspec.field(name="from")
    end: datetime = msgspec.field(name="to")
    labs: list[str]
    state: WindowState


class UnseenBill(Struct, frozen=True):
    """A bill that an integrator expected by a certain time, and no event of it has arrived."""

    integrator_id: str
    lab_id: str | None
    expected_by: datetime


class LabTotals(Struct, frozen=True):
    """A lab's missing events by state; `oldest_due_at` is the first `due_at` of those overdue."""

    lab_id: str
    overdue: int
    awaiting_retry: int
    requested: int
    oldest_due_at: datetime | None


class NearLoss(Struct, frozen=True):
    """The attempts with which a lab's events first reached us on a day (UTC).

    `attempts` counts the events by attempt, from the first to the last; `unclear` counts those
    whose times do not show the attempt. `last_attempt_share` (0 to 1) is the share of the last
    attempt among the others. `clock_skew_seconds` is how far our clock is ahead of the lab's, null
    if that is not known.
    """

    lab_id: str
    day: date
    deliveries: int
    attempts: list[int]
    unclear: int
    last_attempt_share: float
    clock_skew_seconds: int | None


class LabSilence(Struct, frozen=True):
    """A lab that is not heard of as usual.

    `last_heard_at` is when its last webhook was received. `hours` counts those since then in which
    webhooks could be received. `with_others` says that so many labs are silent at once that the
    lab alone is not to blame. `odds` says in words how often it was silent for so long before.
    """

    lab_id: str
    state: HearingState
    last_heard_at: datetime
    hours: float
    with_others: bool
    odds: str


class ReconciliationReport(Struct, frozen=True):
    """A reconciliation without its missing events, which can be many.

    `totals` counts the missing events of all labs by state; `labs` lists the labs that have some.
    `coverage` says what is wrong with labs' registration at Flabs now; null in the report of an
    earlier position, for which it is not known.
    """

    as_of: datetime
    position: int
    totals: dict[MissingState, int]
    labs: list[LabTotals]
    loss_windows: list[LossWindow]
    unseen_bills: list[UnseenBill]
    near_losses: list[NearLoss]
    silences: list[LabSilence]
    coverage: list[CoverageFinding] | None = None


class Reconciliation(ReconciliationReport, frozen=True, kw_only=True):
    """A reconciliation with its overdue and requested missing events, lab by lab."""

    missing_events: list[MissingEventItem]


MissingEvents = Iterable[MissingEventItem]
"""A report's missing events, lab by lab in the order of its `labs`, the earliest due first."""


class SinceLastRun(Struct, frozen=True):
    """The context of a report on what is new.

    `last_run` is the time of the last run, whose findings are not new; `overdue` is how many
    missing events are overdue in all, new or not.
    """

    last_run: datetime
    overdue: int


class RequestLine(Struct, frozen=True):
    """A missing event that a support request asks for.

    It stays as it was when it was asked for. `previous` is the number of an earlier request that
    asked for it without success. `reason` says why the line is closed; `received_position` is the
    log position of the event that arrived.
    """

    lab_id: str
    bill_id: str
    integrator_id: str | None
    event_type: EventType
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

    `state` is `open` while one of its lines or windows is.
    """

    number: int
    state: Literal["open", "closed"]
    made_at: datetime
    made_by: str
    made_by_key: str | None
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
    made_by_key: str | None
    lab_id: str | None
    note: str | None
    lines: list[RequestLine]
    loss_windows: list[LossWindow]
    closed_reason: str | None
