"""Folds events into rows: of one bill, or of all that happened to one key of the log.

The projector, the rebuild and the verification all take their rows from here.
"""

from collections.abc import Iterable

from msgspec import Struct

from ledger.errors import one_line
from ledger.event_types import PROBE
from ledger.eventlog.read import Key, LogRow
from ledger.model.bill import fold
from ledger.model.bill_history import LoggedEvent, delay
from ledger.model.event import Event
from ledger.model.operator_events import (
    BillExpected,
    BodyErased,
    FlabsSubscribed,
    RequestClosed,
    RequestMade,
    SubscriptionSet,
    WindowClosed,
)
from ledger.model.unreadable import Unreadable
from ledger.projection.delivery_stats import Arrival, DeliveryStats
from ledger.projection.expected_bills import LoggedExpectation
from ledger.projection.read_event import BillEvents, Read, read_row
from ledger.projection.rows import Rows, add_bill_rows, add_decision_rows, no_rows

LONGEST_ERROR = 1000

MOST_MEMORY = 128 * 1024 * 1024
"""`Projected.memory` at which its rows are to be written or compared, before more are added."""


class Projected(Struct):
    """What some events amount to: new rows, and what is added to rows that exist already."""

    rows: Rows
    delivery_stats: DeliveryStats
    expected: list[LoggedExpectation]
    erased: list[BodyErased]
    memory: int = 0
    """Bytes that the bills' events took at the most; their rows take no more."""

    @classmethod
    def nothing(cls) -> "Projected":
        """Return what no events amount to."""
        return cls(no_rows(), DeliveryStats.none(), [], [])

    def take_rows(self) -> Rows:
        """Return the rows, and hold them no longer."""
        rows, self.rows, self.memory = self.rows, no_rows(), 0
        return rows


def add_bill(rows: Rows, key: Key, history: BillEvents) -> None:
    """Fold one bill and add its rows; a bill that cannot be folded is parked with its error."""
    if history.is_empty:  # decisions alone, as an import of a part of a log may leave them
        return
    try:
        history.raise_if_too_large()
        bill = fold(*key, history.events, history.decisions)
    except Exception as error:  # noqa: BLE001 -- one bad bill must not stop the others
        add_parked(rows, key, history, error)
        return
    add_bill_rows(rows, bill)


def add_parked(rows: Rows, key: Key, history: BillEvents, error: Exception) -> None:
    """Add the row of a bill that cannot be folded or stored."""
    words = f"{type(error).__name__}: {one_line(error)}"[:LONGEST_ERROR].replace("\x00", "")
    storable = words.encode("utf-8", "replace").decode()
    rows["parked_bill"].append((*key, history.position, storable))
    # An expected bill counts as seen, even if it cannot be folded.
    rows["former_integrator"] += [(*key, name) for name in sorted(history.integrator_ids)]


def add_history(projected: Projected, key: Key, log_rows: Iterable[LogRow]) -> int:
    """Add everything that the rows of one key in the log amount to; return how many rows."""
    count = 0
    history = BillEvents()
    for row in log_rows:
        count += 1
        read = read_row(row)
        if not isinstance(read, LoggedEvent):  # few are not
            add_independent(projected, row, read)
        if dropped := history.add(read, len(row.body)):
            projected.delivery_stats.add(key[0], dropped)
    projected.delivery_stats.add(key[0], history.events)
    projected.memory += history.memory
    add_bill(projected.rows, key, history)
    return count


def add_independent(projected: Projected, row: LogRow, read: Read) -> None:
    """Add the rows that a log entry produces independently of its bill."""
    rows = projected.rows
    if isinstance(read, Unreadable):
        rows["unreadable_event"].append(
            (row.lab_id, row.bill_id, row.position, read.reason, read.path, read.detail)
        )
    elif isinstance(read, Event) and read.event_type != PROBE:
        late = delay(row.received_at, read.event_time)
        arrival = Arrival(row.received_at, row.source == "import", late)
        projected.delivery_stats.add(row.lab_id, [arrival])
    elif isinstance(read, BodyErased):
        projected.erased.append(read)
    elif isinstance(
        read,
        (
            RequestMade,
            RequestClosed,
            WindowClosed,
            SubscriptionSet,
            FlabsSubscribed,
            BillExpected,
        ),
    ):
        add_decision_rows(rows, row.lab_id, row.position, read)
        if isinstance(read, BillExpected):
            projected.expected.append(LoggedExpectation(row.position, read))
