"""A support request in each of its formats; its Markdown is the letter."""

from __future__ import annotations

import csv
import io
import json
from datetime import UTC, datetime, timedelta
from html import unescape
from typing import get_args

import msgspec
import pytest
from markdown_it import MarkdownIt
from msgspec.structs import replace
from openpyxl import load_workbook

from ledger.errors import SettingsError
from ledger.model.missing_events import Certainty, Evidence
from ledger.operations.read_models import LossWindow, RequestLine, SupportRequest
from ledger.operations.render import Format, Screen, Sender, write_request
from ledger.operations.render.markup import as_span
from ledger.operations.render.words import shown
from ledger.settings import Settings

AT = datetime(2024, 1, 20, 10, 50, tzinfo=UTC)
FORMATS: tuple[Format, ...] = get_args(Format)
HOSTILE = ["=1+1", "a|b", "`a`", "<b>a</b>", "a\nb", "# a", "a\x1b[2J", "| x |", "\\", "<r></r>"]


def line(
    lab_id: str,
    bill_id: str,
    event_type: str,
    test_id: str | None = None,
    *,
    integrator_id: str | None = "booking-81",
    certainty: Certainty = "certain",
    count: int = 1,
    proof: str = "bill.completed",
    seconds: int = 0,
) -> RequestLine:
    at = AT + timedelta(seconds=seconds)
    return RequestLine(
        lab_id=lab_id,
        bill_id=bill_id,
        integrator_id=integrator_id,
        event_type=event_type,  # type: ignore[arg-type]  # no type of ours, too
        test_id=test_id,
        certainty=certainty,
        count=count,
        evidence=Evidence(7, proof, at, at + timedelta(seconds=1)),
        previous=None,
        state="requested",
        received_position=None,
        reason=None,
    )


LINES = [
    line("lab_1", "bill_1", "report.completed", "test_1"),
    line("lab_1", "bill_2", "bill.created", proof="report.completed", seconds=3_600),
    line(
        "lab_1",
        "bill_3",
        "report.completed",
        integrator_id=None,
        certainty="possible",
        count=2,
        proof="report.completed",
    ),
    line("lab_2", "bill_4", "bill.completed", proof="report.completed", seconds=60),
    line("lab_2", "bill_5", "bill.completed", certainty="possible", proof="report.completed"),
]
WINDOW = LossWindow(
    AT - timedelta(hours=1, microseconds=5),
    AT - timedelta(minutes=46, microseconds=5),
    ["lab_1", "lab_3"],
    "requested",
)
REQUEST = SupportRequest(
    number=7,
    state="open",
    made_at=datetime(2024, 1, 21, 3, 0, tzinfo=UTC),
    made_by="ops@labs.example",
    made_by_key=None,
    lab_id=None,
    note="Asha will phone them",
    lines=LINES,
    loss_windows=[WINDOW],
    closed_reason=None,
)

