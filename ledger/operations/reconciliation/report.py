"""The reconciliation: all that is missing, lab by lab, as it stood at a time and a log position.

Everything is read in one snapshot, so that the totals are those of what is listed. Asked again with
the same time and position, the answer is the same: what has changed since is folded again from the
log up to that position. Only whether labs are registered at Flabs is not in the log: a report of an
earlier position does not say it.
"""

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, date, datetime, timedelta

from msgspec import Struct
from psycopg import Connection, IsolationLevel
from psycopg.sql import SQL

from ledger.errors import QuestionError
from ledger.model.missing_events import MissingState
from ledger.model.operators import Labs, as_array
from ledger.operations.coverage import CoverageFinding, coverage_findings, read_coverage
from ledger.operations.loss_windows import read_windows
from ledger.operations.missing_events.queries import (
    COLUMNS,
    STATE,
    SUBSCRIBED,
    Parameters,
    item_of,
    parameters,
)
from ledger.operations.near_losses import near_loss
from ledger.operations.policy import Policy
from ledger.operations.read_models import (
    LabTotals,
    MissingEventItem,
    NearLoss,
    ReconciliationReport,
    UnseenBill,
)
from ledger.operations.reconciliation.as_of import Past, read_past
from ledger.operations.silence import read_hearings_then, silences_of
from ledger.projection import store

FETCH = 1_000
"""Missing events that are held in memory at a time."""

_EARLIEST = datetime(1971, 1, 1, tzinfo=UTC)
_LATEST = datetime(2998, 1, 1, tzinfo=UTC)
"""Times of questions beyond these are answered as at these: nothing was received there."""

NEAR_LOSS_DAYS = 30
"""Days before the time of the question whose deliveries are looked at."""


class Since(Struct, frozen=True):
    """The question that was asked last: what was overdue then is not new."""

    as_of: datetime
    position: int


class Question(Struct, frozen=True, kw_only=True):
    """A question: the time, the log position (None: the state's), and the labs (None: all)."""

    as_of: datetime
    position: int | None = None
    labs: Labs = None
    since: Since | None = None


_MISSING = """
SELECT
    m.lab_id, m.bill_id, m.integrator_id, {columns},
    {state} AS state
FROM {missing} m
WHERE {subscribed}
    AND m.evidence_received_at <= %(now)s
    AND (%(labs)s::text[] IS NULL OR m.lab_id = ANY(%(labs)s::text[]))
"""

_ONLY_NEW = """
SELECT * FROM ({missing}) m
WHERE m.state = 'overdue'
    AND NOT EXISTS (
        SELECT FROM ({missing_before}) b
        WHERE b.state = 'overdue'
            AND b.lab_id = m.lab_id
            AND b.bill_id = m.bill_id
            AND b.event_type = m.event_type
            AND b.test_id = m.test_id
            AND b.evidence_received_at = m.evidence_received_at
    )
"""

_TOTALS = """
SELECT m.lab_id, m.state, count(*), min(m.evidence_received_at)
FROM ({missing}) m
GROUP BY m.lab_id, m.state
ORDER BY m.lab_id
"""

_LISTED = """
SELECT * FROM ({missing}) m
WHERE m.state IN ('overdue', 'requested')
ORDER BY m.lab_id, m.evidence_received_at, m.bill_id, m.test_id, m.event_type
"""

_UNSEEN = """
SELECT e.integrator_id, e.lab_id, e.expected_by
FROM {expected} e
WHERE e.expected_by <= %(now)s
    AND (%(labs)s::text[] IS NULL OR e.lab_id = ANY(%(labs)s::text[]))
    AND (%(unseen_before)s::timestamptz IS NULL OR e.expected_by > %(unseen_before)s
        OR e.position > %(last_position)s)
    AND (
        NOT e.is_seen
        OR (e.lab_id, e.integrator_id) IN (
            SELECT l.lab_id, l.integrator_id
            FROM unnest(%(later_labs)s::text[], %(later_ids)s::text[]) AS l (lab_id, integrator_id)
        )
    )
ORDER BY e.expected_by, e.integrator_id
"""

_DELAYS = """
SELECT lab_id, day, seconds, deliveries
FROM state.delay
WHERE day > %(first_day)s AND day <= %(last_day)s
    AND (%(labs)s::text[] IS NULL OR lab_id = ANY(%(labs)s::text[]))
"""


@contextmanager
def reconcile(
    connection: Connection, policy: Policy, question: Question
) -> Iterator[tuple[ReconciliationReport, Iterator[MissingEventItem]]]:
    """Give the report, and its missing events to be read once, inside the block.

    They come lab by lab in the order of the report's labs, each lab's the oldest due first.
    Raises `QuestionError` for a position that the state has not reached.
    """
    connection.set_isolation_level(IsolationLevel.REPEATABLE_READ)
    try:
        with connection.transaction():
            at = store.read_checkpoint(connection).position
            position = at if question.position is None else question.position
            if position > at:
                raise QuestionError(f"the state is at position {at}, not yet at {position}")
            past = _past(connection, position, question.labs, at)
            asked = _Asked(connection, policy, question, position, past)
            if since := question.since:
                before = Question(as_of=since.as_of, labs=question.labs)
                past = _past(connection, since.position, question.labs, at)
                asked.leave_out(_Asked(connection, policy, before, since.position, past))
            yield asked.report(), asked.missing_events()
    finally:
        connection.set_isolation_level(None)


