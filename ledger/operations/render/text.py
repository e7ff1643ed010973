"""The text formats, for a terminal: the most important finding first, the rest in tables."""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from heapq import nsmallest
from io import StringIO
from itertools import islice
from operator import attrgetter
from typing import BinaryIO, NamedTuple

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from ledger.model.missing_events import Certainty
from ledger.model.request_lines import LineState
from ledger.operations.read_models import (
    LossWindow,
    MissingEventItem,
    MissingEvents,
    NearLoss,
    ReconciliationReport,
    RequestLine,
    SinceLastRun,
    SupportRequest,
)
from ledger.operations.render.words import (
    STATES,
    Missing,
    clock,
    count,
    happened,
    headline,
    lasting,
    made_by,
    only_possible,
    registration,
    shown,
    up_to,
    utc,
)

MOST_ROWS = 50
"""The most rows a table shows; the other formats hold all."""


class Screen(NamedTuple):
    """What text is laid out for: the characters that fit on a line, and whether to use colours."""

    width: int
    colour: bool


NARROWEST = 80
"""The narrowest layout. A narrower screen wraps the lines, because cells of a word or two per line
would be unreadable."""


def write_report_text(
    report: ReconciliationReport,
    missing_events: MissingEvents,
    to: BinaryIO,
    *,
    since: SinceLastRun | None,
    screen: Screen,
) -> None:
    """Write a report with the missing events that are overdue for longest."""
    certainties: Counter[Certainty] = Counter()
    overdue = (item for item in missing_events if item.state == "overdue")
    oldest = nsmallest(MOST_ROWS, _counted(overdue, certainties), key=attrgetter("due_at"))
    page = _Page(screen)
    page.say(headline(report, since), style="bold red" if report.totals.get("overdue") else "bold")
    if certainties["possible"]:
        page.say(only_possible(certainties["possible"]))
    page.say(f"As of {utc(report.as_of)}, log position {report.position}.")
    if not since:  # which leaves the totals of what is not new unknown
        page.say(f"Missing events: {_totals(report)}.")
    page.table(
        "Labs",
        ("Lab", "Overdue", "Requested", "Awaiting retry", "Oldest overdue for"),
        [
            (
                shown(lab.lab_id),
                f"{lab.overdue:,}",
                f"{lab.requested:,}",
                f"{lab.awaiting_retry:,}",
                lasting(report.as_of - lab.oldest_due_at) if lab.oldest_due_at else "",
            )
            for lab in islice(report.labs, MOST_ROWS)
        ],
        of=len(report.labs),
    )
    page.table(
        "Overdue, the oldest first",
        ("Lab", "Bill", "Event, test", "Certainty", "Overdue since (UTC)"),
        [(*_names(item), item.certainty, clock(item.due_at)) for item in oldest],
        of=certainties.total(),
    )
    _loss_windows(page, [window for window in report.loss_windows if window.state != "closed"])
    page.table(
        "Unseen bills: expected, but no event has arrived",
        ("Integrator", "Lab", "Expected by (UTC)"),
        [
            (shown(bill.integrator_id), shown(bill.lab_id or ""), clock(bill.expected_by))
            for bill in islice(report.unseen_bills, MOST_ROWS)
        ],
        of=len(report.unseen_bills),
    )
    _near_losses(page, report.near_losses)
    page.table(
        "Labs that are not heard of as usual",
        ("Lab", "State", "Last heard of (UTC)", "Odds"),
        [
            (shown(lab.lab_id), lab.state, clock(lab.last_heard_at), lab.odds)
            for lab in islice(report.silences, MOST_ROWS)
        ],
        of=len(report.silences),
    )
    coverage = report.coverage or []
    page.table(
        "Registration at Flabs that is not as it should be: `ledger flabs coverage`",
        ("Lab", "What is wrong"),
        [
            (shown(found.lab_id), shown(registration(found)))
            for found in islice(coverage, MOST_ROWS)
        ],
        of=len(coverage),
    )
    to.write(page.text().encode())


def write_request_text(request: SupportRequest, to: BinaryIO, screen: Screen) -> None:
    """Write a support request, with the lines that are still open first."""
    page = _Page(screen)
    page.say(_standing(request), style="bold")
    page.say(f"Made {utc(request.made_at)} by {shown(made_by(request))}.")
    if request.lab_id is not None:
        page.say(f"Only for lab {shown(request.lab_id)}.")
    if request.note:
        page.say(f"Note: {shown(request.note)}")
    if request.closed_reason:
        page.say(f"Closed: {shown(request.closed_reason)}")
    lines = sorted(enumerate(request.lines, 1), key=lambda line: line[1].state != "requested")
    page.table(
        "Lines",
        ("Line", "Lab", "Bill", "Event, test", "Certainty", "Happened (UTC)", "State"),
        [
            (str(number), *_names(line), line.certainty, _happened(line), _state(line))
            for number, line in lines[:MOST_ROWS]
        ],
        of=len(request.lines),
    )
    _loss_windows(page, request.loss_windows)
    to.write(page.text().encode())


