"""The metrics for Prometheus: open to everybody, but for what names labs."""

import asyncio
import platform
from datetime import UTC, datetime
from math import nan
from typing import Any

import psycopg
from litestar import Request, Response, get
from prometheus_client import CONTENT_TYPE_LATEST
from prometheus_client.core import GaugeMetricFamily, Metric
from psycopg import Connection
from psycopg.sql import SQL

from ledger import __version__, schema
from ledger.api.handlers.projection import read_status
from ledger.api.services import Services
from ledger.certificates import end_of_certificate
from ledger.credentials import without_scheme
from ledger.errors import BusyError, DatabaseUnavailableError, StateError
from ledger.metrics import exposition
from ledger.model.bill import FOLD_VERSION
from ledger.operations.coverage import Coverage, read_coverage
from ledger.operations.gauges import GAUGES as DESK_GAUGES
from ledger.operations.gauges import measure as measure_desk
from ledger.operations.gauges import measure_missing, missing_unknown
from ledger.operations.missing_events.queries import IN_STATE, SUBSCRIBED, parameters
from ledger.operations.refused_deliveries.queries import COUNTS
from ledger.seals.status import STATUS, SealStatus
from ledger.settings import Settings
from ledger.spool.gauges import GAUGES as SPOOL_GAUGES
from ledger.spool.gauges import measure

