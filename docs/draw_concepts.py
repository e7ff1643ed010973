"""Draws the pictures of docs/concepts from the functions that Ledger runs.

`make pictures` writes them, and a test compares them: a rule that changes changes its picture.
"""

import sys
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

from docs.svg import DOWN, GRID, INK, KEPT, LOST, MUTED, WAIT, Drawing
from ledger.model.digest import digest
from ledger.model.event import event_columns
from ledger.model.loss_windows import Interval, loss_windows, union
from ledger.model.missing_events import retry_budget
from ledger.settings import Settings
from tests.support.events import DONE, Said, bill, completed, created, report, time

FOLDER = Path(__file__).with_name("concepts")
DEFAULTS = Settings()
RETRY = timedelta(seconds=DEFAULTS.retry_interval)
RETRIES = DEFAULTS.retry_count
BUDGET = retry_budget(
    interval=DEFAULTS.retry_interval,
    count=DEFAULTS.retry_count,
    timeout=DEFAULTS.retry_timeout,
)
NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)
MINUTE = timedelta(minutes=1)
WIDTH = 760
LEFT, RIGHT = 190, 30


def main() -> None:
    """Write all pictures."""
    FOLDER.mkdir(exist_ok=True)
    for name, picture in pictures().items():
        (FOLDER / name).write_text(picture, encoding="utf-8")
    sys.stdout.write(f"{FOLDER} written\n")


def pictures() -> dict[str, str]:
    """Return the content of each picture by the name of its file."""
    return {
        "log.svg": str(_log()),
        "fold.svg": str(_fold()),
        "missing-event.svg": str(_missing_event()),
        "loss-window-long.svg": _loss("An outage of ten minutes", [(2, 12)], [3, 8]),
        "loss-window-short.svg": _loss("An outage of five minutes", [(2, 7)], [2.5, 6]),
        "loss-window-flapping.svg": _loss(
            "Down for one minute of every two", [(at, at + 1) for at in range(2, 12, 2)], [2.5, 6.5]
        ),
    }


# The log: deliveries become events; equal JSON is one event.


def _log() -> Drawing:
    first = created(0, test_1="pending")
    deliveries = [
        ("bill.created", first.body()),
        ("report.completed", report(1800, test_1=DONE).body()),
        ("bill.created, sent again", first.body().replace(b": ", b":")),
        ("broken", b'{"labID": "lab_1", "eventTy'),
        ("bill.completed", completed(3600, test_1=DONE).body()),
    ]
    drawing = Drawing(WIDTH, 250, "Deliveries on the left become events of the log on the right")
    drawing.text(20, 30, "deliveries, as they come", color=MUTED)
    drawing.text(270, 30, "digest", color=MUTED)
    drawing.text(440, 30, "event log", color=MUTED)
    known: dict[bytes, int] = {}
    for place, (words, body) in enumerate(deliveries):
        y = 62 + place * 38
        key = digest(body)
        repeat = key in known
        position = known.setdefault(key, len(known) + 1)
        drawing.frame(20, y - 19, 220, 28)
        drawing.text(30, y, words)
        drawing.text(270, y, key.hex()[:8], mono=True, color=MUTED if repeat else INK)
        drawing.arrow((350, y - 5), (430, y - 5))
        if repeat:
            drawing.text(440, y, f"a repeat of {position}, noted and not appended", color=MUTED)
            continue
        kind = event_columns(body).event_type or "unreadable, kept as it came"
        drawing.frame(440, y - 19, 300, 28, INK)
        drawing.text(455, y, str(position), mono=True, bold=True)
        drawing.text(485, y, kind)
    return drawing


# The fold: whatever the order, the same bill.


def _fold() -> Drawing:
    events = [
        ("bill.created", created(0, test_1="pending")),
        ("report.completed", report(1800, test_1=DONE)),
        ("bill.completed", completed(3600, test_1=DONE)),
    ]
    orders = [[0, 1, 2], [2, 0, 1]]
    folded = [_folded([events[index][1] for index in order]) for order in orders]
    assert folded[0] == folded[1]  # noqa: S101 -- what the picture says
    drawing = Drawing(WIDTH, 250, "Two orders of the same events, folded into the same bill")
    for row, order in enumerate(orders):
        y = 40 + row * 110
        drawing.text(20, y - 8, ("received in this order", "or in this one")[row], color=MUTED)
        for place, index in enumerate(order):
            drawing.frame(20, y + place * 28, 190, 24)
            drawing.text(30, y + 17 + place * 28, f"{place + 1}  {events[index][0]}")
        drawing.arrow((220, y + 40), (300, 90 + row * 60))
    drawing.frame(305, 65, 90, 112, INK)
    drawing.text(350, 126, "fold", bold=True, anchor="middle")
    drawing.arrow((395, 121), (445, 121))
    drawing.frame(450, 25, 300, 200, INK)
    for place, (name, value) in enumerate(folded[0].items()):
        drawing.text(465, 52 + place * 26, name, color=MUTED)
        drawing.text(620, 52 + place * 26, value)
    return drawing


