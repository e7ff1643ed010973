"""The reconciliation report in each of its formats."""

from __future__ import annotations

import csv
import io
import json
import tracemalloc
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from html import unescape
from typing import TYPE_CHECKING, BinaryIO, get_args

import msgspec
import pytest
from markdown_it import MarkdownIt
from msgspec.structs import replace
from openpyxl import load_workbook

from ledger.model.missing_events import Evidence
from ledger.operations.coverage import CoverageFinding
from ledger.operations.read_models import (
    LabSilence,
    LabTotals,
    LossWindow,
    MissingEventItem,
    NearLoss,
    Reconciliation,
    ReconciliationReport,
    SinceLastRun,
    UnseenBill,
)
from ledger.operations.render import MEDIA_TYPES, Format, Screen, write_report, xlsx
from ledger.operations.render.markup import as_span
from ledger.operations.render.words import has_news, shown

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from openpyxl import Workbook

AT = datetime(2024, 1, 20, 10, 50, tzinfo=UTC)
AS_OF = AT + timedelta(days=2, hours=4)
FORMATS: tuple[Format, ...] = get_args(Format)

HOSTILE = [
    "=cmd|' /C calc'!A0",
    "+1",
    "-1",
    "@SUM(1)",
    "\t=1",
    "\r=1",
    "\n=1",
    "a,b;c",
    'say "hi"',
    "a|b",
    "a\\|b",
    "two\r\nlines",
    "``` `",
    "`",
    "\\",
    "# head",
    "- item",
    "| a | b |",
    "<script>alert(1)</script>",
    "<!-- -->",
    "&lt;",
    "[a](http://b)",
    "https://example.com",
    "[red]a[/red]",
    ":smile:",
    "a\x1b[2Jb",
    "a\x07\x08b",
    "\ufffe\uffff",
    "_x0041_",
    "<r></is></c></r>",
    "rtl\u202etxt",
    "  padded  ",
    "😀" * 100,
    "x" * 200,
]
HEAD = {"as_of": "2024-01-22T14:50:00Z", "position": 1234}


def evidence(event_type: str = "bill.completed") -> Evidence:
    return Evidence(7, event_type, AT, AT + timedelta(seconds=1))


def item(
    lab_id: str = "lab_1",
    bill_id: str = "bill_1",
    event_type: str = "report.completed",
    test_id: str | None = None,
    *,
    integrator_id: str | None = "int_1",
    overdue_after: int = 401,
    request: int | None = None,
) -> MissingEventItem:
    return MissingEventItem(
        lab_id=lab_id,
        bill_id=bill_id,
        integrator_id=integrator_id,
        event_type=event_type,  # type: ignore[arg-type]  # no type of ours, too
        test_id=test_id,
        certainty="certain",
        count=1,
        state="overdue" if request is None else "requested",
        due_at=AT + timedelta(seconds=overdue_after),
        evidence=evidence(),
        request=request,
    )


ITEMS = [
    item(test_id="test_1"),
    item(bill_id="bill_2", event_type="bill.created", request=7),
    item(lab_id="lab_2", bill_id="bill_3", event_type="bill.completed", integrator_id=None),
]
WINDOW = LossWindow(AT, AT + timedelta(minutes=14, microseconds=1), ["lab_1", "lab_4"], "open")
REPORT = ReconciliationReport(
    as_of=AS_OF,
    position=1234,
    totals={"overdue": 2, "requested": 1, "awaiting_retry": 4, "waived": 5},
    labs=[
        LabTotals("lab_1", 1, 1, 1, AT),
        LabTotals("lab_3", 0, 3, 0, None),
        LabTotals("lab_2", 1, 0, 0, AT + timedelta(hours=1)),
    ],
    loss_windows=[WINDOW],
    unseen_bills=[UnseenBill("int_8", "lab_5", AT), UnseenBill("int_9", None, AT)],
    near_losses=[
        NearLoss("lab_1", date(2024, 1, 20), 100, [90, 5, 3, 2], 0, 0.02, -3),
        NearLoss("lab_2", date(2024, 1, 20), 100, [100, 0, 0, 0], 0, 0.0, None),
    ],
    silences=[
        LabSilence(
            "lab_7", "silent", AT, 28.0, with_others=False, odds="in 12 weeks never silent for 28 h"
        )
    ],
)
EMPTY = ReconciliationReport(AS_OF, 0, {}, [], [], [], [], [])


