"""A lab's subscription over HTTP."""

from typing import Any

from litestar import Request, Response, get, put
from psycopg import Connection

from ledger.api.http.bodies import SubscriptionBody, read_body
from ledger.api.http.guards import OPERATE, READ
from ledger.api.http.paths import identifier
from ledger.api.http.responses import answer, decide, encode, ok
from ledger.api.permissions import Caller
from ledger.api.services import PATIENCE, Services
from ledger.model.operators import Operator
from ledger.operations.missing_events import subscriptions
from ledger.operations.missing_events.subscriptions import Subscription
from ledger.projection import store


@get(
    "/v1/labs/{lab_id:str}/subscription",
    opt=READ,
    operation_id="GetSubscription",
    responses={200: ok(Subscription, description="The subscription.")},
)
async def get_subscription(services: Services, caller: Caller, lab_id: str) -> Response[bytes]:
    """Show which event types are subscribed for a lab: only those can be missing."""
    lab = identifier(lab_id)
    caller.require_lab(lab)

    def work(connection: Connection) -> tuple[Subscription, int]:
        position = store.read_checkpoint(connection).position
        return subscriptions.read_subscription(connection, services.policy, lab), position

    found, position = await services.run(work)
    return answer(encode(found), position)


@put(
    "/v1/labs/{lab_id:str}/subscription",
    opt=OPERATE,
    operation_id="SetSubscription",
    responses={200: ok(Subscription, description="The subscription as it is now.")},
)
async def set_subscription(
    request: Request[Any, Any, Any],
    services: Services,
    caller: Caller,
    lab_id: str,
    operator: Operator,
) -> Response[bytes]:
    """Set which event types are subscribed for a lab; null restores those of all labs."""
    lab = identifier(lab_id)
    caller.require_lab(lab)
    body = await read_body(request, SubscriptionBody)
    return await decide(
        services,
        subscriptions.set_subscription,
        services.url,
        services.policy,
        lab,
        body.events,
        by=operator,
        patience=PATIENCE,
    )
