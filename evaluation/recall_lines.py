"""Compares what support requests ask for, and what came of it, with the truth."""

from collections.abc import Mapping
from datetime import datetime, timedelta

from evaluation.recall_judge import Fact, Said
from evaluation.recall_score import Score
from evaluation.recall_support import fact_of
from evaluation.recall_truth import Key, Sent, Truth
from ledger.operations.read_models import RequestLine, SupportRequest

BUDGET = timedelta(seconds=3 * 120 + 4 * 10)

Received = Mapping[Key, Mapping[bytes, Said]]
"""What was received of each bill so far, by body."""


class LineCheck:
    """Keeps the books of what was asked for; each fact has the last line that did."""

    def __init__(
        self, truth: Truth, received: Received, ask_again_after: timedelta, score: Score
    ) -> None:
        self._truth = truth
        self._received = received
        self._ask_again_after = ask_again_after
        self._score = score
        self._asked: dict[Fact, tuple[datetime, RequestLine, int]] = {}

    def request_of(self, fact: Fact) -> int | None:
        """Return the number of the last request that asked for a fact."""
        return self._asked[fact][2] if fact in self._asked else None

    def may_be_asked(self, fact: Fact, now: datetime) -> bool:
        """Tell whether nobody has asked for a fact, or only so long ago that one may again."""
        return fact not in self._asked or self._asked[fact][0] <= now - self._ask_again_after

    def ask(self, now: datetime, request: SupportRequest) -> None:
        """Check and note each line."""
        for line in request.lines:
            self._check(now, line)
            self._asked[fact_of(line)] = (now, line, request.number)
        self._score.counts["lines"] += len(request.lines)
        self._score.counts["lines for what is possible"] += len(
            [line for line in request.lines if line.certainty == "possible"]
        )

    def check_settled(self, line: RequestLine) -> None:
        """Check that a line is received exactly if one of the events that it means is there."""
        self._score.counts[f"lines {line.state} in the end"] += 1
        if _is_of_unknown_test(line):
            return
        own = self._received[line.lab_id, line.bill_id]
        came = any(event.body in own for event in self._truth.meant_by(fact_of(line)))
        if came != (line.state == "received"):
            self._score.fault("lines in another state than what came says", line)

    def _check(self, now: datetime, line: RequestLine) -> None:
        score, fact = self._score, fact_of(line)
        if line.evidence.received_at + BUDGET > now:
            score.fault(f"{line.certainty}: asked for before it was due", line)
        if fact in self._asked:
            again = self.may_be_asked(fact, now) and line.previous == self.request_of(fact)
            if again:
                score.counts["lines asked again after a week"] += 1
            elif self._is_asked_twice(now, line):
                score.fault(f"{line.certainty}: asked for twice", (self._asked[fact], line))
        if _is_of_unknown_test(line):
            if len(self._missing(now, line)) < line.count:
                score.fault(f"{line.certainty}: asked for, and never sent", line)
            return
        sent = [event for event in self._truth.meant_by(fact) if event.at <= now.timestamp()]
        if not sent:
            score.fault(f"{line.certainty}: asked for, and never sent", line)
        # The oldest: a report may be sent again, corrected, after it was asked for.
        elif sent[0].received_at is not None:
            score.fault(f"{line.certainty}: asked for, and came by itself", line)

    def _is_asked_twice(self, now: datetime, line: RequestLine) -> bool:
        if not _is_of_unknown_test(line):
            return True
        # Of several reports that are missing, those may be asked for that were not.
        asked_at, before, _ = self._asked[fact_of(line)]
        answers = [
            one
            for one in self._received[line.lab_id, line.bill_id].values()
            if one.imported and one.type == line.event_type and one.received_at > asked_at
        ]
        still_asked = max(0, before.count - len(answers))
        return len(self._missing(now, line)) < still_asked + line.count

    def _missing(self, now: datetime, line: RequestLine) -> list[Sent]:
        own = self._received[line.lab_id, line.bill_id]
        return [
            event
            for event in self._truth.meant_by(fact_of(line))
            if event.at <= now.timestamp() and event.body not in own
        ]


def _is_of_unknown_test(line: RequestLine) -> bool:
    return line.event_type == "report.completed" and line.test_id is None
