"""The letter to Flabs' support: the Markdown form of a support request.

Its reader has never heard of Ledger, knows the names of Flabs' own fields, and should be able to
act without asking back. About a patient it names only the ids of bill, integrator and test. It
holds the operator's note, which is written for it, but not the reasons for closing lines.
"""

from collections.abc import Iterator
from itertools import groupby
from typing import BinaryIO

from msgspec import Struct

from ledger.operations.read_models import LossWindow, RequestLine, SupportRequest
from ledger.operations.render.markup import (
    SUBJECT,
    aligned,
    as_span,
    code,
    plain,
    prose,
    quote,
    subject,
    write_parts,
)
from ledger.operations.render.words import count, happened, how_known, up_to, utc
from ledger.settings import Settings

Numbered = tuple[int, RequestLine]
"""A line with its number, which it keeps when other lines are settled."""


class Sender(Struct, frozen=True):
    """Who asks, as far as the settings say; "" stands for what they leave open.

    `organisation` holds the account at Flabs. `endpoint` is the URL of the webhook without a token.
    """

    name: str = ""
    organisation: str = ""
    contact: str = ""
    endpoint: str = ""

    @classmethod
    def of(cls, settings: Settings) -> "Sender":
        """Return the sender that the settings name."""
        return cls(
            name=settings.sender_name,
            organisation=settings.sender_organisation,
            contact=settings.sender_contact,
            endpoint=settings.public_url and f"{settings.public_url}/webhooks/flabs",
        )


UNNAMED = Sender()
"""A sender of whom the settings say nothing: the operator signs."""

_OPEN = (
    "Webhooks that your system should have sent to our endpoint did not reach us, not even when "
    "they were retried. Please send us the events listed below, and quote the number of this "
    "request in your answer. Names in brackets are the fields of your webhooks."
)
_DONE = (
    "This was a request for webhooks that your system should have sent to our endpoint. It is "
    "settled: there is nothing left to do."
)
_CERTAIN = "These events must have happened, because other events of the same bills show it."
_POSSIBLE = (
    "These events may not have happened, or may not have been sent; what we received does not "
    "show which. Please check, and send us those that exist."
)
_WINDOWS = (
    "Our endpoint could not receive webhooks at these times, so we cannot know which events we "
    "missed. Please send us all of them, whatever their eventType."
)
_QUOTED = (
    "An id in double quotes contains unusual characters; it is written as a JSON string, including "
    "the quotes."
)
_ANSWER = """\
## How to answer

- The best answer is a file with the original JSON payload of each webhook, unchanged, one object per line or all in one array. Above all, please keep the original `eventTime`.
- Or send the webhooks again to the same endpoint.
- If an event never took place or cannot be found, please say so, with its line number.
"""  # noqa: E501 -- one line to a paragraph: mail programs break them where they like


def write_letter(request: SupportRequest, sender: Sender, to: BinaryIO) -> None:
    """Write the letter, which asks for whatever is still open."""
    write_parts(_letter(request, sender), to)


def _letter(request: SupportRequest, sender: Sender) -> Iterator[str]:
    lines = [line for line in enumerate(request.lines, 1) if line[1].state == "requested"]
    windows = [
        window for window in enumerate(request.loss_windows, 1) if window[1].state != "closed"
    ]
    yield f"# Missing webhooks: request {request.number} of {utc(request.made_at)}\n\nHello,\n\n"
    yield f"{_OPEN if lines or windows else _DONE}\n\n"
    yield _about(sender)
    if request.note:
        yield f"{quote(request.note)}\n"
    yield _settled(request)
    if any(_is_quoted(line) for _, line in lines):
        yield f"{_QUOTED}\n\n"
    for lab_id, of_lab in groupby(lines, key=lambda line: line[1].lab_id):
        yield f"## Lab {code(lab_id)} (labID)\n\n"
        yield from _lab(list(of_lab))
    if windows:
        yield f"## All events between two times\n\n{_WINDOWS}\n\n"
        yield from (_window(number, window) for number, window in windows)
        yield "\n"
    if lines or windows:
        yield f"{_ANSWER}\n"
    yield f"Thank you,\n\n{_signature(request, sender)}\n"


def _about(sender: Sender) -> str:
    """Return a list of what support needs to find the account and to answer."""
    facts = {
        "Account": prose(sender.organisation),
        "Webhook endpoint": code(sender.endpoint),
        "Contact": prose(sender.contact),
    }
    items = [f"- {name}: {value}\n" for name, value in facts.items() if value]
    return "".join([*items, "\n"]) if items else ""


def _signature(request: SupportRequest, sender: Sender) -> str:
    named = ", ".join(filter(None, [sender.name, sender.organisation])) or sender.contact
    return prose(named) if named else plain(request.made_by)


def _settled(request: SupportRequest) -> str:
    received = sum(line.state == "received" for line in request.lines)
    closed = sum(line.state == "closed" for line in request.lines)
    parts = []
    if received:
        parts.append(f"{count(received, 'has', 'have')} arrived since")
    if closed:
        parts.append(f"{count(closed, 'is', 'are')} no longer needed")
    if not parts:
        return ""
    return f"This request has {count(len(request.lines), 'line')}: {' and '.join(parts)}.\n\n"


def _is_quoted(line: RequestLine) -> bool:
    ids = (line.lab_id, line.bill_id, line.integrator_id, line.test_id)
    return any(text is not None and as_span(text) != text for text in ids)


def _lab(lines: list[Numbered]) -> Iterator[str]:
    certain = [line for line in lines if line[1].certainty == "certain"]
    possible = [line for line in lines if line[1].certainty == "possible"]
    if certain:
        yield f"{_CERTAIN}\n\n{_table(certain)}\n"
    if possible:
        yield f"{_POSSIBLE}\n\n{_table(possible)}\n"


def _table(lines: list[Numbered]) -> str:
    several = any(line.count != 1 for _, line in lines)
    columns = [
        "Line",
        *SUBJECT,
        *(["How many"] if several else []),
        "When it happened (eventTime)",
        "How we know",
    ]
    return aligned(
        columns,
        [
            [
                str(number),
                *subject(line),
                *([f"{line.count:,}"] if several else []),
                happened(line),
                _reason(line),
            ]
            for number, line in lines
        ],
    )


def _reason(line: RequestLine) -> str:
    known = how_known(line, code)
    return known if line.previous is None else f"{known}; asked before in request {line.previous}"


def _window(number: int, window: LossWindow) -> str:
    labs = ", ".join(map(code, window.labs)) or "all labs"
    between = f"{utc(window.begin)} and {utc(up_to(window.end))}"
    return f"- W{number}: all events of {labs} (labID) with eventTime between {between}\n"
