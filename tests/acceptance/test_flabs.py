"""The account at Flabs with real servers: commands, HTTP, a rotation under load."""

import asyncio
import json
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from ledger.simulator import SimulationOptions, read_truth, simulate
from ledger.simulator.sandbox import Sandbox
from tests.support.commands import assert_sentence
from tests.support.flabs import LABS, environment_for, fault, sandbox_of
from tests.support.payloads import event
from tests.support.server import LedgerServer, Process, wait_until

SHORT = {"LEDGER_RETRY_INTERVAL": "1", "LEDGER_RETRY_COUNT": "2", "LEDGER_RETRY_TIMEOUT": "1"}
"""The retries of an event are over after 5 s."""


@pytest.fixture(scope="module")
def sandbox() -> Iterator[Sandbox]:
    with sandbox_of() as started:
        yield started


@pytest.fixture(scope="module")
def server(
    module_database_url: str, sandbox: Sandbox, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[LedgerServer]:
    """Give a server with an account at the sandbox."""
    folder = tmp_path_factory.mktemp("flabs")
    made = LedgerServer(module_database_url, folder, settings=SHORT)
    made.settings |= environment_for(sandbox, made.url)
    with made as started:
        yield started


def test_a_check_sends_a_probe_that_comes_back_and_counts_for_no_lab(server: LedgerServer) -> None:
    answer = server.api.post("/v1/flabs/check")
    assert answer.status_code == 200, answer.text
    steps = {step["step"]: step for step in answer.json()["steps"]}
    assert steps["account"]["ok"]
    assert steps["probe"]["ok"], steps
    assert not steps["coverage"]["ok"]
    server.settle()
    (probe,) = [one for one in server.items("/v1/events") if one["event_type"] == "ledger.probe"]
    assert f"position {probe['position']}" in steps["probe"]["words"]
    labs = server.api.get("/v1/flabs/coverage").json()["labs"]
    assert {lab["lab_id"] for lab in labs} == set(LABS)


def test_labs_are_subscribed_over_http_and_shown_side_by_side(
    server: LedgerServer, sandbox: Sandbox
) -> None:
    assert [lab["lab_id"] for lab in server.api.get("/v1/flabs/labs").json()["labs"]] == [*LABS]
    planned = server.api.post("/v1/flabs/subscriptions", json={"dry_run": True}).json()
    assert {item["outcome"] for item in planned["subscriptions"]} == {"planned"}
    assert not sandbox.account.subscriptions
    for outcome in ("subscribed", "known"):
        made = server.api.post("/v1/flabs/subscriptions", json={"labs": [*LABS[:2]]})
        assert made.status_code == 200, made.text
        assert {item["outcome"] for item in made.json()["subscriptions"]} == {outcome}
    server.record(event(LABS[0], "bill"))
    server.settle()
    found = {lab["lab_id"]: lab for lab in server.api.get("/v1/flabs/coverage").json()["labs"]}
    assert [found[lab]["findings"] for lab in LABS] == [[], ["never_heard"], ["not_subscribed"]]
    report = server.api.get("/v1/reconciliation").json()
    assert {(one["lab_id"], one["finding"]) for one in report["coverage"]} == {
        (LABS[1], "never_heard"), (LABS[2], "not_subscribed"),
    }  # fmt: skip
    for form in ("text", "markdown", "csv"):
        answer = server.api.get("/v1/reconciliation", params={"format": form})
        assert LABS[2] in answer.text, form
    (line,) = [
        line
        for line in server.anonymous.get("/metrics").text.splitlines()
        if line.startswith("ledger_labs_not_subscribed ")
    ]
    assert line.endswith(" 1.0")


def test_a_wrong_secret_is_one_sentence_and_exit_1(server: LedgerServer) -> None:
    settings = {**server.settings, "LEDGER_FLABS_CLIENT_SECRET": "the-wrong-secret-of-all"}
    server_with = LedgerServer.__new__(LedgerServer)
    server_with.settings = settings
    for command in (["check"], ["labs"], ["subscribe", "--all-labs", "--again"]):
        said = assert_sentence(server_with.run("flabs", *command), "LEDGER_FLABS_CLIENT_SECRET")
        assert "wrong-secret" not in said
        assert len([line for line in said.splitlines() if line.startswith("ledger: ")]) == 1


def test_an_undocumented_answer_is_a_502_and_flabs_away_stops_nothing_else(
    server: LedgerServer, sandbox: Sandbox
) -> None:
    fault(sandbox, garbage=1)
    answer = server.api.get("/v1/flabs/labs")
    assert answer.status_code == 502
    assert "hotel" in answer.json()["detail"]
    assert "hotel" not in server.output
    fault(sandbox, slow=1, seconds=30)
    waiting = threading.Thread(target=lambda: server.api.get("/v1/flabs/labs"))
    waiting.start()
    assert server.record(event(LABS[0], "beside"))
    assert server.api.get("/v1/bills").status_code == 200
    waiting.join(60)
    assert not waiting.is_alive()


@contextmanager
def load(sandbox: Sandbox, truth: Path) -> Iterator[None]:
    """Send to who subscribed, fast, until the end of the block, and then to the last retry."""
    stop = asyncio.Event()
    loop = asyncio.new_event_loop()
    options = SimulationOptions(
        bills=100_000, labs=len(LABS), route=sandbox.route, truth=truth, rate=150, concurrency=8,
        late=0.2, retry_interval=1, timeout=10,
    )  # fmt: skip
    sending = threading.Thread(
        target=lambda: loop.run_until_complete(simulate(options, stop=stop)), name="load"
    )
    sending.start()
    try:
        yield
    finally:
        loop.call_soon_threadsafe(stop.set)
        sending.join(60)
        loop.close()
    assert not sending.is_alive()


def kill_a_rotation(server: LedgerServer, output: Path) -> None:
    """Kill a rotation that has made its token, while it waits for the servers to know it."""
    rotation = Process("flabs", "rotate-token", settings=server.settings, output=output)
    wait_until(lambda: "webhook token created" in rotation.output, "the rotation has begun")
    rotation.kill()


def test_a_rotation_that_is_killed_under_load_is_ended_by_the_next_and_refuses_nothing(
    server: LedgerServer, sandbox: Sandbox, tmp_path: Path
) -> None:
    """Runs last: the token of the other tests is not valid afterwards."""
    made = server.run("flabs", "subscribe", "--all-labs", "--json")
    assert made.returncode == 0, made.stderr
    first = {one.target.token for one in sandbox.account.subscriptions}
    with load(sandbox, tmp_path / "truth"):
        wait_until(lambda: server.head() > 200, "the load has begun")
        for nth in range(2):
            kill_a_rotation(server, tmp_path / f"rotation-{nth}.log")
        done = server.run("flabs", "rotate-token", "--quiet", "0", "--json", timeout=90)
        assert done.returncode == 0, done.stderr
        head = server.head()
        wait_until(lambda: server.head() > head + 300, "the load goes on with the new token")
    found = json.loads(done.stdout)
    assert found["state"] == "finished"
    assert 1 <= len(found["replaced"]) <= 3
    now = {one.target.token for one in sandbox.account.subscriptions}
    assert len(now) == 1
    assert not now & first
    statuses = Counter(
        delivery.status for one in read_truth(tmp_path / "truth") for delivery in one.deliveries
    )
    assert statuses[401] == 0, statuses
    assert statuses[200] > 500
    # The token of the settings was replaced, too.
    assert server.send(event(LABS[0], "old")).status_code == 401
