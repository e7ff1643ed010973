"""The counts of a simulation."""

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

import msgspec

from ledger.simulator.truth import Delivery, Record


@dataclass(frozen=True, kw_only=True, slots=True)
class SimulationSummary:
    """The counts of a simulation.

    Each event is in one of four states, see `ledger.simulator.truth`:
    `events == delivered + dropped + lost + unfinished`.
    """

    seed: int
    start: int  # Unix time at which the simulated day began
    events: int  # all that were processed
    delivered: int  # acknowledged by a 2xx, or written to the output
    late: int  # those of the delivered that needed a second, third or fourth attempt
    reordered: int  # those of the delivered that were held back
    dropped: int  # never sent, because of `drop`
    lost: int  # every attempt that was not lost on the way failed
    unfinished: int  # under way when the simulation was stopped
    deliveries: int  # HTTP attempts; or lines written to the output
    repeats: int  # those of the deliveries that repeated an acknowledged event
    statuses: Mapping[int, int]  # HTTP attempts by the status of their answer
    errors: Mapping[str, int]  # HTTP attempts without an answer, by the reason
    outcomes: Mapping[str, int]  # HTTP attempts by the `outcome` that the receiver answered
    seconds: float  # duration
    failure: str | None = None  # why the simulation ended early or reached nobody, else None
    bills_lost: int = 0  # whole bills dropped; their events are among the dropped

    def as_told(self) -> dict[str, object]:
        """Return the fields for the truth file; `bills_lost` only if it is not 0."""
        told: dict[str, object] = msgspec.to_builtins(self, str_keys=True)
        if not self.bills_lost:
            del told["bills_lost"]
        return told

    def in_words(self) -> Iterator[tuple[int, str]]:
        """Yield each count with its meaning; counts that are usually 0 only if they are not."""
        yield self.events, "events happened in the simulated labs"
        yield self.delivered, "were delivered"
        if self.late:
            yield self.late, "of these only with the 2nd, 3rd or 4th attempt (late)"
        if self.reordered:
            yield self.reordered, "of these after later events of their bill (out of order)"
        yield self.dropped, "were dropped on purpose (--drop) and never sent"
        if self.bills_lost:
            yield (
                self.bills_lost,
                "bills were lost as a whole (--lose-bills); their events are among the dropped",
            )
        yield self.lost, "were lost: no attempt succeeded, retries included"
        if self.unfinished:
            yield self.unfinished, "were still under way when the simulation was stopped"
        yield self.repeats, "were sent again although delivered (duplicates)"
        yield self.deliveries, "deliveries in all, counting retries and duplicates"
        for status, count in self.statuses.items():
            yield count, f"deliveries were answered with HTTP status {status}"
        for error, count in self.errors.items():
            yield count, f"deliveries got no answer: {error}"
        for outcome, count in self.outcomes.items():
            yield count, f'deliveries had the outcome "{outcome}"'


@dataclass(kw_only=True, slots=True)
class Tally:
    """Counts while the simulation runs."""

    states: Counter[str] = field(default_factory=Counter)
    faults: Counter[str] = field(default_factory=Counter)
    statuses: Counter[int] = field(default_factory=Counter)
    errors: Counter[str] = field(default_factory=Counter)
    outcomes: Counter[str] = field(default_factory=Counter)
    deliveries: int = 0
    repeats: int = 0

    def count_delivery(self, delivery: Delivery) -> None:
        """Count one HTTP attempt as soon as it has ended."""
        self.deliveries += 1
        self.repeats += delivery.repeat
        if delivery.status is not None:
            self.statuses[delivery.status] += 1
        if delivery.error is not None:
            self.errors[delivery.error] += 1
        if delivery.outcome is not None:
            self.outcomes[delivery.outcome] += 1

    def count_event(self, record: Record) -> None:
        """Count an event whose delivery has ended."""
        self.states[record.state] += 1
        planned = record.planned
        if planned.fate.bill_lost is True and planned.event.event_type == "bill.created":
            self.faults["bills"] += 1  # each bill has one
        if record.state == "delivered":
            self.faults["late"] += record.late
            self.faults["reordered"] += record.planned.fate.reordered

    def summary(
        self, *, seed: int, start: int, seconds: float, failure: str | None = None
    ) -> SimulationSummary:
        """Return the counts so far."""
        return SimulationSummary(
            seed=seed,
            start=start,
            events=self.states.total(),
            delivered=self.states["delivered"],
            late=self.faults["late"],
            reordered=self.faults["reordered"],
            dropped=self.states["dropped"],
            lost=self.states["lost"],
            unfinished=self.states["unfinished"],
            deliveries=self.deliveries,
            repeats=self.repeats,
            statuses=dict(sorted(self.statuses.items())),
            errors=dict(sorted(self.errors.items())),
            outcomes=dict(sorted(self.outcomes.items())),
            seconds=seconds,
            failure=failure,
            bills_lost=self.faults["bills"],
        )