LETTER = """\
# Missing webhooks: request 7 of 2024-01-21 03:00:00 UTC

Hello,

Webhooks that your system should have sent to our endpoint did not reach us, not even when they were retried. Please send us the events listed below, and quote the number of this request in your answer. Names in brackets are the fields of your webhooks.

> Asha will phone them

## Lab `lab_1` (labID)

These events must have happened, because other events of the same bills show it.

| Line | Bill (billID) | Integrator (integratorID) | Event (eventType)  | Test (testData _id) | When it happened (eventTime)         | How we know                              |
| ---- | ------------- | ------------------------- | ------------------ | ------------------- | ------------------------------------ | ---------------------------------------- |
| 1    | `bill_1`      | `booking-81`              | `report.completed` | `test_1`            | at or before 2024-01-20 10:50:00 UTC | a `bill.completed` with that eventTime lists this test as completed |
| 2    | `bill_2`      | `booking-81`              | `bill.created`     | the whole bill      | at or before 2024-01-20 11:50:00 UTC | a `report.completed` of this bill with that eventTime reached us |

These events may not have happened, or may not have been sent; what we received does not show which. Please check, and send us those that exist.

| Line | Bill (billID) | Integrator (integratorID) | Event (eventType)  | Test (testData _id) | How many | When it happened (eventTime)             | How we know                              |
| ---- | ------------- | ------------------------- | ------------------ | ------------------- | -------- | ---------------------------------------- | ---------------------------------------- |
| 3    | `bill_3`      | not known                 | `report.completed` | not known           | 2        | no later than about 2024-01-20 10:50:00 UTC | fewer `report.completed` events of this bill reached us, the last with that eventTime, than they list tests as completed |

## Lab `lab_2` (labID)

These events must have happened, because other events of the same bills show it.

| Line | Bill (billID) | Integrator (integratorID) | Event (eventType) | Test (testData _id) | When it happened (eventTime)  | How we know                              |
| ---- | ------------- | ------------------------- | ----------------- | ------------------- | ----------------------------- | ---------------------------------------- |
| 4    | `bill_4`      | `booking-81`              | `bill.completed`  | the whole bill      | about 2024-01-20 10:51:00 UTC | a `report.completed` with that eventTime says that the bill is completed |

These events may not have happened, or may not have been sent; what we received does not show which. Please check, and send us those that exist.

| Line | Bill (billID) | Integrator (integratorID) | Event (eventType) | Test (testData _id) | When it happened (eventTime)  | How we know                              |
| ---- | ------------- | ------------------------- | ----------------- | ------------------- | ----------------------------- | ---------------------------------------- |
| 5    | `bill_5`      | `booking-81`              | `bill.completed`  | the whole bill      | about 2024-01-20 10:50:00 UTC | all tests of this bill are completed; the last `report.completed` that reached us has that eventTime |

## All events between two times

Our endpoint could not receive webhooks at these times, so we cannot know which events we missed. Please send us all of them, whatever their eventType.

- W1: all events of `lab_1`, `lab_3` (labID) with eventTime between 2024-01-20 09:49:59 UTC and 2024-01-20 10:04:00 UTC

## How to answer

- The best answer is a file with the original JSON payload of each webhook, unchanged, one object per line or all in one array. Above all, please keep the original `eventTime`.
- Or send the webhooks again to the same endpoint.
- If an event never took place or cannot be found, please say so, with its line number.

Thank you,

ops@labs.example
"""  # noqa: E501 -- the letter as it is sent


SENDER = Sender(
    "Asha Rao", "Example Diagnostics", "ops@labs.example", "https://ledger.example/webhooks/flabs"
)


def render(
    form: Format,
    request: SupportRequest = REQUEST,
    screen: Screen = Screen(100, colour=False),  # noqa: B008 -- it cannot change
    sender: Sender = Sender(),  # noqa: B008 -- it cannot change
) -> bytes:
    to = io.BytesIO()
    write_request(request, form, to, sender=sender, screen=screen)
    return to.getvalue()


def letter(*lines: RequestLine, windows: tuple[LossWindow, ...] = ()) -> str:
    return render(
        "markdown", replace(REQUEST, lines=list(lines), loss_windows=list(windows))
    ).decode()


def received(of: RequestLine) -> RequestLine:
    return replace(of, state="received", received_position=99)


def closed(of: RequestLine) -> RequestLine:
    return replace(of, state="closed", reason="the lab never did that test")


# --- the letter -------------------------------------------------------------------------------


def test_the_letter() -> None:
    assert render("markdown").decode() == LETTER


def test_the_letter_holds_no_reason_for_closing() -> None:
    request = replace(REQUEST, lines=[closed(LINES[0]), *LINES[1:]], closed_reason="enough")

    text = render("markdown", request).decode()

    assert not any(words in text for words in ("never did", "enough"))


def test_the_letter_does_not_ask_again_for_what_has_come_or_was_closed() -> None:
    text = letter(received(LINES[0]), LINES[1], closed(LINES[2]), received(LINES[3]))

    assert "This request has 4 lines: 2 have arrived since and 1 is no longer needed." in (
        text.splitlines()
    )
    assert "bill_1" not in text
    assert "bill_3" not in text
    assert "lab_2" not in text
    assert "| 2    | `bill_2`" in text  # its number is what it was


