"""Query parameters that several calls take, and cursors."""

import base64
import difflib
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any

import msgspec
from litestar import Request
from litestar.params import Parameter

from ledger.api.http.problem_handlers import ProblemError
from ledger.api.services import Services, services_of

DEFAULT_LIMIT = 100
LAST_POSITION = 2**63 - 1

Limit = Annotated[
    int, Parameter(ge=1, le=1000, description="How many items at the most, 1 to 1000.")
]
CursorText = Annotated[
    str | None, Parameter(description="`next` of the part before; opaque.", required=False)
]
Position = Annotated[int, Parameter(ge=0, le=LAST_POSITION)]
OptionalPosition = Annotated[
    int | None, Parameter(ge=0, le=LAST_POSITION, description="A log position.", required=False)
]


async def services_when_reached(
    request: Request[Any, Any, Any],
    min_position: Annotated[
        int | None,
        Parameter(
            ge=0,
            le=LAST_POSITION,
            required=False,
            description="Wait until the state is true for this log position.",
        ),
    ] = None,
    wait_ms: Annotated[
        int,
        Parameter(
            ge=0, le=60_000, description="How long to wait for `min_position`, in milliseconds."
        ),
    ] = 2000,
) -> Services:
    """Provide the services once the state has reached `min_position`, a 503 problem if not."""
    services = services_of(request.app.state)
    if min_position is None or await services.watch.reached(min_position, wait_ms / 1000):
        return services
    raise ProblemError(
        503,
        f"the state is true for position {services.watch.position}, not yet for {min_position}: "
        f"waited {wait_ms} ms; see GET /v1/projection",
        {"Retry-After": "1", "Ledger-Position": str(services.watch.position)},
    )


async def check_parameters(request: Request[Any, Any, Any]) -> None:
    """Refuse a query parameter that the call does not take: a filter with a typo is no filter."""
    known = request.app.state["query_parameters"].get(request.scope["path_template"])
    if known is None:
        return
    for name, values in request.query_params.dict().items():
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            hint = f"did you mean {near[0]}?" if near else f"it takes {', '.join(sorted(known))}"
            raise ProblemError(400, f"query parameter {name} is not known here: {hint}")
        if len(values) > 1:
            raise ProblemError(400, f"query parameter {name} is given {len(values)} times")
        if not _storable(values[0]):
            raise ProblemError(400, f"query parameter {name} holds NUL, which no identifier does")


def time_parameter(name: str, text: str | None) -> datetime | None:
    """Read a time (RFC 3339). Raises a 400 problem that names the parameter."""
    if text is None:
        return None
    try:
        # In a query an unescaped + of an offset arrives as a space.
        moment = msgspec.convert(text.strip().replace(" ", "+"), datetime)
        if moment.tzinfo is not None:
            return moment.astimezone(UTC)
    except (msgspec.ValidationError, OverflowError):
        pass
    raise ProblemError(
        400,
        f"query parameter {name}: {text!r} is no time; "
        "it takes RFC 3339 with a zone, for example 2024-01-20T10:00:00Z",
    )


def write_cursor(*key: int | str) -> str:
    """Make a cursor that goes on after the item with this key."""
    return base64.urlsafe_b64encode(msgspec.json.encode(key)).decode().rstrip("=")


def read_cursor(text: str | None, *types: type) -> list[Any] | None:
    """Return a cursor's key. Raises a 400 problem if it is none of ours."""
    if text is None:
        return None
    try:
        key = msgspec.json.decode(base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)))
    except ValueError:
        key = None
    if isinstance(key, list) and list(map(type, key)) == list(types) and all(map(_storable, key)):
        return key
    raise ProblemError(
        400, "query parameter cursor: it takes the `next` of an answer to the same call"
    )


def _storable(value: Any) -> bool:  # noqa: ANN401 -- a part of a cursor
    """Tell whether PostgreSQL can hold a number or a text."""
    if isinstance(value, str):
        return "\x00" not in value
    return isinstance(value, int) and 0 <= value <= LAST_POSITION


_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def to_microseconds(moment: datetime) -> int:
    """Write a time into a cursor."""
    return (moment - _EPOCH) // timedelta(microseconds=1)


def from_microseconds(number: int) -> datetime:
    """Read a time from a cursor."""
    try:
        return _EPOCH + timedelta(microseconds=number)
    except OverflowError:
        return datetime.max.replace(tzinfo=UTC)  # a forged cursor: there is nothing after it
