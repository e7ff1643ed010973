"""The overview: what needs a person now, and how deliveries come in."""

import time
from datetime import UTC, date, datetime, timedelta, tzinfo
from typing import Any

import psycopg
import structlog
from litestar import Controller, Request, Response, get
from markupsafe import Markup
from msgspec import Struct
from psycopg import Connection

from ledger.api.handlers.projection import read_status
from ledger.api.http.guards import READ
from ledger.api.permissions import Caller
from ledger.api.services import Services
from ledger.errors import LedgerError, one_line
from ledger.eventlog.delivery_hours import OUTCOMES, DeliveryOutcome
from ledger.operations.api_keys import SCOPES
from ledger.operations.coverage import count_unregistered, read_coverage
from ledger.operations.delivery_hours import DeliveryHour, read_delivery_days, read_delivery_hours
from ledger.operations.near_losses import read_near_losses
from ledger.operations.needs import Needs, read_needs
from ledger.operations.read_models import NearLoss
from ledger.page.chart import bars
from ledger.page.needs_list import Need, needs_list
from ledger.page.render import respond, zone_of
from ledger.page.silent_labs import Judged, read_silent
from ledger.projection.status import StatusRow
from ledger.spool.folder import Waiting, waiting_in

DAYS = 14
LATE_DAYS = 2
"""Over which late attempts are counted, today included: what is late now warns of a loss."""

HOURS = 24

TRUSTED_SECONDS = 10.0
"""How old figures may be; the page says how old they are."""

BEHIND_SECONDS = 10.0
"""Of lag, from which on the projector counts as behind."""

_log = structlog.get_logger(__name__)

AnyRequest = Request[Any, Any, Any]


LateLab = tuple[str, int, float]
"""A lab, its deliveries, and the share of them that needed another attempt."""


class _Figures(Struct, frozen=True):
    """What the overview counts; None: it could not be counted."""

    at: datetime
    needs: Needs | None
    unregistered: int
    """Labs whose registration at Flabs somebody should look after."""
    late_labs: list[LateLab] | None
    days: list[tuple[date, int]] | None
    hours: list[DeliveryHour] | None
    """Of all labs, for a key that is for all."""


_figures: dict[tuple[str, tuple[str, ...] | None], tuple[float, _Figures]] = {}


class OverviewController(Controller):
    """The overview."""

    path = "/"
    include_in_schema = False

    @get("/", opt=READ)
    async def show(self, request: AnyRequest, services: Services, caller: Caller) -> Response[str]:
        """Show what needs a person now."""
        figures = await _read(services, caller)
        judged = await read_silent(services, caller.labs)
        status: StatusRow | None = None
        try:
            status = await read_status(services)
        except (LedgerError, psycopg.Error) as error:
            _log.warning("how far the state is could not be read", error=one_line(error))
        return respond(
            request,
            "overview.html",
            position=status.position if status else None,
            status=status,
            figures=figures,
            needs=_needs(services, caller, figures, status, judged),
            hours=figures.hours,
            hours_chart=_draw_hours(figures.hours or [], zone_of(request)[1]),
            outcomes=_outcomes(figures.hours or []),
            days=figures.days,
            days_chart=bars(
                "deliveries by day",
                [(f"{day:%m-%d}", {"first": total}) for day, total in figures.days or []],
            ),
            late_labs=figures.late_labs,
        )


async def _read(services: Services, caller: Caller) -> _Figures:
    """Return figures that are at most `TRUSTED_SECONDS` old."""
    key = (services.url, caller.labs)
    at, found = _figures.get(key, (0.0, None))
    if found is None or time.monotonic() - at > TRUSTED_SECONDS:
        began = time.monotonic()
        try:
            found = await services.run(lambda connection: _count(connection, services, caller))
        except (LedgerError, psycopg.Error) as error:
            _log.warning("the overview could not be counted", error=one_line(error))
            return _Figures(datetime.now(UTC), None, 0, None, None, None)
        if len(_figures) > 1000:  # noqa: PLR2004 -- keys for many sets of labs
            _figures.clear()
        _figures[key] = (began, found)
    return found


