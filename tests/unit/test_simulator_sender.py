"""The simulated sender against a real receiver on a socket."""

import asyncio
from collections import Counter
from datetime import datetime
from itertools import pairwise
from pathlib import Path
from time import monotonic
from typing import Any

import msgspec
import pytest

from ledger.simulator import (
    EventTruth,
    SimulationError,
    SimulationOptions,
    SimulationSummary,
    read_truth,
    simulate,
)
from ledger.simulator.truth import read_truth_summary
from tests.support.receiver import HANG, Answer, Receiver, receiving

pytestmark = pytest.mark.slow

START = 1_705_708_800
SPEED = 400.0
INTERVAL, TIMEOUT = 120 / SPEED, 10 / SPEED
PATIENT = 10 * SPEED
"""A time-out that stays 10 s, for tests in which a slow machine must not be a fault."""


def run(
    answer: Answer,
    truth: Path,
    **options: Any,  # noqa: ANN401 any option of SimulationOptions
) -> tuple[Receiver, SimulationSummary, list[EventTruth]]:
    """Simulate against a receiver until the end."""

    async def both() -> tuple[Receiver, SimulationSummary]:
        async with receiving(answer) as receiver:
            told: dict[str, Any] = {"bills": 3, "speed": SPEED, "timeout": PATIENT, **options}
            summary = await simulate(
                SimulationOptions(url=receiver.url, start=START, truth=truth, **told)
            )
            return receiver, summary

    receiver, summary = asyncio.run(both())
    return receiver, summary, list(read_truth(truth))


@pytest.fixture
def truth(tmp_path: Path) -> Path:
    return tmp_path / "truth.jsonl"


def gaps(receiver: Receiver) -> list[float]:
    """Give the seconds between two arrivals of the same body."""
    times: dict[bytes, list[float]] = {}
    for body, time in zip(receiver.bodies, receiver.times, strict=True):
        times.setdefault(body, []).append(time)
    return [after - before for own in times.values() for before, after in pairwise(own)]


def test_each_event_is_delivered_once_with_the_token(truth: Path) -> None:
    receiver, summary, lines = run(lambda _: 204, truth, bills=50, token="secret-1", concurrency=4)
    assert {headers["authorization"] for headers in receiver.headers} == {"Bearer secret-1"}
    assert {headers["content-type"] for headers in receiver.headers} == {"application/json"}
    assert len(set(receiver.bodies)) == len(receiver.bodies) == summary.events == summary.delivered
    assert summary.statuses == {204: summary.events}
    assert summary.failure is None
    assert sorted(bytes(line.payload) for line in lines) == sorted(receiver.bodies)
    assert "secret-1" not in truth.read_text(encoding="utf-8")


def test_without_a_token_no_authorization_is_sent(truth: Path) -> None:
    receiver, _, _ = run(lambda _: 200, truth)
    assert not any("authorization" in headers for headers in receiver.headers)


def test_connections_are_kept_alive(truth: Path) -> None:
    receiver, summary, _ = run(lambda _: 200, truth, bills=50, concurrency=4)
    assert summary.deliveries > 100
    assert receiver.connections <= 4


def test_one_delivery_at_a_time_keeps_the_order(truth: Path) -> None:
    receiver, _, lines = run(lambda _: 200, truth, bills=20, concurrency=1)
    assert receiver.bodies == [bytes(line.payload) for line in lines]
    assert [line.number for line in lines] == list(range(1, len(lines) + 1))


def test_an_error_is_retried_after_the_interval(truth: Path) -> None:
    receiver, summary, lines = run(lambda n: 500 if n == 1 else 200, truth)
    assert summary.delivered == summary.late == summary.events
    assert summary.statuses == {200: summary.events, 500: summary.events}
    assert all(INTERVAL <= gap < INTERVAL + 2 for gap in gaps(receiver))
    for line in lines:
        assert [(each.attempt, each.status) for each in line.deliveries] == [(1, 500), (2, 200)]
        assert line.outcome == "recorded"


def test_a_retry_that_is_due_does_not_wait_for_new_events(truth: Path) -> None:
    first: list[int] = []

    def fail_once(_: int) -> int:
        first.append(1)
        return 500 if len(first) == 1 else 200

    receiver, summary, _ = run(fail_once, truth, bills=400, concurrency=1)
    assert summary.delivered == summary.events
    again = receiver.bodies.index(receiver.bodies[0], 1)
    assert again < len(receiver.bodies) - 100


def test_after_three_retries_the_event_is_lost(truth: Path) -> None:
    receiver, summary, lines = run(lambda _: 503, truth)
    assert summary.lost == summary.events
    assert set(Counter(receiver.bodies).values()) == {4}
    assert all(INTERVAL <= gap < INTERVAL + 2 for gap in gaps(receiver))
    assert {line.state for line in lines} == {"lost"}
    assert not any(line.delivered or line.outcome for line in lines)
    assert summary.failure is not None
    assert "answered 503" in summary.failure


