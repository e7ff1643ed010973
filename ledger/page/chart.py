"""Charts as SVG. Everything here is pure; each page also shows the data as a table."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta, tzinfo

from markupsafe import Markup
from msgspec import Struct

from ledger.model.loss_windows import Interval

WIDTH = 960
LABELS = 250
"""Width of the names of rows, to the left of the chart."""

ROW = 28


LOWEST_BAR = 1.5
"""That one delivery among very many still has."""

_TOP = 28
_TICKS = 4
_RIGHT = 20


class Row(Struct, frozen=True):
    """A row of a time line: when something happened and when it was received.

    An event that is missing was never received. Of a decision only the reception is known.
    """

    name: str
    happened: datetime | None
    received: datetime | None
    is_latest: bool = False
    """Whether it happened then at the latest."""


class _Scale:
    def __init__(self, begin: datetime, end: datetime) -> None:
        self.begin = begin
        self.length = max(end - begin, timedelta(seconds=1))

    def x(self, at: datetime) -> str:
        share = (at - self.begin) / self.length
        return f"{LABELS + share * (WIDTH - LABELS - _RIGHT):.1f}"

    def ticks(self) -> list[datetime]:
        return [self.begin + self.length * number / _TICKS for number in range(_TICKS)]


def timeline(rows: Sequence[Row], zone: tzinfo = UTC) -> Markup:
    """Draw a row for each event: from when it happened (a ring) to when it came (a dot)."""
    times = [at for row in rows for at in (row.happened, row.received) if at]
    if not times:
        return Markup("")
    scale = _Scale(min(times), max(times))
    height = _TOP + ROW * len(rows) + 6
    parts = [_axis(scale, height, zone)]
    for number, row in enumerate(rows):
        parts.append(_row(row, scale, _TOP + ROW * number + ROW // 2))
    return _svg("time line of the bill's events", height, parts)


def _row(row: Row, scale: _Scale, y: int) -> Markup:
    parts = [Markup('<text class="name" x="0" y="{}">{}</text>').format(y + 4, row.name)]
    if row.received is None and row.happened:
        x = scale.x(row.happened)
        if row.is_latest:
            line = Markup('<line class="lost" x1="{}" y1="{}" x2="{}" y2="{}"/>')
            parts.append(line.format(LABELS, y, x, y))
        parts.append(Markup('<circle class="gone" cx="{}" cy="{}" r="6"/>').format(x, y))
    if row.happened and row.received:
        parts.append(
            Markup(
                '<line class="way" x1="{}" y1="{}" x2="{}" y2="{}"/>'
                '<circle class="sent" cx="{}" cy="{}" r="6"/>'
            ).format(scale.x(row.happened), y, scale.x(row.received), y, scale.x(row.happened), y)
        )
    if row.received:
        parts.append(
            Markup('<circle class="came" cx="{}" cy="{}" r="3.5"/>').format(
                scale.x(row.received), y
            )
        )
    return Markup("").join(parts)


def attempts(
    window: Interval, outages: Sequence[Interval], interval: timedelta, count: int, zone: tzinfo
) -> Markup:
    """Draw why a window was lost and what came right after it was not.

    The outages around it, the attempts of an event that happened as it began, and those of one that
    happened as it ended, whose last attempt is the first to arrive.
    """
    budget = interval * count
    begin, end = window.begin - budget / 4, window.end + budget * 1.25
    scale = _Scale(begin, end)
    names = ["the receiver was away", "lost: the window", "lost at its first moment", "not lost"]
    height = _TOP + ROW * len(names) + 6
    parts = [_axis(scale, height, zone)]
    bottom = height - 6
    for outage in outages:
        left, right = max(outage.begin, begin), min(outage.end, end)
        if left < right:
            parts.append(_bar("down", scale, left, right, _TOP, bottom - _TOP))
    parts.append(_bar("window", scale, window.begin, window.end, _TOP + ROW + 8, 12))
    for number, name in enumerate(names):
        y = _TOP + ROW * number + ROW // 2 + 4
        parts.append(Markup('<text class="name" x="0" y="{}">{}</text>').format(y, name))
    for number, start in ((2, window.begin), (3, window.end)):
        y = _TOP + ROW * number + ROW // 2
        parts += [_attempt(scale, start + interval * nth, y, outages) for nth in range(count + 1)]
    return _svg("attempts of events around a loss window", height, parts)


def _attempt(scale: _Scale, at: datetime, y: int, outages: Sequence[Interval]) -> Markup:
    x = float(scale.x(at))
    if any(outage.begin <= at < outage.end for outage in outages):
        return Markup('<path class="failed" d="M{} {}l8 8m0-8l-8 8"/>').format(x - 4, y - 4)
    return Markup('<circle class="came" cx="{}" cy="{}" r="5"/>').format(x, y)


def bars(label: str, rows: Sequence[tuple[str, Mapping[str, int]]]) -> Markup:
    """Draw a bar for each row: its parts, by their kind, stand on each other in their order.

    Nothing is drawn where all is zero. A part that is not zero can be seen.
    """
    most = max((sum(parts.values()) for _, parts in rows), default=0)
    if not most:
        return Markup("")
    height, base = 170, 140
    step = (WIDTH - 70) / len(rows)
    drawn = [
        Markup('<line class="grid" x1="60" y1="{0}" x2="{1}" y2="{0}"/>').format(base, WIDTH),
        Markup('<text x="52" y="24" text-anchor="end">{}</text>').format(f"{most:,}"),
        Markup('<text x="52" y="{}" text-anchor="end">0</text>').format(base + 4),
    ]
    every = max(1, len(rows) // 7)
    for number, (name, parts) in enumerate(rows):
        x, y = 64 + step * number, float(base)
        for kind, count in parts.items():
            if not count:
                continue
            tall = max(count / most * 120, LOWEST_BAR)
            y -= tall
            drawn.append(
                Markup('<rect class="{}" x="{}" y="{}" width="{}" height="{}"/>').format(
                    kind, f"{x:.1f}", f"{y:.1f}", f"{step * 0.8:.1f}", f"{tall:.1f}"
                )
            )
        if number % every == 0:
            drawn.append(Markup('<text x="{}" y="160">{}</text>').format(f"{x:.1f}", name))
    return _svg(label, height, drawn, kind="scroll latest")


def _bar(kind: str, scale: _Scale, begin: datetime, end: datetime, y: int, height: int) -> Markup:
    left, right = float(scale.x(begin)), float(scale.x(end))
    return Markup('<rect class="{}" x="{}" y="{}" width="{}" height="{}"/>').format(
        kind, f"{left:.1f}", y, f"{max(right - left, 2):.1f}", height
    )


def _axis(scale: _Scale, height: int, zone: tzinfo) -> Markup:
    parts = []
    if scale.length > timedelta(days=300):
        form = "%Y-%m-%d"
    else:
        form = "%m-%d %H:%M" if scale.length > timedelta(hours=12) else "%H:%M:%S"
    for number, at in enumerate(scale.ticks()):
        x, shown = scale.x(at), at.astimezone(zone)
        name = "" if number else f" {'UTC' if zone is UTC else format(shown, '%Z')}"
        parts.append(
            Markup(
                '<line class="grid" x1="{0}" y1="20" x2="{0}" y2="{1}"/>'
                '<text x="{0}" y="14">{2}</text>'
            ).format(x, height, f"{shown:{form}}{name}")
        )
    return Markup("").join(parts)


def _svg(label: str, height: int, parts: Sequence[Markup], *, kind: str = "scroll") -> Markup:
    """Join the parts of a drawing. One that is `latest` is scrolled to its end at first."""
    content = Markup("").join(parts)
    drawing = Markup(
        '<div class="{}" tabindex="0" role="region" aria-label="{}">'
        '<svg class="chart" viewBox="0 0 {} {}" role="img" aria-label="{}">{}</svg></div>'
    )
    return drawing.format(kind, label, WIDTH, height, label, content)