def _count(connection: Connection, services: Services, caller: Caller) -> _Figures:
    now = datetime.now(UTC)
    first_day = now.date() - timedelta(days=LATE_DAYS - 1)
    near_losses = read_near_losses(
        connection, services.policy, first_day=first_day, labs=caller.labs, only_late=True
    )
    days = read_delivery_days(connection, now.date(), days=DAYS, labs=caller.labs)
    needs = read_needs(connection, services.policy, now, labs=caller.labs)
    hours = read_delivery_hours(connection, now, hours=HOURS) if caller.labs is None else None
    coverage = read_coverage(connection, services.policy, labs=caller.labs)
    unregistered = count_unregistered(coverage, now)
    return _Figures(now, needs, unregistered, _late_labs(near_losses), days, hours)


def _needs(
    services: Services,
    caller: Caller,
    figures: _Figures,
    status: StatusRow | None,
    judged: Judged,
) -> list[Need] | None:
    """Return what needs a person, the oldest first; None if it could not be counted."""
    if figures.needs is None:
        return None
    is_admin = caller.scope == SCOPES[-1]
    unregistered = figures.unregistered if is_admin else 0
    found = needs_list(
        figures.needs,
        figures.at,
        sees_refused=is_admin,
        unregistered=unregistered,
        silent=[one.last_heard_at for one in judged.silent or []],
    )
    if judged.silent is None:
        what, more = "is how many labs are silent", "they are being judged"
        found.append(Need(path="/labs", number=None, what=what, more=more, tone="warn"))
    if waiting := _spooled(services, caller):
        what = "delivery waits on disk" if waiting.deliveries == 1 else "deliveries wait on disk"
        more = "the database did not take them yet"
        found.insert(0, Need(path="/system", number=waiting.deliveries, what=what, more=more))
    if status is None:
        what, more = "is how far the state is behind: it is unknown", "the server's log says why"
        found.insert(0, Need(path="/system", number=None, what=what, more=more))
    elif (behind := status.lag_seconds(datetime.now(UTC))) > BEHIND_SECONDS:
        what = "events are not in the state yet"
        more = f"the oldest waits {behind:.0f} s: is `ledger project` running?"
        found.insert(0, Need(path="/system", number=status.lag_events, what=what, more=more))
    return found


def _spooled(services: Services, caller: Caller) -> Waiting | None:
    """Return what waits on disk, which is of no lab yet; None where nothing does."""
    folder = services.settings.spool_dir
    if folder is None or caller.labs is not None:
        return None
    waiting = waiting_in(folder)
    return waiting if waiting.bytes else None


def _draw_hours(hours: list[DeliveryHour], zone: tzinfo) -> Markup:
    rows: list[tuple[str, dict[str, int]]] = [
        (
            f"{one.hour.astimezone(zone):%H:%M}",
            {outcome: one.deliveries.get(outcome, 0) for outcome in OUTCOMES},
        )
        for one in hours
    ]
    return bars("deliveries by hour", rows)


def _outcomes(hours: list[DeliveryHour]) -> dict[DeliveryOutcome, int]:
    """Return how many deliveries had each outcome that any had."""
    sums = {name: sum(one.deliveries.get(name, 0) for one in hours) for name in OUTCOMES}
    return {name: number for name, number in sums.items() if number}


def _late_labs(near_losses: list[NearLoss]) -> list[LateLab]:
    """Return labs with their deliveries and share of late attempts, the largest shares first."""
    sums: dict[str, list[int]] = {}
    for one in near_losses:
        lab = sums.setdefault(one.lab_id, [0, 0, 0])
        lab[0] += one.deliveries
        lab[1] += sum(one.attempts)
        lab[2] += sum(one.attempts[1:])
    shares = [(lab, total, late / clear) for lab, (total, clear, late) in sums.items() if late]
    return sorted(shares, key=lambda lab: lab[2], reverse=True)[:5]
