"""`ledger simulate`: a lab's day, sent to a server."""

import json
from pathlib import Path

from ledger.simulator import read_truth
from tests.support.commands import assert_sentence
from tests.support.payloads import Payload
from tests.support.server import (
    LedgerServer,
    run_ledger,
)


def test_a_simulated_day_is_found_as_the_truth_file_tells_it(
    own_server: LedgerServer, tmp_path: Path
) -> None:
    truth_file = tmp_path / "truth.jsonl"
    done = run_ledger(
        "simulate", "--bills", "60", "--labs", "2", "--seed", "7", "--delta", "--drop", "0.06",
        "--duplicate", "0.1", "--reorder", "0.2", "--late", "0.1", "--retry-interval", "0.05",
        "--url", f"{own_server.url}/webhooks/flabs", "--token", own_server.token,
        "--truth", str(truth_file),
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    own_server.settle()
    sent: dict[tuple[str, str], list[tuple[Payload, bool]]] = {}
    for one in read_truth(truth_file):
        payload = json.loads(bytes(one.payload))
        key = (payload["labID"], payload["data"]["billID"])
        sent.setdefault(key, []).append((payload, one.delivered))
    bills = {
        (item["lab_id"], item["bill_id"]): item
        for item in own_server.items("/v1/bills", limit=1000)
    }
    delivered = {
        key: sum(came for _, came in events)
        for key, events in sent.items()
        if any(came for _, came in events)
    }
    assert {key: bill["events"] for key, bill in bills.items()} == delivered
    assert sum(delivered.values()) == own_server.head()
    assert sum(map(len, sent.values())) > own_server.head()
    certain = own_server.items("/v1/missing-events", certainty="certain", limit=1000)
    assert certain
    for missing in certain:
        lost = [
            payload
            for payload, came in sent[missing["lab_id"], missing["bill_id"]]
            if not came and payload["eventType"] == missing["event_type"]
        ]
        assert lost, missing
    for (lab_id, bill_id), events in sent.items():
        created_lost = any(
            not came and payload["eventType"] == "bill.created" for payload, came in events
        )
        deleted = any(came and payload["eventType"] == "bill.deleted" for payload, came in events)
        if created_lost and not deleted and (lab_id, bill_id) in bills:
            assert ("bill.created", lab_id, bill_id) in {
                (item["event_type"], item["lab_id"], item["bill_id"]) for item in certain
            }
    assert own_server.run("verify").returncode == 0


def test_simulate_with_a_wrong_token_says_so_and_fails(server: LedgerServer) -> None:
    done = run_ledger(
        "simulate", "--bills", "2", "--retry-interval", "0.01", "--token", "wrong",
        "--url", f"{server.url}/webhooks/flabs",
    )  # fmt: skip
    assert_sentence(done, "401")
