"""Deliveries with a wrong token: refused, kept, accepted into the log or dropped."""

import json
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.support.answers import assert_problem, parsed
from tests.support.commands import assert_sentence, run_on_terminal
from tests.support.payloads import Payload, distinct, event
from tests.support.server import LedgerServer, wait_until
from tests.support.wire import Wire, chunked, request

Item = dict[str, Any]

WRONG = "wrong"


@pytest.fixture(scope="module", params=["on", "off"], ids=["fast", "plain"])
def server(
    module_database_url: str,
    tmp_path_factory: pytest.TempPathFactory,
    request: pytest.FixtureRequest,
) -> Iterator[LedgerServer]:
    settings = {"LEDGER_FAST_INTAKE": request.param}
    folder = tmp_path_factory.mktemp("refused")
    with LedgerServer(module_database_url, folder, settings=settings) as started:
        yield started


def box(server: LedgerServer, lab: str) -> list[Item]:
    return server.items("/v1/refused-deliveries", lab_id=lab)


def refuse(server: LedgerServer, *payloads: Payload, token: str = WRONG) -> None:
    """Send with a wrong token, and wait until all are in the box."""
    for payload in payloads:
        assert_problem(server.send(payload, token=token), 401)
    labs = {payload["labID"] for payload in payloads}
    wait_until(
        lambda: sum(len(box(server, lab)) for lab in labs) >= len(payloads), "all are in the box"
    )


def decide(server: LedgerServer, what: str, **body: object) -> httpx.Response:
    return server.api.post(f"/v1/refused-deliveries/{what}", json=body)


def test_a_readable_delivery_with_a_wrong_or_missing_token_is_kept(
    server: LedgerServer, lab: str
) -> None:
    wrong, missing, in_path = distinct(lab, 3)
    head = server.head()
    refuse(server, wrong)
    refuse(server, wrong, missing, token="")
    server.send(in_path, token="", path="/webhooks/flabs/wrong?x=y")
    wait_until(lambda: len(box(server, lab)) == 3, "all are in the box")
    found = box(server, lab)
    bills = [payload["data"]["billID"] for payload in (wrong, missing, in_path)]
    assert [item["bill_id"] for item in found] == bills
    assert [item["reason"] for item in found] == ["wrong", "missing", "wrong"]
    assert {item["client"] for item in found} == {"127.0.0.1"}
    assert found[0]["event_time"] == "2024-01-20T10:50:00Z"
    assert server.head() == head, "nothing is in the log"
    shown = server.get(f"/v1/refused-deliveries/{found[0]['delivery_id']}").json()
    assert shown["body"] == wrong
    assert shown["raw"] is None
    assert [
        one["delivery_id"] for one in server.items("/v1/refused-deliveries", lab_id=lab, limit=1)
    ] == [item["delivery_id"] for item in found]
    reasons = server.items("/v1/refused-deliveries", lab_id=lab, reason="missing")
    assert [item["bill_id"] for item in reasons] == bills[1:2]


@pytest.mark.parametrize(
    "sent",
    [
        b"no JSON",
        b'{"labID": "l"}',
        json.dumps(event("too long", "b")).encode() + b" " * 70_000,
        b"",
    ],
    ids=["not JSON", "not readable", "long", "empty"],
)
def test_what_does_not_look_like_flabs_is_not_kept(
    server: LedgerServer, lab: str, sent: bytes
) -> None:
    before = len(server.items("/v1/refused-deliveries"))
    assert_problem(server.send(sent, token="wrong"), 401)
    refuse(server, event(lab, "after it"))
    assert len(server.items("/v1/refused-deliveries")) == before + 1


def test_a_delivery_in_pieces_or_chunks_is_kept(server: LedgerServer, lab: str) -> None:
    first, second, third = (json.dumps(payload).encode() for payload in distinct(lab, 3))
    with closing(Wire(server)) as wire:
        whole = request(first, token="wrong")
        wire.send(whole[:-50])
        time.sleep(0)  # the rest is another segment
        wire.send(whole[-50:])
        assert wire.answer()[0] == 401
        assert wire.is_at_end()
    with closing(Wire(server)) as wire:
        wire.send(chunked(second[:9], second[9:], token="wrong"))
        assert wire.answer()[0] == 401
    with closing(Wire(server)) as wire:
        wire.send(request(third, token="wrong", Connection="close"))
        assert wire.answer()[0] == 401
    wait_until(lambda: len(box(server, lab)) == 3, "all are in the box")


def test_bodies_that_do_not_come_keep_no_other_out(server: LedgerServer, lab: str) -> None:
    """More than the server waits for at once; each gets its refusal within seconds."""
    head = request(b"", token="wrong").replace(b": 0", b": 500")
    began = time.monotonic()
    wires = [Wire(server) for _ in range(60)]
    try:
        for wire in wires:
            wire.send(head + b"{")
        refuse(server, event(lab, "b"))
        assert server.send(event(lab, "good")).status_code == 200
        for wire in wires:
            assert wire.answer()[0] == 401
        assert time.monotonic() - began < 15
    finally:
        for wire in wires:
            wire.close()