def render(
    form: Format,
    items: Iterable[MissingEventItem] = tuple(ITEMS),
    report: ReconciliationReport = REPORT,
    screen: Screen = Screen(100, colour=False),  # noqa: B008 -- it cannot change
) -> bytes:
    to = io.BytesIO()
    write_report(report, iter(items), form, to, screen=screen)
    return to.getvalue()


def hostile_items() -> list[MissingEventItem]:
    return [
        item("lab_1", bill_id=text, test_id=text, integrator_id=text, event_type=text)
        for text in HOSTILE
    ]


def rows_of(form_csv: bytes) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(form_csv.decode(), newline="")))


def book_of(form_xlsx: bytes) -> Workbook:
    return load_workbook(io.BytesIO(form_xlsx))


# --- all formats ------------------------------------------------------------------------------


def test_every_format_has_a_media_type() -> None:
    assert set(MEDIA_TYPES) == set(FORMATS)


@pytest.mark.parametrize("form", FORMATS)
def test_the_same_report_gives_the_same_bytes(form: Format) -> None:
    assert render(form) == render(form)


@pytest.mark.parametrize("form", FORMATS)
def test_a_report_of_nothing_can_be_written(form: Format) -> None:
    assert render(form, (), EMPTY)


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("lost", ["int_8", "int_9", "lab_4"])
def test_what_is_lost_without_a_missing_event_is_in_every_format(form: Format, lost: str) -> None:
    text = render(form).decode("utf-8", "replace")
    if form == "xlsx":
        sheets = book_of(render(form))
        text = str([[cell.value for cell in row] for sheet in sheets for row in sheet.rows])

    assert lost in text


class FailedError(Exception):
    """What the source of missing events raises in a test."""


@pytest.mark.parametrize("form", FORMATS)
def test_a_failing_source_fails_the_writing(form: Format) -> None:
    def failing() -> Iterator[MissingEventItem]:
        yield ITEMS[0]
        raise FailedError

    to = io.BytesIO()
    with pytest.raises(FailedError):
        write_report(REPORT, failing(), form, to)
    if form == "xlsx":
        assert not to.getvalue()  # half a workbook opens like a whole one


@dataclass
class Flow:
    """Makes missing events on demand, and notes how many had been made at each write."""

    number: int
    made: int = 0
    at_writes: list[int] = field(default_factory=list)

    def items(self) -> Iterator[MissingEventItem]:
        for number in range(self.number):
            self.made += 1
            yield item(bill_id=f"bill_{number}", test_id=f"test_{number}")

    def write(self, _: bytes) -> int:
        self.at_writes.append(self.made)
        return 0


@pytest.mark.parametrize("form", ["json", "csv", "markdown"])
def test_missing_events_are_written_as_they_come(form: Format) -> None:
    flow = Flow(100)

    write_report(REPORT, flow.items(), form, flow)  # type: ignore[arg-type]  # as much of a file as is used

    assert set(range(1, 101)) <= set(flow.at_writes)


class Nowhere(io.RawIOBase):
    """A file that holds nothing."""

    def writable(self) -> bool:
        return True

    def write(self, data: object) -> int:
        return len(bytes(data))  # type: ignore[call-overload]  # a buffer


@pytest.mark.slow
@pytest.mark.parametrize("form", get_args(Format))
def test_memory_does_not_grow_with_the_missing_events(form: Format) -> None:
    to: BinaryIO = Nowhere()  # type: ignore[assignment]  # it is one in all we use

    def peak(number: int) -> int:
        tracemalloc.start()
        try:
            write_report(REPORT, Flow(number).items(), form, to)
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    peak(10)  # so that nothing is imported under measure
    # Less than any object takes, for each further event.
    assert peak(4_000) < peak(1_000) + 3_000 * 20


# --- only what is new -------------------------------------------------------------------------

SINCE = SinceLastRun(AT, 5)


