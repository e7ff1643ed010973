"""JSON bodies of the operations that change something."""

from datetime import datetime
from typing import Annotated, Any, TypeVar

import msgspec
from litestar import Request
from litestar.params import Parameter
from msgspec import Meta, Struct

from ledger.api.http.problems import ProblemError, abridged, shortened
from ledger.api.permissions import Caller
from ledger.event_types import EventType
from ledger.model.event import Identifier
from ledger.model.missing_events import Certainty
from ledger.model.operator_events import Moment, Name, Words, what_is_unstorable
from ledger.model.operators import Operator
from ledger.operations.api_keys import DEFAULT_OVERLAP, LONGEST_OVERLAP, Scope
from ledger.operations.support_requests.make import LineName
from ledger.operations.webhook_tokens import MOST_LABS

UNNAMED = "API"
"""The operator, where the caller does not name one."""

LONGEST_NAME = 200


async def provide_operator(
    caller: Caller,
    name: Annotated[
        str,
        Parameter(
            header="Ledger-Operator",
            required=False,
            description="Who makes the decision, recorded in the log next to the id of the key.",
        ),
    ] = UNNAMED,
) -> Operator:
    """Provide who decides: the name that they give and the key that proves it.

    Raises a 400 problem for an empty or long name.
    """
    if not name.strip() or len(name) > LONGEST_NAME:
        raise ProblemError(400, f"the header Ledger-Operator takes 1 to {LONGEST_NAME} characters")
    return Operator(name, caller.key_id, caller.labs)


class Body(Struct, frozen=True, forbid_unknown_fields=True):
    """A JSON object; an unknown field is refused, for it may be a typo."""


class WaiveBody(Body, frozen=True, kw_only=True):
    """The missing event to waive, and the reason."""

    lab_id: Identifier
    bill_id: Identifier
    event_type: EventType
    test_id: Identifier | None = None
    reason: Words


class UnwaiveBody(Body, frozen=True, kw_only=True):
    """The missing event whose waiver is taken back, and why."""

    lab_id: Identifier
    bill_id: Identifier
    event_type: EventType
    test_id: Identifier | None = None
    reason: Words | None = None


class WaiveMatchingBody(Body, frozen=True, kw_only=True):
    """The missing events to waive, by at least one of the filters, and the reason."""

    lab_id: Identifier | None = None
    event_type: EventType | None = None
    certainty: Certainty | None = None
    before: Moment | None = None
    reason: Words
    dry_run: bool = False


class RequestBody(Body, frozen=True, kw_only=True):
    """What to ask support for."""

    lab_id: Identifier | None = None
    include_possible: bool = False
    note: Words | None = None


class CloseBody(Body, frozen=True, kw_only=True):
    """What to close, and the reason."""

    reason: Words
    lines: Annotated[list[LineName], Meta(min_length=1)] | None = None


class CloseWindowBody(Body, frozen=True, kw_only=True):
    """The window to close, with the bounds that the list shows, and the reason."""

    begin: Moment = msgspec.field(name="from")
    end: Moment = msgspec.field(name="to")
    labs: list[Identifier] | None = None
    reason: Words


class ExpectedBody(Body, frozen=True, kw_only=True):
    """When and from which lab an event of the bill is expected."""

    expected_by: Moment
    lab_id: Identifier | None = None


class SubscriptionBody(Body, frozen=True, kw_only=True):
    """The subscription of a lab."""

    events: list[EventType] | None


class WebhookTokenBody(Body, frozen=True, kw_only=True):
    """The labs of a new webhook token, and what it is for."""

    labs: Annotated[list[Identifier], Meta(min_length=1, max_length=MOST_LABS)] | None = None
    name: Name | None = None


class CheckAccountBody(Body, frozen=True, kw_only=True):
    """Whether to send a probe through the public address."""

    probe: bool = True


