"""The reconciliation asked again: the same question, the same answer, whatever came since."""

from collections import Counter
from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Any

import msgspec
import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from psycopg import Connection

from ledger.errors import QuestionError
from ledger.eventlog.append import Delivery, append
from ledger.model.missing_events import MissingEvent
from ledger.model.operator_events import AnyDecision
from ledger.operations.missing_events.queries import (
    COLUMNS,
    IN_STATE,
    Filter,
    StoredMissing,
    list_query,
)
from ledger.operations.read_models import MissingEventItem, ReconciliationReport
from ledger.operations.reconciliation.report import Question, Since, reconcile
from ledger.postgres.connect import connect
from ledger.projection import rebuild
from tests.support.decisions import (
    POLICY,
    Log,
    closed,
    decided,
    expected_bill,
    report_of,
    request_closed,
    request_made,
    requested,
    some_decisions,
    some_events,
    span,
    subscribed,
    waived,
)
from tests.support.examples import examples
from tests.support.histories import RECEIVED, body, deliveries
from tests.support.sessions import drain, one

pytestmark = pytest.mark.slow

few = settings(
    max_examples=examples(25),
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
SECOND = timedelta(seconds=1)
BEGIN = RECEIVED - 2_000 * SECOND
"""When the first entry of a log is received."""

Answer = tuple[ReconciliationReport, list[MissingEventItem]]


def ask(connection: Connection, **question: Any) -> Answer:  # noqa: ANN401 -- as `Question` takes it
    with reconcile(connection, POLICY, Question(**question)) as (report, missing):
        # Which labs are registered is known for now alone.
        return msgspec.structs.replace(report, coverage=None), list(missing)


@st.composite
def logs(draw: st.DrawFn) -> list[Delivery]:
    """Draw events and decisions as they come, one after the other."""
    clock = BEGIN
    made: list[Delivery] = []
    for number in range(draw(st.integers(1, 16))):
        clock += draw(st.sampled_from([1, 60, 399, 400, 1_000])) * SECOND
        clock += number * timedelta(microseconds=1)
        if draw(st.integers(0, 2)):
            source = draw(st.sampled_from(["webhook", "webhook", "import"]))
            event = draw(some_events | st.sampled_from([b"broken", b'{"labID":"L1"}']))
            made.append(Delivery.of(event, received_at=clock, source=source))  # type: ignore[arg-type]
        else:
            made.append(decided(msgspec.structs.replace(draw(some_decisions), at=clock)))
    return made


_runs = st.lists(st.tuples(st.integers(-3_000, 9_000), st.integers(0, 2_000)), max_size=5)
_moments = st.integers(-100, 20_000)


@pytest.fixture(scope="module")
def connections(module_database_url: str) -> Iterator[tuple[Connection, Connection]]:
    """Give a superuser's connection to empty the log with, and the service's to use it."""
    with (
        psycopg.connect(module_database_url, autocommit=True) as owner,
        connect(module_database_url, "test") as service,
    ):
        name = owner.info.dbname
        owner.execute(f"GRANT CREATE ON DATABASE {name} TO ledger_service".encode())
        yield owner, service


@pytest.fixture
def log(connections: tuple[Connection, Connection]) -> Log:
    return Log(*connections)


def start(log: Log, runs: list[tuple[int, int]], entries: list[Delivery]) -> int:
    """Make a log anew, with the runs of a receiver, and return the position of the state."""
    log.empty()
    for begin, length in runs:
        alive_from = BEGIN + begin * SECOND
        log.service.execute(
            "INSERT INTO ledger.liveness VALUES (gen_random_uuid(), %s, %s)",
            (alive_from, alive_from + length * SECOND),
        )
    return go_on(log, entries)


def go_on(log: Log, entries: list[Delivery]) -> int:
    for entry in entries:
        append(log.service, [entry])
    return drain(log.service)


@few
@given(logs(), _runs, st.data())
def test_asked_again_it_answers_the_same_whatever_came_since(
    log: Log, entries: list[Delivery], runs: list[tuple[int, int]], data: st.DataObject
) -> None:
    cut = data.draw(st.integers(0, len(entries)), "entries before the question")
    as_of = BEGIN + data.draw(_moments, "as of") * SECOND
    lab_id = data.draw(st.sampled_from([None, None, "L1", "L2", "never"]))
    position = start(log, runs, entries[:cut])
    since = data.draw(
        st.none() | st.builds(lambda s, p: Since(as_of - s * SECOND, p), st.integers(0, 900),
                              st.integers(0, position))
    )  # fmt: skip
    question: dict[str, Any] = {"as_of": as_of, "labs": lab_id and (lab_id,), "since": since}
    first = ask(log.service, **question)
    assert first == ask(log.service, **question, position=position)
    go_on(log, entries[cut:])
    if data.draw(st.booleans(), "rebuilt"):
        assert log.verify_and_rebuild(3) is None
    assert ask(log.service, **question, position=position) == first


SCENE: list[bytes | AnyDecision] = [
    body("bill.completed", lab="L1", bill="B1", tests={"a": "completed"}, integratorID="one"),
    body("bill.completed", lab="L2", bill="B2", integratorID="two"),
    expected_bill("one", -7_000),
    expected_bill("four", -7_000, lab="L1"),
    expected_bill("five", -6_000),
    subscribed("L2", ["report.completed"]),
    requested(key=("L1", "B1")),
    request_made(windows=[span(BEGIN, RECEIVED, "L1")], lines=1),
    subscribed("L2", None),
    waived(key=("L2", "B2")),
    expected_bill("five", -2_000),
    body("report.completed", lab="L1", bill="B1", at=5, integratorID="three"),
    closed(key=("L1", "B1")),
    waived(report_of("a"), key=("L1", "B1")),
    body("report.completed", lab="L1", bill="B1", tests={"a": "completed"}),
    body(lab="L2", bill="B3", integratorID="one"),
    body(lab="L1", bill="B4", integratorID="four"),
    expected_bill("five", None),
    request_closed(),
    b"broken",
    body("bill.deleted", lab="L2", bill="B2"),
]
STEP = 300 * SECOND
"""Between two entries of the scene; the receiver was away from the second to the tenth."""


def test_after_each_entry_of_a_log_the_answer_is_what_it_was_after_it(log: Log) -> None:
    start(log, [(-100, 500), (3_000, 10**9)], [])
    times = [BEGIN + 60 * SECOND + number * STEP for number in range(len(SCENE))]
    questions = [{"as_of": moment + late * SECOND, "labs": lab and (lab,)} for moment in times[::2]
                 for late, lab in ((0, None), (1, "L1"), (399, None))]  # fmt: skip
    then: list[list[Answer]] = []
    position = 0
    for received_at, entry in zip(times, SCENE, strict=True):
        if isinstance(entry, bytes):
            delivery = Delivery.of(entry, received_at=received_at, source="webhook")
        else:
            delivery = decided(msgspec.structs.replace(entry, at=received_at))
        position = go_on(log, [delivery])
        then.append([ask(log.service, **question) for question in questions])
    assert position == len(SCENE)
    for upto, answers in enumerate(then, start=1):
        assert [ask(log.service, **each, position=upto) for each in questions] == answers


def test_each_state_holds_from_its_time_on(service: Connection) -> None:
    """All that is missing was proved at once, and is due after 400 seconds."""
    append(service, deliveries([body("bill.completed", tests={"a": "completed"})]))
    moments = [RECEIVED + seconds * SECOND for seconds in (500, 600)]
    append(
        service,
        [
            decided(msgspec.structs.replace(requested(), at=moments[0])),
            decided(msgspec.structs.replace(waived(report_of("a")), at=moments[1])),
        ],
    )
    drain(service)
    for seconds, states in (
        (-1, ""),
        (0, "awaiting_retry awaiting_retry"),
        (399, "awaiting_retry awaiting_retry"),
        (400, "overdue overdue"),
        (499, "overdue overdue"),
        (500, "requested overdue"),
        (599, "requested overdue"),
        (600, "requested waived"),
    ):
        report, listed = ask(service, as_of=RECEIVED + seconds * SECOND)
        assert +Counter(report.totals) == Counter(states.split())
        assert [item.request for item in listed if item.state == "requested"] == [1] * states.count(
            "requested"
        )


def test_what_was_taken_in_late_is_new_although_it_was_received_before(
    service: Connection,
) -> None:
    """As of a spool, or of a log that was restored."""
    events = [body("bill.completed", bill=bill) for bill in ("B1", "B2")]
    append(service, deliveries(events[:1]))
    drain(service)
    now = RECEIVED + 500 * SECOND
    append(service, deliveries(events[1:]))
    drain(service)
    assert [item.bill_id for item in ask(service, as_of=now, since=Since(now, 1))[1]] == ["B2"]
    assert ask(service, as_of=now, since=Since(now, 2))[1] == []


def test_what_a_subscription_makes_missing_is_new_although_its_evidence_is_old(
    service: Connection,
) -> None:
    append(service, [decided(subscribed("L", events=["bill.completed"]))])
    append(service, deliveries([body("bill.completed")]))
    drain(service)
    now = RECEIVED + 500 * SECOND
    assert ask(service, as_of=now)[1] == []
    append(service, [decided(subscribed("L", events=None))])
    drain(service)
    overdue = ask(service, as_of=now)[1]
    assert [item.event_type for item in overdue] == ["bill.created"]
    assert ask(service, as_of=now, since=Since(now, 2))[1] == overdue
    assert ask(service, as_of=now, since=Since(now, 3))[1] == []


def stored(connection: Connection) -> list[tuple[str, str, str | None, MissingEvent]]:
    query = f"SELECT m.lab_id, m.bill_id, m.integrator_id, {COLUMNS} FROM state.missing_event m"
    return [
        (lab_id, bill_id, integrator_id, StoredMissing(*columns).folded())
        for lab_id, bill_id, integrator_id, *columns in connection.execute(query.encode())
    ]


def subscriptions(connection: Connection) -> dict[str, list[str] | None]:
    query = "SELECT lab_id, events FROM state.subscription ORDER BY position"
    return dict(connection.execute(query))


def due(item: MissingEventItem) -> tuple[Any, ...]:
    return (item.lab_id, item.due_at, item.bill_id, item.test_id or "", item.event_type)


@few
@given(logs(), st.lists(_moments, min_size=1, max_size=3))
def test_the_states_are_those_that_the_model_gives(
    log: Log, entries: list[Delivery], moments: list[int]
) -> None:
    """And the totals those of what is listed."""
    start(log, [], entries)
    own = subscriptions(log.service)
    for moment in moments:
        now = BEGIN + moment * SECOND
        report, listed = ask(log.service, as_of=now)
        known = [
            (lab_id, bill_id, integrator_id, one_, one_.state(now, POLICY.budget))
            for lab_id, bill_id, integrator_id, one_ in stored(log.service)
            if one_.evidence.received_at <= now
            and one_.event_type in (POLICY.events if own.get(lab_id) is None else own[lab_id] or [])
        ]
        assert {state: n for state, n in report.totals.items() if n} == Counter(
            state for *_, state in known
        )
        assert sorted((i.lab_id, i.bill_id, i.event_type, i.test_id or "", i.state) for i in listed
        ) == sorted(
            (lab_id, bill_id, one_.event_type, one_.test_id or "", state)
            for lab_id, bill_id, _, one_, state in known
            if state in {"overdue", "requested"}
        )  # fmt: skip
        assert sorted(listed, key=due) == listed
        assert all(item.due_at == item.evidence.received_at + POLICY.budget for item in listed)
        for lab in report.labs:
            states = Counter(state for lab_id, *_, state in known if lab_id == lab.lab_id)
            assert (lab.overdue, lab.awaiting_retry, lab.requested) == (
                states["overdue"], states["awaiting_retry"], states["requested"],
            )  # fmt: skip
            overdue = [i.due_at for i in listed if i.lab_id == lab.lab_id and i.state == "overdue"]
            assert lab.oldest_due_at == min(overdue, default=None)


@few
@given(logs(), _runs, _moments)
def test_the_labs_parts_together_are_the_whole(
    log: Log, entries: list[Delivery], runs: list[tuple[int, int]], moment: int
) -> None:
    start(log, runs, entries)
    now = BEGIN + moment * SECOND
    whole, listed = ask(log.service, as_of=now)
    parts = [ask(log.service, as_of=now, labs=(lab,)) for lab in ("L1", "L2")]
    assert [item for _, items in parts for item in items] == listed
    assert [lab for report, _ in parts for lab in report.labs] == whole.labs
    assert sum((Counter(report.totals) for report, _ in parts), Counter()) == Counter(
        {state: n for state, n in whole.totals.items() if n}
    )
    assert {bill for report, _ in parts for bill in report.unseen_bills} == {
        bill for bill in whole.unseen_bills if bill.lab_id
    }
    assert [near for report, _ in parts for near in report.near_losses] == whole.near_losses
    for lab, (report, _) in zip(("L1", "L2"), parts, strict=True):
        assert [(w.begin, w.end, w.state) for w in report.loss_windows] == [
            (w.begin, w.end, w.state) for w in whole.loss_windows if lab in w.labs
        ]


@few
@given(logs(), st.data())
def test_what_is_new_since_a_question_was_not_overdue_in_it(
    log: Log, entries: list[Delivery], data: st.DataObject
) -> None:
    cut = data.draw(st.integers(0, len(entries)))
    then = BEGIN + data.draw(_moments) * SECOND
    position = start(log, [], entries[:cut])
    before = {due(item) for item in ask(log.service, as_of=then)[1] if item.state == "overdue"}
    go_on(log, entries[cut:])
    now = then + data.draw(st.integers(0, 3_000)) * SECOND
    overdue = [item for item in ask(log.service, as_of=now)[1] if item.state == "overdue"]
    new = ask(log.service, as_of=now, since=Since(then, position))[1]
    assert new == [item for item in overdue if due(item) not in before]


def test_a_position_that_the_state_has_not_reached_is_a_sentence(service: Connection) -> None:
    append(service, deliveries([body()]))
    with pytest.raises(QuestionError, match="at position 0, not yet at 1"):
        ask(service, as_of=RECEIVED, position=1)
    drain(service)
    assert ask(service, as_of=RECEIVED, position=1)[0].position == 1


def test_a_time_before_the_first_event_is_empty(service: Connection) -> None:
    append(service, deliveries([body("bill.completed", tests={"a": "completed"})]))
    drain(service)
    for as_of in (RECEIVED - SECOND, datetime.min.replace(tzinfo=RECEIVED.tzinfo)):
        report, listed = ask(service, as_of=as_of)
        assert (report.labs, listed, set(report.totals.values())) == ([], [], {0})


# --- cost -------------------------------------------------------------------------------------

MANY, MISSING = 50_000, 100

_FILL = f"""
INSERT INTO ledger.event_log
SELECT
    n, '{RECEIVED}'::timestamptz + n * interval '50 ms', to_timestamp(1705708800), 'webhook',
    'L' || n %% 7, 'B' || n, event_type, sha256(body), body
FROM generate_series(1, %s) AS n
CROSS JOIN LATERAL (
    SELECT CASE WHEN n %% %s = 0 THEN 'bill.completed' ELSE 'bill.created' END AS event_type
) t
CROSS JOIN LATERAL (
    SELECT convert_to(json_build_object(
        'labID', 'L' || n %% 7, 'eventType', event_type, 'eventTime', 1705708800,
        'data', json_build_object('billID', 'B' || n, 'integratorID', 'i' || n, 'billData',
            json_build_object('testData', json_build_array(
                json_build_object('_id', 'a', 'status', 'open')))))::text, 'UTF8') AS body
) b
"""
_SCANS = """
SELECT schemaname || '.' || relname, seq_scan
FROM pg_stat_user_tables
WHERE relname IN ('event_log', 'bill', 'repeat_delivery')
    AND schemaname IN ('ledger', 'state')
"""


@pytest.fixture
def large(database_url: str, owner: Connection, service: Connection) -> Connection:
    """Give a log of many bills, of few of which something is missing, and its state."""
    owner.execute(_FILL.encode(), (MANY, MANY // MISSING))
    rebuild.rebuild(database_url, processes=1, started_at=RECEIVED, on_progress=lambda *_: None)
    for begin, end in ((-9, 100), (1_000, 10**9)):
        service.execute(
            "INSERT INTO ledger.liveness VALUES (gen_random_uuid(), %s, %s)",
            (RECEIVED + begin * SECOND, RECEIVED + end * SECOND),
        )
    assert one(service, "SELECT count(*) FROM state.missing_event") == MISSING
    assert one(service, "SELECT count(*) FROM state.bill") == MANY
    return service


@pytest.mark.parametrize("statistics", ["none", "fresh"])
def test_nothing_that_is_large_is_scanned(
    large: Connection, database_url: str, owner: Connection, statistics: str
) -> None:
    if statistics == "fresh":
        owner.execute("ANALYZE")
    later = RECEIVED + 3_600 * SECOND
    append(
        large,
        [
            decided(expected_bill("never")),
            decided(expected_bill(f"i{MANY}")),
            decided(waived(key=("L0", f"B{MANY}"))),
            *deliveries([body(bill=f"C{number}", integratorID="new") for number in range(50)]),
        ],
    )
    head = drain(large)
    with connect(database_url, "test") as asking:  # for the other one keeps to indexes
        before = scans(asking, owner)
        for question in (
            {"as_of": later},
            {"as_of": later, "labs": ("L3",)},
            {"as_of": later, "since": Since(RECEIVED, head - 9)},
            {"as_of": later, "position": MANY},
            {"as_of": later, "position": head - 7},
        ):
            report, listed = ask(asking, **question)
            assert len(listed) == report.totals["overdue"]
            assert report.loss_windows
        for wanted in (
            Filter(),
            Filter(lab_id="L3"),
            Filter(event_type="bill.created", certainty="certain"),
            *(Filter(state=state) for state in IN_STATE),
        ):
            query, values = list_query(wanted, POLICY, later, limit=10, after=None)
            assert asking.execute(query, values).fetchall()
        assert scans(asking, owner) == before
        asking.execute("SELECT count(*) FROM state.bill WHERE flabs_status IS NOT NULL")
        assert scans(asking, owner)["state.bill"] > before["state.bill"]


def scans(connection: Connection, owner: Connection) -> dict[str, int]:
    """Return how often each of the large tables was scanned from end to end."""
    # Sessions report what they did with a delay: wait until two looks agree.
    before: dict[str, int] | None = None
    while True:
        connection.execute("SELECT pg_stat_force_next_flush()")
        now: dict[str, int] = dict(owner.execute(_SCANS))
        if now == before:
            return now
        before = now
