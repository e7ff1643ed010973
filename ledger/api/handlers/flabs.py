"""The account at Flabs over HTTP: labs, subscriptions, coverage, the webhook token."""

from collections.abc import Callable
from typing import Any, TypeVar

from litestar import Request, Response, get, post
from msgspec import Struct
from psycopg import Connection

from ledger.api.http.bodies import CheckAccountBody, RotateTokenBody, SubscribeBody, read_body
from ledger.api.http.guards import ADMIN
from ledger.api.http.responses import answer, encode, ok
from ledger.api.permissions import Caller
from ledger.api.services import PATIENCE, Services
from ledger.errors import UnknownSubjectError
from ledger.flabs import rotation
from ledger.flabs.account import look
from ledger.flabs.answers import AccountLab
from ledger.flabs.check import CheckReport, check
from ledger.flabs.client import FlabsClient
from ledger.flabs.rotation import Rotation
from ledger.flabs.subscriptions import Choice, SubscriptionReport, parse_party, subscribe
from ledger.model.operators import Operator, concerns
from ledger.operations.coverage import Coverage, read_coverage

T = TypeVar("T")


class AccountLabs(Struct, frozen=True):
    """The labs of the account at Flabs, as it says now, by id."""

    labs: list[AccountLab]


async def _ask(services: Services, work: Callable[[FlabsClient], T]) -> T:
    """Talk to Flabs in the one thread for that: however slow it is, nothing else waits for it."""

    def talk() -> T:
        with FlabsClient.of(services.settings) as client:
            return work(client)

    return await services.flabs.run(talk)


@get(
    "/v1/flabs/labs",
    opt=ADMIN,
    operation_id="ListAccountLabs",
    responses={200: ok(AccountLabs, description="The labs.")},
)
async def list_account_labs(services: Services, caller: Caller) -> Response[bytes]:
    """List the labs of the account at Flabs, as Flabs says now."""

    def work(client: FlabsClient) -> list[AccountLab]:
        with services.connected("flabs") as connection:
            return look(connection, services.settings, client)

    found = await _ask(services, work)
    labs = AccountLabs([lab for lab in found if concerns(caller.labs, lab.lab_id)])
    return answer(encode(labs), services.watch.position)


@get(
    "/v1/flabs/coverage",
    opt=ADMIN,
    operation_id="GetCoverage",
    responses={200: ok(Coverage, description="All labs that are known from anywhere, by id.")},
)
async def get_coverage(services: Services, caller: Caller) -> Response[bytes]:
    """Compare the account's labs, what is subscribed, and what was heard of.

    The account's labs are those that were listed last; `check` says when.
    """

    def work(connection: Connection) -> Coverage:
        return read_coverage(connection, services.policy, labs=caller.labs)

    return answer(encode(await services.run(work)), services.watch.position)


@post(
    "/v1/flabs/check",
    opt=ADMIN,
    operation_id="CheckAccount",
    status_code=200,
    responses={200: ok(CheckReport, description="What was looked at, and what is wrong.")},
)
async def check_account(
    request: Request[Any, Any, Any], services: Services, caller: Caller, operator: Operator
) -> Response[bytes]:
    """Log in at Flabs, and send an event of no lab through the public address to this log."""
    caller.require_all_labs()
    body = await read_body(request, CheckAccountBody)

    def work(client: FlabsClient) -> CheckReport:
        return check(
            services.url,
            services.settings,
            services.policy,
            client,
            by=operator,
            probe=body.probe,
        )

    return answer(encode(await _ask(services, work)), services.watch.position)


@post(
    "/v1/flabs/subscriptions",
    opt=ADMIN,
    operation_id="SubscribeLabs",
    status_code=200,
    responses={200: ok(SubscriptionReport, description="What became of each subscription.")},
)
async def subscribe_labs(
    request: Request[Any, Any, Any], services: Services, caller: Caller, operator: Operator
) -> Response[bytes]:
    """Subscribe labs at Flabs to this server's endpoint; what is there already is no failure."""
    body = await read_body(request, SubscribeBody)
    if body.labs is None:
        caller.require_all_labs()
    for lab_id in body.labs or ():
        caller.require_lab(lab_id)
    choice = Choice(
        labs=None if body.labs is None else tuple(body.labs),
        events=services.policy.events if body.events is None else tuple(body.events),
        parties=tuple(map(parse_party, body.parties)),
        again=body.again,
        in_path=body.token_in_path,
    )

    def work(client: FlabsClient) -> tuple[SubscriptionReport, int]:
        return subscribe(
            services.url,
            services.settings,
            client,
            choice,
            by=operator,
            patience=PATIENCE,
            dry_run=body.dry_run,
        )

    report, position = await _ask(services, work)
    return answer(encode(report), position)


@get(
    "/v1/flabs/token-rotation",
    opt=ADMIN,
    operation_id="GetTokenRotation",
    responses={200: ok(Rotation, description="The last rotation.")},
)
async def get_token_rotation(services: Services, caller: Caller) -> Response[bytes]:
    """Show how far the last rotation of Flabs' webhook token has come."""
    caller.require_all_labs()

    def work(connection: Connection) -> Rotation | None:
        return rotation.read_rotation(connection, services.policy)

    found = await services.run(work)
    if found is None:
        raise UnknownSubjectError("the webhook token of Flabs was never rotated")
    return answer(encode(found), services.watch.position)


@post(
    "/v1/flabs/token-rotation",
    opt=ADMIN,
    operation_id="RotateToken",
    status_code=200,
    responses={200: ok(Rotation, description="The rotation, subscribed.")},
)
async def rotate_token(
    request: Request[Any, Any, Any], services: Services, caller: Caller, operator: Operator
) -> Response[bytes]:
    """Give Flabs a new webhook token; `ledger project` drops the old ones at `drop_at`.

    A rotation that was interrupted is taken up again.
    """
    caller.require_all_labs()
    body = await read_body(request, RotateTokenBody)

    def work(client: FlabsClient) -> Rotation:
        return rotation.advance(
            services.url,
            services.settings,
            services.policy,
            client,
            by=operator,
            patience=PATIENCE,
            replace=tuple(body.replace),
        )

    return answer(encode(await _ask(services, work)), services.watch.position)
