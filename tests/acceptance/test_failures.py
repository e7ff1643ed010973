"""Processes and the database die in the middle of load: nothing acknowledged is lost."""

import json
import os
import signal
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import httpx
import psutil
import psycopg
import pytest

from ledger import schema
from tests.support.payloads import event
from tests.support.postgres import PrivateServer, lane_waits
from tests.support.server import PLAIN, LedgerServer, free_port, is_worker, wait_until

SENDERS = 8
REFUSED_WITHIN = 8.0
"""Seconds: well within the ten that the sender waits."""

REPLACED_WITHIN = 10.0
"""Seconds: a worker that hangs would be replaced after thirty."""


class Load:
    """Events being sent by several senders at once, and what they were told."""

    def __init__(self, lab: str) -> None:
        self.lab = lab
        self.acknowledged: dict[str, int] = {}  # bill: position
        self.refusals: list[httpx.Response] = []
        self.longest = 0.0  # seconds until any answer
        self.stop = threading.Event()

    def wait_for(self, more: int) -> None:
        """Wait until that many more were acknowledged."""
        enough = len(self.acknowledged) + more
        wait_until(lambda: len(self.acknowledged) >= enough, "more acknowledgements", seconds=30)

    def run(self, server: LedgerServer, sender: int) -> None:
        """Send one event after the other; one that was not acknowledged is not sent again."""
        with httpx.Client(base_url=server.url, timeout=20, trust_env=False, verify=PLAIN) as client:
            number = 0
            while not self.stop.is_set():
                number += 1
                bill = f"b{sender}_{number}"
                began = time.monotonic()
                try:
                    answer = client.post(
                        "/webhooks/flabs",
                        content=json.dumps(event(self.lab, bill, tests={"t": None})).encode(),
                        headers={"Authorization": f"Bearer {server.token}"},
                    )
                except httpx.TransportError:
                    self.stop.wait(0.05)
                    continue
                self.longest = max(self.longest, time.monotonic() - began)
                if answer.is_success:
                    self.acknowledged[bill] = answer.json()["position"]
                else:
                    self.refusals.append(answer)
                    self.stop.wait(0.05)

    def assert_in_log_once(self, server: LedgerServer) -> None:
        """Check that all that was acknowledged is in the log, at its position, and no gap is."""
        items = server.items("/v1/events", limit=1000)
        assert [item["position"] for item in items] == list(range(1, len(items) + 1))
        assert set(Counter(item["bill_id"] for item in items).values()) <= {1}
        stored = {item["bill_id"]: item["position"] for item in items}
        assert self.acknowledged.items() <= stored.items()


@contextmanager
def load(*servers: LedgerServer, lab: str) -> Iterator[Load]:
    made = Load(lab)
    threads = [
        threading.Thread(target=made.run, args=(servers[sender % len(servers)], sender))
        for sender in range(SENDERS)
    ]
    for thread in threads:
        thread.start()
    try:
        yield made
    finally:
        made.stop.set()
        for thread in threads:
            thread.join()


def assert_verified(server: LedgerServer) -> None:
    done = server.run("verify", "--processes", "1")
    assert done.returncode == 0, done.stdout + done.stderr


def assert_asks_to_send_again(answer: httpx.Response) -> None:
    assert answer.status_code == 503, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    assert int(answer.headers["retry-after"]) > 0


# --- the server -------------------------------------------------------------------------------


def test_all_that_was_acknowledged_before_kill_9_of_the_server_is_in_the_log(
    own_server: LedgerServer, lab: str
) -> None:
    with load(own_server, lab=lab) as sent:
        for _ in range(2):
            sent.wait_for(150)
            own_server.kill_server()
            own_server.start_server()
        sent.wait_for(50)
    assert not sent.refusals
    head = own_server.settle()
    sent.assert_in_log_once(own_server)
    assert own_server.get("/v1/projection").json()["position"] == head
    bills = own_server.items("/v1/bills", lab_id=lab, limit=1000)
    assert len(bills) == head
    assert {bill["events"] for bill in bills} == {1}
    assert_verified(own_server)


def test_a_projector_killed_in_the_middle_goes_on_where_it_was(
    own_server: LedgerServer, lab: str
) -> None:
    with load(own_server, lab=lab) as sent:
        for _ in range(3):
            sent.wait_for(60)
            own_server.kill_projector()
            sent.wait_for(20)
            own_server.start_projector()
    own_server.settle()
    sent.assert_in_log_once(own_server)
    assert_verified(own_server)


