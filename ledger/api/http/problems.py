"""Turns exceptions into problem responses, so that every error has one shape."""

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
    BusyError,
    DatabaseUnavailableError,
    DecisionError,
    FlabsError,
    FoldVersionError,
    ForbiddenError,
    ImportFileError,
    LedgerError,
    QuestionError,
    ReplicaUnavailableError,
    SettingsError,
    StateError,
    UnauthenticatedError,
    UnknownSubjectError,
    one_line,
)
from ledger.logging_setup import request_id
from ledger.problems import MEDIA_TYPE, Problem

_log = structlog.get_logger(__name__)

AnyRequest = Request[Any, Any, Any]

ADMITTED = "admitted"
"""Set in a request's state once its key was accepted."""


class ProblemError(LedgerError):
    """A problem response and its headers."""

    def __init__(self, status: int, detail: str, headers: dict[str, str] | None = None) -> None:
        super().__init__(detail)
        self.status = status
        self.detail = detail
        self.headers = headers or {}


def on_problem(request: AnyRequest, error: ProblemError) -> Response[bytes]:
    """Respond to a problem that a handler raised."""
    return _response(request, error.status, error.detail, error.headers)


def on_http(request: AnyRequest, error: HTTPException) -> Response[bytes]:
    """Respond to an error that the framework raised."""
    if isinstance(error, ValidationException):
        return _response(request, 400, _describe_parameters(request, error))
    if isinstance(error, NotFoundException):
        detail = f"there is nothing at {request.url.path}; GET /schema lists the calls"
        return _response(request, 404, detail)
    return _response(request, error.status_code, error.detail, dict(error.headers or {}))


def on_database(request: AnyRequest, error: Exception) -> Response[bytes]:
    """Respond that the database does not answer."""
    _log.warning("database away", error=one_line(error))
    detail = "the database does not answer; try again"
    return _response(request, 503, detail, {"Retry-After": "1"})


def on_temporary(request: AnyRequest, error: Exception) -> Response[bytes]:
    """Respond that the request cannot be answered now."""
    return _response(request, 503, str(error), {"Retry-After": "1"})


def on_unknown_subject(request: AnyRequest, error: Exception) -> Response[bytes]:
    """Respond that the subject of a decision does not exist, and what does."""
    return _response(request, 404, str(error))


def on_unauthenticated(request: AnyRequest, error: Exception) -> Response[bytes]:
    """Respond that it is not known who asks."""
    return _response(request, 401, str(error), {"WWW-Authenticate": 'Bearer realm="ledger"'})


def on_forbidden(request: AnyRequest, error: Exception) -> Response[bytes]:
    """Respond that the caller is known and may not do this."""
    return _response(request, 403, str(error))


def on_question(request: AnyRequest, error: Exception) -> Response[bytes]:
    """Respond that the request itself is wrong."""
    return _response(request, 400, str(error))


def on_flabs(request: AnyRequest, error: Exception) -> Response[bytes]:
    """Respond that Flabs does not do what was asked, in its words and ours."""
    return _response(request, 502, str(error))


def on_settings(request: AnyRequest, error: Exception) -> Response[bytes]:
    """Respond that the server's settings do not allow what was asked."""
    return _response(request, 409, str(error))


def on_lost_state(request: AnyRequest, error: Exception) -> Response[bytes]:
    """Respond that the state tables are missing or not as they should be."""
    if "state." not in str(error):
        return on_any(request, error)
    _log.error("state tables missing: run `ledger rebuild`", error=one_line(error))
    detail = "the state is missing: run `ledger rebuild`"
    return _response(request, 503, detail, {"Retry-After": "60"})


def on_any(request: AnyRequest, error: Exception) -> Response[bytes]:
    """Respond to a fault of the server."""
    _log.exception("request failed", path=request.url.path, error=str(error))
    detail = (
        "the request failed because of a fault in the server; "
        f"its log has the details at request_id {request_id()}"
    )
    return _response(request, 500, detail)


def _response(
    request: AnyRequest, status: int, detail: str, headers: dict[str, str] | None = None
) -> Response[bytes]:
    more = dict(headers or {})
    if request.state.get(ADMITTED):  # the size of the log is not disclosed without a key
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
    BusyError: on_temporary,
    DatabaseUnavailableError: on_database,
    ReplicaUnavailableError: on_temporary,
    DecisionError: on_temporary,
    FoldVersionError: on_temporary,
    StateError: on_temporary,
    UnauthenticatedError: on_unauthenticated,
    ForbiddenError: on_forbidden,
    UnknownSubjectError: on_unknown_subject,
    QuestionError: on_question,
    FlabsError: on_flabs,
    SettingsError: on_settings,
    ImportFileError: on_question,
    Exception: on_any,
}


def _describe_parameters(request: AnyRequest, error: ValidationException) -> str:
    """Name each parameter that is wrong, and say what it takes."""
    known = request.app.state["parameters"].get(request.scope["path_template"], {})
    wrong = {item.get("key") for item in error.extra or () if isinstance(item, dict)}
    values = {
        "path": request.path_params,
        "query": request.query_params,
        "header": request.headers,
    }
    described = [
        f"{parameter.place} parameter {name} takes {parameter.takes}, not {shortened(str(value))}"
        for name, parameter in known.items()
        if parameter.field in wrong and (value := values[parameter.place].get(name)) is not None
    ]
    return "; ".join(described) or error.detail


def shortened(value: str) -> str:
    """Quote a value that a client sent, in a bounded length."""
    shown = repr(value[:_SHOWN])
    return shown if len(value) <= _SHOWN else f"{shown} (the first {_SHOWN} of {len(value)})"


def abridged(text: str) -> str:
    """Leave out the middle of a long text."""
    return text if len(text) <= 3 * _SHOWN else f"{text[:_SHOWN]} ... {text[-_SHOWN:]}"


_SHOWN = 100
