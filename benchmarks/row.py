"""What is measured: a row of the table, its target, and what each round gave."""

import statistics
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from benchmarks.logs import Logs
from ledger.embedded import EmbeddedPostgres


class Target(NamedTuple):
    """What the median must reach: `at_least` or `at_most`, and the unit, "" for a ratio."""

    at_least: float | None = None
    at_most: float | None = None
    unit: str = ""

    def reached(self, value: float) -> bool:
        """Tell whether a value does."""
        if self.at_least is not None:
            return value >= self.at_least
        return self.at_most is None or value <= self.at_most

    def __str__(self) -> str:
        """Write it as the table does."""
        sign, bound = ("<=", self.at_most) if self.at_least is None else (">=", self.at_least)
        return f"{sign} {bound:g}{self.unit and ' ' + self.unit}"


class Figure(NamedTuple):
    """What was measured in each round, in a unit."""

    what: str
    values: Sequence[float]
    unit: str


@dataclass(kw_only=True)
class Row:
    """A row of the table: `values` are those that the target is about, one of each round."""

    number: str
    what: str
    against: str
    target: Target | None = None
    values: Sequence[float] = ()
    figures: list[Figure] = field(default_factory=list)
    remarks: list[str] = field(default_factory=list)

    @property
    def reached(self) -> bool | None:
        """Whether the median reached the target; None where there is none."""
        return self.target and self.target.reached(statistics.median(self.values))


@dataclass(frozen=True, kw_only=True)
class Run:
    """What a benchmark is given: the server, logs on it, and how much to do."""

    server: EmbeddedPostgres
    logs: Logs
    rounds: int
    seconds: int
    quick: bool

    def size(self, full: int, quick: int) -> int:
        """Return the events, or the seconds, to measure with."""
        return quick if self.quick else full

    def turns(self, names: Sequence[str], *, long: bool = False) -> Iterator[tuple[int, str]]:
        """Yield the round's number and whose turn it is, in the other order in every other round.

        `long`: a round takes long, so there are three at the most, and one in a quick run.
        """
        most = (1 if self.quick else 3) if long else self.rounds
        for number in range(min(self.rounds, most)):
            for name in names if number % 2 == 0 else reversed(names):
                yield number, name


def ratios(ours: Sequence[float], theirs: Sequence[float]) -> list[float]:
    """Return the ratio of each round."""
    return [a / b for a, b in zip(ours, theirs, strict=True)]