def test_a_server_whose_first_process_alone_was_killed_can_be_started_again(
    own_server: LedgerServer, lab: str
) -> None:
    own_server.serve.send_signal(signal.SIGKILL)
    own_server.serve.wait()

    def is_gone() -> bool:
        with suppress(httpx.TransportError), httpx.Client(trust_env=False, verify=PLAIN) as client:
            client.get(f"{own_server.url}/health/live")
            return False
        return True

    wait_until(is_gone, "the workers of a killed server end")
    own_server.start_server()
    own_server.record(event(lab, "b"))


def test_a_server_told_to_stop_answers_what_it_has_taken(
    own_server: LedgerServer, lab: str
) -> None:
    with load(own_server, lab=lab) as sent:
        sent.wait_for(100)
        assert own_server.serve.terminate() == 0
    own_server.start_server()
    sent.assert_in_log_once(own_server)
    assert own_server.head() == len(sent.acknowledged)


def test_a_delivery_that_cannot_be_stored_before_the_server_stops_is_told_so(
    own_server: LedgerServer, database_url: str, lab: str
) -> None:
    with psycopg.connect(database_url) as connection, ThreadPoolExecutor(1) as sender:
        connection.execute("SELECT pg_advisory_xact_lock(7402, 1)")
        sent = sender.submit(own_server.send, event(lab, "b"))
        wait_until(lambda: lane_waits(connection), "the lane waits")
        assert own_server.serve.terminate() == 0
        assert_asks_to_send_again(sent.result())


# --- the database -----------------------------------------------------------------------------


@pytest.fixture
def private_server(postgres_server: PrivateServer, tmp_path: Path) -> Iterator[LedgerServer]:
    """Give a server on a PostgreSQL of the test's own."""
    schema.migrate(postgres_server.dsn())
    with LedgerServer(postgres_server.dsn(), tmp_path) as started:
        yield started


def test_deliveries_get_503_while_the_database_is_dead_and_are_taken_when_it_is_back(
    private_server: LedgerServer, postgres_server: PrivateServer, lab: str
) -> None:
    with load(private_server, lab=lab) as sent:
        sent.wait_for(100)
        postgres_server.kill()
        wait_until(lambda: len(sent.refusals) >= SENDERS, "deliveries are refused")
        before = len(sent.acknowledged)
        ready = private_server.anonymous.get("/health/ready")
        assert_asks_to_send_again(ready)
        assert "database" in ready.json()["detail"]
        assert private_server.anonymous.get("/health/live").status_code == 200
        assert_asks_to_send_again(private_server.get("/v1/bills"))
        assert "ledger_database_up 0.0" in private_server.anonymous.get("/metrics").text
        assert len(sent.acknowledged) == before
        postgres_server.start()
        sent.wait_for(50)
    for answer in sent.refusals:
        assert_asks_to_send_again(answer)
    assert sent.longest < REFUSED_WITHIN
    private_server.settle()
    sent.assert_in_log_once(private_server)
    assert_verified(private_server)
    assert private_server.serve.running
    assert private_server.projector
    assert private_server.projector.running


def family(pid: int) -> list[int]:
    """Return the ids of a process and of its children."""
    tasks = Path(f"/proc/{pid}/task").glob("*/children")
    return [pid, *(int(child) for task in tasks for child in task.read_text().split())]


@contextmanager
def paused(postgres: PrivateServer) -> Iterator[None]:
    for pid in family(postgres.pid):
        os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        for pid in family(postgres.pid):
            os.kill(pid, signal.SIGCONT)


