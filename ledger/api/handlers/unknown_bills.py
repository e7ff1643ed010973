"""The 404 problems of bills that the state does not know."""

from urllib.parse import quote

from psycopg.sql import SQL

from ledger.api.http.problems import ProblemError
from ledger.api.http.responses import POSITION_HEADER
from ledger.api.services import Services
from ledger.eventlog.read import Key
from ledger.model.event import RANK

_COUNTED = 1000

# + 0 keeps the planner off the index on position, where other bills' events lie in between.
_LOGGED = SQL("""
SELECT count(*), max(position)
FROM (
    SELECT position
    FROM ledger.event_log
    WHERE lab_id = %s AND bill_id = %s
    ORDER BY position + 0 DESC
    LIMIT %s
) newest
""")


def no_events(key: Key, position: int) -> ProblemError:
    """Return the problem of a bill without any event in the log, up to a position."""
    return _problem(f"no event of bill {key[1]!r} of lab {key[0]!r} has been received", position)


async def unknown_bill(
    services: Services, key: Key, sought: Key, position: int, *, at_a_time: bool = False
) -> ProblemError:
    """Return the problem of a bill that the state at a position, or at a time, does not know.

    The log may hold events of it all the same: unreadable ones, those of types that are not folded,
    or those that the projection has not reached yet. `sought` is the bill's key, or that of no bill
    for a caller who may not see it.
    """
    count, last = (await services.fetch(_LOGGED, (*sought, _COUNTED)))[0]
    if not count:
        return no_events(key, position)
    if at_a_time:
        return _problem(
            f"no event of bill {key[1]!r} of lab {key[0]!r} that can be folded had been received "
            "by the time known_at and had happened by the time as_of",
            position,
        )
    lab, bill = (quote(part, safe="") for part in key)
    if last > position:
        return _problem(
            f"the event of bill {key[1]!r} of lab {key[0]!r} at position {last} is in the log, but "
            f"the projection is at position {position}: ask again with min_position={last}",
            position,
        )
    several = f"{count}{'' if count < _COUNTED else ' or more'}"
    events = "1 event is" if count == 1 else f"{several} events are"
    return _problem(
        f"bill {key[1]!r} of lab {key[0]!r} has no state: {events} in the log, but none of them "
        f"can be folded, for each is unreadable or of a type other than {', '.join(RANK)}; see "
        f"GET /v1/labs/{lab}/bills/{bill}/events",
        position,
    )


def _problem(detail: str, position: int) -> ProblemError:
    return ProblemError(404, detail, {POSITION_HEADER: str(position)})
