"""Bodies that may hold a person's data: who sees them, and how they are erased."""

import json

import psycopg
import pytest

from tests.support.answers import assert_problem
from tests.support.payloads import BASE, event
from tests.support.server import LedgerServer

PHONE = "9876543210"


@pytest.fixture(scope="module")
def positions(server: LedgerServer) -> dict[str, int]:
    """Record one event of each kind, in a lab of its own."""
    lead = {**event("leads", "b", "lead.created"), "data": {"billID": "b", "phone": PHONE}}
    booking = {**event("leads", "b", "booking.created"), "data": {"billID": "b", "phone": PHONE}}
    wrong = {**lead, "eventTime": PHONE}
    cut_off = json.dumps(lead).encode()[:-5]
    numbers = server.record(lead, booking, wrong, cut_off, event("leads", "b", at=BASE + 1))
    server.settle()
    return dict(zip(("lead", "booking", "wrong", "cut off", "bill"), numbers, strict=True))


def shown(server: LedgerServer, positions: dict[str, int], key: str, **query: str) -> set[str]:
    """Return which of the events the log shows with their body."""
    first = min(positions.values())
    answer = server.anonymous.get(
        "/v1/events",
        params={"after": first - 1, "limit": len(positions), **query},
        headers={"Authorization": f"Bearer {key}"},
    )
    assert answer.status_code == 200, answer.text
    items = answer.json()["items"]
    found = set()
    for name, item in zip(positions, items, strict=True):
        assert item["position"] == positions[name]
        if item["body"] is not None or item["raw"] is not None:
            found.add(name)
            assert "no_body" not in item
        else:
            assert item["no_body"] == "withheld"
    assert (PHONE in answer.text) == bool({"lead", "booking", "wrong"} & found)
    return found


@pytest.fixture(scope="module")
def keys(server: LedgerServer) -> dict[str, str]:
    """Make a key of each scope."""
    made = {}
    for scope in ("read", "operate", "admin"):
        answer = server.api.post("/v1/keys", json={"name": scope, "scope": scope})
        made[scope] = answer.json()["key"]
    return made


def test_bodies_that_are_not_folded_are_shown_to_who_may_and_asks(
    server: LedgerServer, positions: dict[str, int], keys: dict[str, str]
) -> None:
    assert shown(server, positions, keys["read"]) == {"bill"}
    for scope in ("operate", "admin"):
        assert shown(server, positions, keys[scope]) == {"cut off", "bill"}
        assert shown(server, positions, keys[scope], body="true") == set(positions)
        assert shown(server, positions, keys[scope], body="false") == {"cut off", "bill"}
    answer = server.anonymous.get(
        "/v1/events", params={"body": "true"}, headers={"Authorization": f"Bearer {keys['read']}"}
    )
    assert "scope operate" in assert_problem(answer, 403)


def test_no_other_list_shows_them_unasked(
    server: LedgerServer, positions: dict[str, int], keys: dict[str, str]
) -> None:
    del positions
    for path in ("/v1/events/unreadable", "/v1/labs/leads/bills/b/events"):
        answer = server.anonymous.get(path, headers={"Authorization": f"Bearer {keys['admin']}"})
        assert PHONE not in answer.text
        assert PHONE in server.api.get(path, params={"body": "true"}).text


@pytest.mark.one_server("the reader's role sees no log")
def test_the_commands_and_the_views_do_not_either(
    server: LedgerServer, positions: dict[str, int]
) -> None:
    last = str(min(positions.values()) - 1)
    for command in (
        ("events", "--after", last),
        ("events", "--after", last, "--json"),
        ("events", "--unreadable", "--json"),
        ("bill", "leads", "b"),
        ("bill", "leads", "b", "--json"),
    ):
        done = server.run(*command)
        assert done.returncode == 0, done.stderr
        assert PHONE not in done.stdout.decode()
    asked = server.run("events", "--after", last, "--json", "--body")
    assert PHONE in asked.stdout.decode()
    with psycopg.connect(server.settings["LEDGER_DATABASE_URL"]) as connection:
        connection.execute("SET ROLE ledger_reader")
        rows = connection.execute("SELECT * FROM ledger.event WHERE lab_id = 'leads'").fetchall()
    assert len(rows) >= 3
    assert PHONE not in str(rows)


@pytest.mark.one_server("no body can be erased")
def test_an_erased_body_is_shown_to_nobody(server: LedgerServer, lab: str) -> None:
    (position,) = server.record({**event(lab, "b", "lead.created"), "phone": PHONE})
    reason = {"reason": "asked by the person"}
    preview = server.api.post(f"/v1/events/{position}/erase", json={**reason, "dry_run": True})
    assert preview.json()["erased_at"] is None
    answer = server.api.post(
        f"/v1/events/{position}/erase", json=reason, headers={"Ledger-Operator": "ann"}
    )
    assert answer.status_code == 200, answer.text
    erased = answer.json()
    assert int(answer.headers["Ledger-Position"]) == erased["decision"]
    item, decision = server.get("/v1/events", after=position - 1, body="true").json()["items"]
    assert (item["body"], item["raw"], item["no_body"]) == (None, None, "erased")
    assert item["erased_at"] == erased["erased_at"]
    assert decision["body"]["by"] == "ann"
    assert decision["body"]["reason"] == "asked by the person"
    again = server.api.post(f"/v1/events/{position}/erase", json=reason)
    assert "was erased already" in assert_problem(again, 400)
    exported = server.run("export", "--after", str(position - 1))
    line = json.loads(exported.stdout.splitlines()[0])
    assert line["erased"]["lab_id"] == lab
    assert "body" not in line


@pytest.mark.one_server("no body can be erased")
def test_the_command_asks_and_says_what_it_did(server: LedgerServer, lab: str) -> None:
    lead, bill = server.record(event(lab, "b", "lead.created"), event(lab, "b", at=BASE + 1))
    why = ("--reason", "asked by the person")
    unsure = server.run("erase", str(lead), *why)
    assert unsure.returncode == 2
    assert b"needs --yes" in unsure.stderr
    dry = server.run("erase", str(lead), *why, "--dry-run")
    assert dry.returncode == 0
    assert f"position {lead}, lead.created of lab {lab} will be erased" in dry.stderr.decode()
    done = server.run("erase", str(lead), *why, "--yes")
    assert done.returncode == 0, done.stderr
    assert f"Erased the body of position {lead}" in done.stdout.decode()
    for position, words in (
        (lead, "was erased already"),
        (bill, "is a readable bill.created"),
        (10**9, "there is no event at position"),
    ):
        refused = server.run("erase", str(position), *why, "--yes")
        assert refused.returncode in {1, 2}
        assert words in " ".join(refused.stderr.decode().split())
    assert server.run("erase", str(lead), "--yes").returncode == 2  # no reason
