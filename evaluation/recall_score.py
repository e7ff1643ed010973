"""What a month is measured by: counts of what was found, what was there, and what went wrong."""

from collections import Counter
from dataclasses import dataclass, field

SHOWN = 5
"""Differences that are kept of each kind, to be printed."""


@dataclass(slots=True)
class Found:
    """How well what is listed fits what there is."""

    right: int = 0
    listed: int = 0
    there: int = 0

    def compare(self, listed: set[object], there: set[object]) -> set[object]:
        """Count two sets; return what only one of them holds."""
        self.right += len(listed & there)
        self.listed += len(listed)
        self.there += len(there)
        return listed ^ there

    @property
    def precision(self) -> float:
        """Share of what is listed that is there."""
        return self.right / self.listed if self.listed else 1.0

    @property
    def recall(self) -> float:
        """Share of what is there that is listed."""
        return self.right / self.there if self.there else 1.0

    @property
    def perfect(self) -> bool:
        """Tell whether both are 1, of anything at all."""
        return self.right == self.listed == self.there


@dataclass(slots=True)
class Score:
    """The measurements of one month. Each `Found` compares Ledger with something independent."""

    counts: Counter[str] = field(default_factory=Counter)
    fates: Counter[str] = field(default_factory=Counter)  # lost events: how they are known of
    # At each look, with state, evidence and due time, against the rules read anew.
    certain_by_rules: Found = field(default_factory=Found)
    possible_by_rules: Found = field(default_factory=Found)
    # Lines of requests against what the rules say is overdue and was not asked for.
    asked_by_rules: Found = field(default_factory=Found)
    # Against what was really sent and lost.
    certain_in_truth: Found = field(default_factory=Found)
    possible_in_truth: Found = field(default_factory=Found)
    windows: Found = field(default_factory=Found)  # seconds of labs
    unseen: Found = field(default_factory=Found)
    # Must stay 0.
    faults: Counter[str] = field(default_factory=Counter)
    examples: dict[str, list[str]] = field(default_factory=dict)

    def fault(self, what: str, example: object, count: int = 1) -> None:
        """Note something that must not be."""
        self.faults[what] += count
        kept = self.examples.setdefault(what, [])
        if len(kept) < SHOWN:
            kept.append(str(example))

    def differ(self, what: str, differences: set[object]) -> None:
        """Note each of the differences."""
        for each in sorted(differences, key=str):
            self.fault(what, each)

    @property
    def certain_is_right(self) -> bool:
        """Tell whether all that is certain is found, real, asked for once and in time."""
        exact = (self.certain_by_rules, self.asked_by_rules, self.certain_in_truth)
        faults = [what for what in self.faults if not what.startswith("possible")]
        return all(found.perfect for found in exact) and not faults
