"""Bills whose events say more than is held at a time: the same state, or none and a reason."""

import random

import pytest
from psycopg import Connection

from ledger.errors import BillTooLargeError
from ledger.eventlog import read
from ledger.eventlog.append import append
from ledger.model.bill_history import LoggedEvent, memory_of, most_memory_of
from ledger.projection import (
    fold_share,
    histories,
    projector,
    read_event,
    rebuild,
    store,
    verify,
)
from ledger.projection.projector import follow_once
from ledger.projection.read_event import BillEvents, read_row
from ledger.projection.verify_log import Difference
from tests.support.histories import RECEIVED, body, delivery, mixed_history, respelled
from tests.support.sessions import drain, state_rows

pytestmark = pytest.mark.slow


def rebuilt(url: str) -> None:
    rebuild.rebuild(url, processes=1, started_at=RECEIVED, on_progress=lambda *_: None)


def difference(url: str) -> Difference | None:
    return verify.verify(url, processes=1, on_progress=lambda *_: None).difference


@pytest.fixture
def little_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let each place hold a few events at a time."""
    monkeypatch.setattr(histories, "SLICE", 7)
    monkeypatch.setattr(histories, "MOST_MEMORY", 9_000)
    monkeypatch.setattr(histories, "SURELY_SMALL", 900)
    monkeypatch.setattr(projector, "BATCH_MEMORY", 12_000)
    monkeypatch.setattr(fold_share, "MOST_MEMORY", 5_000)
    monkeypatch.setattr(verify, "MOST_MEMORY", 5_000)


def test_the_state_is_the_same_however_little_is_held_at_a_time(
    database_url: str, service: Connection, request: pytest.FixtureRequest
) -> None:
    append(service, mixed_history(300))
    drain(service)
    usual = state_rows(service)
    request.getfixturevalue("little_memory")
    rebuilt(database_url)
    assert state_rows(service) == usual
    service.execute("DROP SCHEMA state CASCADE")
    store.create_if_absent(service)
    batches = 0
    while follow_once(service, 300).events:
        batches += 1
    assert batches > 10
    assert state_rows(service) == usual
    assert difference(database_url) is None


TESTS: dict[str, str | None] = {f"T{number:03}": "open" for number in range(100)}
LARGE = [
    body(bill="large", at=number, tests=TESTS, integratorID=f"one{number % 3}")
    for number in range(6)
]
"""Three of these say more than `one_bill` allows."""


@pytest.fixture
def one_bill(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a bill hold what about two events with a hundred tests say."""
    monkeypatch.setattr(read_event, "MOST_MEMORY", 80_000)


@pytest.mark.usefixtures("one_bill")
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_a_bill_that_is_too_large_is_parked_alike_by_projector_and_rebuild(
    database_url: str, service: Connection, seed: int
) -> None:
    chance = random.Random(seed)
    events = [body(bill="small"), *chance.sample(LARGE, len(LARGE)), body(bill="other")]
    for event in events:
        append(service, [delivery(chance.choice((event, respelled(event))))])
        if chance.random() < 0.5:
            follow_once(service, read.head(service), limit=chance.randrange(1, 4))
    drain(service)
    live = state_rows(service)
    assert len(live["bill"]) == 2
    (parked,) = live["parked_bill"]
    assert parked.startswith("(L,large,")
    assert "BillTooLargeError" in parked
    assert [row.rstrip(")")[-1] for row in live["former_integrator"]] == ["0", "1", "2"]
    assert sum(int(row.rstrip(")").rsplit(",", 1)[1]) for row in live["delay"]) == len(events)
    assert difference(database_url) is None
    rebuilt(database_url)
    assert state_rows(service) == live


@pytest.mark.usefixtures("one_bill")
def test_white_space_and_what_the_fold_ignores_do_not_count(service: Connection) -> None:
    padded = [body(at=number) + b" " * 40_000 for number in range(5)]
    ignored = [event.replace(b'"data"', b'"more":"%b","data"' % (b"x" * 40_000)) for event in LARGE]
    append(service, [delivery(event) for event in (*padded, ignored[0])])
    drain(service)
    state = state_rows(service)
    assert (len(state["bill"]), state["parked_bill"]) == (2, [])


@pytest.mark.usefixtures("one_bill")
def test_a_bill_of_more_events_than_are_held_says_so(service: Connection) -> None:
    append(service, [delivery(event) for event in LARGE])
    history = BillEvents()
    dropped = [
        event
        for row in read.of_bills(service, [("L", "large")], 6)
        for event in history.add(read_row(row), len(row.body))
    ]
    assert sorted(event.position for event in dropped) == [1, 2, 3, 4, 5, 6]
    assert (history.events, history.position, history.is_empty) == ([], 6, False)
    with pytest.raises(BillTooLargeError, match="MiB of memory"):
        history.raise_if_too_large()


def test_the_quick_estimate_is_never_below_the_exact_one(service: Connection) -> None:
    append(service, mixed_history(200))
    rows = list(read.after(service, 0, 200, 200))
    found = [(read_row(row), len(row.body)) for row in rows]
    events = [(event, size) for event, size in found if isinstance(event, LoggedEvent)]
    assert len(events) > 100
    assert all(memory_of(event) <= most_memory_of(event, size) for event, size in events)
