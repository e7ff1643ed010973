"""Query parameters that several operations take, and cursors."""

import base64
import difflib
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any

import msgspec
from litestar import Request
from litestar.params import Parameter, QueryParameter

from ledger.api.http.problems import ProblemError, shortened
from ledger.api.services import Services, services_of

DEFAULT_LIMIT = 100
LAST_POSITION = 2**63 - 1

Limit = Annotated[int, Parameter(ge=1, le=1000, description="The largest number of items.")]
CursorText = Annotated[
    str | None, Parameter(description="`next` of the page before; opaque.", required=False)
]
OptionalPosition = Annotated[
    int | None,
    Parameter(
        ge=0,
        le=LAST_POSITION,
        description="A log position; one that the log has not reached yet finds nothing.",
        required=False,
    ),
]

WithBodies = Annotated[
    bool,
    QueryParameter(
        name="body",
        required=False,
        description="Whether to show also the bodies of events that are not folded, such as "
        "`lead.created`: they may hold a person's contact data. Needs the scope `operate`.",
    ),
]


async def services_when_reached(
    request: Request[Any, Any, Any],
    min_position: Annotated[
        int | None,
        Parameter(
            ge=0,
            le=LAST_POSITION,
            required=False,
            description="Wait until the projection has reached this log position.",
        ),
    ] = None,
    wait_ms: Annotated[
        int,
        Parameter(
            ge=0, le=60_000, description="How long to wait for `min_position`, in milliseconds."
        ),
    ] = 2000,
) -> Services:
    """Provide the services once the projection has reached `min_position`, else raise a 503."""
    services = services_of(request.app.state)
    if min_position is None:
        return services
    if await services.watch.reached(min_position, wait_ms / 1000):
        return (
            msgspec.structs.replace(services, needed=min_position) if services.primary else services
        )
    who = "the projection"
    if services.primary:
        who = "the replica" if services.watch.answers else "the replica does not answer; it"
    raise ProblemError(
        503,
        f"{who} is at position {services.watch.position} and has not reached "
        f"{min_position} within {wait_ms} ms; see GET /v1/projection",
        {"Retry-After": "1", "Ledger-Position": str(services.watch.position)},
    )


async def check_parameters(request: Request[Any, Any, Any]) -> None:
    """Refuse an unknown query parameter: a filter with a typo would silently filter nothing."""
    known = request.app.state["parameters"].get(request.scope["path_template"])
    if known is None:
        return
    names = [name for name, parameter in known.items() if parameter.place == "query"]
    for name, values in request.query_params.dict().items():
        if name not in names:
            near = difflib.get_close_matches(name, names, n=1)
            takes = ", ".join(sorted(names)) or "none"
            hint = f"did you mean {near[0]}?" if near else f"it takes {takes}"
            raise ProblemError(400, f"query parameter {shortened(name)} is not known here: {hint}")
        if len(values) > 1:
            raise ProblemError(400, f"query parameter {name} is given {len(values)} times")
        if not _storable(values[0]):
            raise ProblemError(400, f"query parameter {name} holds NUL, which no identifier does")


def time_parameter(name: str, text: str | None) -> datetime | None:
    """Read a time (RFC 3339). Raises a 400 problem that names the parameter."""
    if text is None:
        return None
    try:
        # In a query string, the unescaped + of an offset arrives as a space.
        moment = msgspec.convert(text.strip().replace(" ", "+"), datetime)
        if moment.tzinfo is not None:
            return moment.astimezone(UTC)
    except (msgspec.ValidationError, OverflowError):
        pass
    raise ProblemError(
        400,
        f"query parameter {name}: {shortened(text)} is not a time; "
        "it takes RFC 3339 with a zone, for example 2024-01-20T10:00:00Z",
    )


def write_cursor(*key: int | str) -> str:
    """Return a cursor for the items after the one with this key."""
    return base64.urlsafe_b64encode(msgspec.json.encode(key)).decode().rstrip("=")


def read_cursor(text: str | None, *types: type) -> list[Any] | None:
    """Return a cursor's key. Raises a 400 problem for a cursor that `write_cursor` did not make."""
    if text is None:
        return None
    try:
        content = base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
        key = _decode_key(content)
    except ValueError:
        key = []
    if key and list(map(type, key)) == list(types) and all(map(_storable, key)):
        return key
    raise ProblemError(
        400, "query parameter cursor: it takes the `next` of a response to the same call"
    )


# The type keeps the decoder from following nested arrays until the stack ends.
_decode_key = msgspec.json.Decoder(list[int | str]).decode


def _storable(value: int | str) -> bool:
    """Return whether PostgreSQL can hold a number or a text."""
    if isinstance(value, str):
        return "\x00" not in value
    return 0 <= value <= LAST_POSITION


_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def to_microseconds(moment: datetime) -> int:
    """Return a time as the number that a cursor holds."""
    return (moment - _EPOCH) // timedelta(microseconds=1)


def from_microseconds(number: int) -> datetime:
    """Return the time of a number in a cursor."""
    try:
        return _EPOCH + timedelta(microseconds=number)
    except OverflowError:
        return datetime.max.replace(tzinfo=UTC)  # a forged cursor: nothing comes after it
