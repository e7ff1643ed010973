"""Which event types are subscribed for a lab: only those can be missing."""

from datetime import UTC, datetime

from msgspec import Struct
from psycopg import Connection

from ledger.event_types import EventType
from ledger.model.operator_events import SubscriptionSet
from ledger.model.operators import Operator
from ledger.operations.decisions import deciding, record, see
from ledger.operations.policy import Policy
from ledger.projection import store

_LAST = "SELECT events FROM state.subscription WHERE lab_id = %s ORDER BY position DESC LIMIT 1"


class Subscription(Struct, frozen=True):
    """The event types subscribed for a lab; `is_own`: whether they were set for this lab."""

    lab_id: str
    events: list[str]
    is_own: bool


def read_subscription(connection: Connection, policy: Policy, lab_id: str) -> Subscription:
    """Return what is subscribed for a lab, whether it was heard of or not."""
    row = connection.execute(_LAST, (lab_id,)).fetchone()
    own = row[0] if row else None
    return Subscription(lab_id, list(policy.events if own is None else own), own is not None)


def set_subscription(
    url: str,
    policy: Policy,
    lab_id: str,
    events: list[EventType] | None,
    *,
    by: Operator,
    patience: float,
) -> tuple[Subscription, int]:
    """Say what is subscribed for a lab, or, None, that what is for all holds for it.

    Returns it with the position for which that is true. Raises `DecisionError`.
    """
    unique = None if events is None else list(dict.fromkeys(events))
    with deciding(url, patience=patience) as connection:
        before = read_subscription(connection, policy, lab_id)
        if before.is_own == (unique is not None) and unique in (None, before.events):
            return before, store.read_checkpoint(connection).position
        decision = SubscriptionSet(
            at=datetime.now(UTC), by=by.name, by_key=by.key, lab_id=lab_id, events=unique
        )
        position = record(connection, [decision])
        position = see(url, connection, patience=patience, position=position)
        return read_subscription(connection, policy, lab_id), position
