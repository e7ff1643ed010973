"""Turns what handlers raise into problems, so that every error has one shape."""

from typing import Any

import msgspec
import psycopg
import psycopg_pool
import structlog
from litestar import Request, Response
from litestar.exceptions import HTTPException, NotFoundException, ValidationException

from ledger.api.http.responses import POSITION_HEADER
from ledger.api.services import services_of
from ledger.errors import (
    DatabaseUnavailableError,
    DecisionError,
    FoldVersionError,
    ImportFileError,
    LedgerError,
    QuestionError,
    StateError,
    UnknownSubjectError,
    one_line,
)
from ledger.problems import MEDIA_TYPE, Problem

_log = structlog.get_logger(__name__)

AnyRequest = Request[Any, Any, Any]

ADMITTED = "admitted"
"""Set in a request's state when its key was accepted."""


class ProblemError(LedgerError):
    """An answer that is a problem, with its headers."""

    def __init__(self, status: int, detail: str, headers: dict[str, str] | None = None) -> None:
        super().__init__(detail)
        self.status = status
        self.detail = detail
        self.headers = headers or {}


def on_problem(request: AnyRequest, error: ProblemError) -> Response[bytes]:
    """Answer a problem that a handler raised."""
    return _response(request, error.status, error.detail, error.headers)


def on_http(request: AnyRequest, error: HTTPException) -> Response[bytes]:
    """Answer what the framework raised."""
    if isinstance(error, ValidationException):
        return _response(request, 400, _name_parameters(request, error))
    if isinstance(error, NotFoundException):
        detail = f"there is nothing at {request.url.path}; GET /schema lists the calls"
        return _response(request, 404, detail)
    return _response(request, error.status_code, error.detail, dict(error.headers or {}))


def on_database(request: AnyRequest, error: Exception) -> Response[bytes]:
    """Answer that the database is away."""
    _log.warning("database away", error=one_line(error))
    detail = "the database does not answer; try again"
    return _response(request, 503, detail, {"Retry-After": "1"})


def on_decision(request: AnyRequest, error: Exception) -> Response[bytes]:
    """Answer that a decision cannot be taken now."""
    return _response(request, 503, str(error), {"Retry-After": "1"})


def on_unknown_subject(request: AnyRequest, error: Exception) -> Response[bytes]:
    """Answer that there is no such thing, and what there is."""
    return _response(request, 404, str(error))


def on_question(request: AnyRequest, error: Exception) -> Response[bytes]:
    """Answer that the request itself is wrong."""
    return _response(request, 400, str(error))


def on_lost_state(request: AnyRequest, error: Exception) -> Response[bytes]:
    """Answer that the state's tables are not there, or not as they should be."""
    if "state." not in str(error):
        return on_any(request, error)
    _log.error("state tables missing: run `ledger rebuild`", error=one_line(error))
    detail = "the state is missing: run `ledger rebuild`"
    return _response(request, 503, detail, {"Retry-After": "60"})


def on_any(request: AnyRequest, error: Exception) -> Response[bytes]:
    """Answer a fault of our own."""
    _log.exception("request failed", path=request.url.path, error=str(error))
    return _response(request, 500, "the request failed by a fault of the server; its log says more")


def _response(
    request: AnyRequest, status: int, detail: str, headers: dict[str, str] | None = None
) -> Response[bytes]:
    more = dict(headers or {})
    if request.state.get(ADMITTED):  # who has no key is not told how much there is
        position = services_of(request.app.state).watch.position
        more.setdefault(POSITION_HEADER, str(position))
    return Response(
        msgspec.json.encode(Problem.of(status, detail)),
        status_code=status,
        media_type=MEDIA_TYPE,
        headers=more,
    )


HANDLERS: dict[int | type[Exception], Any] = {
    ProblemError: on_problem,
    HTTPException: on_http,
    psycopg.OperationalError: on_database,
    psycopg.errors.UndefinedTable: on_lost_state,
    psycopg.errors.UndefinedColumn: on_lost_state,
    psycopg_pool.PoolTimeout: on_database,
    DatabaseUnavailableError: on_database,
    DecisionError: on_decision,
    FoldVersionError: on_decision,
    StateError: on_decision,
    UnknownSubjectError: on_unknown_subject,
    QuestionError: on_question,
    ImportFileError: on_question,
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