def news(form: Format, since: SinceLastRun | None, **totals: int) -> str:
    report = replace(EMPTY, as_of=AS_OF, totals=totals, labs=REPORT.labs if totals else [])
    to = io.BytesIO()
    write_report(report, iter(()), form, to, since=since)
    return to.getvalue().decode()


@pytest.mark.parametrize("form", ["text", "markdown"])
@pytest.mark.parametrize(
    ("since", "totals", "sentence"),
    [
        (
            SinceLastRun(AT, 2),
            {},
            (
                "Nothing new is overdue since 2024-01-20 10:50:00 UTC; "
                "2 events overdue in all were reported before."
            ),
        ),
        (
            SinceLastRun(AT, 1),
            {},
            (
                "Nothing new is overdue since 2024-01-20 10:50:00 UTC; "
                "1 event overdue in all was reported before."
            ),
        ),
        (
            SinceLastRun(AT, 0),
            {},
            ("Nothing new is overdue since 2024-01-20 10:50:00 UTC; no event is overdue at all."),
        ),
        (
            SINCE,
            {"overdue": 2},
            (
                "2 new events are overdue in 2 labs, the oldest for 2 days 4 hours; "
                "5 events are overdue in all."
            ),
        ),
        (None, {}, "No event is overdue."),
    ],
)
def test_a_report_on_what_is_new_tells_what_was_reported_before(
    form: Format, since: SinceLastRun | None, totals: dict[str, int], sentence: str
) -> None:
    text = news(form, since, **totals)

    assert sentence in text.splitlines()
    # Of what is not new it knows no totals, so it must not call them 0.
    assert ("Missing events" in text) is (since is None)


def test_a_report_has_news_if_anything_in_it_needs_a_person() -> None:
    near = replace(EMPTY, near_losses=REPORT.near_losses, totals={"overdue": 0})
    assert not has_news(near)
    assert has_news(replace(EMPTY, totals={"overdue": 1}))
    assert has_news(replace(EMPTY, loss_windows=[WINDOW]))
    assert has_news(replace(EMPTY, unseen_bills=REPORT.unseen_bills))


# --- what is only possible --------------------------------------------------------------------


@pytest.mark.parametrize("form", ["text", "markdown"])
@pytest.mark.parametrize(
    ("number", "sentence"),
    [
        (1, "1 possible event is overdue; it is asked for only with --include-possible."),
        (2, "2 possible events are overdue; they are asked for only with --include-possible."),
    ],
)
def test_overdue_events_that_are_only_possible_are_counted_apart(
    form: Format, number: int, sentence: str
) -> None:
    possible = [replace(ITEMS[0], certainty="possible")] * number
    requested = replace(ITEMS[1], certainty="possible")

    assert sentence in render(form, [*possible, requested, *ITEMS]).decode().splitlines()


@pytest.mark.parametrize("form", ["text", "markdown"])
def test_without_possible_events_the_option_is_not_mentioned(form: Format) -> None:
    requested = replace(ITEMS[1], certainty="possible")

    assert "--include-possible" not in render(form, [requested, *ITEMS]).decode()


# --- JSON -------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", ["text", "csv", "markdown", "json"])
def test_each_form_says_which_labs_are_not_registered_as_they_should_be(form: Format) -> None:
    coverage = [
        CoverageFinding("lab_6", "not_subscribed", []),
        CoverageFinding("lab_1", "events_not_subscribed", ["bill.deleted"]),
    ]
    written = render(form, report=replace(REPORT, coverage=coverage)).decode()
    plain = render(form).decode()
    for words in ("lab_6", "bill.deleted"):
        assert words in written
        assert words not in plain


def test_json_has_the_keys_of_the_contract_in_their_order() -> None:
    report = json.loads(render("json"))

    assert list(report) == [
        "as_of", "position", "totals", "labs", "missing_events", "loss_windows", "unseen_bills",
        "near_losses", "silences", "coverage",
    ]  # fmt: skip
    assert {key: report[key] for key in HEAD} == HEAD
    assert report["totals"] == {"overdue": 2, "requested": 1, "awaiting_retry": 4, "waived": 5}
    assert report["loss_windows"] == [
        {
            "from": "2024-01-20T10:50:00Z",
            "to": "2024-01-20T11:04:00.000001Z",
            "labs": ["lab_1", "lab_4"],
            "state": "open",
        }
    ]
    assert report["missing_events"][0]["due_at"] == "2024-01-20T10:56:41Z"


