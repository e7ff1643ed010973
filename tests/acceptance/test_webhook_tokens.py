"""Webhook tokens of the database: created, used, restricted to labs, replaced, revoked."""

import json
import threading
from collections.abc import Iterator
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import psycopg
import pytest

from ledger import schema
from tests.support.answers import assert_problem
from tests.support.commands import assert_sentence, run_on_terminal
from tests.support.payloads import event
from tests.support.postgres import PrivateServer
from tests.support.server import PLAIN, LedgerServer, run_ledger, wait_until
from tests.support.wire import Wire, outcome, request

WITHOUT_TOKENS = {"LEDGER_WEBHOOK_TOKENS": ""}


@pytest.fixture(scope="module", params=["on", "off"], ids=["fast", "plain"])
def server(
    module_database_url: str,
    tmp_path_factory: pytest.TempPathFactory,
    request: pytest.FixtureRequest,
) -> Iterator[LedgerServer]:
    settings = {"LEDGER_FAST_INTAKE": request.param}
    folder = tmp_path_factory.mktemp("tokens")
    with LedgerServer(module_database_url, folder, settings=settings, project=False) as started:
        yield started


def create(server: LedgerServer, *labs: str) -> dict[str, Any]:
    answer = server.api.post("/v1/webhook-tokens", json={"labs": list(labs) or None})
    assert answer.status_code == 201, answer.text
    assert answer.headers["cache-control"] == "no-store"
    made: dict[str, Any] = answer.json()
    return made


def created(server: LedgerServer, *labs: str) -> str:
    """Create a token and wait until the server knows it."""
    token: str = create(server, *labs)["token"]
    body = event(labs[0] if labs else "any", "to see whether the token is known")
    wait_until(lambda: server.send(body, token=token).status_code == 200, "it is valid", seconds=5)
    return token


def test_a_token_is_valid_within_seconds_besides_all_others_until_it_is_revoked(
    server: LedgerServer, lab: str
) -> None:
    first, second = created(server), created(server)
    for token in (first, second, server.token):
        assert server.send(event(lab, "b"), token=token).status_code == 200
        assert server.send(event(lab, "b"), token="", path=f"/webhooks/flabs/{token}/").is_success
    number = id_of(server, first)
    [mine] = [one for one in server.items("/v1/webhook-tokens") if one["token_id"] == number]
    assert mine["labs"] is None
    revoked = server.api.post(f"/v1/webhook-tokens/{number}/revoke")
    assert revoked.json()["revoked_by"] == "API"
    wait_until(
        lambda: server.send(event(lab, "b"), token=first).status_code == 401, "refused", seconds=5
    )
    assert server.send(event(lab, "b"), token=second).status_code == 200
    again = server.api.post(f"/v1/webhook-tokens/{number}/revoke")
    assert again.json() == revoked.json(), "it stays as it was"
    assert_problem(server.api.post("/v1/webhook-tokens/none/revoke"), 404)


def id_of(server: LedgerServer, token: str) -> str:
    with psycopg.connect(server.settings["LEDGER_DATABASE_URL"]) as connection:
        query = "SELECT token_id FROM ledger.webhook_token WHERE digest = sha256(%s::bytea)"
        row = connection.execute(query, (token.encode(),)).fetchone()
    assert row
    return str(row[0])


def test_a_token_is_shown_once_and_stands_nowhere(server: LedgerServer) -> None:
    token = created(server)
    assert token not in json.dumps(server.items("/v1/webhook-tokens", limit=1))
    assert token not in server.output
    with psycopg.connect(server.settings["LEDGER_DATABASE_URL"]) as connection:
        for row in connection.execute("SELECT t::text FROM ledger.webhook_token t"):
            assert token not in row[0]


@pytest.mark.parametrize("size", [0, 20_000], ids=["short", "long"])
def test_a_token_of_a_lab_brings_nothing_of_another(
    server: LedgerServer, lab: str, size: int
) -> None:
    token = created(server, lab, f"{lab}_2")
    padding = b" " * size

    def send(payload: object) -> httpx.Response:
        content = payload if isinstance(payload, bytes) else json.dumps(payload).encode()
        return server.send(content + padding, token=token)

    assert send(event(lab, "b")).json()["outcome"] == "recorded"
    assert send(event(f"{lab}_2", "b")).json()["outcome"] == "recorded"
    assert "lab" in assert_problem(send(event(f"{lab}_3", "foreign")), 401)
    assert_problem(send({"labID": f"{lab}_3", "eventType": 7}), 401)
    assert send(b"broken %s" % lab.encode()).json()["outcome"] == "unreadable"
    assert send({"eventType": "bill.created", "of": lab}).json()["outcome"] == "unreadable"

    def boxed() -> list[Any]:
        return server.items("/v1/refused-deliveries", lab_id=f"{lab}_3")

    wait_until(lambda: len(boxed()) == 2, "both are in the box")
    found = boxed()
    assert {item["reason"] for item in found} == {"foreign_lab"}
    assert {item["bill_id"] for item in found} == {"foreign", ""}
    assert f"{lab}_3" not in {item["lab_id"] for item in server.items("/v1/events", after=0)}


def test_a_foreign_delivery_does_not_end_the_connection(server: LedgerServer, lab: str) -> None:
    token = created(server, lab)
    with closing(Wire(server)) as wire:
        wire.send(request(json.dumps(event("other", "b")).encode(), token=token))
        assert wire.answer()[0] == 401
        wire.send(request(json.dumps(event(lab, "b")).encode(), token=token))
        assert outcome(wire.answer()) == (200, "recorded")


