"""What `/metrics` tells of missing events by lab, of loss windows, processes and long runs."""

from datetime import datetime, timedelta
from math import nan

from prometheus_client.core import GaugeMetricFamily
from psycopg import Connection
from psycopg.sql import SQL

from ledger.operations.loss_windows import read_windows
from ledger.operations.missing_events.queries import (
    LAST_POSITION,
    STATE,
    SUBSCRIBED,
    parameters,
)
from ledger.operations.policy import Policy
from ledger.projection.status import REBUILD, STATUS
from ledger.projection.verification import read_last_verification

GAUGES = {
    "ledger_loss_windows_open": "Loss windows that nobody has asked for or closed.",
    "ledger_receivers_alive": "Processes that could store deliveries within the last 10 seconds.",
    "ledger_rebuild_events_done": "Events that a rebuild under way has read. 0: there is none.",
    "ledger_rebuild_events_total": "Events that a rebuild under way has to read. 0: there is none.",
    "ledger_verification_age_seconds": "How long ago the log and the state were last verified.",
    "ledger_verification_differs": "Whether the last verification found a difference: 1 or 0.",
}

MOST_LABS = 50
"""Labs that have series of their own, those with most overdue events first."""

OTHERS = ""
"""Their label: no lab is called so, and to Prometheus it is none."""

_STATES = ("overdue", "requested", "awaiting_retry", "waived")

_MISSING = SQL("""
SELECT
    lab_id,
    count(*) FILTER (WHERE state = 'overdue'),
    count(*) FILTER (WHERE state = 'requested'),
    count(*) FILTER (WHERE state = 'awaiting_retry'),
    count(*) FILTER (WHERE state = 'waived')
FROM (
    SELECT m.lab_id, {state} AS state FROM state.missing_event m WHERE {subscribed}
) m
GROUP BY lab_id
ORDER BY 2 DESC, 3 DESC, 4 DESC, lab_id
""").format(state=SQL(STATE), subscribed=SQL(SUBSCRIBED))

_ALIVE = """
SELECT count(DISTINCT l.instance) FROM ledger.liveness l WHERE l.alive_until > %s
"""

_ALIVE_FOR = timedelta(seconds=10)


def measure(connection: Connection, policy: Policy, now: datetime) -> dict[str, float]:
    """Return the values of `GAUGES`, but for what is not known."""
    windows = read_windows(connection, policy, now, position=LAST_POSITION)
    alive = connection.execute(_ALIVE, (now - _ALIVE_FOR,)).fetchone()
    values = {
        "ledger_loss_windows_open": float(sum(each.state == "open" for each in windows)),
        "ledger_receivers_alive": float(alive[0] if alive else 0),
        **_rebuild(connection),
    }
    if last := read_last_verification(connection):
        values["ledger_verification_age_seconds"] = (now - last.verified_at).total_seconds()
        values["ledger_verification_differs"] = float(last.difference is not None)
    return values


def _rebuild(connection: Connection) -> dict[str, float]:
    status = connection.execute(STATUS).fetchone()
    runs = status is not None and status[-1]
    row = connection.execute(REBUILD).fetchone() if runs else None
    done, total, _ = row or (0, 0, None)
    return {"ledger_rebuild_events_done": done, "ledger_rebuild_events_total": total}


def missing_unknown() -> GaugeMetricFamily:
    """Return the series that are always there, of an unknown number of missing events."""
    family = _family()
    for state in _STATES:
        family.add_metric([OTHERS, state], nan)
    return family


def _family() -> GaugeMetricFamily:
    return GaugeMetricFamily(
        "ledger_missing_events",
        f"Missing events by lab and state: of {MOST_LABS} labs, and without a lab of all others.",
        labels=["lab", "state"],
    )


def measure_missing(connection: Connection, policy: Policy, now: datetime) -> GaugeMetricFamily:
    """Return the missing events by lab and state."""
    family = _family()
    rows = connection.execute(_MISSING, parameters(policy, now)).fetchall()
    others = [sum(numbers) for numbers in zip(*(row[1:] for row in rows[MOST_LABS:]), strict=True)]
    rest = [(OTHERS, *(others or [0] * len(_STATES)))]
    for lab, *numbers in [*rows[:MOST_LABS], *rest]:
        for state, number in zip(_STATES, numbers, strict=True):
            family.add_metric([lab, state], number)
    return family
