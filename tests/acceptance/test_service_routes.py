"""What tells of the service itself: its health, metrics and schema, and no secret."""

import json
from collections.abc import Callable
from pathlib import Path

import httpx
import psycopg
import pytest

from tests.support.answers import assert_problem
from tests.support.payloads import distinct, event
from tests.support.server import ROOT, TOKEN, LedgerServer


def test_the_server_says_that_it_lives_and_is_ready(server: LedgerServer) -> None:
    assert server.anonymous.get("/health/live").json() == {"status": "live"}
    assert server.anonymous.get("/health/ready").json() == {"status": "ready"}


@pytest.mark.parametrize("path", ["/health/live", "/health/ready", "/metrics", "/schema"])
def test_probes_may_use_head_and_options(server: LedgerServer, path: str) -> None:
    asked, probed = server.anonymous.get(path), server.anonymous.head(path)
    assert probed.status_code == asked.status_code == 200
    assert probed.headers["content-type"] == asked.headers["content-type"]
    assert int(probed.headers["content-length"]) > 0
    assert probed.content == b""
    answer = server.anonymous.options(path)
    assert (answer.status_code, answer.headers["allow"]) == (204, "GET, HEAD, OPTIONS")


@pytest.mark.parametrize("fast", ["on", "off"])
def test_every_path_may_begin_with_the_prefix_of_a_proxy(
    database_url: str, tmp_path: Path, lab: str, fast: str
) -> None:
    settings = {"LEDGER_PATH_PREFIX": "/lab/ledger/", "LEDGER_FAST_INTAKE": fast}
    with LedgerServer(database_url, tmp_path, settings=settings) as server:
        for number, path in enumerate(
            (
                "/lab/ledger/webhooks/flabs",
                "/lab/ledger/webhooks/flabs/",
                "/lab//ledger//webhooks/flabs",
                f"/lab/ledger/webhooks/flabs/{TOKEN}",
                f"/webhooks/flabs/{TOKEN}",
            )
        ):
            token = "" if TOKEN in path else TOKEN
            answer = server.send(event(lab, f"b/{number}"), token=token, path=path)
            assert answer.json()["position"] == number + 1
        server.settle()
        assert server.anonymous.get("/lab/ledger/health/ready").status_code == 200
        bill = server.get(f"/v1/labs/{lab}/bills/b%2F0")
        assert bill.json()["bill_id"] == "b/0"
        assert server.get(f"/lab/ledger/v1/labs/{lab}/bills/b%2F0").json() == bill.json()
        assert server.get("/lab/ledgers/v1/bills").status_code == 404


def test_the_server_is_not_ready_on_an_old_schema_and_says_what_to_do(
    own_server: LedgerServer, database_url: str
) -> None:
    with psycopg.connect(database_url, autocommit=True) as connection:
        connection.execute("UPDATE ledger.schema_version SET version_num = '0000'")
    answer = own_server.anonymous.get("/health/ready")
    assert "ledger migrate" in assert_problem(answer, 503)
    assert own_server.anonymous.get("/health/live").status_code == 200


def test_metrics_count_deliveries_by_outcome_and_tell_the_position(
    own_server: LedgerServer, lab: str
) -> None:
    payload = event(lab, "b")
    own_server.record(payload, payload, f"broken {lab}", *distinct(lab, 3))
    own_server.send(payload, token="wrong")
    own_server.settle()
    text = own_server.anonymous.get("/metrics").text
    assert 'ledger_deliveries_total{outcome="recorded"} 4.0' in text
    assert 'ledger_deliveries_total{outcome="duplicate"} 1.0' in text
    assert 'ledger_deliveries_total{outcome="unreadable"} 1.0' in text
    assert 'ledger_deliveries_refused_total{status="401"} 1.0' in text
    assert "ledger_head 5.0" in text
    assert "ledger_position 5.0" in text


def test_the_schema_served_is_the_one_that_is_checked_in(server: LedgerServer) -> None:
    answer = server.anonymous.get("/schema")
    assert answer.headers["content-type"].startswith("application/json")
    assert answer.json() == json.loads((ROOT / "api_schema" / "openapi.json").read_bytes())


def test_no_answer_tells_a_secret(server: LedgerServer) -> None:
    askings: list[Callable[[], httpx.Response]] = [
        lambda: server.send({}, token="wrong"),
        lambda: server.anonymous.get("/metrics"),
        lambda: server.anonymous.get("/health/ready"),
        lambda: server.anonymous.get("/schema"),
        lambda: server.get("/v1/projection"),
        lambda: server.get("/v1/nothing"),
    ]
    for ask in askings:
        answer = ask()
        shown = answer.text + str(answer.headers)
        assert server.token not in shown
        assert server.settings["LEDGER_ADMIN_KEY"] not in shown


def test_an_empty_checkpoint_is_no_fault_of_the_server(own_server: LedgerServer) -> None:
    own_server.kill_projector()
    with psycopg.connect(own_server.settings["LEDGER_DATABASE_URL"], autocommit=True) as owner:
        owner.execute("DELETE FROM state.checkpoint")
    for path in (
        "/v1/projection", "/v1/missing-events", "/v1/expected-bills", "/v1/events/unreadable",
    ):  # fmt: skip
        assert "ledger rebuild" in assert_problem(own_server.get(path), 503)
    assert own_server.anonymous.get("/metrics").status_code == 200