class _Page:
    """A text that is written from the top; whatever it shows is plain text, never markup."""

    def __init__(self, screen: Screen) -> None:
        self._written = StringIO()
        # Everything that rich would otherwise detect in its environment is given.
        self._console = Console(
            file=self._written,
            width=max(screen.width, NARROWEST),
            height=25,
            color_system="standard" if screen.colour else None,
            no_color=False,  # the caller has decided on colours already
            legacy_windows=False,
            markup=False,
            emoji=False,
            highlight=False,
        )

    def say(self, sentence: str, style: str = "") -> None:
        self._console.print(Text(sentence, style), soft_wrap=True)

    def table(
        self, title: str, columns: Sequence[str], rows: Sequence[Sequence[str]], *, of: int
    ) -> None:
        """Show a table if it has rows, and the number of rows that it leaves out."""
        if not rows:
            return
        table = Table(box=SIMPLE_HEAD, header_style="bold", pad_edge=False)
        for column in columns:
            table.add_column(Text(column), overflow="fold")
        for cells in rows:
            table.add_row(*map(Text, cells))
        self._console.print()
        self.say(title, style="bold")
        self._console.print(table)
        if of > len(rows):
            self.say(f"and {of - len(rows):,} more: --format csv")

    def text(self) -> str:
        lines = self._written.getvalue().splitlines()
        return "".join(f"{line.rstrip()}\n" for line in lines)


def _counted(items: MissingEvents, certainties: Counter[Certainty]) -> Iterator[MissingEventItem]:
    for item in items:
        certainties[item.certainty] += 1
        yield item


def _totals(report: ReconciliationReport) -> str:
    states = [
        f"{report.totals.get(state, 0):,} {words.partition(':')[0]}"
        for state, words in STATES.items()
    ]
    return f"{', '.join(states)}; {sum(report.totals.values()):,} in all"


def _names(missing: Missing) -> tuple[str, str, str]:
    event = shown(missing.event_type)
    if missing.test_id is not None:
        event += f"\n{shown(missing.test_id)}"
    elif missing.event_type == "report.completed":
        event += f"\n{count(missing.count, 'test')} not known"
    return shown(missing.lab_id), shown(missing.bill_id), event


def _happened(line: RequestLine) -> str:
    about, at = happened(line), clock(line.evidence.event_time)
    return f"{about.partition(at)[0].rstrip()}\n{at}"


def _state(line: RequestLine) -> str:
    words: dict[LineState, str] = {
        "requested": "requested",
        "received": f"received, position {line.received_position}",
        "closed": f"closed: {shown(line.reason or '')}",
    }
    again = f", asked for before in request {line.previous}" if line.previous is not None else ""
    return f"{words[line.state]}{again}"


def _standing(request: SupportRequest) -> str:
    states = Counter(line.state for line in request.lines)
    parts = [f"{states['requested']:,} of {count(len(request.lines), 'line')} still open"]
    if states["received"]:
        parts.append(f"{states['received']:,} received")
    if states["closed"]:
        parts.append(f"{states['closed']:,} closed")
    if windows := sum(window.state != "closed" for window in request.loss_windows):
        parts.append(f"{count(windows, 'loss window')} not answered")
    return f"Request {request.number} is {request.state}: {', '.join(parts)}."


def _loss_windows(page: _Page, windows: Sequence[LossWindow]) -> None:
    page.table(
        "Loss windows: no event from these times reached us",
        ("From (UTC)", "To (UTC)", "Labs", "State"),
        [
            (
                clock(window.begin),
                clock(up_to(window.end)),
                ", ".join(map(shown, window.labs)),
                window.state,
            )
            for window in islice(windows, MOST_ROWS)
        ],
        of=len(windows),
    )


def _near_losses(page: _Page, near_losses: Iterable[NearLoss]) -> None:
    """Show where the last attempt was needed, which is the warning before a loss."""
    near = [near_loss for near_loss in near_losses if near_loss.last_attempt_share > 0]
    near.sort(key=attrgetter("last_attempt_share"), reverse=True)
    page.table(
        "Near losses: deliveries that arrived on the last attempt",
        ("Lab", "Day", "Deliveries", "On the last attempt"),
        [
            (
                shown(near_loss.lab_id),
                f"{near_loss.day:%Y-%m-%d}",
                f"{near_loss.deliveries:,}",
                f"{near_loss.last_attempt_share:.1%}",
            )
            for near_loss in near[:MOST_ROWS]
        ],
        of=len(near),
    )
