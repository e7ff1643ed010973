"""What became of the values of an imported file."""

from msgspec import Struct

from ledger.eventlog.append import Delivery, Outcome
from ledger.model.event import read_event
from ledger.model.unreadable import Unreadable

_UNREADABLE_SHOWN = 100
_KEYS_REMEMBERED = 10_000
_RANGES_APART = 100_000


class UnreadableLine(Struct, frozen=True):
    """A value of a file that is no webhook; `number` is its line or its place in an array."""

    number: int
    unreadable: Unreadable


class Imported(Struct):
    """What became of a file's values.

    `unreadable` counts the values that are no webhook, `unreadable_recorded` those of them that
    were recorded all the same; `unreadable_lines` are the first hundred. `ranges` are the
    positions, first and last, of the file's events, old and new; `keys` their bills, None if they
    are too many to remember. `complete` is false if the file ends inside a value or an array.
    `import_id` is None if no event was recorded. `liveness_records` counts the records of liveness
    that said something new.
    """

    recorded: int = 0
    duplicate: int = 0
    unreadable: int = 0
    unreadable_recorded: int = 0
    unreadable_lines: list[UnreadableLine] = []
    ranges: list[tuple[int, int]] = []
    keys: set[tuple[str, str]] | None = set()
    complete: bool = True
    import_id: int | None = None
    liveness_records: int = 0

    def add(self, delivery: Delivery, outcome: Outcome, number: int) -> None:
        """Count an event that is in the log now."""
        columns = delivery.columns
        if not outcome.recorded:
            self.duplicate += 1
        elif columns.unreadable:
            self.add_unreadable(number, columns.unreadable)
            self.unreadable_recorded += 1
        else:
            self.recorded += 1
        self.ranges = extended(self.ranges, outcome.position)
        if len(self.ranges) > _RANGES_APART:
            self.ranges = _merged(self.ranges)
        if self.keys is not None and columns.bill_id:
            self.keys.add((columns.lab_id, columns.bill_id))
            if len(self.keys) > _KEYS_REMEMBERED:
                self.keys = None

    def add_unreadable(self, number: int, value: bytes | Unreadable) -> None:
        """Count a value that is no webhook. The reason is found out for the first hundred only."""
        self.unreadable += 1
        if len(self.unreadable_lines) < _UNREADABLE_SHOWN:
            why = value if isinstance(value, Unreadable) else read_event(value)
            assert isinstance(why, Unreadable)  # noqa: S101 -- so the caller found
            self.unreadable_lines.append(UnreadableLine(number, why))


def extended(ranges: list[tuple[int, int]], position: int) -> list[tuple[int, int]]:
    """Add a position to ranges of positions, first and last, and return them."""
    if ranges and ranges[-1][1] == position - 1:
        ranges[-1] = (ranges[-1][0], position)
    else:
        ranges.append((position, position))
    return ranges


def _merged(ranges: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """Join ranges that touch, as those of a file taken in again in another order."""
    merged: list[tuple[int, int]] = []
    for first, last in sorted(ranges):
        if merged and first <= merged[-1][1] + 1:
            merged[-1] = (merged[-1][0], max(last, merged[-1][1]))
        else:
            merged.append((first, last))
    return merged
