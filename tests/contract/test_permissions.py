"""Nothing is shown to, or taken from, who may not: every operation of the document is walked.

Two servers are asked the same: one whose log holds lab A and lab B, and one whose log holds lab A
alone. A key for lab A must get the same from both. An operation that `CALLS` lacks fails the test.
"""

import io
import json
import re
import zipfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from typing import Any

import httpx
import psycopg
import pytest
from msgspec import Struct
from msgspec.structs import replace

from ledger.operations.api_keys import SCOPES, make_key
from ledger.postgres.connect import connect
from ledger.seals.notes import SigningKey
from ledger.seals.sealing import log_head, seal_batch, sealing, sign
from tests.support.payloads import event
from tests.support.postgres import ready_database
from tests.support.server import ROOT, LedgerServer
from tests.support.two_labs import (
    FIRST,
    LAST_OF_A,
    MARK,
    NUMBER_OF_B,
    SHARED_INTEGRATOR,
    TOKENS,
    WINDOW,
    WINDOW_OF_B,
    A,
    B,
    fill,
    id_of,
    key,
    refused_id,
)

pytestmark = pytest.mark.slow

OPENAPI: dict[str, Any] = json.loads((ROOT / "api_schema" / "openapi.json").read_bytes())
OPERATIONS = {
    operation["operationId"]: (method.upper(), path, operation)
    for path, operations in OPENAPI["paths"].items()
    for method, operation in operations.items()
}
WITH_A_KEY = {name for name, (_, path, _) in OPERATIONS.items() if path.startswith("/v1/")}
WITHOUT_A_KEY = {
    "ReceiveWebhook", "ReceiveWebhookBySecret", "GetLiveness", "GetReadiness", "GetMetrics",
}  # fmt: skip
"""Operations that take no API key, each with its reason in docs/http.md."""


Query = dict[str, str | int]


class Call(Struct, frozen=True):
    """A request: what fills the path, the query and the body. `status` is what lab A's key gets."""

    path: dict[str, str] = {}
    query: Query = {}
    body: object = None
    status: int = 200


BILL_A = {"lab_id": A, "bill_id": "bill"}
BILL_B = {"lab_id": B, "bill_id": f"{MARK}bill"}
NO_BILL = {"lab_id": A, "bill_id": "none"}
PAST: Query = {"as_of": "2024-02-01T00:00:00Z", "position": LAST_OF_A}
BEFORE: Query = {**PAST, "position": LAST_OF_A - 2}
WHOLE: Query = {"known_at": "2024-02-01T00:00:00Z"}
FORMS: list[Query] = [{"format": form} for form in ("json", "csv", "markdown", "text", "xlsx")]
NUMBER_1 = {"number": "1"}
NUMBER_OF_LAB_B = {"number": str(NUMBER_OF_B)}
MISSING_A = {**BILL_A, "event_type": "report.completed", "test_id": "test"}
MISSING_B = {**BILL_B, "event_type": "report.completed", "test_id": f"{MARK}test"}
SPAN = {"from": f"{WINDOW[0]:%FT%TZ}", "to": f"{WINDOW[1]:%FT%TZ}", "reason": "r"}
SPAN_OF_B = {"from": f"{WINDOW_OF_B[0]:%FT%TZ}", "to": f"{WINDOW_OF_B[1]:%FT%TZ}", "reason": "r"}
SOON = {"expected_by": "2100-01-01T00:00:00Z"}
EXPECTED = {"integrator_id": "j", **SOON}
PAYLOAD_A, PAYLOAD_B = event(A, "imported"), event(B, f"{MARK}imported")
LEAD_OF_A, LEAD_OF_B = "7", "14"
NEW_KEY = {"name": "n", "scope": "read"}
POSITION_OF_B = 10
SEAL_KEYS = [SigningKey.new(name) for name in ("lab.example/old", "lab.example/new")]


def of_bill(*more: Query) -> list[Call]:
    return [
        Call(bill, query, status=status)
        for bill, status in ((BILL_A, 200), (BILL_B, 404), (NO_BILL, 404))
        for query in ({}, *more)
    ]