def _folded(events: list[Said]) -> dict[str, str]:
    # Received a second after it happened, in whichever order it reached the log.
    made = bill(*(event.received(event.at + 1) for event in events))
    summary, (only,) = made.summary, made.reports
    return {
        "state": summary.state,
        "created_at": f"{summary.created_at:%H:%M}",
        "completed_at": f"{summary.completed_at:%H:%M}",
        "reports": f"{summary.reports_completed} of {summary.reports_total}",
        f"{only.test_id} completed_at": f"{only.completed_at:%H:%M}",
        "by evidence of": str(only.evidence),
        "missing events": str(len(made.missing_events)),
    }


# A missing event: proved, waited for, overdue.


def _missing_event() -> Drawing:
    proof = 3600
    (missing,) = bill(created(0, test_1="pending"), completed(proof, test_1=DONE)).missing_events
    received = time(proof + 1)
    drawing = Drawing(WIDTH, 210, "The states of a missing event in time")
    span = timedelta(minutes=12)

    def x(moment: datetime) -> float:
        return LEFT + (WIDTH - LEFT - RIGHT) * ((moment - received + 2 * MINUTE) / span)

    drawing.text(20, 45, "received", color=MUTED)
    drawing.dot(x(received), 41, KEPT)
    drawing.text(x(received) + 12, 45, f"{missing.evidence.event_type} says: test_1 is completed")
    drawing.text(20, 90, "never received", color=MUTED)
    label = f"{missing.event_type} of {missing.test_id}, {missing.certainty}"
    drawing.text(x(received) + 12, 90, label, color=LOST)
    drawing.text(20, 135, "its state", color=MUTED)
    colors = {"awaiting_retry": WAIT, "overdue": LOST}
    step = timedelta(seconds=10)
    moment, begin = received, received
    while moment <= received + 9.5 * MINUTE:
        state = missing.state(begin, BUDGET)
        if missing.state(moment + step, BUDGET) != state or moment + step > received + 9.5 * MINUTE:
            end = moment + step
            drawing.bar(x(begin), 120, x(end) - x(begin) - 1, 20, colors[state])
            drawing.text((x(begin) + x(end)) / 2, 135, state, color="#ffffff", anchor="middle")
            begin = end
        moment += step
    due = missing.due_at(BUDGET)
    drawing.line((x(due), 60), (x(due), 160), MUTED)
    after = int((due - received).total_seconds())
    drawing.text(x(due), 178, f"due_at: {after} s after the proof", color=MUTED, anchor="middle")
    drawing.text(
        x(due), 196, "the sender's last attempt is over", color=MUTED, anchor="middle", size=12
    )
    return drawing


# Loss windows: when all attempts of an event fail.


def _loss(title: str, minutes: list[tuple[float, float]], samples: list[float]) -> str:
    down = union(Interval(NOON + begin * MINUTE, NOON + end * MINUTE) for begin, end in minutes)
    lost = loss_windows(down, interval=RETRY, count=RETRIES)
    rows = 2 + len(samples)
    drawing = Drawing(WIDTH, 92 + rows * 34, f"{title}, and what it loses")
    drawing.text(20, 26, title, bold=True)
    _minutes(drawing, 44, 56 + rows * 34)
    _intervals(drawing, 64, "no receiver alive", down, DOWN)
    for place, sample in enumerate(samples, 1):
        _attempts(drawing, 64 + place * 34, NOON + sample * MINUTE, down, lost)
    _intervals(drawing, 64 + (rows - 1) * 34, "loss windows", lost, LOST)
    if not lost:
        drawing.text(_x(NOON) + 8, 64 + (rows - 1) * 34 + 5, "none: a retry reaches everything")
    return str(drawing)


def _x(moment: datetime) -> float:
    return LEFT + (WIDTH - LEFT - RIGHT) * ((moment - NOON) / (15 * MINUTE))


def _minutes(drawing: Drawing, top: float, bottom: float) -> None:
    for minute in range(0, 16, 3):
        x = _x(NOON + minute * MINUTE)
        drawing.line((x, top), (x, bottom))
        drawing.text(x, bottom + 18, f"{minute} min", color=MUTED, size=11, anchor="middle")


def _intervals(
    drawing: Drawing, y: float, words: str, intervals: list[Interval], color: str
) -> None:
    drawing.text(20, y + 5, words, color=MUTED)
    for each in intervals:
        drawing.bar(_x(each.begin), y - 9, _x(each.end) - _x(each.begin), 18, color)


def _attempts(
    drawing: Drawing, y: float, happened: datetime, down: list[Interval], lost: list[Interval]
) -> None:
    """Draw the attempts of one event until one of them succeeds."""
    fails: Callable[[datetime], bool] = lambda moment: _within(moment, down)  # noqa: E731
    attempts = [happened + number * RETRY for number in range(RETRIES + 1)]
    arrives = next((moment for moment in attempts if not fails(moment)), None)
    assert (arrives is None) == _within(happened, lost)  # noqa: S101 -- rule and picture agree
    drawing.text(20, y + 5, "an event: " + ("lost" if arrives is None else "received"))
    drawn = attempts if arrives is None else attempts[: attempts.index(arrives) + 1]
    drawing.line((_x(drawn[0]), y), (_x(drawn[-1]), y), GRID)
    for moment in drawn:
        drawing.dot(_x(moment), y, LOST if fails(moment) else KEPT)


def _within(moment: datetime, intervals: list[Interval]) -> bool:
    return any(each.begin <= moment < each.end for each in intervals)


if __name__ == "__main__":
    main()
