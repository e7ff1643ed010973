"""The client's address in the server's log: a proxy's word counts if the proxy is trusted."""

from pathlib import Path

import pytest

from tests.support.payloads import event
from tests.support.server import LedgerServer, wait_until


@pytest.mark.parametrize("fast", ["on", "off"])
@pytest.mark.parametrize(
    ("trusted", "client"), [("10.0.0.0/8,127.0.0.1", "203.0.113.7"), ("10.0.0.0/8", "127.0.0.1")]
)
def test_an_address_cannot_be_made_up(
    database_url: str, tmp_path: Path, *, fast: str, trusted: str, client: str
) -> None:
    settings = {"LEDGER_TRUSTED_PROXIES": trusted, "LEDGER_FAST_INTAKE": fast}
    with LedgerServer(database_url, tmp_path, project=False, settings=settings) as server:
        headers = {"X-Forwarded-For": "198.51.100.1, 203.0.113.7"}
        assert server.send(event("lab", "b"), token="wrong", headers=headers).status_code == 401
        wait_until(lambda: f'"client": "{client}"' in server.output, "the refusal is logged")
        assert server.send(event("lab", "b"), headers=headers).status_code == 200
        assert "198.51.100.1" not in server.output
