"""`ledger status`: how far the state is."""

import json

from tests.support.payloads import event
from tests.support.server import (
    LedgerServer,
)


def test_status_says_how_far_the_state_is(server: LedgerServer, lab: str) -> None:
    server.record(event(lab, "b"))
    head = server.settle()
    status = json.loads(server.run("status", "--json").stdout)
    assert (status["head"], status["position"], status["lag_events"]) == (head, head, 0)
    text = server.run("status").stdout.decode()
    assert f"{head:,}" in text
    assert "up to date" in text
    with server.without_projector():
        server.record(event(lab, "c"))
        assert json.loads(server.run("status", "--json").stdout)["lag_events"] == 1
