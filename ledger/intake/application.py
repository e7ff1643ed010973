"""The ASGI application of an address that takes deliveries and does nothing else.

It has no other route than the webhook's endpoint and `/health/live`, so whatever else is asked for
does not exist there. Its process acts as `ledger_intake`. With LEDGER_LISTEN_STATUS there is a
second, private address that takes no deliveries: `status` answers there.
"""

import gc
from collections.abc import Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, NamedTuple, cast

from ledger import processes
from ledger.eventlog.group_commit import GroupCommit
from ledger.intake.endpoint import Answer, Intake, send_answer
from ledger.intake.listener import Listener
from ledger.intake.load import LoadMeter
from ledger.intake.refused_box import RefusedBox
from ledger.intake.status import ALIVE, LIVE, NO_METHOD, NOTHING, OPTIONS, StatusEndpoint
from ledger.intake.tokens import TokenWatcher, WebhookTokens
from ledger.logging_setup import configure_logging
from ledger.operations.policy import Policy, agree_if_reachable
from ledger.operations.refused_deliveries.keep import Bounds
from ledger.postgres.connect import INTAKE_ROLE, act_as
from ledger.settings import Settings
from ledger.spool.lane import make_lane
from ledger.tracing import finish_tracing, start_tracing

if TYPE_CHECKING:
    from litestar.types import (
        HTTPScope,
        LifeSpanReceive,
        LifeSpanScope,
        LifeSpanSend,
        Receive,
        Send,
    )

SETTLE_SECONDS = 2.0
"""How long a start waits for the database to take the first record of liveness."""


def create_application() -> "IntakeApplication":
    """Make the application of a server's worker, with the settings of its environment."""
    processes.end_with_parent()
    act_as(INTAKE_ROLE)
    settings = Settings.from_environment()
    configure_logging(settings)
    start_tracing()
    url = settings.require_database()
    policy = agree_if_reachable(url, settings, adopt=False)
    lane = make_lane(url, settings)
    at = settings.status_address()
    status = StatusEndpoint(at.port if at else None, url, lane, settings.spool_dir)
    return IntakeApplication(settings, make_intake(settings, url, lane, policy), lane, status)


Background = Sequence[TokenWatcher | RefusedBox]
"""What works beside the event loop; to be started and stopped with it."""


class IntakeParts(NamedTuple):
    """The endpoint, and what works for it in the background."""

    intake: Intake
    background: Background


def make_intake(settings: Settings, url: str, lane: GroupCommit, policy: Policy) -> IntakeParts:
    """Make the endpoint; read the tokens of the database, if it can be reached."""
    tokens = WebhookTokens(settings.webhook_tokens)
    watcher = TokenWatcher(url, tokens)
    watcher.read_once()
    bounds = Bounds(
        rows=settings.refused_rows,
        bytes=settings.refused_bytes,
        age=timedelta(days=settings.refused_days),
    )
    box = RefusedBox(url, bounds)
    intake = Intake(
        lane,
        tokens=tokens,
        box=box,
        header=settings.webhook_header,
        max_body=settings.max_body,
        retry_interval=policy.retry_interval,
        prefix=settings.path_prefix,
    )
    return IntakeParts(intake, (watcher, box))


class IntakeApplication:
    """Answers deliveries and `/health/live`, and at the address for it what `StatusEndpoint` does.

    The server's protocol finds `intake`, `listener` and `status_port` here.
    """

    def __init__(
        self, settings: Settings, parts: IntakeParts, lane: GroupCommit, status: StatusEndpoint
    ) -> None:
        self.intake, self._background = parts
        self.listener = Listener.of(settings)
        self.status_port = status.port
        self._status = status
        self._lane = lane
        self._live = {LIVE, settings.path_prefix + LIVE}

    async def __call__(
        self, scope: "HTTPScope | LifeSpanScope", receive: "Receive", send: "Send"
    ) -> None:
        """Handle one request, or the server's start and stop."""
        if "method" not in scope:
            await self._live_through(receive, send)  # type: ignore[arg-type]  # those of this scope
            return
        request = cast("HTTPScope", scope)
        if self._status.answers(request):
            await self._status(request, send)
        elif self.intake.answers(request["path"]):
            await self.intake(request, receive, send)
        else:
            await send_answer(send, self._other(request))

    def _other(self, scope: "HTTPScope") -> Answer:
        if scope["path"] not in self._live:
            return NOTHING
        if scope["method"] == "OPTIONS":
            return OPTIONS
        return ALIVE if scope["method"] in {"GET", "HEAD"} else NO_METHOD

    async def _live_through(self, receive: "LifeSpanReceive", send: "LifeSpanSend") -> None:
        await receive()
        self._lane.start()
        await self._lane.settle(within=SETTLE_SECONDS)
        load = LoadMeter(self._lane)
        load.start()
        for one in self._background:
            one.start()
        # Objects made so far live as long as the process; collections need not look at them.
        gc.collect()
        gc.freeze()
        await send({"type": "lifespan.startup.complete"})
        await receive()
        load.stop()
        for one in self._background:
            one.stop()
        await self._lane.stop()
        finish_tracing()
        await send({"type": "lifespan.shutdown.complete"})
