"""The text of alerts: short enough for a chat, and safe whatever an identifier holds.

Identifiers come from outside. They may hold line breaks, control sequences of a terminal, commands
of a chat, or 200 letters; in an alert each is part of a single line and nothing more.
"""

import hashlib
from collections import Counter
from datetime import UTC, datetime
from typing import Literal

from msgspec import Struct

Kind = Literal[
    "overdue",
    "loss_window",
    "unseen_bill",
    "parked_bill",
    "refused_delivery",
    "spool",
    "seal",
    "flabs_coverage",
    "flabs_check",
    "silence",
    "silence_of_many",
    "heard_again",
]

LISTED = 10
"""The most subjects of a kind that an alert lists; the others are only counted."""

LISTED_LABS = 5
"""The most labs that an alert names for a kind; the others are only counted."""

LINE_LENGTH = 240
WORD_LENGTH = 60

_END_LENGTH = 14
"""Letters kept at the end of a shortened word, where identifiers differ most."""

_LONGEST_KEY = 500
"""Bytes. A PostgreSQL index takes 2,700; the ids of one missing event may have 3,200."""

_HASHED = "sha256:"


class Subject(Struct, frozen=True):
    """One thing to alert about once.

    `key` identifies it among all subjects of its kind by its content, not by its place in the
    state, because it must survive a rebuild. `words` describes it in one line.
    """

    kind: Kind
    key: str
    lab_id: str | None
    words: str

    @property
    def stored_key(self) -> str:
        """The key as it is stored: hashed if it is long or not plain text."""
        plain = self.key.isprintable() and not self.key.startswith(_HASHED)
        if plain and len(self.key.encode()) <= _LONGEST_KEY:
            return self.key
        return _HASHED + hashlib.sha256(self.key.encode(errors="surrogatepass")).hexdigest()


class _Phrase(Struct, frozen=True):
    """How a kind is worded: its noun, what one and many mean, and the command that lists them."""

    one: str
    many: str
    meaning_of_one: str
    meaning_of_many: str
    command: str


# The most urgent first: a chat or a telephone may cut off the end.
_PHRASES: dict[Kind, _Phrase] = {
    "refused_delivery": _Phrase(
        "lab with a wrong webhook token",
        "labs with a wrong webhook token",
        "Its webhooks are refused. What they say is kept outside the log, for a while: mend the "
        "token, then accept them.",
        "Their webhooks are refused. What they say is kept outside the log, for a while: mend the "
        "token, then accept them.",
        "ledger refused list",
    ),
    "loss_window": _Phrase(
        "loss window",
        "loss windows",
        "No webhook could be stored for longer than the sender keeps trying. Whatever happened "
        "in it is lost until you ask for it.",
        "No webhook could be stored for longer than the sender keeps trying. Whatever happened "
        "in them is lost until you ask for it.",
        "ledger reconcile",
    ),
    "silence_of_many": _Phrase(
        "silence of many labs",
        "silences of many labs",
        "They should have been heard of by their habits: it is a holiday, or nothing comes from "
        "the sender.",
        "They should have been heard of by their habits: it is a holiday, or nothing comes from "
        "the sender.",
        "ledger labs",
    ),
    "silence": _Phrase(
        "silent lab",
        "silent labs",
        "Its habit hardly explains it: see whether it works, and whether its webhooks are still "
        "registered.",
        "Their habits hardly explain it: see whether they work, and whether their webhooks are "
        "still registered.",
        "ledger labs --state silent",
    ),
    "spool": _Phrase(
        "spool that needs a look",
        "spools that need a look",
        "Deliveries wait on disk, or records were damaged and set aside.",
        "Deliveries wait on disk, or records were damaged and set aside.",
        "ledger status",
    ),
    "seal": _Phrase(
        "seal that needs a look",
        "seals that need a look",
        "Until it is mended, nobody can prove that newer events were not changed.",
        "Until they are mended, nobody can prove that newer events were not changed.",
        "ledger status",
    ),
    "flabs_coverage": _Phrase(
        "lab not registered as it should be",
        "labs not registered as they should be",
        "The account at Flabs, what was subscribed and what was heard of do not agree.",
        "The account at Flabs, what was subscribed and what was heard of do not agree.",
        "ledger flabs coverage",
    ),
    "flabs_check": _Phrase(
        "account at Flabs that cannot be used",
        "failures of the account at Flabs",
        "Whether all labs are registered is not known meanwhile. Webhooks are received as ever.",
        "Whether all labs are registered is not known meanwhile. Webhooks are received as ever.",
        "ledger flabs check",
    ),
    "parked_bill": _Phrase(
        "parked bill",
        "parked bills",
        "Its events could not be folded. They are kept, but the bill's state is not shown.",
        "Their events could not be folded. They are kept, but the bills' states are not shown.",
        "ledger status",
    ),
    "unseen_bill": _Phrase(
        "expected bill not seen",
        "expected bills not seen",
        "The deadline has passed and no event has arrived.",
        "Their deadlines have passed and no event has arrived.",
        "ledger reconcile",
    ),
    "overdue": _Phrase(
        "event overdue",
        "events overdue",
        "The sender will not try again; the event arrives only if you ask for it.",
        "The sender will not try again; these events arrive only if you ask for them.",
        "ledger reconcile",
    ),
    "heard_again": _Phrase(
        "lab heard of again",
        "labs heard of again",
        "Its silence is over. What it sent meanwhile may be lost.",
        "Their silences are over. What they sent meanwhile may be lost.",
        "ledger labs",
    ),
}