@pytest.mark.parametrize(
    ("lines", "sentence"),
    [
        ([received(LINES[0])], "This request has 1 line: 1 has arrived since."),
        (
            [closed(LINES[0]), closed(LINES[1])],
            "This request has 2 lines: 2 are no longer needed.",
        ),
    ],
)
def test_the_letter_of_a_settled_request_asks_for_nothing(
    lines: list[RequestLine], sentence: str
) -> None:
    text = letter(*lines, windows=(replace(WINDOW, state="closed"),))

    assert (
        text
        == f"""\
# Missing webhooks: request 7 of 2024-01-21 03:00:00 UTC

Hello,

This was a request for webhooks that your system should have sent to our endpoint. It is settled: \
there is nothing left to do.

> Asha will phone them

{sentence}

Thank you,

ops@labs.example
"""
    )


def test_the_letter_says_who_asks_for_which_account_and_endpoint() -> None:
    text = render("markdown", sender=SENDER).decode()

    assert (
        """\
- Account: Example Diagnostics
- Webhook endpoint: `https://ledger.example/webhooks/flabs`
- Contact: ops@labs.example
"""
        in text
    )
    assert text.endswith("Thank you,\n\nAsha Rao, Example Diagnostics\n")


@pytest.mark.parametrize(
    ("sender", "signature"),
    [
        (Sender(), "root@vm"),
        (Sender(endpoint="https://ledger.example/webhooks/flabs"), "root@vm"),
        (Sender(name="Asha Rao"), "Asha Rao"),
        (Sender(organisation="Example Diagnostics"), "Example Diagnostics"),
        (Sender(contact="+91 22 5555 0100"), "+91 22 5555 0100"),
        (Sender(organisation="R&D *Labs* <b>"), "`R&D *Labs* <b>`"),
    ],
)
def test_the_operator_signs_only_if_no_sender_is_set(sender: Sender, signature: str) -> None:
    request = replace(REQUEST, made_by="root@vm")

    text = render("markdown", request, sender=sender).decode()

    assert text.endswith(f"Thank you,\n\n{signature}\n")


def test_the_sender_s_endpoint_is_that_of_the_public_url() -> None:
    settings = Settings.from_environment(
        {
            "LEDGER_SENDER_NAME": " Asha Rao ",
            "LEDGER_SENDER_ORGANISATION": "Example Diagnostics",
            "LEDGER_SENDER_CONTACT": "ops@labs.example",
            "LEDGER_PUBLIC_URL": "https://ledger.example/",
        }
    )

    assert Sender.of(settings) == SENDER
    assert Sender.of(Settings()) == Sender()


@pytest.mark.parametrize(
    "url",
    [
        "ledger.example",
        "ftp://ledger.example",
        "https://",
        "https://ledger.example/webhooks/flabs",
        "https://ledger.example/webhooks/flabs/SECRET",
        "https://user:SECRET@ledger.example",
        "https://ledger.example/?token=SECRET",
        "https://ledger.example:0",
        "https://ledger.example:port",
        "https://ledger example",
    ],
)
def test_a_public_url_that_is_not_the_server_s_address_is_refused_and_not_shown(url: str) -> None:
    with pytest.raises(SettingsError, match="LEDGER_PUBLIC_URL must be the address") as raised:
        Settings.from_environment({"LEDGER_PUBLIC_URL": url})
    assert "SECRET" not in str(raised.value)


@pytest.mark.parametrize("name", ["NAME", "ORGANISATION", "CONTACT"])
@pytest.mark.parametrize("text", ["two\nlines", "x" * 201, "\u202eabc"])
def test_a_sender_s_setting_that_is_no_line_is_refused(name: str, text: str) -> None:
    with pytest.raises(SettingsError, match=f"LEDGER_SENDER_{name} must be one line"):
        Settings.from_environment({f"LEDGER_SENDER_{name}": text})