def of_lab(*filters: Query) -> list[Call]:
    queries: list[Query] = [{}, {"lab_id": A}, {"lab_id": B}, *filters]
    return [Call(query=query) for query in queries]


CALLS: dict[str, list[Call]] = {
    "GetBill": of_bill(WHOLE, {"as_of": "2024-02-01T00:00:00Z"}),
    "ListFindings": of_bill(),
    "ListBillEvents": [*of_bill({"limit": 1}), Call(BILL_A, {"body": "true"}, status=403)],
    "ListBills": of_lab({"integrator_id": f"{SHARED_INTEGRATOR}-only-b"}, {"state": "completed"}),
    "ListReports": of_lab({"test_id": "test"}, {"test_id": f"{MARK}test"}, {"completed": "true"}),
    "ListEvents": [
        Call(), Call(query={"after": 9}), Call(query={"body": "true"}, status=403),
    ],
    "ListUnreadableEvents": [
        Call(), Call(query={"reason": "missing_field"}), Call(query={"body": "true"}, status=403),
    ],
    "ListChanges": of_lab({"after": 3}),
    "ListMissingEvents": of_lab({"state": "overdue"}, {"state": "waived"}, {"state": "requested"}),
    "GetReconciliation": [
        *of_lab(PAST), *(Call(query={**PAST, **form}) for form in FORMS),
        Call(query={**PAST, "lab_id": B}), Call(query=BEFORE),
    ],
    "ListSupportRequests": [Call()],
    "GetSupportRequest": [
        *(Call(NUMBER_1, form) for form in FORMS),
        Call(NUMBER_OF_LAB_B, status=404),
        Call({"number": "99"}, status=404),
    ],
    "ListLabs": of_lab({"state": "usual"}, {"state": "silent"}),
    "ListLossWindows": of_lab({"state": "requested"}, {"state": "closed"}, {"state": "open"}),
    "ListExpectedBills": of_lab({"state": "unseen"}, {"state": "seen"}),
    "GetSubscription": [Call({"lab_id": A}), Call({"lab_id": B}, status=403)],
    "GetProjection": [Call()],
    "ListCheckpoints": [Call(), Call(query={"limit": 1})],
    "GetEventProof": [
        Call({"position": "1"}),
        Call({"position": LEAD_OF_A}),
        Call({"position": LEAD_OF_A}, {"body": "true"}, status=403),
        Call({"position": str(POSITION_OF_B)}, status=404),
        Call({"position": "99999"}, status=404),
        Call({"position": "0"}, status=404),
    ],
    "ListKeys": [Call()],
    "ListWebhookTokens": [Call()],
    # Without an account at Flabs; tests/acceptance/test_flabs.py has one.
    "ListAccountLabs": [Call(status=409)],
    "GetCoverage": [Call()],
    "GetTokenRotation": [Call(status=403)],
    "ListRefusedDeliveries": of_lab({"reason": "wrong"}, {"reason": "missing"}),
    "GetRefusedDelivery": [
        Call({"delivery_id": refused_id("refused1")}),
        Call({"delivery_id": refused_id(f"{MARK}refused1", B)}, status=404),
        Call({"delivery_id": "none"}, status=404),
    ],
    "WaiveMissingEvent": [
        Call(body={**MISSING_B, "reason": "r"}, status=404),
        Call(body={**MISSING_A, "reason": "r"}),
    ],
    "UnwaiveMissingEvent": [
        Call(body={**MISSING_B, "event_type": "bill.created", "test_id": None}, status=404),
        Call(body=MISSING_A),
    ],
    "WaiveMissingEvents": [
        Call(body={"event_type": "report.completed", "reason": "r", "dry_run": True}),
        Call(body={"lab_id": B, "reason": "r"}),
        Call(body={"certainty": "possible", "reason": "r"}),
    ],
    "CloseSupportRequest": [
        Call(NUMBER_OF_LAB_B, body={"reason": "r"}, status=404),
        Call(
            NUMBER_1,
            body={
                "reason": "r",
                "lines": [{"lab_id": B, "bill_id": f"{MARK}asked", "event_type": "bill.created"}],
            },
            status=404,
        ),
        Call(NUMBER_1, body={"reason": "r"}),
    ],
    "MakeSupportRequest": [
        Call(body={"lab_id": B}, status=404),
        Call(body={}, status=201),
        Call(body={}, status=204),
    ],
    "CloseLossWindow": [
        Call(body={**SPAN, "labs": [B]}, status=404),
        Call(body={**SPAN_OF_B, "labs": [B, A]}, status=404),
        Call(body=SPAN),
    ],
    "ExpectBill": [
        Call({"integrator_id": "i"}, body={**SOON, "lab_id": B}, status=403),
        Call({"integrator_id": f"{MARK}-expected"}, body=SOON),
    ],
    "ExpectBills": [
        Call(body=[EXPECTED, {**EXPECTED, "lab_id": B}], status=403),
        Call(body=[EXPECTED]),
    ],
    "StopExpectingBill": [
        Call({"integrator_id": f"{MARK}-no-lab"}, status=404),
        Call({"integrator_id": f"{MARK}-expected"}, status=204),
    ],
    "SetSubscription": [
        Call({"lab_id": B}, body={"events": []}, status=403),
        Call({"lab_id": A}, body={"events": None}),
    ],
    "ImportEvents": [
        Call(body=PAYLOAD_B, status=403),
        Call(body=[PAYLOAD_A, PAYLOAD_B], status=403),
        Call(body=[PAYLOAD_A, PAYLOAD_B], query={"dry_run": "true"}, status=403),
        Call(body=[PAYLOAD_A, {"labID": B}], query={"keep_unreadable": "true"}, status=403),
        Call(body=[PAYLOAD_A, {"none": 1}], query={"keep_unreadable": "true"}, status=403),
        Call(body=PAYLOAD_A, query={"dry_run": "true"}),
        Call(body=PAYLOAD_A),
    ],
    "CreateKey": [
        Call(body=NEW_KEY, status=403),
        Call(body={**NEW_KEY, "labs": [A, B]}, status=403),
        Call(body={**NEW_KEY, "scope": "admin", "labs": [A]}, status=201),
    ],
    "RotateKey": [
        Call({"key_id": id_of("adminb")}, body={}, status=404),
        Call({"key_id": id_of("readall")}, body={}, status=404),
        Call({"key_id": id_of("both")}, body={}, status=404),
        Call({"key_id": id_of("reader")}, body={"overlap_seconds": 60}),
    ],
    "RevokeKey": [
        Call({"key_id": id_of("adminb")}, status=404),
        Call({"key_id": id_of("both")}, status=404),
        Call({"key_id": id_of("operator")}),
    ],
    "CreateWebhookToken": [
        Call(body={}, status=403),
        Call(body={"labs": [A, B]}, status=403),
        Call(body={"labs": [A]}, status=201),
    ],
    "RevokeWebhookToken": [
        *(Call({"token_id": token}, status=404) for token, labs in TOKENS.items() if labs != [A]),
        Call({"token_id": "tokenofa"}),
    ],
    "AcceptRefusedDeliveries": [
        Call(body={"ids": [refused_id(f"{MARK}refused1", B)]}, status=404),
        Call(body={"lab_id": B}),
        Call(body={"ids": [refused_id("refused1")]}),
    ],
    "CheckAccount": [Call(body={}, status=403)],
    "SubscribeLabs": [
        Call(body={}, status=403),
        Call(body={"labs": [B]}, status=403),
        Call(body={"labs": [A, B]}, status=403),
        Call(body={"labs": [A]}, status=409),
    ],
    "RotateToken": [Call(body={}, status=403)],
    "EraseBody": [
        Call({"position": LEAD_OF_B}, body={"reason": "r"}, status=404),
        Call({"position": "999"}, body={"reason": "r"}, status=404),
        Call({"position": "1"}, body={"reason": "r"}, status=400),
        Call({"position": LEAD_OF_A}, body={}, status=400),
        Call({"position": LEAD_OF_A}, body={"reason": "r", "dry_run": True}),
        Call({"position": LEAD_OF_A}, body={"reason": "r"}),
        Call({"position": LEAD_OF_A}, body={"reason": "r"}, status=400),
    ],
    "DropRefusedDeliveries": [
        Call(body={"ids": [refused_id(f"{MARK}refused2", B)]}, status=404),
        Call(body={"lab_id": B}),
        Call(body={"all": True}),
    ],
}  # fmt: skip
"""How each operation is called, operations that change something in the order of their effects."""