class _Gathered:
    """The subjects of one kind, in memory that grows with the labs and not with the subjects."""

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


class AlertMessage:
    """Gathers new subjects into the text of one alert.

    All kinds share one alert: what goes wrong in a night mostly has one cause, and the person whom
    it wakes should read one message.
    """

    def __init__(self) -> None:
        self._gathered: dict[Kind, _Gathered] = {kind: _Gathered() for kind in _PHRASES}

    def add(self, subject: Subject) -> None:
        """Add a subject."""
        self._gathered[subject.kind].add(subject)

    @property
    def count(self) -> int:
        """The number of subjects added."""
        return sum(gathered.count for gathered in self._gathered.values())

    def title(self) -> str:
        """Return the number of subjects of each kind, which is all that some channels show."""
        return "Ledger: " + ", ".join(
            _counted(kind, gathered.count) for kind, gathered in self._present()
        )

    def body(self, now: datetime) -> str:
        """Return a paragraph for each kind, the most urgent first."""
        paragraphs = [_paragraph(kind, gathered) for kind, gathered in self._present()]
        # The time is stated because the alert may arrive late, after an outage of the channel.
        noted = f"Noted {now.astimezone(UTC):%Y-%m-%dT%H:%M:%SZ}."
        return "\n\n".join([*paragraphs, noted])

    def _present(self) -> list[tuple[Kind, _Gathered]]:
        return [(kind, gathered) for kind, gathered in self._gathered.items() if gathered.count]


def _counted(kind: Kind, count: int) -> str:
    phrase = _PHRASES[kind]
    return f"{count:,} {phrase.one if count == 1 else phrase.many}"


def _paragraph(kind: Kind, gathered: _Gathered) -> str:
    phrase = _PHRASES[kind]
    meaning = phrase.meaning_of_one if gathered.count == 1 else phrase.meaning_of_many
    lines = [f"{_counted(kind, gathered.count)}. {meaning}"]
    if gathered.labs:
        noun = "Lab" if len(gathered.labs) == 1 else "Labs"
        lines.append(f"{noun}: {_labs(gathered.labs)}")
    lines += [f"- {line}" for line in gathered.lines]
    more = gathered.count - len(gathered.lines)
    lines.append(f"and {more:,} more: {phrase.command}" if more else f"Details: {phrase.command}")
    return "\n".join(lines)


def _labs(labs: Counter[str]) -> str:
    most = sorted(labs.items(), key=lambda item: (-item[1], item[0]))[:LISTED_LABS]
    parts = [f"{one_line(lab)} ({count:,})" for lab, count in most]
    if more := len(labs) - len(most):
        parts.append(f"and {more:,} more")
    return ", ".join(parts)


def one_line(text: str) -> str:
    """Return a text as one line of bounded length that holds only printable characters.

    U+FFFD replaces whatever is not printable: line breaks, NUL, half a surrogate pair, characters
    that change the direction of writing. A full-width @ replaces @, because some chats notify
    everybody for `@everyone`. Markup stays: Apprise escapes it as each channel needs.
    """
    # The text may be a megabyte long, so it is cut before it is read character by character.
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
