"""The ASGI application: deliveries and single bills are handled directly, the rest by Litestar."""

import asyncio
import functools
import gc
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from litestar import Litestar, Response, get
from litestar.enums import HttpMethod, ScopeType
from litestar.exceptions import NotFoundException
from msgspec.json import encode

from ledger import processes
from ledger.api.authentication import Authenticator
from ledger.api.bill_endpoint import PREFIX as BILLS_PREFIX
from ledger.api.bill_endpoint import BillEndpoint
from ledger.api.bill_reader import BillReader
from ledger.api.change_feed import ChangeFeed
from ledger.api.handlers.changes import read_changes
from ledger.api.http.known_parameters import known_parameters
from ledger.api.http.paths import with_slashes_kept
from ledger.api.http.problems import HANDLERS
from ledger.api.http.request_metrics import RequestMetrics
from ledger.api.load import measure_load
from ledger.api.openapi import document
from ledger.api.rate_limit import RateLimit
from ledger.api.routes import make_routes
from ledger.api.service_factory import make_services
from ledger.eventlog.group_commit import GroupCommit
from ledger.intake.application import SETTLE_SECONDS, Background, make_intake
from ledger.intake.endpoint import Intake
from ledger.intake.listener import Listener
from ledger.intake.load import LoadMeter
from ledger.logging_setup import configure_logging, follow_request
from ledger.operations.policy import Policy, agree_if_reachable
from ledger.page.errors import on_unknown_path
from ledger.page.routes import make_pages
from ledger.settings import Settings
from ledger.spool.lane import make_lane
from ledger.tracing import finish_tracing, start_tracing

if TYPE_CHECKING:
    from litestar.types import Message, Receive, Scope, Send

MAX_JSON = 1024 * 1024
"""The longest body in bytes of a decision. Files have a limit of their own."""


def create_app(settings: Settings | None = None) -> "Application":
    """Make the application of an address that serves the intake and the API.

    A server's worker takes the settings from its environment.
    """
    return _create(settings, with_intake=True)


def create_api() -> "Application":
    """Make the application of an address that serves the API alone."""
    return _create(None, with_intake=False)


def _create(settings: Settings | None, *, with_intake: bool) -> "Application":
    if settings is None:
        processes.end_with_parent()
        settings = Settings.from_environment()
    configure_logging(settings)
    start_tracing()
    url = settings.require_database()
    lane = make_lane(url, settings) if with_intake else None
    authenticator = Authenticator(url, settings.admin_key)
    rates = RateLimit(settings.read_rate)
    policy = agree_if_reachable(url, settings)
    reader = BillReader(settings.read_database_url or url, policy)
    parts = make_intake(settings, url, lane, policy) if lane else None
    litestar = make_litestar(
        settings,
        url,
        lane,
        reader,
        policy,
        authenticator=authenticator,
        rates=rates,
        background=parts.background if parts else (),
    )
    bills = BillEndpoint(reader, authenticator, rates, policy)
    return Application(
        litestar,
        parts.intake if parts else None,
        bills,
        prefix=settings.path_prefix,
        listener=Listener.of(settings),
    )


class Application:
    """Dispatches requests to the intake, the bill endpoint, or Litestar.

    The server's protocol finds `intake` here and passes it ordinary deliveries itself. Without an
    intake, its path does not exist.
    """

    def __init__(
        self,
        litestar: Litestar,
        intake: Intake | None,
        bills: BillEndpoint,
        *,
        prefix: str = "",
        listener: Listener | None = None,
    ) -> None:
        self._litestar = litestar
        self._bills = bills
        self._prefix = prefix
        self.intake = intake
        self.listener = listener

    async def __call__(self, scope: "Scope", receive: "Receive", send: "Send") -> None:
        """Handle one request, or the server's start and stop."""
        if scope["type"] == ScopeType.HTTP:
            path = scope["path"]
            if self.intake and self.intake.answers(path):
                await self.intake(scope, receive, send)
                return
            if self._prefix and (path + "/").startswith(self._prefix + "/"):
                size = len(self._prefix)  # in both forms: nothing in it needs to be encoded
                path = path[size:] or "/"
                scope = {**scope, "path": path, "raw_path": scope["raw_path"][size:]}
            if scope["method"] == "HEAD":  # the server leaves the content out
                scope = {**scope, "method": HttpMethod.GET}
            elif scope["method"] == "OPTIONS":
                send = _allowing_head(send)
            if b"%" in scope["raw_path"]:
                scope["path"] = path = with_slashes_kept(scope["raw_path"])
            send = RequestMetrics(scope, send).send
            if path.startswith(BILLS_PREFIX) and await self._bills.answered(scope, send):
                return
            follow_request(scope["headers"])
        await self._litestar(scope, receive, send)


def _allowing_head(send: "Send") -> "Send":
    """Add HEAD to the methods that a response allows, if it allows GET."""

    async def send_more(message: "Message") -> None:
        if message["type"] == "http.response.start":
            message["headers"] = [
                (name, value.replace(b"GET", b"GET, HEAD") if name == b"allow" else value)
                for name, value in message["headers"]
            ]
        await send(message)

    return send_more


def make_litestar(
    settings: Settings,
    url: str,
    lane: GroupCommit | None,
    reader: BillReader,
    policy: Policy,
    *,
    authenticator: Authenticator,
    rates: RateLimit,
    background: Background,
) -> Litestar:
    """Make the Litestar application, which has every route except the intake.

    Without a lane the process takes no deliveries. It also starts and stops what works in the
    background.
    """

    @asynccontextmanager
    async def lifespan(app: Litestar) -> AsyncIterator[None]:
        services = make_services(
            settings, url, lane, policy, authenticator=authenticator, rates=rates
        )
        databases = [services, *([services.primary] if services.primary else [])]
        app.state["services"] = services
        app.state["changes"] = ChangeFeed(functools.partial(read_changes, services), services.watch)
        for one in databases:
            await one.pool.open()
        if lane:
            lane.start()
            await lane.settle(within=SETTLE_SECONDS)
        for one in databases:
            one.watch.start()
        authenticator.start()
        feed: ChangeFeed = app.state["changes"]
        load = LoadMeter(lane, lambda: measure_load(services, feed))
        for task in (*background, load):
            task.start()
        # Objects made so far live as long as the process. Without them, garbage collection halves
        # the slowest hundredth of the responses.
        gc.collect()
        gc.freeze()
        # The server waits for open streams before it asks the application to shut down.
        loop = asyncio.get_running_loop()
        processes.before_stop(lambda: loop.call_soon_threadsafe(services.watch.close))
        try:
            yield
        finally:
            services.close()
            for task in (*background, load):
                task.stop()
            for one in databases:
                await one.watch.stop()
            await authenticator.stop()
            await reader.stop()
            if lane:
                await lane.stop()
            for one in databases:
                await one.pool.close()
            finish_tracing()

    app = Litestar(
        [*make_routes(), make_pages(), get_schema],
        exception_handlers={**HANDLERS, NotFoundException: on_unknown_path},
        lifespan=[lifespan],
        openapi_config=None,
        request_max_body_size=MAX_JSON,
        logging_config=None,
    )
    app.state["parameters"] = known_parameters(app)
    return app


@get("/schema", include_in_schema=False)
async def get_schema() -> Response[bytes]:
    """Serve the OpenAPI document."""
    return Response(_schema(), media_type="application/json")


@functools.cache
def _schema() -> bytes:
    return encode(document.document())
