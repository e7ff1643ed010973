"""The public address takes deliveries and nothing else; the private one has everything else."""

import json
import os
import re
import signal
import socket
import uuid
from collections.abc import Iterator
from contextlib import ExitStack, closing
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import psutil
import psycopg
import pytest
from psycopg import sql

from tests.support.page import page_routes
from tests.support.payloads import distinct
from tests.support.server import (
    KEY,
    ROOT,
    TOKEN,
    LedgerServer,
    free_port,
    is_worker,
    run_ledger,
    wait_until,
)

OPENAPI = json.loads((ROOT / "api_schema" / "openapi.json").read_bytes())
PAGES = [(method, re.sub(r"\{\w+\}", "1", path)) for method, path, _ in page_routes()]
PRIVATE = [
    *sorted(PAGES),
    *(
        (method.upper(), re.sub(r"\{\w+\}", "1", path))
        for path, operations in OPENAPI["paths"].items()
        if not path.startswith("/webhooks/") and path != "/health/live"
        for method in operations
    ),
]
WEBHOOK = ("/webhooks/flabs", f"/webhooks/flabs/{TOKEN}", "/webhooks/flabs/")


@pytest.fixture(scope="module")
def public_port() -> int:
    return free_port()


@pytest.fixture(scope="module")
def server(
    module_database_url: str, tmp_path_factory: pytest.TempPathFactory, public_port: int
) -> Iterator[LedgerServer]:
    settings = {"LEDGER_LISTEN_INTAKE": f"127.0.0.1:{public_port}"}
    folder = tmp_path_factory.mktemp("two")
    with LedgerServer(module_database_url, folder, settings=settings) as started:
        yield started


@pytest.fixture(scope="module")
def public(public_port: int, server: LedgerServer) -> Iterator[httpx.Client]:
    assert server.serve.running
    with httpx.Client(base_url=f"http://127.0.0.1:{public_port}", trust_env=False) as client:
        wait_until(lambda: _lives(client), "the public address answers")
        yield client


def _lives(client: httpx.Client) -> bool:
    try:
        return client.get("/health/live").status_code == 200
    except httpx.TransportError:
        return False


def deliver(client: httpx.Client, payload: object, path: str = WEBHOOK[0]) -> httpx.Response:
    return client.post(path, json=payload, headers={"Authorization": TOKEN})


@pytest.mark.parametrize("path", WEBHOOK)
def test_the_public_address_takes_deliveries(
    server: LedgerServer, public: httpx.Client, lab: str, path: str
) -> None:
    [payload] = distinct(lab, 1)
    answer = deliver(public, payload, path)
    assert answer.json()["outcome"] == "recorded"
    server.settle()
    assert len(server.items("/v1/bills", lab_id=lab)) == 1
    assert deliver(public, payload, path).json()["outcome"] == "duplicate"
    assert deliver(public, {**payload, "x": "y" * 20_000}, path).json()["outcome"] == "recorded"


@pytest.mark.parametrize(("method", "path"), [*PRIVATE, ("GET", "/schema"), ("GET", "/")])
def test_everything_else_is_nowhere_on_the_public_address(
    public: httpx.Client, method: str, path: str
) -> None:
    """With the admin's key, too, and with the answer to a path that nobody ever heard of."""
    unknown = public.request(method, f"/{uuid.uuid4().hex}")
    for headers in ({}, {"Authorization": f"Bearer {KEY}"}):
        answer = public.request(method, path, headers=headers)
        assert answer.status_code == 404
        assert answer.content == unknown.content
        assert {*answer.headers} == {*unknown.headers}
        assert path.strip("/") not in answer.text or path == "/"


@pytest.mark.parametrize(
    ("method", "status"), [("GET", 200), ("HEAD", 200), ("OPTIONS", 204), ("POST", 405)]
)
def test_both_addresses_say_that_they_live(
    server: LedgerServer, public: httpx.Client, method: str, status: int
) -> None:
    answers = [client.request(method, "/health/live") for client in (server.anonymous, public)]
    assert [answer.status_code for answer in answers] == [status] * 2
    if method == "GET":
        assert answers[0].content == answers[1].content