def test_everything_is_answered_with_503_in_time_while_the_database_stands_still(
    private_server: LedgerServer, postgres_server: PrivateServer, lab: str
) -> None:
    private_server.record(event(lab, "before"))
    private_server.settle()

    def timed(ask: Any) -> tuple[httpx.Response, float]:  # noqa: ANN401 -- a function
        began = time.monotonic()
        return ask(), time.monotonic() - began

    with paused(postgres_server), ThreadPoolExecutor(6) as pool:
        askings = [
            lambda: private_server.send(event(lab, "during")),
            lambda: private_server.send(event(lab, "during too")),
            lambda: private_server.get(f"/v1/labs/{lab}/bills/before"),
            lambda: private_server.get("/v1/events"),
            lambda: private_server.anonymous.get("/health/ready"),
        ]
        answers = list(pool.map(timed, askings))
        assert private_server.anonymous.get("/health/live").status_code == 200
    for answer, seconds in answers:
        assert_asks_to_send_again(answer)
        assert seconds < REFUSED_WITHIN
    again = private_server.send(event(lab, "during"))
    assert again.status_code == 200
    assert again.json()["outcome"] in {"recorded", "duplicate"}
    private_server.settle()
    assert private_server.get(f"/v1/labs/{lab}/bills/during").json()["events"] == 1
    assert private_server.get(f"/v1/labs/{lab}/bills/before").status_code == 200
    assert_verified(private_server)


def test_a_lane_that_somebody_else_holds_is_answered_with_503_in_time(
    own_server: LedgerServer, database_url: str, lab: str
) -> None:
    with psycopg.connect(database_url) as connection:
        connection.execute("SELECT pg_advisory_xact_lock(7402, 1)")
        began = time.monotonic()
        assert_asks_to_send_again(own_server.send(event(lab, "b")))
        assert time.monotonic() - began < REFUSED_WITHIN
    assert own_server.send(event(lab, "b")).json() == {"outcome": "recorded", "position": 1}


def test_sessions_that_the_database_ends_are_made_again(
    own_server: LedgerServer, database_url: str, lab: str
) -> None:
    own_server.record(event(lab, "b1"))
    own_server.settle()
    with psycopg.connect(database_url, autocommit=True) as connection:
        connection.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE datname = current_database() AND pid <> pg_backend_pid()"
        )
    assert own_server.get(f"/v1/labs/{lab}/bills/b1").status_code == 200
    answer = own_server.send(event(lab, "b2"))
    if answer.status_code != 200:
        assert_asks_to_send_again(answer)
        answer = own_server.send(event(lab, "b2"))
    assert answer.json()["position"] == 2
    own_server.settle()
    assert own_server.get(f"/v1/labs/{lab}/bills/b2").status_code == 200


def test_a_server_starts_without_its_database_and_asks_to_send_again(
    tmp_path: Path, lab: str
) -> None:
    url = f"postgresql://ledger@127.0.0.1:{free_port()}/nowhere"
    with LedgerServer(url, tmp_path, project=False, wait=False) as server:

        def lives() -> bool:
            with suppress(httpx.TransportError):
                return server.anonymous.get("/health/live").status_code == 200
            return False

        wait_until(lives, "the server lives")
        began = time.monotonic()
        assert_asks_to_send_again(server.send(event(lab, "b")))
        assert time.monotonic() - began < REFUSED_WITHIN
        assert_asks_to_send_again(server.anonymous.get("/health/ready"))
        assert_asks_to_send_again(server.get("/v1/bills"))


# --- several of everything --------------------------------------------------------------------


def test_two_servers_and_two_projectors_share_one_log_without_gap_or_double_fold(
    own_server: LedgerServer, database_url: str, tmp_path: Path, lab: str
) -> None:
    other_folder = tmp_path / "other"
    other_folder.mkdir()
    with LedgerServer(database_url, other_folder) as other:
        with load(own_server, other, lab=lab) as sent:
            sent.wait_for(300)
        assert not sent.refusals
        for server in (own_server, other):
            server.settle()
            sent.assert_in_log_once(server)
        payloads = [event(lab, bill, tests={"t": None}) for bill in list(sent.acknowledged)[:40]]
        with ThreadPoolExecutor(8) as pool:
            repeats = [*pool.map(own_server.send, payloads), *pool.map(other.send, payloads)]
        assert {answer.json()["outcome"] for answer in repeats} == {"duplicate"}
        assert_verified(own_server)


def test_when_the_leading_projector_dies_the_other_takes_over(
    own_server: LedgerServer, database_url: str, tmp_path: Path, lab: str
) -> None:
    other_folder = tmp_path / "other"
    other_folder.mkdir()
    own_server.record(event(lab, "b1"))
    own_server.settle()
    with LedgerServer(database_url, other_folder) as other:
        wait_until(lambda: "waiting for its turn" in other.output, "the other projector waits")
        own_server.kill_projector()
        own_server.record(event(lab, "b2"))
        assert own_server.settle() == 2
        assert "projector leads" in other.output
        own_server.start_projector()
        wait_until(lambda: "waiting for its turn" in own_server.output, "the first one waits")
    own_server.record(event(lab, "b3"))
    assert own_server.settle() == 3