def test_the_letter_holds_the_note_and_keeps_its_paragraphs() -> None:
    request = replace(REQUEST, note="Urgent: call me.\n\n# Thanks\n1. Asha")

    text = render("markdown", request).decode()

    assert "\n\n> Urgent: call me.\n>\n> `# Thanks`\n> `1. Asha`\n\n" in text


def test_a_request_without_a_note_has_none_in_its_letter() -> None:
    assert ">" not in render("markdown", replace(REQUEST, note=None)).decode()


def test_the_letter_can_ask_for_windows_alone() -> None:
    text = letter(windows=(replace(WINDOW, state="closed"), replace(WINDOW, labs=["lab_9"])))

    assert "W1" not in text
    assert "- W2: all events of `lab_9` (labID)" in text
    assert "## Lab" not in text
    assert "How to answer" in text


def test_the_letter_says_what_was_asked_before() -> None:
    text = letter(replace(LINES[0], previous=3), LINES[1])

    rows = [row for row in text.splitlines() if row.startswith(("| 1 ", "| 2 "))]
    assert [row.endswith("; asked before in request 3 |") for row in rows] == [True, False]


@pytest.mark.parametrize(
    ("missing", "when", "how"),
    [
        (
            line("L", "B", "bill.created", proof="bill.completed"),
            "at or before 2024-01-20 10:50:00 UTC",
            "a `bill.completed` of this bill with that eventTime reached us",
        ),
        (
            line("L", "B", "bill.completed", proof="bill.created"),
            "about 2024-01-20 10:50:00 UTC",
            "a `bill.created` with that eventTime says that the bill is completed",
        ),
    ],
)
def test_the_letter_says_when_it_happened_as_the_evidence_tells(
    missing: RequestLine, when: str, how: str
) -> None:
    assert f"{when} | {how}" in letter(missing)


def test_the_letter_shows_hostile_ids_the_same_before_and_after_rendering() -> None:
    lines = [line(text, text, text, text, integrator_id=text) for text in HOSTILE]
    windows = tuple(LossWindow(AT, AT, [text], "open") for text in HOSTILE)

    text = letter(*lines, windows=windows)

    html = MarkdownIt("commonmark").enable("table").render(text)
    tags = {part.split(">")[0].strip("/") for part in html.split("<")[1:]}
    assert tags == {
        "h1", "h2", "p", "code", "table", "thead", "tbody", "tr", "th", "td", "ul", "li",
        "blockquote",
    }  # fmt: skip
    spans = [unescape(part.partition("</code>")[0]) for part in html.split("<code>")[1:]]
    for hostile in HOSTILE:
        assert as_span(hostile) in text
        assert spans.count(as_span(hostile)) == 1 + 4 + 1  # the section, the table, the window


def test_the_letter_explains_quoted_ids_only_where_there_are_some() -> None:
    explanation = "An id in double quotes contains unusual characters"

    assert explanation in letter(line("lab_1", "a\nb", "bill.created"))
    assert explanation not in letter(line("lab_1", "a b", "bill.created"))


# --- the other formats ------------------------------------------------------------------------


def test_json_reads_back_to_what_was_written() -> None:
    written = render("json")

    assert msgspec.json.decode(written, type=SupportRequest) == REQUEST
    request = json.loads(written)
    assert request["made_at"] == "2024-01-21T03:00:00Z"
    assert list(request["loss_windows"][0]) == ["from", "to", "labs", "state"]


def test_csv_has_a_row_to_each_line_and_to_each_lab_of_a_window() -> None:
    lines = [received(LINES[0]), replace(closed(LINES[1]), previous=3)]

    rows = list(
        csv.DictReader(
            io.StringIO(render("csv", replace(REQUEST, lines=lines)).decode(), newline="")
        )
    )

    assert [(row["kind"], row["request"], row["line"], row["lab_id"]) for row in rows] == [
        ("missing_event", "7", "1", "lab_1"),
        ("missing_event", "7", "2", "lab_1"),
        ("loss_window", "7", "", "lab_1"),
        ("loss_window", "7", "", "lab_3"),
    ]
    assert [row["state"] for row in rows] == ["received", "closed", "requested", "requested"]
    assert {row["made_at"] for row in rows} == {"2024-01-21T03:00:00Z"}
    assert rows[0]["received_position"] == "99"
    assert rows[1]["reason"] == "the lab never did that test"
    assert rows[1]["previous"] == "3"
    assert rows[2]["from"] == "2024-01-20T09:49:59.999995Z"