@pytest.mark.parametrize("path", WEBHOOK)
def test_the_private_address_takes_no_deliveries(server: LedgerServer, lab: str, path: str) -> None:
    assert deliver(server.anonymous, distinct(lab, 1)[0], path).status_code == 404
    assert server.anonymous.get("/health/ready").status_code == 200


def test_the_private_address_counts_what_the_public_one_took(
    server: LedgerServer, public: httpx.Client, lab: str
) -> None:
    def recorded() -> float:
        lines = server.anonymous.get("/metrics").text.splitlines()
        [line] = [line for line in lines if line.startswith('ledger_deliveries_total{outcome="r')]
        return float(line.split()[-1])

    before = recorded()
    deliver(public, distinct(lab, 1)[0])
    assert recorded() == before + 1


def test_the_processes_of_the_public_address_act_as_the_intake(
    public: httpx.Client, module_database_url: str, lab: str
) -> None:
    [payload] = distinct(lab, 1)
    with psycopg.connect(module_database_url, autocommit=True) as owner:
        owner.execute("REVOKE INSERT ON ledger.event_log FROM ledger_intake")
        try:
            assert deliver(public, payload).status_code == 503
        finally:
            owner.execute("GRANT INSERT ON ledger.event_log TO ledger_intake")
    assert deliver(public, payload).status_code == 200


def test_the_public_address_knows_the_tokens_of_the_database_and_keeps_what_it_refuses(
    server: LedgerServer, public: httpx.Client, lab: str
) -> None:
    """Its role reads no body, not even of those that it keeps."""
    made = server.api.post("/v1/webhook-tokens", json={"labs": [lab]}).json()
    first, second = distinct(lab, 2)
    headers = {"Authorization": f"Bearer {made['token']}"}

    def is_known() -> bool:
        return public.post(WEBHOOK[0], json=first, headers=headers).status_code == 200

    wait_until(is_known, "the token is known")
    answer = public.post(WEBHOOK[0], json=second, headers={"Authorization": "wrong"})
    assert answer.status_code == 401
    refused = wait_until(
        lambda: server.items("/v1/refused-deliveries", lab_id=lab), "it is in the box"
    )
    assert [one["reason"] for one in refused] == ["wrong"]
    wait_until(
        lambda: [
            one
            for one in server.items("/v1/webhook-tokens")
            if one["token_id"] == made["token_id"] and one["last_used_at"]
        ],
        "its use is noted",
    )


def test_connections_that_are_held_open_keep_nobody_out(
    server: LedgerServer, public: httpx.Client, public_port: int, lab: str
) -> None:
    begun = b"POST /webhooks/flabs HTTP/1.1\r\nHost: x\r\nX: "
    with ExitStack() as held:
        for port in [public_port, server.port] * 600:
            connection = socket.create_connection(("127.0.0.1", port))
            held.enter_context(closing(connection)).sendall(begun)
        for payload in distinct(lab, 3):
            with httpx.Client(base_url=public.base_url, trust_env=False) as new:
                assert deliver(new, payload).json()["outcome"] == "recorded"
            with httpx.Client(base_url=server.url, trust_env=False) as new:
                assert new.get("/health/ready").status_code == 200
        wait_until(lambda: "too many connections of one address" in server.output, "it is logged")


@pytest.mark.parametrize("how", ["killed", "replaced"])
def test_workers_of_both_addresses_are_replaced(
    server: LedgerServer, public: httpx.Client, lab: str, how: str
) -> None:
    def workers() -> set[int]:
        children = psutil.Process(server.serve.pid).children()
        return {child.pid for child in children if is_worker(child.pid)}

    before = workers()
    assert len(before) == 2
    if how == "replaced":
        server.serve.send_signal(signal.SIGHUP)
    else:
        for pid in before:
            os.kill(pid, signal.SIGKILL)
    wait_until(lambda: len(workers() - before) == 2 == len(workers()), "there are two new ones")
    [payload] = distinct(lab, 1)

    def delivered() -> bool:
        try:
            return deliver(public, payload).status_code == 200
        except httpx.TransportError:
            return False

    wait_until(delivered, "the public address answers again")
    wait_until(lambda: _lives(server.anonymous), "the private address answers again")
    assert server.anonymous.get("/v1/bills").status_code == 401