# The projector sends the alerts and is not scraped; the database holds what it has not sent yet.
_OPERATIONS = SQL("""
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

_COUNTS = SQL(COUNTS)
_SEAL_STATUS = SQL(STATUS)

_PROJECTION = {
    "ledger_head": "The last position of the log.",
    "ledger_position": "The log position that the projection reflects.",
    "ledger_lag_events": "Events of the log that the projection has not folded yet.",
    "ledger_lag_seconds": "How long the oldest event that is not folded has waited.",
    "ledger_parked_bills": "Bills whose events could not be folded.",
}
_OPERATION = {
    "ledger_overdue_events": "Missing events that are overdue and not asked for.",
    "ledger_requested_events": "Missing events that a support request asks for.",
    "ledger_unseen_bills": "Expected bills of which no event came in time.",
    "ledger_alerts_waiting": "Alerts that a channel has not accepted yet.",
    "ledger_alerts_given_up": "Alerts that a channel did not accept for a day.",
}
_REFUSED = {
    "ledger_refused_deliveries": "Deliveries with a wrong token that wait for a decision.",
    "ledger_refused_deliveries_of_known_labs": "Refused deliveries whose lab the log knows.",
    "ledger_refused_known_labs": "Labs that the log knows and that have refused deliveries.",
}
_SEALS = {
    "ledger_sealed_position": "The last position of the log that is in the Merkle tree.",
    "ledger_seal_lag_seconds": "How long the oldest event that is not sealed has waited.",
    "ledger_signed_position": "The last position that a signed checkpoint covers; 0: none.",
}
_REPLICA = {
    "ledger_replica_up": "Whether the replica that answers reads does: 1 or 0. NaN: there is none.",
    "ledger_replica_position": "The log position that the replica reflects.",
}
_GAUGES = {
    "ledger_database_up": "Whether the database answers: 1 or 0.",
    **_PROJECTION,
    **_OPERATION,
    **_REFUSED,
    **SPOOL_GAUGES,
    **_SEALS,
    **_REPLICA,
    "ledger_flabs_up": "Whether the last look at the account at Flabs succeeded: 1 or 0.",
    "ledger_flabs_age_seconds": "How long ago the account's labs were last listed.",
    "ledger_labs_not_subscribed": "Labs of the account that are not subscribed.",
    "ledger_labs_never_heard": "Labs that are subscribed and were never heard of.",
    "ledger_labs_not_in_account": "Labs that were heard of and are not in the account.",
    "ledger_labs_events_not_subscribed": "Labs not subscribed to all expected event types.",
    "ledger_labs_heard": "Labs that a webhook was ever received from.",
    "ledger_labs_quiet": "Labs not heard of for longer than their habits make likely.",
    "ledger_labs_silent": "Labs not heard of for longer than their habits explain.",
    "ledger_certificate_expiry_timestamp_seconds": "When the certificate ends. NaN: there is none.",
    **DESK_GAUGES,
}

Values = dict[str, float]


@get("/metrics", operation_id="GetMetrics", media_type="text/plain")
async def get_metrics(request: Request[Any, Any, Any], services: Services) -> Response[bytes]:
    """Expose metrics for Prometheus: deliveries counted by this server, and the projection's state.

    Open to everybody, but for `ledger_missing_events`, which names labs: only a valid API key for
    all labs is shown it. While the database does not answer, `ledger_database_up` is 0 and what it
    would tell is NaN.
    """
    by_lab = _sees_all_labs(request, services)
    gauges = await services.scrapes.run(by_lab, lambda: _gauges(services, by_lab=by_lab))
    return Response(exposition(gauges), headers={"Content-Type": CONTENT_TYPE_LATEST})


def _sees_all_labs(request: Request[Any, Any, Any], services: Services) -> bool:
    presented = without_scheme(request.headers.get("authorization", "").encode("latin-1"))
    caller = services.authenticator.known(presented.decode("latin-1"))
    return caller is not None and caller.labs is None


async def _gauges(services: Services, *, by_lab: bool) -> list[Metric]:
    # At the same time, so that a scrape does not wait for two time-outs.
    primary = services.on_primary
    found = await asyncio.gather(
        _projection(primary),
        _operations(primary),
        _refused(primary),
        _seals(primary),
        _labs(primary),
        _desk(primary, by_lab=by_lab),
        return_exceptions=True,
    )
    folder = services.settings.spool_dir
    values = {"ledger_database_up": 1.0, **await services.pages.run(lambda: measure(folder))}
    if services.primary:
        watch = services.watch
        values |= dict(zip(_REPLICA, (float(watch.answers), float(watch.position)), strict=True))
    values |= _certificate(services.settings)
    missing: GaugeMetricFamily | None = missing_unknown() if by_lab else None
    for part in found:
        if isinstance(part, dict):
            values |= part
        elif isinstance(part, tuple):
            values |= part[0]
            missing = part[1]
        elif isinstance(part, (psycopg.OperationalError, DatabaseUnavailableError)):
            values["ledger_database_up"] = 0.0
        # The state is missing, or the database holds up scrapes before this one.
        elif not isinstance(part, (psycopg.Error, StateError, BusyError)):
            raise part
    return [
        _build(),
        *([missing] if missing else ()),
        *(
            GaugeMetricFamily(name, words, value=values.get(name, nan))
            for name, words in _GAUGES.items()
        ),
    ]


def _build() -> Metric:
    family = GaugeMetricFamily(
        "ledger_build_info",
        "Always 1; the labels say which version runs.",
        labels=["version", "fold_version", "schema", "python"],
    )
    python = platform.python_version()
    family.add_metric([__version__, str(FOLD_VERSION), schema.SCHEMA_VERSION, python], 1)
    return family


def _certificate(settings: Settings) -> Values:
    """Return when the certificate ends; nothing if there is none, or it cannot be read."""
    if settings.tls_certificate is None:
        return {}
    try:
        ends = end_of_certificate(settings.tls_certificate)
    except (OSError, ValueError):
        return {}
    return {"ledger_certificate_expiry_timestamp_seconds": ends.timestamp()}


async def _projection(services: Services) -> Values:
    status = await read_status(services)
    lag_seconds = status.lag_seconds(datetime.now(UTC))
    numbers = (status.head, status.position, status.lag_events, lag_seconds, status.parked)
    return dict(zip(_PROJECTION, numbers, strict=True))


async def _operations(services: Services) -> Values:
    values = parameters(services.policy, datetime.now(UTC))
    rows = await services.fetch(_OPERATIONS, values)
    return dict(zip(_OPERATION, rows[0], strict=True))


async def _refused(services: Services) -> Values:
    rows = await services.fetch(_COUNTS)
    return dict(zip(_REFUSED, rows[0], strict=True))


async def _seals(services: Services) -> Values:
    ((*row,),) = await services.fetch(_SEAL_STATUS)
    status = SealStatus(*row)
    numbers = (status.sealed, status.lag_seconds(datetime.now(UTC)), status.signed or 0)
    return dict(zip(_SEALS, numbers, strict=True))


async def _desk(services: Services, *, by_lab: bool) -> tuple[Values, GaugeMetricFamily | None]:
    now = datetime.now(UTC)
    policy = services.policy

    def read(connection: Connection) -> tuple[Values, GaugeMetricFamily | None]:
        values = measure_desk(connection, policy, now)
        return values, measure_missing(connection, policy, now) if by_lab else None

    return await services.run(read, services.gauges)


async def _labs(services: Services) -> Values:
    """Return which labs are silent, and what is known of the account at Flabs, NaN for the rest."""

    def read(connection: Connection) -> tuple[Coverage, list[str]]:
        hearings = services.hearings.read(connection, datetime.now(UTC))
        coverage = read_coverage(connection, services.policy)
        return coverage, [hearing.state for hearing in hearings.values()]

    found, states = await services.run(read, services.gauges)
    values = {f"ledger_labs_{finding}": float(number) for finding, number in found.totals.items()}
    values["ledger_labs_heard"] = len(states)
    values["ledger_labs_quiet"] = states.count("quiet")
    values["ledger_labs_silent"] = states.count("silent")
    if (last := found.check) is not None:
        values["ledger_flabs_up"] = float(last.failed_since is None)
        if last.succeeded_at is not None:
            age = datetime.now(UTC) - last.succeeded_at
            values["ledger_flabs_age_seconds"] = age.total_seconds()
    return values