class Labs(Struct):
    """The server with both labs, and the one with lab A alone."""

    both: LedgerServer
    alone: LedgerServer


@pytest.fixture(scope="module")
def labs(
    postgres_url: str, migrated_template: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Labs]:
    """Give both servers, which nobody changes before the test that may."""
    with ExitStack() as stack:
        servers = []
        for with_b in (True, False):
            url = stack.enter_context(ready_database(postgres_url, migrated_template))
            fill(url, with_b=with_b)
            server = LedgerServer(url, tmp_path_factory.mktemp("labs"), wait=False)
            servers.append(stack.enter_context(server))
        for server in servers:
            server.wait_until_ready()
            server.settle()
            seal(server)
        park_a_bill_of_b(servers[0])
        yield Labs(*servers)


def seal(server: LedgerServer) -> None:
    """Sign checkpoints with two keys."""
    with (
        connect(server.settings["LEDGER_DATABASE_URL"], "test") as connection,
        sealing(connection, wait=True),
    ):
        head = log_head(connection)
        while seal_batch(connection, head).size < head:
            pass
        for key in SEAL_KEYS:
            assert sign(connection, key, FIRST)


def park_a_bill_of_b(server: LedgerServer) -> None:
    with psycopg.connect(server.settings["LEDGER_DATABASE_URL"]) as connection:
        connection.execute(
            "INSERT INTO state.parked_bill VALUES (%s, %s, 1, %s)",
            (B, f"{MARK}parked", f"{MARK} error"),
        )