def test_an_attempt_ends_at_the_time_out(truth: Path) -> None:
    _, summary, lines = run(lambda _: HANG, truth, timeout=10.0)
    assert summary.lost == summary.events
    assert summary.errors == {"timed out": 4 * summary.events}
    for line in lines:
        assert [each.attempt for each in line.deliveries] == [1, 2, 3, 4]
        assert all(each.seconds >= TIMEOUT for each in line.deliveries)
        sent = [datetime.fromisoformat(each.sent_at).timestamp() for each in line.deliveries]
        # The times are rounded to milliseconds.
        assert all(
            INTERVAL + TIMEOUT - 0.002 <= after - before < INTERVAL + 2
            for before, after in pairwise(sent)
        )


def test_time_outs_leave_the_connections_usable(truth: Path) -> None:
    _, summary, _ = run(
        lambda n: HANG if n == 1 else 200, truth, bills=10, timeout=0.1 * SPEED, concurrency=2
    )
    assert summary.delivered == summary.late == summary.events


def test_a_refused_connection_is_retried_and_then_lost(truth: Path) -> None:
    async def refused() -> SimulationSummary:
        async with receiving(lambda _: 200) as receiver:
            closed = receiver.url
        return await simulate(
            SimulationOptions(url=closed, bills=2, speed=SPEED, timeout=PATIENT, truth=truth)
        )

    summary = asyncio.run(refused())
    assert summary.lost == summary.events > 0
    assert summary.errors == {"cannot connect": 4 * summary.events}
    assert summary.failure == (
        "nothing was delivered (cannot connect): is the receiver running, and is --url right?"
    )


def test_a_wrong_token_ends_the_run_early(truth: Path) -> None:
    receiver, summary, _ = run(lambda _: 401, truth, bills=1000, token="wrong", concurrency=2)
    assert len(receiver.bodies) <= 4
    assert summary.failure is not None
    assert "refused the token (401)" in summary.failure
    assert "wrong" not in summary.failure
    last = read_truth_summary(truth)
    assert last is not None
    assert last["failure"] == summary.failure


def test_dropped_events_are_never_sent(truth: Path) -> None:
    receiver, summary, lines = run(lambda _: 200, truth, bills=50, drop=0.3)
    dropped = {bytes(line.payload) for line in lines if line.state == "dropped"}
    assert len(dropped) == summary.dropped > 0
    assert not dropped & set(receiver.bodies)
    assert summary.dropped + summary.delivered == summary.events == len(lines)


def test_late_events_come_with_a_later_attempt(truth: Path) -> None:
    begun = monotonic()
    receiver, summary, lines = run(lambda _: 200, truth, late=1.0)
    assert summary.late == summary.events == len(receiver.bodies)
    assert len({line.fate.attempt for line in lines}) == 3
    by_body = {bytes(line.payload): line for line in lines}
    for body, time in zip(receiver.bodies, receiver.times, strict=True):
        attempt = by_body[body].fate.attempt
        assert [each.attempt for each in by_body[body].deliveries] == [attempt]
        assert time - begun >= (attempt - 1) * INTERVAL


def test_a_late_event_has_only_the_attempts_that_are_left(truth: Path) -> None:
    _, summary, lines = run(lambda _: 500, truth, late=1.0)
    assert summary.lost == summary.events
    for line in lines:
        attempts = [each.attempt for each in line.deliveries]
        assert attempts == list(range(line.fate.attempt, 5))


def test_duplicates_repeat_what_was_acknowledged(truth: Path) -> None:
    receiver, summary, lines = run(lambda _: 200, truth, duplicate=1.0)
    assert set(Counter(receiver.bodies).values()) == {2}
    assert summary.repeats == summary.delivered == summary.events
    assert all([each.repeat for each in line.deliveries] == [False, True] for line in lines)


def test_events_are_taken_up_at_the_rate(truth: Path) -> None:
    # From before the first: on a busy machine that one may come late, and the last one does not.
    begun = monotonic()
    receiver, summary, _ = run(lambda _: 200, truth, bills=10, rate=100.0)
    assert receiver.times[-1] - begun >= (summary.events - 1) / 100


def test_a_truth_file_that_cannot_be_written_ends_the_run(tmp_path: Path) -> None:
    with pytest.raises(SimulationError, match="cannot write the truth file"):
        run(lambda _: 200, tmp_path / "no folder" / "truth.jsonl")
    with pytest.raises(SimulationError, match="No space left"):
        run(lambda _: 200, Path("/dev/full"))


def test_lines_of_the_truth_file_are_json_objects_of_the_documented_fields(truth: Path) -> None:
    run(lambda _: 200, truth)
    line = msgspec.json.decode(truth.read_bytes().splitlines()[0], type=dict[str, Any])
    assert list(line) == [
        "number", "state", "delivered", "outcome", "fate", "deliveries", "payload",
    ]  # fmt: skip
    assert list(line["fate"]) == ["dropped", "attempt", "duplicate", "reordered"]
    assert list(line["deliveries"][0]) == [
        "attempt", "repeat", "sent_at", "seconds", "status", "error", "outcome", "position",
    ]  # fmt: skip