HOSTILE_IDS = [
    msgspec.structs.replace(each, event_type="report.completed") for each in hostile_items()
]


@pytest.mark.parametrize("items", [[], ITEMS[:1], ITEMS, HOSTILE_IDS])
def test_json_reads_back_to_what_was_written(items: list[MissingEventItem]) -> None:
    report = msgspec.json.decode(render("json", items), type=Reconciliation)

    assert report.missing_events == items
    assert report.labs == REPORT.labs
    assert report.near_losses == REPORT.near_losses
    assert report.silences == REPORT.silences


# --- CSV --------------------------------------------------------------------------------------


def test_csv_has_a_row_for_each_thing_that_is_lost() -> None:
    rows = rows_of(render("csv"))

    assert [(row["kind"], row["lab_id"], row["bill_id"], row["integrator_id"]) for row in rows] == [
        ("missing_event", "lab_1", "bill_1", "int_1"),
        ("missing_event", "lab_1", "bill_2", "int_1"),
        ("missing_event", "lab_2", "bill_3", ""),
        ("loss_window", "lab_1", "", ""),
        ("loss_window", "lab_4", "", ""),
        ("unseen_bill", "lab_5", "", "int_8"),
        ("unseen_bill", "", "", "int_9"),
    ]
    assert {key: value for key, value in rows[1].items() if value} == {
        "kind": "missing_event",
        "lab_id": "lab_1",
        "bill_id": "bill_2",
        "integrator_id": "int_1",
        "event_type": "bill.created",
        "certainty": "certain",
        "count": "1",
        "state": "requested",
        "due_at": "2024-01-20T10:56:41Z",
        "evidence_position": "7",
        "evidence_event_type": "bill.completed",
        "evidence_event_time": "2024-01-20T10:50:00Z",
        "evidence_received_at": "2024-01-20T10:50:01Z",
        "request": "7",
    }
    assert (rows[3]["from"], rows[3]["to"], rows[3]["state"]) == (
        "2024-01-20T10:50:00Z", "2024-01-20T11:04:00.000001Z", "open",
    )  # fmt: skip
    assert rows[5]["expected_by"] == "2024-01-20T10:50:00Z"


def test_csv_of_nothing_is_its_header() -> None:
    assert render("csv", (), EMPTY).decode() == (
        "kind,lab_id,bill_id,integrator_id,event_type,test_id,certainty,count,state,due_at,"
        "evidence_position,evidence_event_type,evidence_event_time,evidence_received_at,request,"
        "from,to,expected_by\r\n"
    )


def test_csv_cells_are_what_they_were_and_never_a_formula() -> None:
    rows = rows_of(render("csv", hostile_items()))[: len(HOSTILE)]

    for text, row in zip(HOSTILE, rows, strict=True):
        for column in ("bill_id", "test_id", "integrator_id", "event_type"):
            assert row[column].removeprefix("'") == text
            assert row[column].startswith("'") == text.startswith(tuple("=+-@\t\r\n"))


def test_a_loss_window_without_labs_is_a_row_of_csv() -> None:
    report = msgspec.structs.replace(EMPTY, loss_windows=[LossWindow(AT, AT, [], "open")])

    assert [row["kind"] for row in rows_of(render("csv", (), report))] == ["loss_window"]


# --- XLSX -------------------------------------------------------------------------------------


def test_xlsx_has_a_sheet_to_each_list() -> None:
    book = book_of(render("xlsx"))

    assert book.sheetnames == [
        "Missing events", "Labs", "Loss windows", "Unseen bills", "Near losses",
        "Silences", "Registration at Flabs", "About",
    ]  # fmt: skip
    for sheet in book:
        assert sheet.freeze_panes == "A2"
        assert sheet.auto_filter.ref == sheet.dimensions
    assert [cell.value for cell in book["Missing events"][3]] == [
        "lab_1", "bill_2", "int_1", "bill.created", None, "certain", 1, "requested",
        datetime(2024, 1, 20, 10, 56, 41),  # noqa: DTZ001 -- as spreadsheets know times
        7, "bill.completed",
        datetime(2024, 1, 20, 10, 50),  # noqa: DTZ001
        datetime(2024, 1, 20, 10, 50, 1),  # noqa: DTZ001
        7,
    ]  # fmt: skip
    assert all(
        "(UTC)" in str(column[0].value)
        for sheet in book
        if sheet.title != "About"
        for column in sheet.columns
        if any(isinstance(cell.value, date) for cell in column)
    )


