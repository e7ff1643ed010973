"""The truth file: the fate of each event, to compare with what the receiver knows.

The file is JSON Lines. One line per event is written when its delivery has ended:

    {"number": 7, "state": "delivered", "delivered": true, "outcome": "recorded",
     "fate": {"dropped": false, "attempt": 2, "duplicate": true, "reordered": false},
     "deliveries": [{"attempt": 2, "repeat": false, "sent_at": "2024-01-20T10:00:00.123Z",
                     "seconds": 0.004, "status": 200, "error": null, "outcome": "recorded",
                     "position": 12}, ...],
     "payload": {...}}

`number`      in order of sending, from 1
`state`       `delivered`: a delivery was answered with 2xx; `dropped`: never sent, because the
              simulation was asked to drop it, or nobody had subscribed to it; `lost`: no attempt
              was answered with 2xx, as in an outage of the receiver; `unfinished`: the simulation
              was stopped first
`delivered`   whether the state is `delivered`
`outcome`     the receiver's answer to the delivery that it acknowledged first; null if none
`fate`        the planned faults: `attempt` is the first that is not lost on the way; `bill_lost`
              is present, and true, if the whole bill was dropped
`deliveries`  the HTTP attempts that were made; `repeat` marks one made although the event was
              acknowledged; `status` is null if no answer came, and `error` then says why
`payload`     the body, byte for byte

The receiver may still know an event that is not delivered, if the `error` of a delivery is another
than "cannot connect": the request may have reached it.

The last line is `{"summary": {...}}`. If it is absent, the simulation was killed: all lines are
complete, and only events that were under way or waiting for a retry have no line. With `output`,
each delivery is a line of that file, with the time at which it would have been sent in the
simulated day; a delivery with the `error` "receiver away" met an outage and is no line. The outages
come before all events:

    {"outage": {"from": "2024-01-20T10:00:00Z", "to": "2024-01-20T11:00:00Z"}}
"""

import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Literal, Self

import msgspec

from ledger.errors import SimulationError
from ledger.simulator.outages import Outage
from ledger.simulator.plan import Fate, PlannedEvent

State = Literal["delivered", "dropped", "lost", "unfinished"]


class Delivery(msgspec.Struct, frozen=True, kw_only=True):
    """One HTTP attempt."""

    attempt: int  # 1 to 4; attempts lost on the way count
    repeat: bool  # made although the event was acknowledged
    sent_at: str  # RFC 3339, UTC, milliseconds
    seconds: float  # until the answer, or until it was given up
    status: int | None = None  # null: no answer
    error: str | None = None  # why there is no answer
    outcome: str | None = None  # as the receiver answered
    position: int | None = None  # as the receiver answered

    @property
    def acknowledged(self) -> bool:
        """Whether the answer was a 2xx."""
        return self.status is not None and 200 <= self.status < 300  # noqa: PLR2004 HTTP's own


class EventTruth(msgspec.Struct, frozen=True, kw_only=True):
    """One event's line of a truth file; the module's docstring describes the fields."""

    number: int
    state: State
    delivered: bool
    outcome: str | None
    fate: Fate
    deliveries: list[Delivery]
    payload: msgspec.Raw


class _Summary(msgspec.Struct, frozen=True):
    summary: dict[str, object]


class _Span(msgspec.Struct, frozen=True, rename={"begin": "from", "end": "to"}):
    begin: datetime
    end: datetime


class _Outage(msgspec.Struct, frozen=True):
    outage: _Span


_NO_EVENT = (b'{"summary":', b'{"outage":')


@dataclass(kw_only=True, slots=True)
class Record:
    """One event and its deliveries so far."""

    planned: PlannedEvent
    deliveries: list[Delivery] = field(default_factory=list)
    state: State = "unfinished"

    @property
    def late(self) -> bool:
        """Whether the event needed more than one attempt."""
        return bool(self.deliveries) and self.deliveries[-1].attempt > 1

    @property
    def outcome(self) -> str | None:
        """The receiver's answer to the delivery that it acknowledged first."""
        return next((each.outcome for each in self.deliveries if each.acknowledged), None)


class TruthFile:
    """Writes a truth file, or nothing without a path. Raises SimulationError if it cannot write."""

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._file = -1
        if path is not None:
            try:
                self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
            except OSError as error:
                raise self._failure(error) from None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        if self._path is not None:
            os.close(self._file)

    def write_outage(self, outage: Outage) -> None:
        """Write the line of an outage; called before all events."""
        if self._path is not None:
            begin, end = (datetime.fromtimestamp(at, UTC) for at in (outage.begin, outage.end))
            self._write(_Outage(_Span(begin, end)))

    def write_event(self, record: Record) -> None:
        """Write the line of an event whose delivery has ended."""
        if self._path is None:
            return
        self._write(
            EventTruth(
                number=record.planned.number,
                state=record.state,
                delivered=record.state == "delivered",
                outcome=record.outcome,
                fate=record.planned.fate,
                deliveries=record.deliveries,
                payload=msgspec.Raw(record.planned.event.body),
            )
        )

    def write_summary(self, summary: object) -> None:
        """Write the last line."""
        if self._path is not None:
            self._write({"summary": summary})

    def _write(self, line: object) -> None:
        # One unbuffered write per line, so that a killed process leaves complete lines.
        rest = msgspec.json.encode(line) + b"\n"
        try:
            while rest:
                rest = rest[os.write(self._file, rest) :]
        except OSError as error:
            raise self._failure(error) from None

    def _failure(self, error: OSError) -> SimulationError:
        return SimulationError(f"cannot write the truth file {self._path}: {error.strerror}")


def read_truth(path: Path) -> Iterator[EventTruth]:
    """Yield the events of a truth file in the order of the lines."""
    decoder = msgspec.json.Decoder(EventTruth)
    with path.open("rb") as file:
        for line in file:
            if not line.startswith(_NO_EVENT):
                yield decoder.decode(line)


def read_truth_summary(path: Path) -> dict[str, object] | None:
    """Return the summary of a truth file, None if the simulation was killed."""
    with path.open("rb") as file:
        for line in file:
            if line.startswith(b'{"summary":'):
                return msgspec.json.decode(line, type=_Summary).summary
    return None


def read_truth_outages(path: Path) -> list[Outage]:
    """Return the outages of a truth file, in order."""
    outages = []
    with path.open("rb") as file:
        for line in file:
            if not line.startswith(b'{"outage":'):
                break
            span = msgspec.json.decode(line, type=_Outage).outage
            outages.append(Outage(int(span.begin.timestamp()), int(span.end.timestamp())))
    return outages


def timestamp(seconds: float) -> str:
    """Format a Unix time as RFC 3339 in UTC with milliseconds."""
    moment = datetime.fromtimestamp(seconds, UTC)
    return moment.isoformat(timespec="milliseconds").removesuffix("+00:00") + "Z"
