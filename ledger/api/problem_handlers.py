"""Turns what handlers raise into problems, so that every error has one shape."""

from typing import Any

import msgspec
import psycopg
import psycopg_pool
import structlog
from litestar import Request, Response
from litestar.exceptions import HTTPException, NotFoundException, ValidationException

from ledger.errors import DatabaseUnavailableError, LedgerError
from ledger.problems import MEDIA_TYPE, Problem

_log = structlog.get_logger(__name__)

AnyRequest = Request[Any, Any, Any]


class ProblemError(LedgerError):
    """An answer that is a problem, with its headers."""

    def __init__(self, status: int, detail: str, headers: dict[str, str] | None = None) -> None:
        super().__init__(detail)
        self.status = status
        self.detail = detail
        self.headers = headers or {}


def response(status: int, detail: str, headers: dict[str, str] | None = None) -> Response[bytes]:
    """Make the answer of a problem."""
    return Response(
        msgspec.json.encode(Problem.of(status, detail)),
        status_code=status,
        media_type=MEDIA_TYPE,
        headers=headers,
    )


def on_problem(_: AnyRequest, error: ProblemError) -> Response[bytes]:
    """Answer a problem that a handler raised."""
    return response(error.status, error.detail, error.headers)


def on_http(request: AnyRequest, error: HTTPException) -> Response[bytes]:
    """Answer what the framework raised."""
    if isinstance(error, ValidationException):
        return response(400, _name_parameters(request, error))
    if isinstance(error, NotFoundException):
        return response(404, f"there is nothing at {request.url.path}; GET /schema lists the calls")
    return response(error.status_code, error.detail, dict(error.headers or {}))


def on_database(_: AnyRequest, error: Exception) -> Response[bytes]:
    """Answer that the database is away."""
    _log.warning("database away", error=" ".join(str(error).split()))
    return response(503, "the database does not answer; try again", {"Retry-After": "1"})


def on_lost_state(_: AnyRequest, error: Exception) -> Response[bytes]:
    """Answer that the state's tables are not there."""
    _log.error("state tables missing: run `ledger rebuild`", error=" ".join(str(error).split()))
    return response(503, "the state is missing: run `ledger rebuild`", {"Retry-After": "60"})


def on_any(request: AnyRequest, error: Exception) -> Response[bytes]:
    """Answer a fault of our own."""
    _log.exception("request failed", path=request.url.path, error=str(error))
    return response(500, "the request failed by a fault of the server; its log says more")


HANDLERS: dict[int | type[Exception], Any] = {
    ProblemError: on_problem,
    HTTPException: on_http,
    psycopg.OperationalError: on_database,
    psycopg.errors.UndefinedTable: on_lost_state,
    psycopg_pool.PoolTimeout: on_database,
    DatabaseUnavailableError: on_database,
    Exception: on_any,
}


def _name_parameters(request: AnyRequest, error: ValidationException) -> str:
    """Name each parameter that is wrong, and what it takes."""
    takes = request.app.state["query_parameters"].get(request.scope["path_template"], {})
    wrong = [item for item in error.extra or () if isinstance(item, dict)]
    # Where a handler's parameter has another name than the query's, the query's is its last word.
    names = [str(item.get("key", "")).rpartition("_") for item in wrong]
    named = [
        f"query parameter {name} takes {takes[name]}, not {request.query_params[name]!r}"
        for name in ("".join(parts) if "".join(parts) in takes else parts[2] for parts in names)
        if name in takes and name in request.query_params
    ]
    return "; ".join(named) or error.detail