def test_accepted_deliveries_are_in_the_log_as_if_they_had_been_taken(
    server: LedgerServer, lab: str
) -> None:
    first, second, third = distinct(lab, 3)
    refuse(server, first, second, third)
    one, two, three = box(server, lab)
    preview = decide(server, "accept", lab_id=lab, dry_run=True).json()
    assert preview == {"accepted": 3, "recorded": 0, "labs": {lab: 3}, "dry_run": True}
    answer = server.api.post(
        "/v1/refused-deliveries/accept",
        json={"ids": [one["delivery_id"], two["delivery_id"]]},
        headers={"Ledger-Operator": "Ada"},
    )
    assert answer.json() == {"accepted": 2, "recorded": 2, "labs": {lab: 2}, "dry_run": False}
    position = int(answer.headers["ledger-position"])
    bill = server.get(
        f"/v1/labs/{lab}/bills/{one['bill_id']}", min_position=position, wait_ms=20_000
    ).json()
    assert bill["first_received_at"] == one["received_at"]
    *events, decision = server.items("/v1/events", after=position - 3)
    assert [logged["body"] for logged in events] == [first, second]
    assert [logged["source"] for logged in (*events, decision)] == ["webhook"] * 2 + ["operator"]
    assert decision["body"]["decision"] == "deliveries.accepted"
    assert decision["body"]["by"] == "Ada"
    assert decision["body"]["positions"] == [position - 2, position - 1]
    assert parsed(events[0]["received_at"]) == parsed(one["received_at"])
    assert_problem(decide(server, "accept", ids=[one["delivery_id"], three["delivery_id"]]), 404)
    assert server.send(first).json()["outcome"] == "duplicate"
    assert [item["delivery_id"] for item in box(server, lab)] == [three["delivery_id"]]
    dropped = decide(server, "drop", lab_id=lab)
    assert dropped.json() == {"dropped": 1, "labs": {lab: 1}, "dry_run": False}
    assert box(server, lab) == []
    assert_problem(server.get(f"/v1/refused-deliveries/{three['delivery_id']}"), 404)
    assert server.settle()


@pytest.mark.parametrize(
    "body", [{}, {"all": True, "lab_id": "x"}, {"ids": []}, {"ids": [""]}, {"ids": [7]}]
)
@pytest.mark.parametrize("what", ["accept", "drop"])
def test_a_decision_says_about_which(server: LedgerServer, what: str, body: Item) -> None:
    assert_problem(decide(server, what, **body), 400)


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", ""),
        ("GET", "/0123456789abcdef"),
        ("POST", "/accept"),
        ("POST", "/drop"),
    ],
)
def test_a_stranger_learns_nothing_of_the_box(server: LedgerServer, method: str, path: str) -> None:
    answer = server.anonymous.request(method, f"/v1/refused-deliveries{path}", json={"all": True})
    assert_problem(answer, 401)


def test_the_commands_list_show_accept_and_drop(own_server: LedgerServer, lab: str) -> None:
    server = own_server
    hostile = event(lab, "evil \x1b[31m \u202e")
    refuse(server, *distinct(lab, 2), hostile)
    listed = server.run("refused", "list").stdout.decode().splitlines()
    name, first, _, third = (line.split("\t")[0] for line in listed)
    assert name == "id"
    assert "\x1b" not in "".join(listed)
    shown = server.run("refused", "show", third).stdout.decode()
    assert "\x1b" not in shown
    assert "\u202e" not in shown
    assert json.loads(server.run("refused", "show", third, "--json").stdout)["body"] == hostile
    status = server.run("status").stdout.decode()
    assert "3 deliveries with a wrong token" in status
    counted = json.loads(server.run("status", "--json").stdout)["refused"]
    assert counted == {"deliveries": 3, "of_known_labs": 3, "known_labs": 1}
    for wrong in ([], [first, "--all"]):
        assert_sentence(server.run("refused", "accept", *wrong), "--all", code=2)
    assert_sentence(server.run("refused", "accept", first), "--yes", code=2)
    assert_sentence(server.run("refused", "drop", first, "9", "--yes"), "refused delivery '9'")
    code, screen = run_on_terminal("refused", "drop", "--all", settings=server.settings, typed="\n")
    assert code == 1
    assert "3 refused deliveries will be deleted" in screen
    assert server.head() == 0
    done = server.run("refused", "accept", first, "--yes", "--by", "Ada")
    assert b"Accepted 1 refused delivery." in done.stdout
    assert server.head() == 2
    metrics = server.anonymous.get("/metrics").text
    assert "ledger_refused_deliveries 2.0" in metrics
    assert "ledger_refused_deliveries_of_known_labs 2.0" in metrics
    preview = server.run("refused", "accept", "--lab", lab, "--dry-run", "--json")
    assert json.loads(preview.stdout)["accepted"] == 2
    done = server.run("refused", "drop", "--all", "--yes", "--json")
    assert json.loads(done.stdout)["dropped"] == 2
    assert b"No refused delivery matches" in server.run("refused", "list").stderr
    assert "known labs come with a wrong token" in server.output


def test_a_box_of_no_rows_keeps_nothing(database_url: str, tmp_path: Path, lab: str) -> None:
    settings = {"LEDGER_REFUSED_ROWS": "0"}
    with LedgerServer(database_url, tmp_path, settings=settings, project=False) as server:
        for payload in distinct(lab, 3):
            assert server.send(payload, token="wrong").status_code == 401
        assert server.send(event(lab, "b")).status_code == 200
        assert box(server, lab) == []


def test_a_flood_of_wrong_tokens_leaves_room_and_good_deliveries_get_in(
    own_server: LedgerServer, lab: str
) -> None:
    server = own_server
    server.record(event(lab, "known"))
    for payload in distinct("flood", 400):
        assert server.send(payload, token="wrong").status_code == 401
        assert server.send(payload, token="wrong").status_code == 401
    assert server.send(event(lab, "b")).status_code == 200
    wait_until(lambda: box(server, "flood"), "some of them are kept")
    # One address is looked at a hundred times a second, so later or in another second.
    wait_until(
        lambda: server.send(event(lab, "real"), token="wrong").is_error and box(server, lab),
        "what a known lab sends",
    )