def _past(connection: Connection, position: int, labs: Labs, at: int) -> Past:
    return read_past(connection, position, labs) if position < at else Past.none()


class _Asked:
    """A question with what its queries name."""

    def __init__(
        self, connection: Connection, policy: Policy, question: Question, position: int, past: Past
    ) -> None:
        self._connection = connection
        self._policy = policy
        self._question = question
        self._position = position
        self._past = past
        since = question.since
        self._now = min(max(question.as_of, _EARLIEST), _LATEST)
        self.values: Parameters = {
            **parameters(policy, self._now, position=position),
            "labs": as_array(question.labs),
            "unseen_before": since and since.as_of,
            "last_position": since and since.position,
            "past_rows": past.past_rows,
            "later_labs": [lab_id for lab_id, _ in past.seen_later],
            "later_ids": [integrator_id for _, integrator_id in past.seen_later],
        }

        self.missing = SQL(_MISSING).format(
            columns=SQL(COLUMNS),
            state=SQL(STATE),
            missing=past.missing,
            subscribed=SQL(SUBSCRIBED),
        )

    def leave_out(self, before: "_Asked") -> None:
        """Leave out what was overdue in a question before this one.

        An event that arrives can make another one missing with old evidence, and so can a
        subscription. So neither a time nor a position tells what is new.
        """
        # The same query twice, with values of its own.
        named = before.missing.as_string(self._connection).replace("%(", "%(before_")
        self.values |= {f"before_{name}": value for name, value in before.values.items()}
        self.missing = SQL(_ONLY_NEW).format(missing=self.missing, missing_before=SQL(named))

    def report(self) -> ReconciliationReport:
        question = self._question
        labs, totals = self._totals()
        windows = read_windows(
            self._connection,
            self._policy,
            self._now,
            position=self._position,
            labs=question.labs,
        )
        if question.since:
            before = question.since.as_of - self._policy.retry_interval * self._policy.retry_count
            windows = [window for window in windows if window.end > before]
        return ReconciliationReport(
            as_of=question.as_of,
            position=self._position,
            totals=totals,
            labs=labs,
            loss_windows=[window for window in windows if window.state != "closed"],
            unseen_bills=[
                UnseenBill(integrator_id, lab_id or None, expected_by.astimezone(UTC))
                for integrator_id, lab_id, expected_by in self._connection.execute(
                    SQL(_UNSEEN).format(expected=self._past.expected), self.values
                )
            ],
            near_losses=self._near_losses(),
            silences=silences_of(
                read_hearings_then(
                    self._connection,
                    self._now,
                    position=self._position,
                    since_then=self._past.since_then.hours,
                    labs=question.labs,
                )
            ),
            coverage=self._coverage(),
        )

    def missing_events(self) -> Iterator[MissingEventItem]:
        with self._connection.cursor(name="missing", binary=True) as cursor:
            cursor.itersize = FETCH
            cursor.execute(SQL(_LISTED).format(missing=self.missing), self.values)
            for row in cursor:
                yield item_of(row[:-1], self._policy, self._now)

    def _totals(self) -> tuple[list[LabTotals], dict[MissingState, int]]:
        totals: dict[MissingState, int] = {
            "awaiting_retry": 0, "overdue": 0, "requested": 0, "waived": 0,
        }  # fmt: skip
        labs: dict[str, Counter[str]] = {}
        oldest: dict[str, datetime] = {}
        query = SQL(_TOTALS).format(missing=self.missing)
        for lab_id, state, count, received_at in self._connection.execute(query, self.values):
            totals[state] += count
            labs.setdefault(lab_id, Counter())[state] = count
            if state == "overdue":
                oldest[lab_id] = received_at.astimezone(UTC) + self._policy.budget
        return [
            LabTotals(
                lab_id,
                counts["overdue"],
                counts["awaiting_retry"],
                counts["requested"],
                oldest.get(lab_id),
            )
            for lab_id, counts in labs.items()
            if counts.keys() - {"waived"}
        ], totals

    def _coverage(self) -> list[CoverageFinding] | None:
        question = self._question
        if question.position is not None:
            return None
        if question.since:  # nobody notes when a registration went wrong, so none is new
            return []
        return coverage_findings(read_coverage(self._connection, self._policy, labs=question.labs))

    def _near_losses(self) -> list[NearLoss]:
        last_day = self._now.astimezone(UTC).date()
        values = {
            **self.values,
            "first_day": last_day - timedelta(days=NEAR_LOSS_DAYS),
            "last_day": last_day,
        }
        days: dict[tuple[str, date], dict[int, int]] = {}
        for lab_id, day, seconds, deliveries in self._connection.execute(_DELAYS, values):
            then = deliveries - self._past.since_then.delays[lab_id, day, seconds]
            if then:
                days.setdefault((lab_id, day), {})[seconds] = then
        return [
            near_loss(lab_id, day, delays, self._policy)
            for (lab_id, day), delays in sorted(days.items())
        ]