def test_csv_cells_are_never_a_formula() -> None:
    lines = [replace(closed(LINES[0]), reason="=1+1")]

    assert b",'=1+1," in render("csv", replace(REQUEST, lines=lines))


def test_xlsx_holds_lines_windows_and_what_the_request_is() -> None:
    lines = [received(line("lab_1", text, "bill.created")) for text in HOSTILE]

    book = load_workbook(io.BytesIO(render("xlsx", replace(REQUEST, lines=lines))))

    assert book.sheetnames == ["Missing events", "Loss windows", "About"]
    sheet = book["Missing events"]
    header = [cell.value for cell in sheet[1]]
    first = dict(zip(header, [cell.value for cell in sheet[2]], strict=True))
    assert (first["Line"], first["State"], first["Received: position"]) == (1, "received", 99)
    assert [cell.value for cell in sheet["C"]][1:4] == ["=1+1", "a|b", "`a`"]
    about = {row[0].value: row[1].value for row in book["About"].iter_rows(min_row=2)}
    assert about["Request"] == 7
    assert about["Made by"] == "ops@labs.example"
    assert about["Note"] == "Asha will phone them"


def test_text_says_first_what_is_still_to_come() -> None:
    request = replace(
        REQUEST, lines=[received(LINES[0]), closed(LINES[1]), replace(LINES[2], previous=3)]
    )

    text = render("text", request).decode()

    assert text.splitlines()[:3] == [
        (
            "Request 7 is open: 1 of 3 lines still open, 1 received, 1 closed, "
            "1 loss window not answered."
        ),
        "Made 2024-01-21 03:00:00 UTC by ops@labs.example.",
        "Note: Asha will phone them",
    ]
    words = " ".join(text.split())
    assert "closed: the" in words
    assert "2024-01-20 09:49:59 2024-01-20 10:04:00 lab_1, lab_3 requested" in words


def test_text_shows_lines_still_to_come_before_others_and_counts_the_rest() -> None:
    lines = [*[received(LINES[0])] * 60, LINES[1]]

    text = render("text", replace(REQUEST, lines=lines)).decode()

    first, second, *_ = [row.split() for row in text.splitlines() if " lab_1 " in row]
    assert first[:3] == ["61", "lab_1", "bill_2"]
    assert second[:3] == ["1", "lab_1", "bill_1"]
    assert "and 11 more: --format csv" in text


@pytest.mark.parametrize("width", [80, 100, 250])
def test_text_loses_nothing_on_a_narrow_screen(width: int) -> None:
    lines = [
        replace(received(line("l" * 24, "b" * 24, "report.completed", "t" * 24)), previous=3),
        replace(LINES[0], previous=12345),
    ]

    text = render("text", replace(REQUEST, lines=lines), Screen(width, colour=False)).decode()

    letters = "".join(text.partition("\nLines\n")[2].split())
    for letter_of_id in "lbt":
        assert letters.count(letter_of_id) >= 24
    assert "99" in letters
    assert "12345" in letters


def test_text_shows_hostile_ids_as_text() -> None:
    lines = [line(text, text, text, text) for text in HOSTILE]

    text = render("text", replace(REQUEST, lines=lines), Screen(1_000, colour=False)).decode()

    assert "\x1b" not in text
    for hostile in HOSTILE:
        assert shown(hostile) in text


@pytest.mark.parametrize("form", FORMATS)
def test_a_request_without_lines_can_be_written(form: Format) -> None:
    assert render(form, replace(REQUEST, lines=[], loss_windows=[], note=None, lab_id="lab_1"))
