"""The system: how far the state is, what is parked, versions, settings and keys."""

import platform
from datetime import UTC, datetime
from typing import Any

import msgspec
import structlog
from litestar import Controller, Request, Response, get, post
from msgspec.structs import asdict
from psycopg import Connection

from ledger import schema
from ledger.api.handlers.projection import read_status
from ledger.api.http.guards import OPERATE, READ
from ledger.api.permissions import Caller
from ledger.api.services import Services
from ledger.errors import QuestionError
from ledger.eventlog.read import Key
from ledger.model.bill import FOLD_VERSION
from ledger.model.operators import Operator, as_array
from ledger.operations.api_keys import ApiKey, list_keys
from ledger.page.render import respond
from ledger.projection.rebuild import rebuild_bill
from ledger.projection.status import REBUILD
from ledger.settings import PREFIX, Settings

MOST = 100

_log = structlog.get_logger(__name__)

AnyRequest = Request[Any, Any, Any]

_PARKED = """
SELECT p.lab_id, p.bill_id, p.position, p.error
FROM state.parked_bill p
WHERE %(labs)s::text[] IS NULL OR p.lab_id = ANY(%(labs)s::text[])
ORDER BY p.lab_id, p.bill_id
LIMIT %(limit)s
"""

SHOWN_SETTINGS = (
    "workers", "host", "port", "listen_intake", "listen_api", "listen_status", "path_prefix",
    "public_url", "trusted_proxies", "tls_certificate", "events", "retry_interval", "retry_count",
    "retry_timeout", "ask_again_after", "max_body", "read_rate", "fast_intake", "spool_dir",
    "spool_max_bytes", "spool_after", "refused_rows", "refused_bytes", "seal_publish",
    "seal_interval", "sender_name", "sender_organisation", "sender_contact",
)  # fmt: skip
"""Settings that hold no secret, by name: a new one is shown only when it is named here."""


class SystemController(Controller):
    """The system."""

    path = "/"
    include_in_schema = False

    @get("/system", opt=READ)
    async def show(self, request: AnyRequest, services: Services, caller: Caller) -> Response[str]:
        """Show how far the state is behind the log and, to an administrator, the keys."""
        status = await read_status(services)
        values = {"labs": as_array(caller.labs), "limit": MOST + 1}
        is_admin = caller.scope == "admin"

        def work(
            connection: Connection,
        ) -> tuple[list[tuple[Any, ...]], tuple[Any, ...] | None, list[ApiKey]]:
            parked = connection.execute(_PARKED, values).fetchall()
            rebuild = connection.execute(REBUILD).fetchone() if status.rebuild_runs else None
            keys = list_keys(connection, labs=caller.labs, limit=MOST + 1) if is_admin else []
            return parked, rebuild, keys

        parked, rebuild, keys = await services.run(work)
        whole = is_admin and caller.labs is None
        return respond(
            request,
            "system.html",
            position=status.position,
            status=status,
            lag_seconds=status.lag_seconds(datetime.now(UTC)),
            parked=[(row, msgspec.json.encode(row[:2]).decode()) for row in parked[:MOST]],
            parked_cut=len(parked) > MOST,
            rebuild=rebuild,
            keys=keys[:MOST],
            keys_cut=len(keys) > MOST,
            versions={
                "schema": schema.SCHEMA_VERSION, "fold": FOLD_VERSION, "state": status.fold_version,
                "Python": platform.python_version(),
            },
            settings=_settings(services.settings) if whole else None,
        )  # fmt: skip

    @post("/system/parked/preview", opt=OPERATE, status_code=200)
    async def preview_retry(
        self, request: AnyRequest, services: Services, caller: Caller
    ) -> Response[str]:
        """Show which parked bills would be folded again."""
        keys = await _parked_of(request, services, caller)
        return respond(request, "parked_preview.html", keys=keys)

    @post("/system/parked/retry", opt=OPERATE, status_code=200)
    async def retry(
        self, request: AnyRequest, services: Services, caller: Caller, operator: Operator
    ) -> Response[str]:
        """Fold parked bills again, and tell what came of each."""
        keys = await _parked_of(request, services, caller)

        def work() -> list[tuple[Key, str | None]]:
            return [(key, rebuild_bill(services.url, key)) for key in keys]

        outcomes = await services.decide(work)
        _log.info(
            "parked bills were folded again",
            by=operator.name, key=operator.key, bills=len(outcomes),
            parked_still=sum(error is not None for _, error in outcomes),
        )  # fmt: skip
        return respond(request, "parked_outcome.html", outcomes=outcomes)


async def _parked_of(request: AnyRequest, services: Services, caller: Caller) -> list[Key]:
    """Return the parked bills that a form names, or all of those that the page lists."""
    form = await request.form()
    values = {"labs": as_array(caller.labs), "limit": MOST}
    parked = await services.run(lambda connection: connection.execute(_PARKED, values).fetchall())
    keys = [(row[0], row[1]) for row in parked]
    if text := str(form.get("bill", "")):
        try:
            wanted = msgspec.json.decode(text, type=tuple[str, str])
        except (msgspec.DecodeError, ValueError):
            raise QuestionError("the form names no bill") from None
        keys = [key for key in keys if key == wanted]
    if not keys:
        raise QuestionError("no such bill is parked: its events may have been folded meanwhile")
    return keys


def _settings(settings: Settings) -> list[tuple[str, str]]:
    values = asdict(settings)
    return [(f"{PREFIX}{name.upper()}", _written(values[name])) for name in SHOWN_SETTINGS]


def _written(value: object) -> str:
    if isinstance(value, (list, tuple)):
        return ", ".join(map(str, value))
    if isinstance(value, bool):
        return "on" if value else "off"
    return "" if value is None else str(value)