def send(server: LedgerServer, name: str, call: Call, presented: str | None) -> httpx.Response:
    method, path, _ = OPERATIONS[name]
    content = b""
    if isinstance(call.body, list):
        content = b"\n".join(json.dumps(line).encode() for line in call.body)
    elif call.body is not None:
        content = json.dumps(call.body).encode()
    return server.anonymous.request(
        method,
        path.format(**call.path),
        params=call.query or None,
        content=content,
        # A refusal that comes before the body has ends the connection.
        headers={
            "Connection": "close",
            **({"Authorization": f"Bearer {presented}"} if presented else {}),
        },
    )


def key_for(scope: str) -> str:
    return key({"read": "reader", "operate": "operator", "admin": "admin"}[scope])


def scope_of(name: str) -> str:
    (scope,) = OPERATIONS[name][2]["security"][0]["apiKey"]
    assert scope in SCOPES
    return str(scope)


def test_the_walk_knows_every_operation() -> None:
    assert set(OPERATIONS) == WITH_A_KEY | WITHOUT_A_KEY
    assert set(CALLS) == WITH_A_KEY


def wrong_keys() -> list[str | None]:
    good = key("admin")
    other = "x" if good[-1] != "x" else "y"
    return [
        None,
        "wrong",
        good[:-1] + other,
        good[:30],
        f"{good}x",
        make_key("nobody0000"),
        make_key(id_of("admin")),
    ]


def test_nobody_is_let_in_without_a_key_or_with_a_wrong_one(labs: Labs) -> None:
    asked = [(name, wrong) for name in CALLS for wrong in wrong_keys()]
    with ThreadPoolExecutor(32) as pool:  # a key that could be a new one is refused after a while
        answers = pool.map(lambda one: send(labs.both, one[0], CALLS[one[0]][0], one[1]), asked)
        for (name, wrong), answer in zip(asked, answers, strict=True):
            assert answer.status_code == 401, (name, wrong)
            assert answer.headers["www-authenticate"] == 'Bearer realm="ledger"'
            assert answer.json()["detail"].startswith("the API key is missing or wrong")
            assert "ledger-position" not in answer.headers