class SubscribeBody(Body, frozen=True, kw_only=True):
    """What to subscribe at Flabs."""

    labs: Annotated[list[Identifier], Meta(min_length=1, max_length=MOST_LABS)] | None = None
    events: Annotated[list[Identifier], Meta(min_length=1, max_length=20)] | None = None
    parties: Annotated[list[Identifier], Meta(max_length=MOST_LABS)] = []
    again: bool = False
    token_in_path: bool = False
    dry_run: bool = False


class RotateTokenBody(Body, frozen=True, kw_only=True):
    """Which webhook tokens to drop besides those that Ledger gave to Flabs."""

    replace: Annotated[list[Identifier], Meta(max_length=100)] = []


DeliveryId = Annotated[str, Meta(min_length=1, max_length=64)]


class RefusedSelectionBody(Body, frozen=True, kw_only=True):
    """The refused deliveries to decide about: by id, by lab, or all."""

    ids: Annotated[list[DeliveryId], Meta(min_length=1, max_length=10_000)] | None = None
    lab_id: Identifier | None = None
    all: bool = False
    dry_run: bool = False


class EraseBody(Body, frozen=True, kw_only=True):
    """Why a body is erased."""

    reason: Words
    dry_run: bool = False


class KeyBody(Body, frozen=True, kw_only=True):
    """The key to create: what it is for, what it may do, and until when."""

    name: Name
    scope: Scope
    labs: Annotated[list[Identifier], Meta(min_length=1, max_length=1000)] | None = None
    expires_at: Moment | None = None


class RotateBody(Body, frozen=True, kw_only=True):
    """How long the old secret stays valid."""

    overlap_seconds: Annotated[int, Meta(ge=0, le=LONGEST_OVERLAP)] = DEFAULT_OVERLAP


BODIES: dict[str, type[Body]] = {
    "WaiveMissingEvent": WaiveBody,
    "UnwaiveMissingEvent": UnwaiveBody,
    "WaiveMissingEvents": WaiveMatchingBody,
    "MakeSupportRequest": RequestBody,
    "CloseSupportRequest": CloseBody,
    "CloseLossWindow": CloseWindowBody,
    "ExpectBill": ExpectedBody,
    "SetSubscription": SubscriptionBody,
    "CreateWebhookToken": WebhookTokenBody,
    "CheckAccount": CheckAccountBody,
    "SubscribeLabs": SubscribeBody,
    "RotateToken": RotateTokenBody,
    "AcceptRefusedDeliveries": RefusedSelectionBody,
    "DropRefusedDeliveries": RefusedSelectionBody,
    "EraseBody": EraseBody,
    "CreateKey": KeyBody,
    "RotateKey": RotateBody,
}
"""The bodies by operation, for the OpenAPI document."""

T = TypeVar("T", bound=Body)


async def read_body(request: Request[Any, Any, Any], kind: type[T]) -> T:
    """Read the body of a request; an empty one means `{}`. Raises a 400 problem."""
    content = await request.body()
    try:
        body = msgspec.json.decode(content or b"{}", type=kind)
    except (msgspec.DecodeError, ValueError) as error:
        takes = ", ".join(field.encode_name for field in msgspec.structs.fields(kind))
        raise ProblemError(
            400, f"the body is wrong: {abridged(str(error))}. It takes {takes}"
        ) from None
    if text := _forbidden(msgspec.to_builtins(body)):
        raise ProblemError(400, f"the body is wrong: {shortened(text)} contains NUL")
    for name, value in msgspec.structs.asdict(body).items():
        if isinstance(value, datetime) and (words := what_is_unstorable(value)):
            raise ProblemError(400, f"the body is wrong: {name} {words}")
    return body


def _forbidden(value: Any) -> str | None:  # noqa: ANN401 -- any JSON value
    if isinstance(value, str):
        return value if "\x00" in value else None
    parts = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return next((found for part in parts if (found := _forbidden(part))), None)