def test_xlsx_says_when_it_is_true_and_totals_that_add_up() -> None:
    book = book_of(render("xlsx"))

    about = {row[0].value: row[1].value for row in book["About"].iter_rows(min_row=2)}
    assert about == {
        "As of (UTC)": AS_OF.replace(tzinfo=None),
        "Log position": 1234,
        "Missing events: overdue": 2,
        "Missing events: requested": 1,
        "Missing events: awaiting_retry": 4,
        "Missing events: waived": 5,
        "Missing events: all": 12,
    }


def test_xlsx_lists_what_lies_beside_missing_events() -> None:
    book = book_of(render("xlsx"))

    def cells(sheet: str) -> list[tuple[object, ...]]:
        return list(book[sheet].iter_rows(min_row=2, values_only=True))

    assert [row[0] for row in cells("Labs")] == ["lab_1", "lab_3", "lab_2"]
    assert [(row[0], row[3]) for row in cells("Loss windows")] == [
        ("lab_1", "open"),
        ("lab_4", "open"),
    ]
    assert [row[:2] for row in cells("Unseen bills")] == [("int_8", "lab_5"), ("int_9", None)]
    assert cells("Near losses")[0][2:] == (100, 90, 5, 3, 2, 0, 0.02, -3)


def test_xlsx_holds_hostile_ids_as_text() -> None:
    sheet = book_of(render("xlsx", hostile_items()))["Missing events"]

    for text, row in zip(HOSTILE, sheet.iter_rows(min_row=2), strict=True):
        for cell in (row[1], row[2], row[3], row[4]):
            # openpyxl leaves the escape of what looks like an escape; Excel reads it.
            value = str(cell.value).replace("_x005F_", "_")
            assert (json.loads(value) if value.startswith('"') else value) == text
            assert cell.data_type == "s"
            assert cell.hyperlink is None


