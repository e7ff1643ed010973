"""`ledger status`: how far the state is."""

import json

from tests.support.payloads import event
from tests.support.server import LedgerServer, wait_until


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
        assert "1 event behind" in server.run("status").stdout.decode()


def test_status_says_whether_a_projector_runs(server: LedgerServer) -> None:
    server.settle()
    assert json.loads(server.run("status", "--json").stdout)["projector"] is True
    assert "projector  runs\n" in server.run("status").stdout.decode()
    with server.without_projector():
        wait_until(
            lambda: not json.loads(server.run("status", "--json").stdout)["projector"],
            "its connection has ended",
        )
        assert "start `ledger project`" in server.run("status").stdout.decode()
