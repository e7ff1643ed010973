"""How late the events of labs first reached us, lab by lab and day by day."""

from datetime import date

from psycopg import Connection

from ledger.model.near_losses import lateness
from ledger.model.operators import Labs, as_array
from ledger.operations.policy import Policy
from ledger.operations.read_models import NearLoss

_DELAYS = """
SELECT d.lab_id, d.day, d.seconds, d.deliveries
FROM state.delay d
WHERE
    d.day >= %(first_day)s
    AND (%(labs)s::text[] IS NULL OR d.lab_id = ANY(%(labs)s::text[]))
"""

# However wrong a clock is: of a lab that none of this holds for, no delivery can have been late.
_OF_LATE_LABS = """
    AND d.lab_id IN (
        SELECT l.lab_id
        FROM state.delay l
        WHERE
            l.day >= %(first_day)s
            AND (%(labs)s::text[] IS NULL OR l.lab_id = ANY(%(labs)s::text[]))
        GROUP BY l.lab_id
        HAVING max(l.seconds) > %(late)s OR max(l.seconds) - min(l.seconds) > %(late)s
    )
"""


def read_near_losses(
    connection: Connection,
    policy: Policy,
    *,
    first_day: date,
    labs: Labs,
    only_late: bool = False,
) -> list[NearLoss]:
    """Return the near losses of labs from a day on, by lab and day.

    With `only_late`, labs without a late delivery are left out where that is plain to see.
    """
    late = policy.retry_interval.total_seconds() / 2
    values = {"first_day": first_day, "labs": as_array(labs), "late": late}
    days: dict[tuple[str, date], dict[int, int]] = {}
    query = _DELAYS + _OF_LATE_LABS if only_late else _DELAYS
    for lab_id, day, seconds, deliveries in connection.execute(query, values):
        days.setdefault((lab_id, day), {})[seconds] = deliveries
    return [
        near_loss(lab_id, day, delays, policy) for (lab_id, day), delays in sorted(days.items())
    ]


def near_loss(lab_id: str, day: date, delays: dict[int, int], policy: Policy) -> NearLoss:
    """Return what the delays of a lab's deliveries of a day show, given their number by delay."""
    found = lateness(
        delays, interval=round(policy.retry_interval.total_seconds()), count=policy.retry_count
    )
    return NearLoss(
        lab_id=lab_id,
        day=day,
        deliveries=found.deliveries,
        attempts=found.attempts,
        unclear=found.unclear,
        last_attempt_share=found.last_attempt_share,
        clock_skew_seconds=found.clock_skew_seconds,
    )
