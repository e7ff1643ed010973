"""The log of a running server: its form, the request that caused a line, and no secret in it."""

import json
from collections.abc import Iterator
from typing import Any

import psycopg
import pytest

from tests.support.payloads import event
from tests.support.server import KEY, TOKEN, LedgerServer, wait_until

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"


@pytest.fixture(scope="module")
def server(
    module_database_url: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[LedgerServer]:
    with LedgerServer(
        module_database_url, tmp_path_factory.mktemp("log"), project=False
    ) as running:
        yield running


def lines(server: LedgerServer) -> list[dict[str, Any]]:
    """Return what the server logged; fails if a line is no event in JSON."""
    return [json.loads(line) for line in server.serve.output.splitlines()]


def test_uvicorns_lines_have_the_form_of_our_own(server: LedgerServer) -> None:
    said = lines(server)
    assert {"event", "level", "timestamp"} <= set.intersection(*map(set, said))
    assert any(line.get("library") == "uvicorn.error" for line in said)


def test_a_fault_is_found_in_the_log_by_the_request_that_met_it(server: LedgerServer) -> None:
    with psycopg.connect(server.settings["LEDGER_DATABASE_URL"], autocommit=True) as connection:
        connection.execute("ALTER TABLE ledger.webhook_token RENAME TO elsewhere")
        try:
            answers = [
                server.api.get("/v1/webhook-tokens", headers=headers)
                for headers in ({"traceparent": f"00-{TRACE}-00f067aa0ba902b7-01"}, {})
            ]
        finally:
            connection.execute("ALTER TABLE ledger.elsewhere RENAME TO webhook_token")
    assert [answer.status_code for answer in answers] == [500, 500]
    found = wait_until(
        lambda: [line for line in lines(server) if line["event"] == "request failed"],
        "the faults are logged",
    )
    assert [line["path"] for line in found] == ["/v1/webhook-tokens"] * 2
    assert found[0]["request_id"] == TRACE
    for answer, line in zip(answers, found, strict=True):
        assert answer.json()["detail"].endswith(f"at request_id {line['request_id']}")


def test_no_secret_and_no_body_is_logged(server: LedgerServer) -> None:
    wrong, mark = "a-wrong-token-that-is-secret", "a-mark-in-the-body"
    body = event("lab_1", mark)
    assert server.anonymous.post(f"/webhooks/flabs/{wrong}", json=body).status_code == 401
    assert server.anonymous.post(f"/webhooks/flabs/{TOKEN}", json=body).status_code == 200
    assert server.api.get("/v1/bills", headers={"Authorization": wrong}).status_code == 401
    wait_until(lambda: "the webhook token is missing or wrong" in server.serve.output, "it is said")
    for secret in (wrong, mark, TOKEN, KEY):
        assert secret not in server.serve.output