@pytest.mark.parametrize("name", sorted(CALLS))
def test_a_key_without_the_scope_may_not(labs: Labs, name: str) -> None:
    scope = scope_of(name)
    for less in SCOPES[: SCOPES.index(scope)]:
        for call in CALLS[name]:
            answer = send(labs.both, name, call, key_for(less))
            assert answer.status_code == 403, less
            assert f"needs an API key with the scope {scope}" in answer.json()["detail"]


def texts(answer: httpx.Response) -> str:
    """Return all that an answer says: its headers and its content, unpacked."""
    content = answer.content
    if content.startswith(b"PK"):
        with zipfile.ZipFile(io.BytesIO(content)) as book:
            content = b"".join(book.read(part) for part in sorted(book.namelist()))
    return f"{answer.headers}{content.decode()}"


def check_unmarked(name: str, call: Call, answer: httpx.Response) -> None:
    """Check that an answer shows nothing of lab B but what was asked with."""
    asked = json.dumps([call.path, call.query, call.body])
    shown = texts(answer)
    for marked in set(re.findall(rf"{MARK}[\w-]*", shown)):
        assert marked in asked, (name, call, shown)


def without(names: set[str], value: Any) -> Any:  # noqa: ANN401 -- any JSON
    """Return JSON without members of these names."""
    if isinstance(value, list):
        return [without(names, part) for part in value]
    if isinstance(value, dict):
        return {name: without(names, part) for name, part in value.items() if name not in names}
    return value


OF_THE_MOMENT = {"as_of", "last_used_at", "sealed_at"}
"""What depends on when was asked."""

OF_THE_WHOLE_LOG = {"root", "path", "checkpoint", "note"}
"""Hashes over all events, and what signs them."""


def comparable(answer: httpx.Response) -> Any:  # noqa: ANN401 -- any JSON
    """Return what must be the same on both servers."""
    headers = {name: value for name, value in answer.headers.items() if name != "date"}
    content: Any = texts(answer).partition("})")[2] if answer.content.startswith(b"PK") else None
    if "json" in answer.headers.get("content-type", ""):
        content = without(OF_THE_MOMENT | OF_THE_WHOLE_LOG, answer.json())
        headers.pop("content-length", None)
    elif content is None:
        content = answer.text
    return answer.status_code, headers, content


READS = [name for name in CALLS if OPERATIONS[name][2]["tags"] == ["read"]]


@pytest.mark.parametrize("name", sorted(READS))
def test_a_key_of_lab_a_reads_as_if_lab_b_did_not_exist(labs: Labs, name: str) -> None:
    presented = key_for(scope_of(name))
    for call in CALLS[name]:
        with_b = send(labs.both, name, call, presented)
        alone = send(labs.alone, name, call, presented)
        assert with_b.status_code == call.status, with_b.text
        check_unmarked(name, call, with_b)
        assert comparable(with_b) == comparable(alone)


BY_LAB = {"ListBills", "ListReports", "ListEvents", "ListUnreadableEvents", "ListMissingEvents",
          "ListChanges", "ListExpectedBills"}  # fmt: skip
"""Lists whose items name their lab."""


@pytest.mark.parametrize("name", sorted(BY_LAB))
def test_a_key_of_several_labs_reads_what_is_of_them_in_the_usual_order(
    labs: Labs, name: str
) -> None:
    path = OPERATIONS[name][1]
    whole = labs.both.items(path)
    pages: list[dict[str, Any]] = []
    cursor: Query = {}
    while True:
        page = send(labs.both, name, Call(query={"limit": 2, **cursor}), key("both")).json()
        pages += page["items"]
        if page["next"] is None:
            break
        cursor = {"cursor": page["next"]}
    of_scope = {"body", "raw", "no_body"}  # a key that only reads does not see every body
    expected = [item for item in whole if item["lab_id"] in {A, B}]
    assert without(of_scope, pages) == without(of_scope, expected)
    assert {item["lab_id"] for item in pages} == {A, B}


PAGED = [
    name
    for name, (method, _, operation) in OPERATIONS.items()
    if method == "GET"
    and any(parameter["name"] == "cursor" for parameter in operation.get("parameters", ()))
]