def test_a_login_that_may_do_no_more_serves_the_intake(
    postgres_url: str, module_database_url: str, tmp_path: Path, lab: str
) -> None:
    """And serves nothing else, with one sentence that says why."""
    name = f"intake_{uuid.uuid4().hex}"
    with psycopg.connect(postgres_url, autocommit=True) as owner:
        user = sql.Identifier(name)
        owner.execute(
            sql.SQL("CREATE ROLE {} LOGIN PASSWORD 'x' IN ROLE ledger_intake").format(user)
        )
        parts = urlsplit(module_database_url)
        host = parts.netloc.rpartition("@")[2]
        url = parts._replace(netloc=f"{name}:x@{host}").geturl()
        settings = {"LEDGER_LISTEN_API": "off"}
        intake = LedgerServer(url, tmp_path, settings=settings, key="", project=False, wait=False)
        try:
            with intake:
                wait_until(lambda: _lives(intake.anonymous), "the intake answers")
                [payload] = distinct(lab, 1)
                assert intake.send(payload).json()["outcome"] == "recorded"
                assert intake.send(payload).json()["outcome"] == "duplicate"
                assert intake.anonymous.get("/health/ready").status_code == 404
                intake.settings.pop("LEDGER_LISTEN_API")
                intake.settings["LEDGER_PORT"] = str(free_port())
                done = run_ledger("serve", settings=intake.settings, timeout=20)
                assert done.returncode == 1
                assert b"GRANT ledger_service" in done.stderr
                assert "ERROR" not in intake.output.upper().replace("UVICORN.ERROR", "")
        finally:
            owner.execute(sql.SQL("DROP ROLE {}").format(user))


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"LEDGER_LISTEN_INTAKE": "off", "LEDGER_LISTEN_API": "off"}, "nothing would be served"),
        ({"LEDGER_LISTEN_INTAKE": "8000"}, "LEDGER_LISTEN_INTAKE must be an address"),
        ({"LEDGER_LISTEN_API": "host:65536"}, "LEDGER_LISTEN_API must be an address"),
        ({"LEDGER_LISTEN_API": "256.1.1.1:8000"}, "LEDGER_LISTEN_API 256.1.1.1:8000"),
        ({"LEDGER_TRUSTED_PROXIES": "10.0.0.0/33"}, "LEDGER_TRUSTED_PROXIES must be addresses"),
        ({"LEDGER_TLS_KEY": "/none"}, "LEDGER_TLS_CERTIFICATE and LEDGER_TLS_KEY belong together"),
        (
            {"LEDGER_TLS_KEY": "/none", "LEDGER_TLS_CERTIFICATE": "/neither"},
            "LEDGER_TLS_CERTIFICATE /neither or LEDGER_TLS_KEY /none cannot be read",
        ),
    ],
)
def test_wrong_addresses_stop_the_start_with_a_sentence(
    module_database_url: str, settings: dict[str, str], words: str
) -> None:
    common = {
        "LEDGER_DATABASE_URL": module_database_url,
        "LEDGER_WEBHOOK_TOKENS": TOKEN,
        "LEDGER_PORT": str(free_port()),
    }
    done = run_ledger("serve", settings={**common, **settings}, timeout=20)
    assert done.returncode == 1
    assert words in done.stderr.decode().splitlines()[-1]


def test_a_taken_address_is_named(module_database_url: str) -> None:
    with closing(socket.create_server(("127.0.0.1", 0))) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        settings = {
            "LEDGER_DATABASE_URL": module_database_url,
            "LEDGER_LISTEN_API": address,
            "LEDGER_LISTEN_INTAKE": "off",
        }
        done = run_ledger("serve", settings=settings, timeout=20)
    assert f"cannot listen on LEDGER_LISTEN_API {address}" in done.stderr.decode()
