"""What needs a person now as the overview lists it: the oldest first, each a link to its list."""

import re
from collections.abc import Sequence
from datetime import datetime
from typing import Literal

import msgspec
from msgspec import Struct

from ledger.operations.needs import MOST, Needs
from ledger.operations.render.words import lasting

Tone = Literal["", "warn"]


class Need(Struct, frozen=True, kw_only=True):
    """A line of the list. `number` is None where it is not known; {} in `more` is its age."""

    path: str
    number: int | None
    what: str
    more: str
    since: datetime | None = None
    tone: Tone = ""

    @property
    def figure(self) -> str:
        """The number in words."""
        if self.number is None:
            return "?"
        return f"more than {MOST:,}" if self.number > MOST else f"{self.number:,}"


def needs_list(
    needs: Needs,
    now: datetime,
    *,
    sees_refused: bool,
    unregistered: int = 0,
    silent: Sequence[datetime] = (),
) -> list[Need]:
    """Return what was counted and is not zero, the oldest first.

    `unregistered` are labs whose registration at Flabs somebody should look after; `silent` is when
    each silent lab was heard of last.
    """
    lines = [
        Need(
            path="/labs?state=silent", number=len(silent),
            what=_of(len(silent), "{lab is} silent"),
            more="not heard of for longer than usual; the longest for {}",
            since=min(silent, default=None),
        ),
        Need(
            path="/labs#registration", number=unregistered,
            what=_of(unregistered, "{lab is} not registered at Flabs as expected"),
            more="some events may not be sent", tone="warn",
        ),
        Need(
            path="/missing-events?state=overdue&certainty=certain", number=needs.overdue,
            what=_of(needs.overdue, "{event is} lost for certain"),
            more="the oldest overdue for {}", since=needs.overdue_since,
        ),
        Need(
            path="/loss-windows?state=open", number=needs.windows,
            what=_of(needs.windows, "loss {window is} open"),
            more="whatever happened then is lost; the first {} ago", since=needs.windows_since,
        ),
        Need(
            path="/expected-bills?state=unseen", number=needs.unseen,
            what=_of(needs.unseen, "expected {bill was} never seen"),
            more="the first was due {} ago", since=needs.unseen_since,
        ),
        Need(
            path="/system#parked", number=needs.parked,
            what=_of(needs.parked, "{bill is} parked"),
            more="their events are safe and could not be folded",
        ),
        Need(
            path=f"/log/unreadable?from={needs.unreadable_from}", number=needs.unreadable,
            what=_of(needs.unreadable, "{event} of the last day cannot be read"),
            more="kept as they came, not folded", tone="warn",
        ),
        Need(
            path="/refused", number=needs.refused if sees_refused else 0,
            what=_of(needs.refused, "{delivery} with a wrong token {waits} for a decision"),
            more="the first {} ago", since=needs.refused_since, tone="warn",
        ),
        Need(
            path="/missing-events?state=overdue&certainty=possible", number=needs.possible,
            what=_of(needs.possible, "{event} may be lost"),
            more="likely, not proven; the oldest overdue for {}",
            since=needs.possible_since, tone="warn",
        ),
    ]  # fmt: skip
    found = [_with_age(line, now) for line in lines if line.number]
    return sorted(found, key=lambda line: (line.since is None, line.since or now))


def _with_age(line: Need, now: datetime) -> Need:
    if line.since is None:
        return line
    return msgspec.structs.replace(line, more=line.more.format(lasting(now - line.since)))


_MANY = {
    "lab is": "labs are", "event": "events", "event is": "events are", "window is": "windows are",
    "bill was": "bills were", "bill is": "bills are", "delivery": "deliveries", "waits": "wait",
}  # fmt: skip
_WORDS = re.compile(r"\{([^}]*)\}")


def _of(number: int, words: str) -> str:
    """Return words for a number: what stands in braces has a plural."""
    return _WORDS.sub(lambda found: found[1] if number == 1 else _MANY[found[1]], words)