@pytest.mark.parametrize("name", sorted(PAGED))
def test_pages_and_cursors_are_those_of_a_log_without_lab_b(labs: Labs, name: str) -> None:
    presented = key_for(scope_of(name))
    for call in CALLS[name]:
        if call.status != 200:
            continue
        cursors: list[str | None] = []
        while len(cursors) < 50 and (not cursors or cursors[-1]):
            more = {"cursor": cursors[-1]} if cursors and cursors[-1] else {}
            asked = replace(call, query={**call.query, "limit": 1, **more})
            pages = [send(server, name, asked, presented) for server in (labs.both, labs.alone)]
            check_unmarked(name, asked, pages[0])
            assert comparable(pages[0]) == comparable(pages[1])
            assert len(pages[0].json()["items"]) <= 1
            cursors.append(pages[0].json()["next"])
        assert cursors[-1] is None


def test_a_stream_brings_changes_of_lab_a_alone(labs: Labs) -> None:
    server = labs.both
    bills = server.items("/v1/changes", lab_id=A)
    with server.anonymous.stream(
        "GET",
        "/v1/changes",
        headers={"Accept": "text/event-stream", "Authorization": f"Bearer {key('reader')}"},
    ) as answer:
        assert answer.status_code == 200
        lines = answer.iter_lines()
        seen: list[str] = []
        for line in lines:
            assert MARK not in line
            if line.startswith("data: "):
                seen.append(json.loads(line.removeprefix("data: "))["bill_id"])
            if len(seen) == len(bills):
                # Of lab B first: it would come first.
                server.record(event(B, f"{MARK}streamed"))
                server.settle()
                labs.alone.record(event(A, "streamed"))
                server.record(event(A, "streamed"))
            if seen and seen[-1] == "streamed":
                break
    assert seen == [*(item["bill_id"] for item in bills), "streamed"]


NAMES_ANEW = {"erased_at", "decision",
    "number", "request", "previous", "import_id", "position", "received_position", "made_at",
    "key", "key_id", "token", "token_id", "created_at", "last_received_at", "subscribed_at",
    "previous_valid_until", "revoked_at", "last_used_at",
}  # fmt: skip
"""What differs between two servers because of the time, or because numbers are of all labs."""


def view_of_b(server: LedgerServer) -> list[Any]:
    """Return what is known of lab B."""
    found: list[Any] = [
        server.items(f"/v1/{name}", lab_id=B)
        for name in ("bills", "reports", "missing-events", "loss-windows", "expected-bills")
    ]
    found += [server.get(f"/v1/support-requests/{number}").json() for number in (1, NUMBER_OF_B)]
    found[-2] = [line for line in found[-2]["lines"] if line["lab_id"] == B]
    found.append(server.get(f"/v1/labs/{B}/subscription").json())
    for name in ("keys", "webhook-tokens"):
        # When a key was last used is noted a while after it was.
        listed = without({"last_used_at"}, server.items(f"/v1/{name}"))
        found.append([one for one in listed if one["labs"] != [A]])
    found.append(server.items("/v1/refused-deliveries", lab_id=B))
    return found


def test_a_key_of_lab_a_changes_nothing_of_lab_b(labs: Labs) -> None:
    """Runs last: it changes what the other tests read."""
    before = view_of_b(labs.both)
    for name, calls in CALLS.items():
        if name in READS:
            continue
        for call in calls:
            presented = key_for(scope_of(name))
            with_b = send(labs.both, name, call, presented)
            alone = send(labs.alone, name, call, presented)
            assert with_b.status_code == call.status, (name, call, with_b.text)
            check_unmarked(name, call, with_b)
            assert alone.status_code == call.status, (name, call, alone.text)
            if call.status not in {201, 204} and name != "CloseLossWindow":
                assert without(NAMES_ANEW, with_b.json()) == without(NAMES_ANEW, alone.json())
    labs.both.settle()
    after = view_of_b(labs.both)
    for then, now in zip(before, after, strict=True):
        assert then == now