def test_a_server_with_two_workers_is_one_service(
    database_url: str, tmp_path: Path, lab: str
) -> None:
    with LedgerServer(database_url, tmp_path, settings={"LEDGER_WORKERS": "2"}) as server:
        with load(server, lab=lab) as sent:
            sent.wait_for(200)
        server.settle()
        sent.assert_in_log_once(server)
        workers = family(server.serve.pid)[1:]
        assert len(workers) >= 2
        counted = f'ledger_deliveries_total{{outcome="recorded"}} {float(server.head())}'
        assert counted in server.anonymous.get("/metrics").text
        assert server.serve.terminate() == 0


def workers_of(server: LedgerServer) -> list[int]:
    """Return the ids of the processes that serve; the server has another child besides them."""
    children = psutil.Process(server.serve.pid).children()
    return [child.pid for child in children if is_worker(child.pid)]


def wait_until_replaced(server: LedgerServer, before: list[int]) -> None:
    wait_until(
        lambda: (
            len(workers_of(server)) == len(before) and not set(before) & set(workers_of(server))
        ),
        "other workers",
        seconds=REPLACED_WITHIN,
    )


@pytest.mark.parametrize("workers", ["1", "2"])
def test_workers_that_are_killed_are_replaced_at_once(
    workers: str, database_url: str, tmp_path: Path, lab: str
) -> None:
    with LedgerServer(database_url, tmp_path, settings={"LEDGER_WORKERS": workers}) as server:
        before = workers_of(server)
        with load(server, lab=lab) as sent:
            sent.wait_for(50)
            for child in psutil.Process(server.serve.pid).children():  # one tracks resources
                child.kill()
            wait_until_replaced(server, before)
            sent.wait_for(50)
        for worker in before:
            assert f"Child process [{worker}] died" in server.output
        server.settle()
        sent.assert_in_log_once(server)


def test_a_worker_that_is_killed_while_it_is_asked_for_a_sign_of_life_is_replaced_at_once(
    own_server: LedgerServer, lab: str
) -> None:
    [worker] = workers_of(own_server)
    os.kill(worker, signal.SIGSTOP)
    supervisor = psutil.Process(own_server.serve.pid)
    switches = supervisor.num_ctx_switches().voluntary
    wait_until(
        lambda: supervisor.num_ctx_switches().voluntary > switches + 4, "the supervisor asks"
    )
    os.kill(worker, signal.SIGKILL)
    wait_until_replaced(own_server, [worker])
    own_server.wait_until_ready()
    own_server.record(event(lab, "b"))


def test_a_rebuild_and_a_verification_in_the_middle_of_load_find_all_in_order(
    own_server: LedgerServer, lab: str
) -> None:
    with load(own_server, lab=lab) as sent:
        sent.wait_for(100)
        done = own_server.run("rebuild", "--yes", "--processes", "1")
        assert done.returncode == 0, done.stderr
        sent.wait_for(50)
        assert_verified(own_server)
        sent.wait_for(50)
    assert not sent.refusals
    assert own_server.settle() == len(sent.acknowledged)
    sent.assert_in_log_once(own_server)
    assert_verified(own_server)


@pytest.mark.parametrize(("interval", "wait"), [("1", "1"), ("45", "45"), ("86400", "600")])
def test_a_refused_sender_is_asked_to_wait_its_own_interval(
    tmp_path: Path, lab: str, interval: str, wait: str
) -> None:
    nowhere = f"postgresql://nobody@127.0.0.1:{free_port()}/none"
    settings = {"LEDGER_RETRY_INTERVAL": interval}
    with LedgerServer(nowhere, tmp_path, settings=settings, project=False, wait=False) as server:
        wait_until(lambda: is_live(server), "the server answers")
        answer = server.send(event(lab, "b"))
    assert_asks_to_send_again(answer)
    assert answer.headers["retry-after"] == wait


def is_live(server: LedgerServer) -> bool:
    with suppress(httpx.TransportError):
        return server.anonymous.get("/health/live").status_code == 200
    return False
