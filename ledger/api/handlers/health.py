"""Whether the service lives, whether it can do its work, and what it counts. Open to everybody."""

from contextlib import suppress
from datetime import UTC, datetime
from typing import Any

import psycopg
from litestar import Response, get
from litestar.openapi.datastructures import ResponseSpec
from prometheus_client import CONTENT_TYPE_LATEST, REGISTRY, CollectorRegistry, Gauge
from prometheus_client import generate_latest as expose
from prometheus_client.multiprocess import MultiProcessCollector
from psycopg.sql import SQL

from ledger import schema
from ledger.api.handlers.projection import read_status
from ledger.api.http.problem_handlers import ProblemError
from ledger.api.schemas import Health
from ledger.api.services import Services
from ledger.errors import DatabaseUnavailableError, SchemaError, one_line
from ledger.operations.missing_events.queries import IN_STATE, SUBSCRIBED, parameters
from ledger.settings import metrics_are_shared

_READY = SQL(
    "SELECT (SELECT version_num FROM ledger.schema_version),"
    " current_setting('transaction_read_only')::boolean"
)


@get("/health/live", operation_id="GetLiveness")
async def get_liveness() -> Health:
    """Tell that the process answers."""
    return Health("live")


@get(
    "/health/ready",
    operation_id="GetReadiness",
    responses={503: ResponseSpec(None, description="A problem that says what is in the way.")},
)
async def get_readiness(services: Services) -> Health:
    """Tell whether a delivery could be made durable now. A projection that lags is no obstacle."""
    try:
        version, read_only = (await services.fetch(_READY))[0]
        schema.judge(version)
    except psycopg.errors.UndefinedTable:
        raise _not_ready("the database was not prepared for Ledger: run `ledger migrate`") from None
    except SchemaError as error:
        raise _not_ready(str(error)) from None
    except (psycopg.Error, DatabaseUnavailableError) as error:
        words = one_line(error)
        raise _not_ready(f"the database does not answer: {words}") from error
    if read_only:
        raise _not_ready("the database takes no writes: it is a standby or set to read only")
    return Health("ready")


def _not_ready(detail: str) -> ProblemError:
    return ProblemError(503, detail, {"Retry-After": "1"})


# Alerts are sent by the projector, which nobody scrapes; the database knows of them.
_DESK = SQL("""
SELECT
    (SELECT count(*) FROM state.missing_event m WHERE {overdue} AND {subscribed}),
    (SELECT count(*) FROM state.missing_event m WHERE {requested} AND {subscribed}),
    (SELECT count(*) FROM state.expected_bill WHERE NOT is_seen AND expected_by <= %(now)s),
    (SELECT count(*) FROM ledger.alert_delivery WHERE sent_at IS NULL AND given_up_at IS NULL),
    (SELECT count(*) FROM ledger.alert_delivery WHERE given_up_at IS NOT NULL)
""").format(
    overdue=SQL(IN_STATE["overdue"]),
    requested=SQL(IN_STATE["requested"]),
    subscribed=SQL(SUBSCRIBED),
)
_DESK_GAUGES = (
    ("ledger_overdue_events", "Missing events that are overdue and not asked for."),
    ("ledger_requested_events", "Missing events that a support request asks for."),
    ("ledger_unseen_bills", "Expected bills of which no event came in time."),
    ("ledger_alerts_waiting", "Alerts that a channel has not taken yet."),
    ("ledger_alerts_given_up", "Alerts that a channel did not take for a day."),
)


def _add_desk(registry: CollectorRegistry, rows: list[tuple[Any, ...]]) -> None:
    for (name, words), value in zip(_DESK_GAUGES, rows[0], strict=True):
        Gauge(name, words, registry=registry).set(value)


@get("/metrics", operation_id="GetMetrics", media_type="text/plain")
async def get_metrics(services: Services) -> Response[bytes]:
    """Expose what Prometheus scrapes: what this server counted, and how far the state is."""
    counted: CollectorRegistry = REGISTRY
    if metrics_are_shared():  # by several workers, whose counts are one
        counted = CollectorRegistry()
        MultiProcessCollector(counted)  # type: ignore[no-untyped-call]  # the library's stub
    content = expose(counted) + await _gauges(services)
    return Response(content, headers={"Content-Type": CONTENT_TYPE_LATEST})


async def _gauges(services: Services) -> bytes:
    registry = CollectorRegistry()
    up = Gauge("ledger_database_up", "Whether the database answers.", registry=registry)
    try:
        status = await read_status(services)
    except (psycopg.Error, DatabaseUnavailableError):
        return expose(registry)
    up.set(1)
    with suppress(psycopg.Error, DatabaseUnavailableError):
        values = parameters(services.policy, datetime.now(UTC))
        _add_desk(registry, await services.fetch(_DESK, values))
    for name, words, value in (
        ("ledger_head", "The last position of the log.", status.head),
        ("ledger_position", "The position for which the state is true.", status.position),
        ("ledger_lag_events", "Events that are not in the state yet.", status.lag_events),
        (
            "ledger_lag_seconds",
            "How long the oldest of them has waited.",
            status.lag_seconds(datetime.now(UTC)),
        ),
        ("ledger_parked_bills", "Bills that could not be folded.", status.parked),
    ):
        Gauge(name, words, registry=registry).set(value)
    return expose(registry)
