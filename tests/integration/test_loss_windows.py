"""Loss windows lab by lab, against a simulation that looks at every second of every lab."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from psycopg import Connection

from ledger.errors import UnknownSubjectError
from ledger.eventlog.append import append
from ledger.eventlog.liveness import LONGEST_GAP
from ledger.model.event import RANK
from ledger.model.operator_events import RequestClosed, RequestMade, Span, WindowClosed
from ledger.operations.loss_windows import close_window, read_windows
from ledger.operations.policy import Policy
from ledger.operations.read_models import LossWindow, WindowState
from ledger.operations.support_requests.make import close_request, make_request
from ledger.operations.support_requests.queries import read_request
from ledger.postgres.connect import connect
from tests.support.decisions import (
    OPERATOR,
    POLICY,
    WHY,
    Log,
    decided,
    request_closed,
    request_made,
    span,
    window_closed,
)
from tests.support.examples import examples
from tests.support.histories import RECEIVED, body, delivery
from tests.support.sessions import LONG, drain

pytestmark = pytest.mark.slow

few = settings(
    max_examples=examples(100),
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
SECOND = timedelta(seconds=1)
NOON = RECEIVED
LAST = 60
"""The last second that anything of an example touches."""

SHORT = Policy(
    events=tuple(RANK),
    retry_interval=10 * SECOND,
    retry_count=2,
    budget=30 * SECOND,
    ask_again_after=timedelta(days=7),
)
ATTEMPTS = (0, 10, 20)
"""When an event of a second is attempted, in seconds after it."""

LABS = ("K", "L", "M")

Runs = list[tuple[int, int]]
Decision = RequestMade | RequestClosed | WindowClosed

_seconds = st.integers(0, LAST)
# Long outages, and labs that were mostly heard before and after.
_runs = st.lists(st.tuples(_seconds, st.integers(0, 5)), min_size=1, max_size=4)
_receptions = st.lists(st.integers(0, 9) | st.integers(45, LAST) | _seconds, max_size=3)
_heard = st.fixed_dictionaries({}, optional=dict.fromkeys(LABS, _receptions))
_labs = st.lists(st.sampled_from(LABS), max_size=2, unique=True)
_spans = st.builds(
    lambda begin, length, labs: span(moment(begin), moment(begin + length), *labs),
    _seconds,
    st.integers(1, 40),
    _labs,
)
# Decisions count from an hour after noon on, so most of them are taken before the question.
_whens = st.integers(-3_600, -3_600 + 2 * LAST)
_decisions: st.SearchStrategy[list[Decision]] = st.lists(
    st.builds(request_made, st.integers(1, 2), windows=st.lists(_spans, max_size=2), when=_whens)
    | st.builds(request_closed, st.integers(1, 3), when=_whens)
    | st.builds(window_closed, _spans, when=_whens),
    max_size=5,
)

_questions = st.tuples(st.integers(0, 2 * LAST), st.none() | st.sampled_from(LABS))


def moment(second: float) -> datetime:
    return NOON + second * SECOND


@pytest.fixture(scope="module")
def connections(module_database_url: str) -> Iterator[tuple[Connection, Connection]]:
    """Give a superuser's connection to empty the log with, and the service's to use it."""
    with (
        psycopg.connect(module_database_url, autocommit=True) as owner,
        connect(module_database_url, "test") as service,
    ):
        yield owner, service


@pytest.fixture
def log(connections: tuple[Connection, Connection]) -> Log:
    return Log(*connections)


def start(connection: Connection, runs: Runs, heard: dict[str, list[int]]) -> None:
    for begin, length in runs:
        connection.execute(
            "INSERT INTO ledger.liveness VALUES (gen_random_uuid(), %s, %s)",
            (moment(begin), moment(begin + length)),
        )
    events = sorted((second, lab) for lab, seconds in heard.items() for second in seconds)
    append(
        connection,
        [delivery(body(lab=lab, at=second), received=second) for second, lab in events],
    )
    drain(connection)


# --- the simulation ---------------------------------------------------------------------------


def lost(runs: Runs, now: int) -> set[int]:
    """Return the seconds whose events met nobody at any attempt."""
    beats = [(begin, begin + length) for begin, length in runs]
    first = min(begin for begin, _ in beats)

    last = max(end for _, end in beats)
    # Of the last record nobody can tell yet whether another follows.
    grace = range(last, now) if last <= now <= last + LONGEST_GAP else range(0)

    def nobody(second: int) -> bool:
        alive = second in grace or any(begin <= second < end for begin, end in beats)
        return first <= second < now and not alive

    return {
        second
        for second in range(-LAST, 2 * LAST)
        if all(nobody(second + after) for after in ATTEMPTS)
    }


def whole_window(seconds: set[int], second: int) -> int:
    """Return the end of the window that a second is in."""
    while second in seconds:
        second += 1
    return second


def state_of(second: int, lab: str, decisions: list[Decision]) -> WindowState:
    state: WindowState = "open"
    asked: dict[int, list[Span]] = {}
    for decision in decisions:
        if isinstance(decision, RequestMade):
            asked.setdefault(decision.request, []).extend(decision.windows)
            if state == "open" and covers(decision.windows, second, lab):
                state = "requested"
        else:
            closing = (
                [decision.window]
                if isinstance(decision, WindowClosed)
                else asked.get(decision.request, [])
            )
            # Of no lab: whoever closed it meant it for all.
            if covers(closing, second, lab) or covers(closing, second, ""):
                return "closed"
    return state


def covers(spans: list[Span], second: int, lab: str) -> bool:
    return any(
        each.begin <= moment(second) < each.end and lab in (each.labs or [""]) for each in spans
    )


def told(windows: list[LossWindow]) -> list[tuple[int, str, WindowState]]:
    """Return what is told of every second and lab, each time that it is."""
    return sorted(
        (second, lab, window.state)
        for window in windows
        for second in range(-LAST, 2 * LAST)
        if window.begin <= moment(second) < window.end
        for lab in window.labs or [""]
    )


@few
@given(_runs, _heard, _decisions, _questions)
def test_windows_are_those_of_every_second_and_lab(
    log: Log,
    runs: Runs,
    heard: dict[str, list[int]],
    decisions: list[Decision],
    question: tuple[int, str | None],
) -> None:
    now, only = question
    log.empty()
    start(log.service, runs, heard)
    append(log.service, list(map(decided, decisions)))
    position = drain(log.service)
    windows = read_windows(
        log.service, SHORT, moment(now), position=position, labs=None if only is None else (only,)
    )
    taken: list[Decision] = [one_ for one_ in decisions if one_.at <= moment(now)]
    seconds = lost(runs, now)
    expected = []
    for second in seconds:
        end = whole_window(seconds, second)
        concerned = [
            lab
            for lab, times in sorted(heard.items())
            if any(time < end for time in times) and any(end <= time <= now for time in times)
            if only in {None, lab}
        ]
        expected += [
            (second, lab, state_of(second, lab, taken))
            for lab in concerned or ([] if only else [""])
        ]
    assert told(windows) == sorted(expected)
    assert windows == sorted(windows, key=lambda window: (window.begin, window.end, window.state))
    assert all(
        window.begin < window.end and window.labs == sorted(window.labs) for window in windows
    )


# --- decided for real -------------------------------------------------------------------------


@pytest.fixture
def outage(service: Connection) -> list[LossWindow]:
    """An outage from 10 s to 1,000 s after noon, and two labs that were heard before and after."""
    start(service, [(0, 10), (1_000, 10**9)], {"K": [5, 2_000], "L": [5, 2_000], "M": [2_000]})
    return [LossWindow(moment(10), moment(640), ["K", "L"], "open")]


def windows(connection: Connection) -> list[LossWindow]:
    return read_windows(connection, POLICY, datetime.now(UTC), position=9)


def test_a_window_names_the_labs_that_were_heard_before_and_after(
    service: Connection, outage: list[LossWindow]
) -> None:
    assert windows(service) == outage


def test_a_lab_heard_first_at_the_window_s_end_had_nothing_to_lose(service: Connection) -> None:
    """And one that was heard last at that moment had."""
    start(service, [(0, 10), (1_000, 10**9)], {"K": [640, 641], "L": [5, 640], "M": [639, 640]})
    assert [found.labs for found in windows(service)] == [["L", "M"]]


def test_a_decision_counts_from_its_time_and_its_position_on(
    service: Connection, outage: list[LossWindow]
) -> None:
    [window] = outage
    end = window_closed(span(window.begin, window.end, "K", "L"), when=5)
    append(service, [decided(end)])
    position = drain(service)
    for now, upto, state in (
        (end.at, position, "closed"),
        (end.at - SECOND, position, "open"),
        (end.at, position - 1, "open"),
    ):
        [found] = read_windows(service, POLICY, now, position=upto)
        assert (found.begin, found.labs, found.state) == (window.begin, window.labs, state)


def test_a_part_of_a_window_is_closed_for_one_lab_and_then_for_all(
    database_url: str, service: Connection, outage: list[LossWindow]
) -> None:
    begin, end = outage[0].begin, outage[0].end
    middle = moment(300)
    parts, position = close_window(
        database_url, POLICY, (begin, middle), labs=["L"], reason=WHY, by=OPERATOR, patience=LONG
    )
    assert [(part.begin, part.end, part.labs, part.state) for part in parts] == [
        (begin, middle, ["L"], "closed"),
        (begin, end, ["K"], "open"),
    ]
    again, same = close_window(
        database_url, POLICY, (begin, middle), labs=None, reason=WHY, by=OPERATOR, patience=LONG
    )
    assert same == position + 1
    assert [(part.begin, part.end, part.labs, part.state) for part in again] == [
        (begin, middle, ["K", "L"], "closed")
    ]
    assert windows(service) == [
        LossWindow(begin, middle, ["K", "L"], "closed"),
        LossWindow(middle, end, ["K", "L"], "open"),
    ]


def test_what_is_no_window_cannot_be_closed(
    database_url: str,
    outage: list[LossWindow],  # noqa: ARG001 -- must be there
) -> None:
    for window, labs, words in (
        ((moment(640), moment(700)), None, "the last of 1 is from"),
        ((moment(10), moment(10)), None, "the last of 1 is from"),
        ((moment(0), moment(100)), ["M"], "lab 'M' lost nothing"),
    ):
        with pytest.raises(UnknownSubjectError, match=words):
            close_window(
                database_url, POLICY, window, labs=labs, reason=WHY, by=OPERATOR, patience=LONG
            )


def test_a_request_asks_for_what_is_open_and_closes_it(
    database_url: str, service: Connection, outage: list[LossWindow]
) -> None:
    made = make_request(
        database_url,
        POLICY,
        lab_id="L",
        include_possible=False,
        note=None,
        by=OPERATOR,
        patience=LONG,
    )
    assert made
    assert [(one_.labs, one_.state) for one_ in made[0].loss_windows] == [(["L"], "requested")]
    rest = make_request(
        database_url,
        POLICY,
        lab_id=None,
        include_possible=False,
        note=None,
        by=OPERATOR,
        patience=LONG,
    )
    assert rest
    assert [one_.labs for one_ in rest[0].loss_windows] == [["K"]]
    closing, _ = close_request(database_url, 1, reason=WHY, by=OPERATOR, lines=None, patience=LONG)
    assert [one_.state for one_ in closing.loss_windows] == ["closed"]
    assert [one_.state for one_ in read_request(service, 2).loss_windows] == ["requested"]
    found = read_windows(service, POLICY, datetime.now(UTC), position=99)
    assert [(one_.labs, one_.state) for one_ in found if one_.begin == outage[0].begin] == [
        (["L"], "closed"), (["K"], "requested"),
    ]  # fmt: skip
