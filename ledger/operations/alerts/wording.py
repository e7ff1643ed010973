"""What an alert is about, and its words: short enough for a chat, safe whatever an id holds.

Ids come from outside. One of them may hold line breaks, what a terminal or a chat takes for a
command, or 200 letters; in an alert it is a part of one line, and nothing more.
"""

import hashlib
from collections import Counter
from datetime import UTC, datetime
from typing import Literal

from msgspec import Struct

Kind = Literal["overdue", "loss_window", "unseen_bill", "parked_bill"]

LISTED = 10
"""Subjects of a kind that an alert tells in words; of the others it tells how many they are."""

LISTED_LABS = 5
"""Labs of a kind that an alert names."""

LINE_LENGTH = 240
WORD_LENGTH = 60

_END_LENGTH = 14
"""Letters of a long word that are left of its end, where ids differ most."""

_LONGEST_KEY = 500
"""Bytes. An index of PostgreSQL takes 2,700, and the ids of one missing event may have 3,200."""

_HASHED = "sha256:"


class Subject(Struct, frozen=True):
    """One thing to alert about, once.

    `key` tells it from all others of its kind, by what it is and not by where it stands: it must
    outlive a rebuild. `words` is one line that tells it.
    """

    kind: Kind
    key: str
    lab_id: str | None
    words: str

    @property
    def stored_key(self) -> str:
        """The key as the table has it: a hash where the key is long or not plain text."""
        plain = self.key.isprintable() and not self.key.startswith(_HASHED)
        if plain and len(self.key.encode()) <= _LONGEST_KEY:
            return self.key
        return _HASHED + hashlib.sha256(self.key.encode(errors="surrogatepass")).hexdigest()


class _Phrase(Struct, frozen=True):
    """How a kind is told: one, many, what it means, and the command that lists them."""

    one: str
    many: str
    meaning: str
    command: str


# In the order in which they are told: a chat or a telephone may cut the end off.
_PHRASES: dict[Kind, _Phrase] = {
    "loss_window": _Phrase(
        "loss window",
        "loss windows",
        "No webhook could be taken for longer than the sender tries; what happened then is lost "
        "until it is asked for.",
        "ledger reconcile",
    ),
    "parked_bill": _Phrase(
        "bill parked",
        "bills parked",
        "Its events could not be folded; they are kept, but the state of the bill is not shown.",
        "ledger status",
    ),
    "unseen_bill": _Phrase(
        "expected bill not seen",
        "expected bills not seen",
        "The deadline is over and no event has come.",
        "ledger reconcile",
    ),
    "overdue": _Phrase(
        "event overdue",
        "events overdue",
        "The sender will not try again; it comes only if it is asked for.",
        "ledger reconcile",
    ),
}


class _Told:
    """What is known of the subjects of one kind. Does not grow with them, only with the labs."""

    def __init__(self) -> None:
        self.count = 0
        self.labs: Counter[str] = Counter()
        self.lines: list[str] = []

    def add(self, subject: Subject) -> None:
        self.count += 1
        if subject.lab_id is not None:
            self.labs[subject.lab_id] += 1
        if len(self.lines) < LISTED:
            self.lines.append(one_line(subject.words))


class Summary:
    """Gathers new subjects and words one alert for all of them.

    One alert and not one for each kind: what goes wrong in a night mostly has one cause, and who is
    woken by it reads one message.
    """

    def __init__(self) -> None:
        self._told: dict[Kind, _Told] = {kind: _Told() for kind in _PHRASES}

    def add(self, subject: Subject) -> None:
        """Take one more subject."""
        self._told[subject.kind].add(subject)

    @property
    def count(self) -> int:
        """How many subjects it has taken."""
        return sum(told.count for told in self._told.values())

    def title(self) -> str:
        """Say what it is and how many: all that some channels show."""
        parts = [_counted(kind, told.count) for kind, told in self._told.items() if told.count]
        return "Ledger: " + ", ".join(parts)

    def body(self, now: datetime) -> str:
        """Tell the most urgent first, each kind in a paragraph."""
        parts = [_paragraph(kind, told) for kind, told in self._told.items() if told.count]
        # It may come late, when the channel was away.
        noted = f"Noted {now.astimezone(UTC):%Y-%m-%dT%H:%M:%SZ}."
        return "\n\n".join([*parts, noted])


def _counted(kind: Kind, count: int) -> str:
    phrase = _PHRASES[kind]
    return f"{count:,} {phrase.one if count == 1 else phrase.many}"


def _paragraph(kind: Kind, told: _Told) -> str:
    phrase = _PHRASES[kind]
    lines = [f"{_counted(kind, told.count)}. {phrase.meaning}"]
    if told.labs:
        lines.append(f"Labs: {_labs(told.labs)}")
    lines += [f"- {line}" for line in told.lines]
    more = told.count - len(told.lines)
    lines.append(f"and {more:,} more: {phrase.command}" if more else f"Details: {phrase.command}")
    return "\n".join(lines)


def _labs(labs: Counter[str]) -> str:
    most = sorted(labs.items(), key=lambda item: (-item[1], item[0]))[:LISTED_LABS]
    parts = [f"{one_line(lab)} ({count:,})" for lab, count in most]
    if more := len(labs) - len(most):
        parts.append(f"and {more:,} more")
    return ", ".join(parts)


def one_line(text: str) -> str:
    """Make one line of bounded length that holds nothing but what can be read.

    What cannot be printed becomes U+FFFD, be it a line break, a NUL, half a surrogate pair or a
    letter that turns the direction of writing. An @ becomes a wide one: some chats call everybody
    for `@everyone`. Markup is not touched here, for Apprise escapes it as each channel needs.
    """
    # No more than that: a megabyte of words need not be walked through letter by letter.
    head = "".join(
        letter if letter.isprintable() else "\N{REPLACEMENT CHARACTER}"
        for letter in text[: 4 * LINE_LENGTH]
    )
    head = head.replace("@", "\N{FULLWIDTH COMMERCIAL AT}")
    return _shortened(" ".join(map(_short_word, head.split())), LINE_LENGTH)


def _short_word(word: str) -> str:
    if len(word) <= WORD_LENGTH:
        return word
    return word[: WORD_LENGTH - _END_LENGTH - 1] + "…" + word[-_END_LENGTH:]


def _shortened(text: str, length: int) -> str:
    return text if len(text) <= length else text[: length - 1] + "…"
