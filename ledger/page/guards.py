"""Who uses the page: every route but the login passes here, as the API's routes pass theirs."""

from datetime import UTC, datetime
from typing import Any, cast
from urllib.parse import urlsplit

from litestar import Request
from litestar.connection import ASGIConnection
from litestar.enums import HttpMethod
from litestar.handlers.base import BaseRouteHandler
from psycopg.sql import SQL

from ledger.api.http.problems import ProblemError
from ledger.api.permissions import Caller
from ledger.api.services import Services, services_of
from ledger.errors import ForbiddenError, UnauthenticatedError
from ledger.model.operators import Operator
from ledger.operations import sessions
from ledger.page.cookies import session_token

_CALLER = "page_caller"
_OPERATOR = "page_operator"

AnyConnection = ASGIConnection[Any, Any, Any, Any]


async def require_session(connection: AnyConnection, handler: BaseRouteHandler) -> None:
    """Refuse a request without a session of a key that holds the route's scope.

    A request that changes something must come from a page of this server.
    """
    if connection.scope.get("method") != HttpMethod.GET:
        require_same_origin(connection)
    services = services_of(connection.app.state).on_primary
    caller, operator = await who(connection, services)
    connection.state[_CALLER] = caller
    connection.state[_OPERATOR] = Operator(operator, caller.key_id, caller.labs)
    caller.require(handler.opt["scope"])
    if connection.scope.get("method") == HttpMethod.GET and (
        wait := services.rates.take(caller.key_id)
    ):
        raise ProblemError(
            429,
            f"the API key {caller.key_id} reads more often than LEDGER_READ_RATE allows, "
            f"{services.settings.read_rate} times a second: try again later",
            {"Retry-After": str(wait)},
        )


def require_same_origin(connection: AnyConnection) -> None:
    """Raise `ForbiddenError` unless the browser says that a page of this server sent a request."""
    site = connection.headers.get("sec-fetch-site")
    if site is None:
        origin = urlsplit(connection.headers.get("origin", "")).netloc.lower()
        host = connection.headers.get("host", "").lower()
        site = "same-origin" if origin and origin == host else "unknown"
    if site != "same-origin":
        raise ForbiddenError(
            "the request does not come from a page of this server, so nothing was changed: open "
            "the page again and repeat it there"
        )


async def who(connection: AnyConnection, services: Services) -> tuple[Caller, str]:
    """Return what the session's key may do, and the operator's name.

    Raises `UnauthenticatedError` if there is no session, or its key is no longer valid.
    """
    token = session_token(connection)
    if not token:
        raise UnauthenticatedError("log in to see this page")
    values = (sessions.digest_of(token), datetime.now(UTC))
    rows = await services.fetch(SQL(sessions.READ), values)
    if rows:
        login = sessions.Login(rows[0][0], bytes(rows[0][1]), rows[0][2])
        caller = await services.authenticator.holder(
            login.key_id, lambda digests: sessions.is_proof(login.proof, token, digests)
        )
        if caller is not None:
            return caller, login.operator
    raise UnauthenticatedError("the session has ended: log in again")


def caller_of(connection: AnyConnection) -> Caller | None:
    """Return who sent a request, None where that is not known."""
    return cast("Caller | None", connection.state.get(_CALLER))


def operator_of(connection: AnyConnection) -> Operator | None:
    """Return who decides by a request, None where that is not known."""
    return cast("Operator | None", connection.state.get(_OPERATOR))


async def provide_caller(request: Request[Any, Any, Any]) -> Caller:
    """Provide to a handler who sent the request."""
    caller = caller_of(request)
    assert caller is not None  # noqa: S101 -- set by the guard
    return caller


async def provide_operator(request: Request[Any, Any, Any]) -> Operator:
    """Provide to a handler who decides."""
    operator = operator_of(request)
    assert operator is not None  # noqa: S101 -- set by the guard
    return operator
