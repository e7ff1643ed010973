"""The sandbox of Flabs as a sender: who subscribed gets the events, with Flabs' retries."""

import asyncio
import threading
from pathlib import Path
from typing import Any

import httpx
import pytest

from ledger.cli.simulate_run import make_sandbox
from ledger.errors import SimulationError, SimulationOptionError
from ledger.flabs.client import FlabsClient
from ledger.simulator import SimulationOptions, read_truth, simulate
from ledger.simulator.history import lab_ids
from ledger.simulator.sandbox import Account, Options, Sandbox
from ledger.simulator.sandbox.account import Again
from ledger.simulator.sandbox.faults import Faults, Trouble
from tests.support.receiver import Answer, Receiver, receiving

ALL = ("bill.created", "report.completed", "bill.completed", "bill.deleted")
SECRET = "a-secret-of-the-tests"
START = 1_705_708_800


def send(
    answer: Answer,
    subscriptions: list[dict[str, Any]],
    truth: Path,
    *,
    again: Again = "replace",
) -> tuple[Receiver, list[str]]:
    """Subscribe a receiver, then send a small day; return it and the states of the events."""

    async def all_of_it() -> Receiver:
        options = Options(client_secret=SECRET, again=again, needs_https=False)
        with Sandbox(Account(lab_ids(2), options)) as sandbox:
            async with receiving(answer) as receiver:
                with FlabsClient(sandbox.url, "sandbox", SECRET) as client:
                    for wanted in subscriptions:
                        told: dict[str, Any] = {
                            "endpoint": receiver.url,
                            "events": ALL,
                            "lab_id": None,
                            **wanted,
                        }
                        await asyncio.to_thread(client.subscribe, **told)
                await simulate(
                    SimulationOptions(
                        bills=5,
                        labs=2,
                        start=START,
                        route=sandbox.route,
                        truth=truth,
                        speed=2_000,
                        timeout=20_000,
                    )
                )
                return receiver

    receiver = asyncio.run(all_of_it())
    return receiver, [event.state for event in read_truth(truth)]


def test_events_go_to_who_subscribed_with_their_token(tmp_path: Path) -> None:
    receiver, states = send(
        lambda _: 200, [{"auth_token": "token-of-the-subscriber"}], tmp_path / "truth"
    )
    assert set(states) == {"delivered"}
    assert len(receiver.bodies) == len(states)
    assert {one["authorization"] for one in receiver.headers} == {"Bearer token-of-the-subscriber"}


def test_events_of_other_labs_and_types_are_not_sent(tmp_path: Path) -> None:
    receiver, states = send(
        lambda _: 200,
        [{"auth_token": None, "lab_id": "lab_0001", "events": ("bill.created",)}],
        tmp_path / "truth",
    )
    assert set(states) == {"delivered", "dropped"}
    assert all(b'"lab_0001"' in body and b'"bill.created"' in body for body in receiver.bodies)
    assert all("authorization" not in one for one in receiver.headers)


def test_a_refused_event_is_sent_three_more_times_and_then_lost(tmp_path: Path) -> None:
    receiver, states = send(lambda _: 401, [{"auth_token": "t" * 20}], tmp_path / "truth")
    assert set(states) == {"lost"}
    assert len(receiver.bodies) == 4 * len(states)


@pytest.mark.parametrize(("again", "times"), [("replace", 1), ("add", 2)])
def test_a_second_subscription_replaces_the_first_or_delivers_as_well(
    again: Again, times: int, tmp_path: Path
) -> None:
    receiver, states = send(
        lambda _: 200,
        [{"auth_token": "the-older-token"}, {"auth_token": "the-newer-token"}],
        tmp_path / "truth",
        again=again,
    )
    assert set(states) == {"delivered"}
    assert len(receiver.bodies) == times * len(states)
    tokens = {one["authorization"] for one in receiver.headers}
    assert tokens == {"Bearer the-newer-token", "Bearer the-older-token"} or times == 1
    assert "Bearer the-newer-token" in tokens


def test_a_dropped_subscription_gets_nothing_and_nobody_is_told() -> None:
    with Sandbox(Account(lab_ids(2), Options(client_secret=SECRET))) as sandbox:
        with FlabsClient(sandbox.url, "sandbox", SECRET) as client:
            for lab_id in lab_ids(2):
                client.subscribe(
                    events=ALL, endpoint="https://x.example", lab_id=lab_id, auth_token=None
                )
            httpx.post(
                f"{sandbox.url}/sandbox/faults",
                json={"drop_subscriptions": "lab_0001"},
                trust_env=False,
            ).raise_for_status()
            assert len(client.labs()) == 2
        assert not sandbox.account.targets("lab_0001", "bill.created")
        assert sandbox.account.targets("lab_0002", "bill.created")
        state = httpx.get(f"{sandbox.url}/sandbox/state", trust_env=False).json()
        assert {one["lab"] for one in state["subscriptions"]} == {"lab_0002"}


def test_it_waits_for_a_subscription_until_it_is_stopped() -> None:
    stop = threading.Event()
    stop.set()
    with Sandbox(Account([], Options())) as sandbox:
        assert not sandbox.wait_for_subscription(stop)


@pytest.mark.parametrize("where", ["", "9000", "host", "127.0.0.1:x", "127.0.0.1:70000"])
def test_a_bad_address_is_a_wrong_option(where: str) -> None:
    with pytest.raises(SimulationOptionError, match="serve"):
        make_sandbox(where, 1, Options())


def test_a_taken_port_is_a_sentence() -> None:
    with Sandbox(Account([], Options())) as sandbox:
        port = int(sandbox.url.rpartition(":")[2])
        with pytest.raises(SimulationError, match=f"cannot listen on 127.0.0.1:{port}"):
            Sandbox(Account([], Options()), port=port)


def test_another_fault_leaves_the_next_pause_as_it_was_asked_for() -> None:
    account, trouble = Account(["lab_1"], Options()), Trouble()
    trouble.add(Faults(slow=1, seconds=5), account)
    trouble.add(Faults(errors=1), account)
    assert [trouble.next_pause() for _ in range(2)] == [5, 0]
