"""Compares what Ledger says through a month with the rules read anew, and with the truth."""

import random
from collections import defaultdict
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta

from evaluation.recall_fates import tell_fates
from evaluation.recall_judge import Fact, Missing, Said, in_order, judge, newest_status, said
from evaluation.recall_judge import is_done as done
from evaluation.recall_lines import BUDGET, LineCheck
from evaluation.recall_score import Score
from evaluation.recall_support import Arrival, fact_of
from evaluation.recall_truth import Key, Truth
from evaluation.recall_windows import WindowCheck
from ledger.operations.read_models import MissingEventItem, ReconciliationReport, SupportRequest

TOLD = 0.9
"""Share of the bookings that an integrator tells of."""


class Checker:
    """Keeps the books beside Ledger: what was received, listed, asked for."""

    def __init__(self, truth: Truth, ask_again_after: timedelta, seed: int) -> None:
        self._truth = truth
        self._score = Score()
        self._windows = WindowCheck(truth, self._score)
        self.expectations = list(_expectations(truth, seed))
        self._received: dict[Key, dict[bytes, Said]] = defaultdict(dict)
        self._missing: dict[Key, list[Missing]] = {}
        self._seen: set[str] = set()
        self._order = 0
        self._lines = LineCheck(truth, self._received, ask_again_after, self._score)
        self._listed: set[Fact] = set()  # as certain, ever
        self._listed_now: set[Fact] = set()
        self._possible: dict[Fact, int] = {}  # the most that was listed, ever

    def received(self, arrivals: Iterable[Arrival]) -> None:
        """Take note of events in the order of the log, and judge their bills anew."""
        touched = set()
        for at, _, event, imported in arrivals:
            own = self._received[event.key]
            if event.body in own:
                continue
            self._order += 1
            own[event.body] = said(event.body, order=self._order, received_at=at, imported=imported)
            self._windows.heard(event.key[0], at)
            self._seen.add(event.integrator_id or "")
            touched.add(event.key)
        for key in touched:
            self._missing[key] = judge(*key, self._received[key].values())

    def look(
        self, now: datetime, report: ReconciliationReport, items: list[MissingEventItem]
    ) -> None:
        """Compare a reconciliation at a time."""
        score = self._score
        score.counts["looks"] += 1
        every = [one for some in self._missing.values() for one in some]
        score.differ(
            "certain, other than the rules say",
            score.certain_by_rules.compare(
                {_listed(item) for item in items if item.certainty == "certain"},
                {self._by_rules(one) for one in every if self._is_listed(one, now)},
            ),
        )
        score.differ(
            "possible, other than the rules say",
            score.possible_by_rules.compare(
                {_listed(item)[:-1] for item in items if _is_due_possible(item, now)},
                {
                    self._by_rules(one)[:-1]
                    for one in every
                    if one.certainty == "possible" and one.received_at + BUDGET <= now
                },
            ),
        )
        if sum(report.totals.values()) != len(every):
            score.fault("totals that do not add up", f"{now}: {report.totals}, {len(every)}")
        self._listed_now = {_fact(item) for item in items if item.certainty == "certain"}
        self._listed |= self._listed_now
        for item in items:
            if item.certainty == "possible":
                fact = _fact(item)
                self._possible[fact] = max(self._possible.get(fact, 0), item.count)
        score.differ(
            "unseen bills",
            score.unseen.compare(
                {(bill.integrator_id, bill.expected_by) for bill in report.unseen_bills},
                {
                    (id_, by)
                    for id_, by, _ in self.expectations
                    if by <= now and id_ not in self._seen
                },
            ),
        )
        self._windows.look(now, report)

    def asked(
        self, now: datetime, request: SupportRequest | None, *, lab_id: str | None, possible: bool
    ) -> None:
        """Compare what a request asks for with what it should."""
        score = self._score
        lines = request.lines if request else []
        wanted: set[object] = {
            one.fact
            for some in self._missing.values()
            for one in some
            if one.certainty == "certain"
            and lab_id in {None, one.fact.lab_id}
            and one.received_at + BUDGET <= now
            and self._lines.may_be_asked(one.fact, now)
        }
        certain: set[object] = {fact_of(line) for line in lines if line.certainty == "certain"}
        score.differ(
            "asked, other than the rules say", score.asked_by_rules.compare(certain, wanted)
        )
        if request is None:
            return
        score.counts["requests"] += 1
        self._windows.asked(request)
        if not possible and len(lines) > len(certain):
            score.fault("possible: asked for without being told to", request.number)
        self._lines.ask(now, request)

    def end(self, requests: list[SupportRequest]) -> Score:
        """Compare what came of all, and tell how each lost event was known of."""
        score = self._score
        proven = set(self._proven())
        real: set[object] = {fact for fact in self._listed if self._is_real(fact)}
        score.differ(
            "certain, other than in truth",
            score.certain_in_truth.compare(set(self._listed), real | proven),
        )
        score.differ("certain in the end, other than in truth", self._listed_now ^ proven)
        for request in requests:
            for line in request.lines:
                self._lines.check_settled(line)
        self._windows.end()
        expected = {id_ for id_, _, _ in self.expectations}
        tell_fates(self._truth, score, self._listed, self._possible, expected)
        return score

    def _is_listed(self, one: Missing, now: datetime) -> bool:
        return one.certainty == "certain" and (
            self._lines.request_of(one.fact) is not None or one.received_at + BUDGET <= now
        )

    def _by_rules(self, one: Missing) -> tuple[object, ...]:
        proof = (one.evidence_type, one.evidence_at, one.received_at)
        return (
            one.fact,
            one.number,
            one.received_at + BUDGET,
            *proof,
            self._lines.request_of(one.fact),
        )

    def _is_real(self, fact: Fact) -> bool:
        # The oldest: a report may be sent again, corrected, after it was asked for.
        events = self._truth.meant_by(fact)
        return bool(events) and events[0].cause is not None

    def _proven(self) -> Iterable[Fact]:
        """Yield, lost event by lost event, what must be listed as certain in the end."""
        for key, own in self._truth.bills.items():
            here = [event for event in own if event.body in self._received[key]]
            kinds = {event.type for event in here}
            if not here or "bill.deleted" in kinds:
                continue
            reported = {t for event in here if event.type == "report.completed" for t in event.done}
            listed = {t for event in here if event.type == "bill.completed" for t in event.done}
            status = newest_status(in_order(self._received[key].values()))
            for event in own:
                if event in here:
                    continue
                if event.type == "bill.created":
                    yield Fact(*key, event.type, "")
                elif event.type == "report.completed":
                    for test in event.done & listed - reported:
                        yield Fact(*key, event.type, test)
                elif event.type not in kinds and event.type == "bill.completed" and done(status):
                    yield Fact(*key, event.type, "")


def _expectations(truth: Truth, seed: int) -> Iterable[tuple[str, datetime, str | None]]:
    chance = random.Random(f"{seed}/expected").random
    for own in truth.bills.values():
        told, hours, with_lab = chance() < TOLD, 2 + 28 * chance(), chance() < 0.5
        integrator_id = own[0].integrator_id
        if integrator_id and told:
            by = datetime.fromtimestamp(own[0].at + int(hours * 3_600), UTC)
            yield integrator_id, by, own[0].key[0] if with_lab else None


def _fact(item: MissingEventItem) -> Fact:
    return Fact(item.lab_id, item.bill_id, item.event_type, item.test_id or "")


def _listed(item: MissingEventItem) -> tuple[object, ...]:
    proof = item.evidence
    at = int(proof.event_time.timestamp())
    return (
        _fact(item),
        item.count,
        item.due_at,
        proof.event_type,
        at,
        proof.received_at,
        item.request,
    )


def _is_due_possible(item: MissingEventItem, now: datetime) -> bool:
    return item.certainty == "possible" and item.due_at <= now
