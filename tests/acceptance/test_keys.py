"""API keys as people use them: over HTTP and by command, while the server runs."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.support.answers import assert_problem
from tests.support.commands import assert_sentence
from tests.support.operations import AT_ONCE, Desk, lost_report, named
from tests.support.payloads import event
from tests.support.server import LedgerServer, wait_until


@pytest.fixture(scope="module")
def desk(module_database_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Desk]:
    folder = tmp_path_factory.mktemp("keys")
    with Desk(module_database_url, folder, settings=AT_ONCE) as started:
        yield started


def create(server: LedgerServer, **wanted: object) -> dict[str, Any]:
    answer = server.api.post("/v1/keys", json={"name": "n", "scope": "read", **wanted})
    assert answer.status_code == 201, answer.text
    assert answer.headers["cache-control"] == "no-store"
    made: dict[str, Any] = answer.json()
    return made


def get(server: LedgerServer, key: str, path: str = "/v1/bills", **more: Any) -> httpx.Response:  # noqa: ANN401 -- as httpx
    return server.anonymous.get(path, headers={"Authorization": f"Bearer {key}"}, **more)


def say(
    server: LedgerServer, key: str, method: str, path: str, body: object, *, by: str = "ann"
) -> httpx.Response:
    headers = {"Authorization": f"Bearer {key}", "Ledger-Operator": by}
    return server.anonymous.request(method, path, headers=headers, json=body)


def test_a_key_is_created_listed_rotated_and_revoked_over_http(desk: Desk, lab: str) -> None:
    desk.lose(lab)
    made = create(desk, labs=[lab], expires_at="2100-01-01T00:00:00Z")
    assert (made["created_by"], made["created_by_key"]) == ("API", "admin")
    assert get(desk, made["key"]).json()["items"] == desk.items("/v1/bills", lab_id=lab)
    bill = get(desk, made["key"], f"/v1/labs/{lab}/bills/b")
    assert (bill.status_code, bill.json()) == (200, desk.get(f"/v1/labs/{lab}/bills/b").json())
    [listed] = [one for one in desk.items("/v1/keys") if one["key_id"] == made["key_id"]]
    secret = made.pop("key")
    assert {**listed, "last_used_at": None} == made
    path = f"/v1/keys/{made['key_id']}"
    rotated = desk.post(f"{path}/rotate", overlap_seconds=600).json()
    assert get(desk, secret).status_code == get(desk, rotated["key"]).status_code == 200
    assert rotated["previous_valid_until"] is not None
    revoked = desk.post(f"{path}/revoke").json()
    assert revoked["revoked_at"] is not None
    for key in (secret, rotated["key"]):
        assert_problem(get(desk, key), 401)
    assert_problem(desk.post(f"{path}/rotate"), 400)
    assert secret not in desk.output
    assert '"API key revoked"' in desk.output


def test_a_key_is_created_listed_rotated_and_revoked_by_command(desk: Desk, lab: str) -> None:
    key = desk.run("keys", "create", "--name", "dash", "--lab", lab).stdout.decode().strip()
    assert get(desk, key).status_code == 200
    lines = desk.run("keys", "list", "--json").stdout.splitlines()
    [listed] = [one for one in map(json.loads, lines) if one["labs"] == [lab]]
    assert (listed["name"], listed["scope"], listed["created_by_key"]) == ("dash", "read", None)
    key_id = listed["key_id"]
    table = desk.run("keys", "list").stdout.decode()
    assert f"{key_id}\tvalid\tread\t{lab}\t" in table
    assert key not in table
    for arguments in (["rotate", key_id, "--overlap", "0"], ["revoke", key_id]):
        assert_sentence(desk.run("keys", *arguments), "without a terminal", "--yes", code=2)
        assert desk.run("keys", *arguments, "--dry-run").returncode == 0
    assert get(desk, key).status_code == 200
    done = desk.run("keys", "rotate", key_id, "--overlap", "0", "--yes", "--json")
    rotated = json.loads(done.stdout)
    # Another process learns of it by itself.
    assert get(desk, rotated["key"]).status_code == 200
    wait_until(lambda: get(desk, key).status_code == 401, "the old secret is refused", seconds=5)
    assert desk.run("keys", "revoke", key_id, "--yes").returncode == 0
    wait_until(
        lambda: get(desk, rotated["key"]).status_code == 401, "the key is refused", seconds=5
    )
    assert f"{key_id}\trevoked\t" in desk.run("keys", "list").stdout.decode()
    assert_sentence(desk.run("keys", "revoke", "nobody", "--yes"), "no API key 'nobody'")
    assert_sentence(desk.run("keys", "create", "--name", " "), "takes 1 to", code=2)
    past = ["--expires", "2020-01-01T00:00:00Z"]
    assert_sentence(desk.run("keys", "create", "--name", "n", *past), "expires_at is past")


def test_who_decided_stands_in_the_log_with_the_key_that_proves_it(desk: Desk, lab: str) -> None:
    desk.lose(lab, "b", "c")
    made = create(desk, scope="operate", labs=[lab])
    key, key_id = made["key"], made["key_id"]
    waiver = {**named(lab, "b"), "reason": "r"}
    assert say(desk, key, "POST", "/v1/missing-events/waive", waiver).status_code == 200
    asked = say(desk, key, "POST", "/v1/support-requests", {}).json()
    assert (asked["made_by"], asked["made_by_key"], asked["lab_id"]) == ("ann", key_id, lab)
    assert desk.asked(asked["number"])["made_by_key"] == key_id
    decided = desk.items(f"/v1/labs/{lab}/bills/b/events")[-1]["body"]
    assert (decided["by"], decided["by_key"]) == ("ann", key_id)
    assert f"by ann (key {key_id}): r" in desk.run("bill", lab, "b").stdout.decode()
    shown = desk.run("request", str(asked["number"])).stdout.decode()
    assert f"by ann (key {key_id})." in shown
    assert f"\tann (key {key_id})\t" in desk.run("request").stdout.decode()
    # The admin's key has an id, too, and the command line has none.
    desk.unwaive(lab, "b")
    assert desk.items(f"/v1/labs/{lab}/bills/b/events")[-1]["body"]["by_key"] == "admin"
    done = desk.run("waive", "--lab", lab, "--bill", "b", "--reason", "r", "--by", "bob", "--yes")
    assert done.returncode == 0, done.stderr
    decided = desk.items(f"/v1/labs/{lab}/bills/b/events")[-1]["body"]
    assert (decided["by"], decided["by_key"]) == ("bob", None)
    file = json.dumps(event(lab, "late")).encode()
    answer = desk.anonymous.post(
        "/v1/imports", content=file, headers={"Authorization": f"Bearer {key}"}
    )
    assert answer.json()["recorded"] == 1


def test_a_part_of_a_request_is_closed_by_who_it_belongs_to(desk: Desk, lab: str) -> None:
    other = f"{lab}-other"
    desk.lose(lab)
    desk.lose(other)
    number = desk.ask(note="about both")["number"]
    made = create(desk, scope="operate", labs=[lab])
    path = f"/v1/support-requests/{number}"
    seen = get(desk, made["key"], path).json()
    assert {line["lab_id"] for line in seen["lines"]} == {lab}
    assert seen["note"] is None
    closed = say(desk, made["key"], "POST", f"{path}/close", {"reason": "gone"}).json()
    assert (closed["state"], closed["closed_reason"]) == ("closed", "gone")
    whole = desk.asked(number)
    assert (whole["state"], whole["closed_reason"], whole["note"]) == ("open", None, "about both")
    states = {line["lab_id"]: line["state"] for line in whole["lines"]}
    assert (states[lab], states[other]) == ("closed", "requested")


def test_a_stream_ends_with_the_key(desk: Desk, lab: str) -> None:
    made = create(desk, labs=[lab])
    headers = {"Authorization": f"Bearer {made['key']}", "Accept": "text/event-stream"}
    with desk.anonymous.stream("GET", "/v1/changes", headers=headers) as answer:
        assert answer.status_code == 200
        desk.post(f"/v1/keys/{made['key_id']}/revoke")
        desk.record(event(lab, "after"))
        assert "data:" not in "".join(answer.iter_lines())


def test_labs_may_expect_the_same_bill_and_do_not_see_each_other_s(desk: Desk, lab: str) -> None:
    other = f"{lab}-other"
    keys = {one: create(desk, scope="operate", labs=[one])["key"] for one in (lab, other)}
    path = f"/v1/expected-bills/{lab}-x"
    past = {"expected_by": "2024-01-20T10:50:00Z"}
    for one, key in keys.items():
        assert say(desk, key, "PUT", path, past).json()["lab_id"] == one
    desk.record(event(other, "b", integrator=f"{lab}-x"))
    desk.settle()
    for one, state in ((lab, "unseen"), (other, "seen")):
        [item] = get(desk, keys[one], "/v1/expected-bills").json()["items"]
        assert (item["lab_id"], item["state"]) == (one, state)
    assert say(desk, keys[lab], "DELETE", path, None).status_code == 204
    assert get(desk, keys[lab], "/v1/expected-bills").json()["items"] == []
    assert len(get(desk, keys[other], "/v1/expected-bills").json()["items"]) == 1
    assert_problem(say(desk, keys[lab], "DELETE", path, None), 404)
    both = create(desk, scope="operate", labs=[lab, other])["key"]
    assert "has no lab_id" in assert_problem(say(desk, both, "PUT", path, past), 400)


def test_a_key_that_reads_too_often_waits_and_no_one_else_does(
    database_url: str, tmp_path: Path, lab: str
) -> None:
    with Desk(database_url, tmp_path, settings={**AT_ONCE, "LEDGER_READ_RATE": "2"}) as desk:
        desk.record(*lost_report(lab))
        wait_until(lambda: desk.get(f"/v1/labs/{lab}/bills/b").status_code == 200, "it is folded")
        keys = [desk.run("keys", "create", "--name", "n").stdout.decode().strip() for _ in "ab"]
        bill = f"/v1/labs/{lab}/bills/b"
        for path in ("/v1/bills", bill):

            def refused(path: str = path) -> list[httpx.Response]:
                answers = [get(desk, keys[0], path) for _ in range(9)]
                return [answer for answer in answers if answer.status_code == 429]

            answer = wait_until(refused, "it reads too often")[0]
            assert "LEDGER_READ_RATE" in assert_problem(answer, 429)
            assert answer.headers["retry-after"] == "1"
        assert get(desk, keys[1]).status_code == 200
        desk.record(*(event(lab, f"c{number}") for number in range(9)))
        admin = [desk.get(bill).status_code for _ in range(9)]
        assert 429 in admin
        said = [desk.waive(lab).status_code for _ in range(4)]
        assert said == [200] * 4
        wait_until(lambda: get(desk, keys[0], bill).status_code == 200, "it may read again")
