"""What pages take from the query: filters are kept as they came, and checked."""

from datetime import UTC, datetime, tzinfo
from typing import Any, Literal, get_args

from litestar import Request

from ledger.api.http.parameters import LAST_POSITION
from ledger.errors import QuestionError
from ledger.model.operator_events import is_storable

LONGEST_REASON = 2_000
LONGEST_ID = 200

AnyRequest = Request[Any, Any, Any]


def text_of(request: AnyRequest, name: str) -> str | None:
    """Return a parameter, None if it is absent or empty."""
    value = request.query_params.get(name, "")
    if "\x00" in value:
        raise QuestionError(f"{name} holds NUL, which no identifier does")
    return value.strip() or None


def choice_of(request: AnyRequest, name: str, choices: Any) -> Any:  # noqa: ANN401 -- a Literal
    """Return a parameter that takes one of the values of a `Literal`."""
    value = text_of(request, name)
    if value is None or value in get_args(choices):
        return value
    raise QuestionError(f"{name} takes one of {', '.join(get_args(choices))}, not {value[:100]!r}")


def number_of(request: AnyRequest, name: str) -> int | None:
    """Return a parameter that takes a whole number, such as a log position."""
    value = text_of(request, name)
    if value is None:
        return None
    if value.isascii() and value.isdigit() and int(value[:20]) <= LAST_POSITION:
        return int(value[:20])
    raise QuestionError(f"{name} takes a whole number, not {value[:100]!r}")


def day_of(request: AnyRequest, name: str, zone: tzinfo) -> datetime | None:
    """Return the beginning of a day in the reader's zone."""
    value = text_of(request, name)
    if value is None:
        return None
    try:
        day = datetime.fromisoformat(value).replace(tzinfo=zone).astimezone(UTC)
    except (ValueError, OverflowError):
        raise QuestionError(f"{name} takes a day like 2024-01-20, not {value[:100]!r}") from None
    return day


def written(form: Any, name: str, *, longest: int = LONGEST_REASON) -> str:  # noqa: ANN401 -- the framework's form
    """Return words that a person wrote in a form."""
    text = str(form.get(name, "")).strip()
    if not text or len(text) > longest or "\x00" in text:
        raise QuestionError(f"the {name} takes 1 to {longest:,} characters")
    return text


def moment_of(text: str, name: str, zone: tzinfo) -> datetime:
    """Return a moment that a form gives in the reader's zone, as browsers write it."""
    try:
        moment = datetime.fromisoformat(text.strip())
        moment = moment if moment.tzinfo else moment.replace(tzinfo=zone)
        moment = moment.astimezone(UTC)
    except (ValueError, OverflowError):
        moment = datetime.min.replace(tzinfo=UTC)
    if not is_storable(moment):
        raise QuestionError(f"{name} takes a moment like 2026-02-01T10:00, not {text[:100]!r}")
    return moment


Yes = Literal["yes"]