def test_xlsx_goes_on_in_another_sheet(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(xlsx, "MAX_ROWS", 3)

    book = book_of(render("xlsx", [item(bill_id=f"bill_{number}") for number in range(5)]))

    assert book.sheetnames[:4] == [
        "Missing events",
        "Missing events 2",
        "Missing events 3",
        "Labs",
    ]
    found = [
        [cell.value for cell in sheet["B"]] for sheet in book if sheet.title.startswith("Missing")
    ]
    assert found == [["Bill", "bill_0", "bill_1"], ["Bill", "bill_2", "bill_3"], ["Bill", "bill_4"]]


@pytest.mark.parametrize("text", ["x" * 40_000, "😀" * 20_000, "\n" * 20_000])
def test_xlsx_cuts_what_no_cell_can_hold(text: str) -> None:
    cell = book_of(render("xlsx", [item(bill_id=text)]))["Missing events"]["B2"].value

    assert isinstance(cell, str)
    assert cell.endswith("…")
    assert 32_766 <= len(cell.encode("utf-16-le")) // 2 <= 32_767


# --- Markdown ---------------------------------------------------------------------------------


def section(markdown: str, title: str) -> str:
    found = [part for part in markdown.split("\n## ") if part.startswith(f"{title}\n")]
    assert len(found) == 1
    return found[0]


def test_markdown_begins_with_what_matters_and_totals_that_add_up() -> None:
    head, *_ = render("markdown").decode().split("\n## ")

    assert (
        head
        == """\
# Reconciliation: events that never arrived

2 events are overdue in 2 labs, the oldest for 2 days 4 hours; 1 is requested from support; \
1 loss window is open; 2 expected bills are unseen.

As of 2024-01-22 14:50:00 UTC, log position 1234. All times are UTC.

| State | Missing events |
|---|---|
| overdue: will not come by itself | 2 |
| requested from support | 1 |
| awaiting retry: may still come by itself | 4 |
| waived by an operator | 5 |
| all | 12 |

| Lab (labID) | Overdue | Requested | Awaiting retry | Oldest due |
|---|---|---|---|---|
| `lab_1` | 1 | 1 | 1 | 2024-01-20 10:50:00 |
| `lab_3` | 0 | 0 | 3 |  |
| `lab_2` | 1 | 0 | 0 | 2024-01-20 11:50:00 |
"""
    )


def test_markdown_has_a_section_to_each_lab_that_stands_alone() -> None:
    markdown = render("markdown").decode()

    titles = [line for line in markdown.splitlines() if line.startswith("## ")]
    assert titles == [
        "## Lab `lab_1` (labID)",
        "## Lab `lab_3` (labID)",
        "## Lab `lab_2` (labID)",
        "## Lab `lab_4` (labID)",
        "## Lab `lab_5` (labID)",
        "## Lab `lab_7` (labID)",
        "## Lab not known",
    ]
    assert (
        section(markdown, "Lab `lab_1` (labID)")
        == """\
Lab `lab_1` (labID)

As of 2024-01-22 14:50:00 UTC, log position 1234: 1 missing event is overdue, 1 requested from \
support, 1 awaiting retry. The oldest has been overdue for 2 days 4 hours.

Events that must have been sent (certain) or may have been sent (possible) but did not reach us; \
names in brackets are the fields of the webhooks, times are UTC:

| Bill (billID) | Integrator (integratorID) | Event (eventType) | Test (testData _id) | Certainty \
| How many | State | Due | Happened | How we know |
|---|---|---|---|---|---|---|---|---|---|
| `bill_1` | `int_1` | `report.completed` | `test_1` | certain | 1 | overdue \
| 2024-01-20 10:56:41 | at or before 2024-01-20 10:50:00 UTC \
| a `bill.completed` with that eventTime lists this test as completed |
| `bill_2` | `int_1` | `bill.created` | the whole bill | certain | 1 | requested (request 7) \
| 2024-01-20 10:56:41 | at or before 2024-01-20 10:50:00 UTC \
| a `bill.completed` of this bill with that eventTime reached us |

Loss windows, in which our endpoint could not receive anything; no event of this lab with \
an eventTime in them reached us:

| From (UTC) | To (UTC) | State |
|---|---|---|
| 2024-01-20 10:50:00 | 2024-01-20 11:04:01 | open |

Near losses, events that did not reach us on the first attempt:

| Day | Deliveries | By attempt | Not clear | On the last attempt | Our clock is ahead by |
|---|---|---|---|---|---|
| 2024-01-20 | 100 | 90 / 5 / 3 / 2 | 0 | 2.0% | -3 s |
"""
    )
    assert "2024-01-20 11:04:01" in section(markdown, "Lab `lab_4` (labID)")
    assert "`int_8`" in section(markdown, "Lab `lab_5` (labID)")
    assert "`int_9`" in section(markdown, "Lab not known")
    assert "Near losses" not in section(markdown, "Lab `lab_2` (labID)")


def test_markdown_has_a_section_to_each_lab_that_only_awaits_retries() -> None:
    markdown = render("markdown", ITEMS[:2]).decode()

    assert "3 awaiting retry" in section(markdown, "Lab `lab_3` (labID)")
    assert "1 missing event is overdue" in section(markdown, "Lab `lab_2` (labID)")


def test_markdown_shows_hostile_ids_the_same_before_and_after_rendering() -> None:
    report = msgspec.structs.replace(
        EMPTY,
        labs=[LabTotals(text, 1, 0, 0, AT) for text in HOSTILE],
        loss_windows=[LossWindow(AT, AT, HOSTILE, "open")],
        unseen_bills=[UnseenBill(text, text, AT) for text in HOSTILE],
    )
    items = [
        item(text, bill_id=text, test_id=text, integrator_id=text, event_type=text)
        for text in HOSTILE
    ]

    markdown = render("markdown", items, report).decode()

    html = MarkdownIt("commonmark").enable("table").render(markdown)
    tags = {part.split(">")[0].split()[0].strip("/") for part in html.split("<")[1:]}
    assert tags == {"h1", "h2", "p", "code", "table", "thead", "tbody", "tr", "th", "td"}
    spans = [unescape(part.partition("</code>")[0]) for part in html.split("<code>")[1:]]
    for text in HOSTILE:
        assert as_span(text) in markdown
        # Of the head, the section, its table, and its table of unseen bills.
        assert spans.count(as_span(text)) == 1 + 1 + 4 + 1
    lost = [line for line in markdown.splitlines() if "overdue |" in line]
    assert len(lost) == len(HOSTILE)


# --- text -------------------------------------------------------------------------------------


def test_text_says_the_most_important_thing_first() -> None:
    first, second, third, *_ = render("text").decode().splitlines()

    assert first == (
        "2 events are overdue in 2 labs, the oldest for 2 days 4 hours; "
        "1 is requested from support; 1 loss window is open; 2 expected bills are unseen."
    )
    assert second == "As of 2024-01-22 14:50:00 UTC, log position 1234."
    assert third == (
        "Missing events: 2 overdue, 1 requested from support, 4 awaiting retry, "
        "5 waived by an operator; 12 in all."
    )


def test_text_of_nothing_is_a_plain_sentence() -> None:
    assert render("text", (), EMPTY).decode().splitlines()[0] == "No event is overdue."


def test_text_of_one_thing_is_in_the_singular() -> None:
    report = msgspec.structs.replace(
        EMPTY, totals={"overdue": 1}, labs=[LabTotals("lab_1", 1, 0, 0, AT)]
    )

    assert render("text", (), report).decode().splitlines()[0] == (
        "1 event is overdue in 1 lab, the oldest for 2 days 4 hours."
    )


def test_text_shows_labs_overdue_events_windows_and_unseen_bills() -> None:
    lines = [line.split() for line in render("text").decode().splitlines()]

    assert ["lab_1", "1", "1", "1", "2", "days", "4", "hours"] in lines
    assert ["lab_1", "bill_1", "report.completed", "certain", "2024-01-20", "10:56:41"] in lines
    assert ["test_1"] in lines
    assert not any("bill_2" in line for line in lines)  # it is requested
    window = ["2024-01-20", "10:50:00", "2024-01-20", "11:04:01", "lab_1,", "lab_4", "open"]
    assert window in lines
    assert ["int_8", "lab_5", "2024-01-20", "10:50:00"] in lines
    assert ["lab_1", "2024-01-20", "100", "2.0%"] in lines


def test_text_shows_the_oldest_overdue_of_many_and_counts_the_rest() -> None:
    items = [
        item("lab_2", bill_id=f"bill_{number}", overdue_after=2_000 - number)
        for number in range(1_000)
    ]

    text = render("text", items).decode()

    shown_bills = [word for word in text.split() if word.startswith("bill_")]
    assert shown_bills == [f"bill_{number}" for number in range(999, 949, -1)]
    assert "and 950 more: --format csv" in text


def test_text_has_colours_only_where_they_are_wanted() -> None:
    assert b"\x1b" not in render("text", hostile_items())
    assert b"\x1b[" in render("text", screen=Screen(100, colour=True))


@pytest.mark.parametrize("name", ["NO_COLOR", "FORCE_COLOR", "COLUMNS", "TERM"])
def test_text_does_not_depend_on_the_environment(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = [render("text", screen=Screen(100, colour=colour)) for colour in (False, True)]
    monkeypatch.setenv(name, "40")

    assert [render("text", screen=Screen(100, colour=c)) for c in (False, True)] == expected


@pytest.mark.parametrize("width", [80, 100, 250])
def test_text_fits_the_screen_and_shows_all_of_an_id(width: int) -> None:
    long = [item(bill_id="b" * 200, test_id="t" * 200)]

    text = render("text", long, screen=Screen(width, colour=False)).decode()

    tables = text.partition("\nOverdue")[2].splitlines()
    assert max(map(len, tables)) <= width
    assert text.count("t") >= 200
    assert "".join(text.split()).count("b") >= 200


def test_text_shows_hostile_ids_as_text() -> None:
    text = render("text", hostile_items()[:50], screen=Screen(1_000, colour=False)).decode()

    for hostile in HOSTILE:
        assert shown(hostile) in text