def test_tokens_are_replaced_under_load_without_one_refusal(server: LedgerServer, lab: str) -> None:
    current = created(server)
    statuses: list[int] = []
    stop = threading.Event()
    idle = [threading.Event() for _ in range(3)]

    def send(sender: int) -> None:
        with httpx.Client(base_url=server.url, timeout=20, trust_env=False, verify=PLAIN) as client:
            number = 0
            while not stop.is_set():
                number += 1
                idle[sender].clear()
                answer = client.post(
                    "/webhooks/flabs",
                    content=json.dumps(event(lab, f"{sender}_{number}")).encode(),
                    headers={"Authorization": current},
                )
                statuses.append(answer.status_code)
                idle[sender].set()

    senders = [threading.Thread(target=send, args=(sender,)) for sender in range(3)]
    for sender in senders:
        sender.start()
    for _ in range(3):
        old, current = current, created(server)
        for event_of_sender in idle:  # what is under way may still have the old one
            event_of_sender.clear()
            assert event_of_sender.wait(10)
        assert server.api.post(f"/v1/webhook-tokens/{id_of(server, old)}/revoke").is_success
        wait_until(partial(is_refused, server, old), "the old one is refused", seconds=5)
    stop.set()
    for sender in senders:
        sender.join()
    assert set(statuses) == {200}
    assert len(statuses) > 20


def is_refused(server: LedgerServer, token: str) -> bool:
    return server.send({}, token=token).status_code == 401


def test_the_commands_create_list_and_revoke(database_url: str) -> None:
    settings = {"LEDGER_DATABASE_URL": database_url}
    none = run_ledger("tokens", "list", settings=settings)
    assert b"ledger tokens create" in none.stderr
    made = run_ledger(
        "tokens", "create", "--lab", "a", "--lab", "b", "--name", "of two", settings=settings
    )
    token = made.stdout.decode().strip()
    assert token.startswith("ldw_")
    assert len(token) > 40
    listed = run_ledger("tokens", "list", settings=settings).stdout.decode().splitlines()
    number, *rest = listed[1].split("\t")
    assert rest[:2] == ["of two", "a, b"]
    assert_sentence(run_ledger("tokens", "revoke", number, settings=settings), "--yes", code=2)
    assert_sentence(
        run_ledger("tokens", "revoke", "none", "--yes", settings=settings), "no webhook"
    )
    code, said = run_on_terminal("tokens", "revoke", number, settings=settings, typed="\n")
    assert code == 1
    assert "never used" in said
    done = run_ledger(
        "tokens", "revoke", number, "--yes", "--by", "Ada", "--json", settings=settings
    )
    assert json.loads(done.stdout)["revoked_by"] == "Ada"
    [line] = run_ledger("tokens", "list", "--json", settings=settings).stdout.splitlines()
    assert json.loads(line)["revoked_at"]


@pytest.mark.parametrize("arguments", [("--lab", ""), ("--lab", "x" * 201), ("--name", " ")])
def test_a_wrong_option_of_a_token_is_wrong_usage(
    module_database_url: str, arguments: tuple[str, ...]
) -> None:
    settings = {"LEDGER_DATABASE_URL": module_database_url}
    done = run_ledger("tokens", "create", *arguments, settings=settings)
    assert_sentence(done, arguments[0], code=2)


def test_a_server_needs_a_token_somewhere(database_url: str, tmp_path: Path, lab: str) -> None:
    settings = {"LEDGER_DATABASE_URL": database_url}
    assert_sentence(
        run_ledger("serve", settings=settings, timeout=20),
        "ledger tokens create",
        "LEDGER_WEBHOOK_TOKENS",
    )
    made = run_ledger("tokens", "create", settings=settings).stdout.decode().strip()
    with LedgerServer(
        database_url, tmp_path, settings=WITHOUT_TOKENS, token=made, project=False
    ) as server:
        assert server.send(event(lab, "b")).json()["outcome"] == "recorded"
        assert server.send(event(lab, "b"), token="wrong").status_code == 401

        def last_used() -> object:
            return server.items("/v1/webhook-tokens")[0]["last_used_at"]

        assert wait_until(last_used, "the use is noted")


def test_without_the_database_the_last_known_tokens_stay_valid(
    postgres_server: PrivateServer, tmp_path: Path, lab: str
) -> None:
    """Before they were read once, nobody can say that a token is wrong."""
    schema.migrate(postgres_server.dsn())
    settings = {"LEDGER_DATABASE_URL": postgres_server.dsn()}
    token = run_ledger("tokens", "create", settings=settings).stdout.decode().strip()
    postgres_server.stop()
    with LedgerServer(
        postgres_server.dsn(),
        tmp_path,
        settings=WITHOUT_TOKENS,
        token=token,
        project=False,
        wait=False,
    ) as server:
        body = event(lab, "b")

        def answers() -> bool:
            try:
                return bool(server.anonymous.get("/health/live").status_code == 200)
            except httpx.TransportError:
                return False

        wait_until(answers, "the server is up", seconds=30)
        for presented in (token, "wrong"):
            answer = server.send(body, token=presented)
            assert_problem(answer, 503)
            assert answer.headers["retry-after"]
        postgres_server.start()
        wait_until(lambda: server.send(body).status_code == 200, "it is back", seconds=30)
        assert server.send(body, token="wrong").status_code == 401
        postgres_server.kill()
        assert_problem(server.send(event(lab, "c")), 503)
        assert_problem(server.send(event(lab, "c"), token="wrong"), 401)
