"""An intake that is served by itself is probed and scraped at a private address of its own."""

from collections.abc import Iterator

import httpx
import psycopg
import pytest

from tests.support.payloads import distinct
from tests.support.server import KEY, TOKEN, LedgerServer, free_port, run_ledger, wait_until


@pytest.fixture(scope="module")
def status_port() -> int:
    return free_port()


@pytest.fixture(scope="module", params=["on", "off"])
def intake(
    request: pytest.FixtureRequest,
    module_database_url: str,
    tmp_path_factory: pytest.TempPathFactory,
    status_port: int,
) -> Iterator[LedgerServer]:
    """Give an intake without an API, with Ledger's own protocol and with Uvicorn's."""
    settings = {
        "LEDGER_LISTEN_API": "off",
        "LEDGER_LISTEN_STATUS": f"127.0.0.1:{status_port}",
        "LEDGER_FAST_INTAKE": request.param,
        "LEDGER_WORKERS": "2",
    }
    folder = tmp_path_factory.mktemp("status")
    with (
        LedgerServer(
            module_database_url, folder, settings=settings, project=False, wait=False
        ) as started,
        httpx.Client(base_url=f"http://127.0.0.1:{status_port}", trust_env=False) as client,
    ):
        wait_until(lambda: _is_ready(client), "the intake is ready", seconds=30)
        started.status = client  # type: ignore[attr-defined]  # for `status`
        yield started


@pytest.fixture
def status(intake: LedgerServer) -> httpx.Client:
    client = intake.status  # type: ignore[attr-defined]  # see `intake`
    assert isinstance(client, httpx.Client)
    return client


def _is_ready(client: httpx.Client) -> bool:
    try:
        return client.get("/health/ready").status_code == 200
    except httpx.TransportError:
        return False


@pytest.mark.parametrize(
    "path", ["/webhooks/flabs", f"/webhooks/flabs/{TOKEN}", "/v1/bills", "/schema", "/"]
)
def test_it_has_no_other_routes_and_takes_no_deliveries(
    intake: LedgerServer, status: httpx.Client, lab: str, path: str
) -> None:
    assert intake.serve.running
    headers = {"Authorization": f"Bearer {TOKEN if 'webhooks' in path else KEY}"}
    assert status.post(path, json=distinct(lab, 1)[0], headers=headers).status_code == 404
    assert status.get(path, headers=headers).status_code == 404


@pytest.mark.parametrize("path", ["/health/live", "/health/ready", "/metrics"])
def test_it_answers_as_the_api_does(intake: LedgerServer, status: httpx.Client, path: str) -> None:
    answer = status.get(path)
    assert answer.status_code == 200
    assert status.head(path).headers["content-length"] == str(len(answer.content))
    assert status.post(path).status_code == 405
    assert status.options(path).headers["allow"] == "GET, HEAD, OPTIONS"
    public = intake.anonymous.get(path)
    assert public.status_code == (200 if path == "/health/live" else 404)


def test_it_counts_what_all_workers_took(
    intake: LedgerServer, status: httpx.Client, lab: str
) -> None:
    def recorded() -> float:
        lines = status.get("/metrics").text.splitlines()
        [line] = [line for line in lines if line.startswith('ledger_deliveries_total{outcome="r')]
        return float(line.split()[-1])

    before = recorded()
    for payload in distinct(lab, 4):
        assert intake.send(payload).status_code == 200
    assert recorded() == before + 4
    assert "ledger_spool_bytes 0.0" in status.get("/metrics").text


def test_it_is_not_ready_while_nothing_could_be_stored(
    status: httpx.Client, module_database_url: str
) -> None:
    with psycopg.connect(module_database_url, autocommit=True) as owner:
        owner.execute("REVOKE INSERT ON ledger.event_log FROM ledger_intake")
        try:
            wait_until(lambda: not _is_ready(status), "it is not ready")
            answer = status.get("/health/ready")
            assert answer.headers["content-type"] == "application/problem+json"
            assert "no delivery can be made durable" in answer.json()["detail"]
            assert status.get("/health/live").status_code == 200
        finally:
            owner.execute("GRANT INSERT ON ledger.event_log TO ledger_intake")
    wait_until(lambda: _is_ready(status), "it is ready again")


def test_it_is_not_ready_with_another_schema(
    status: httpx.Client, module_database_url: str
) -> None:
    with psycopg.connect(module_database_url, autocommit=True) as owner:
        owner.execute("UPDATE ledger.schema_version SET version_num = '9999'")
        try:
            answer = status.get("/health/ready")
        finally:
            owner.execute("UPDATE ledger.schema_version SET version_num = '0001'")
    assert answer.status_code == 503
    assert "install the newer version of Ledger" in answer.json()["detail"]


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({}, "is for an intake with an address of its own"),
        ({"LEDGER_LISTEN_INTAKE": "off"}, "is for an intake with an address of its own"),
        (
            {"LEDGER_LISTEN_API": "off", "LEDGER_LISTEN_INTAKE": "127.0.0.2:8004"},
            "needs a port that neither",
        ),
        ({"LEDGER_LISTEN_STATUS": "8004"}, "LEDGER_LISTEN_STATUS must be an address"),
    ],
)
def test_where_it_would_mean_nothing_the_start_says_so(
    module_database_url: str, settings: dict[str, str], words: str
) -> None:
    common = {
        "LEDGER_DATABASE_URL": module_database_url,
        "LEDGER_WEBHOOK_TOKENS": TOKEN,
        "LEDGER_LISTEN_STATUS": "127.0.0.1:8004",
    }
    done = run_ledger("serve", settings={**common, **settings}, timeout=20)
    assert done.returncode == 1
    assert words in done.stderr.decode().splitlines()[-1]
