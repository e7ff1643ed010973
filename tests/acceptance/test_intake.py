"""What the sender of webhooks meets."""

import base64
import json
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest

from tests.support.addresses import database_of
from tests.support.payloads import BASE, event
from tests.support.postgres import new_database
from tests.support.server import TOKEN, LedgerServer

OTHER_TOKEN = "other-token/with+signs="
MAX_BODY = 600_000
ANSWER_SECONDS = 10.0
"""The sender gives up then."""


@pytest.fixture(scope="module", params=["on", "off"], ids=["fast", "plain"])
def server(
    module_database_url: str,
    tmp_path_factory: pytest.TempPathFactory,
    request: pytest.FixtureRequest,
) -> Iterator[LedgerServer]:
    """Give a server with Ledger's own HTTP protocol and one with Uvicorn's."""
    settings = {
        "LEDGER_FAST_INTAKE": request.param,
        "LEDGER_WEBHOOK_TOKENS": f" {TOKEN} , {OTHER_TOKEN}",
        "LEDGER_MAX_BODY": str(MAX_BODY),
    }
    folder = tmp_path_factory.mktemp("intake")
    with LedgerServer(module_database_url, folder, settings=settings) as started:
        yield started


@pytest.fixture(scope="module")
def header_server(
    postgres_url: str, migrated_template: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[LedgerServer]:
    """Give a server whose operator named another header."""
    with (
        new_database(postgres_url, template=migrated_template) as name,
        LedgerServer(
            database_of(postgres_url, name),
            tmp_path_factory.mktemp("header"),
            settings={"LEDGER_WEBHOOK_HEADER": "X-Flabs-Token"},
            project=False,
        ) as started,
    ):
        yield started


def assert_problem(answer: httpx.Response, status: int) -> dict[str, Any]:
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    problem: dict[str, Any] = answer.json()
    assert problem["status"] == status
    assert problem["title"]
    assert problem["detail"]
    return problem


def loads(text: bytes) -> Any:  # noqa: ANN401 -- any JSON value
    """Read JSON in which a number may be longer than an int of Python."""
    return json.loads(text, parse_int=lambda digits: int(digits) if len(digits) < 99 else digits)


def events_after(server: LedgerServer, position: int) -> list[dict[str, Any]]:
    return server.items("/v1/events", after=position, limit=200)


# --- who may deliver --------------------------------------------------------------------------


@pytest.mark.parametrize(
    "authorization",
    [
        f"Bearer {TOKEN}",
        TOKEN,
        f"bearer {TOKEN}",
        f"BEARER   {TOKEN}",
        f"Bearer {OTHER_TOKEN}",
        OTHER_TOKEN,
    ],
)
def test_any_valid_token_is_taken_with_and_without_bearer(
    server: LedgerServer, lab: str, authorization: str
) -> None:
    answer = server.send(event(lab, "b"), token="", headers={"Authorization": authorization})
    assert answer.status_code == 200
    assert answer.json()["outcome"] == "recorded"


@pytest.mark.parametrize("secret", [TOKEN, "other-token%2Fwith%2Bsigns%3D"])
def test_a_token_may_be_the_last_part_of_the_path(
    server: LedgerServer, lab: str, secret: str
) -> None:
    answer = server.send(event(lab, "b"), token="", path=f"/webhooks/flabs/{secret}")
    assert answer.status_code == 200
    assert answer.json()["outcome"] == "recorded"


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Authorization": ""},
        {"Authorization": "Bearer"},
        {"Authorization": f"Bearer {TOKEN}x"},
        {"Authorization": f"Bearer {TOKEN[:-1]}"},
        {"Authorization": f"Bearer {TOKEN},{OTHER_TOKEN}"},
        {"Authorization": f"Basic {TOKEN}"},
        {"X-Flabs-Token": TOKEN},
    ],
)
def test_a_wrong_or_missing_token_is_refused_and_nothing_is_stored(
    server: LedgerServer, lab: str, headers: dict[str, str]
) -> None:
    before = server.head()
    answer = server.send(event(lab, "b"), token="", headers=headers)
    assert_problem(answer, 401)
    assert "bearer" in answer.headers["www-authenticate"].lower()
    assert server.head() == before


@pytest.mark.parametrize("secret", ["wrong", f"{TOKEN}x", f"{TOKEN}/more", "%00", "%ff"])
def test_a_wrong_secret_in_the_path_is_refused_and_nothing_is_stored(
    server: LedgerServer, lab: str, secret: str
) -> None:
    before = server.head()
    answer = server.send(event(lab, "b"), token="", path=f"/webhooks/flabs/{secret}")
    assert_problem(answer, 401)
    assert server.head() == before


def test_the_api_key_is_no_webhook_token(server: LedgerServer, lab: str) -> None:
    answer = server.send(
        event(lab, "b"), token="", headers={"Authorization": server.api.headers["authorization"]}
    )
    assert_problem(answer, 401)


@pytest.mark.parametrize("value", [TOKEN, f"Bearer {TOKEN}"])
def test_another_header_may_carry_the_token(
    header_server: LedgerServer, lab: str, value: str
) -> None:
    answer = header_server.send(event(lab, "b"), token="", headers={"x-flabs-token": value})
    assert answer.status_code == 200


def test_with_another_header_authorization_is_no_longer_looked_at(
    header_server: LedgerServer, lab: str
) -> None:
    assert_problem(header_server.send(event(lab, "b"), token=TOKEN), 401)


@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE", "PATCH", "HEAD"])
def test_only_post_is_taken(server: LedgerServer, method: str) -> None:
    answer = server.anonymous.request(
        method, "/webhooks/flabs", headers={"Authorization": f"Bearer {TOKEN}"}
    )
    assert answer.status_code == 405
    assert answer.headers["allow"] == "POST, OPTIONS"
    assert bool(answer.content) == (method != "HEAD")


@pytest.mark.parametrize("path", ["/webhooks/flabs", "/webhooks/flabs/", "/webhooks/flabs/x"])
def test_options_names_the_methods_to_anybody(server: LedgerServer, path: str) -> None:
    answer = server.anonymous.options(path)
    assert (answer.status_code, answer.headers["allow"]) == (204, "POST, OPTIONS")
    assert not answer.content


# --- how much may be delivered ----------------------------------------------------------------


def padded(lab: str, size: int) -> bytes:
    """Make a readable body of exactly that many bytes."""
    payload = {**event(lab, "b"), "padding": ""}
    return json.dumps({**payload, "padding": "x" * (size - len(json.dumps(payload)))}).encode()


def test_a_body_exactly_at_the_limit_is_taken(server: LedgerServer, lab: str) -> None:
    answer = server.send(padded(lab, MAX_BODY))
    assert answer.json()["outcome"] == "recorded"


def test_a_body_over_the_limit_is_refused_by_its_announced_length(
    server: LedgerServer, lab: str
) -> None:
    before = server.head()
    problem = assert_problem(server.send(padded(lab, MAX_BODY + 1)), 413)
    assert str(MAX_BODY) in problem["detail"]
    assert server.head() == before


def test_a_body_over_the_limit_that_comes_in_chunks_is_refused(server: LedgerServer) -> None:
    before = server.head()
    answer = server.anonymous.post(
        "/webhooks/flabs",
        content=(b"x" * 1000 for _ in range(MAX_BODY // 1000 + 1)),
        headers={"Authorization": TOKEN},
    )
    assert_problem(answer, 413)
    assert server.head() == before


def test_a_body_that_comes_in_chunks_is_taken_whole(server: LedgerServer, lab: str) -> None:
    body = padded(lab, MAX_BODY)
    answer = server.anonymous.post(
        "/webhooks/flabs",
        content=(body[start : start + 999] for start in range(0, len(body), 999)),
        headers={"Authorization": TOKEN},
    )
    position = answer.json()["position"]
    assert events_after(server, position - 1)[0]["body"] == json.loads(body)


def test_a_wrong_token_is_refused_before_the_body_is_looked_at(server: LedgerServer) -> None:
    assert_problem(server.send(b"x" * (MAX_BODY + 1), token="wrong"), 401)


# --- what became of it ------------------------------------------------------------------------


def test_positions_follow_each_other_from_the_head(server: LedgerServer, lab: str) -> None:
    before = server.head()
    positions = server.record(*(event(lab, f"b{number}") for number in range(3)))
    assert positions == [before + 1, before + 2, before + 3]


@pytest.mark.parametrize(
    "spelling",
    [
        lambda payload: json.dumps(payload).encode(),
        lambda payload: json.dumps(payload, indent=3).encode(),
        lambda payload: json.dumps(payload, separators=(",", ":")).encode(),
        lambda payload: json.dumps(dict(reversed(payload.items()))).encode(),
        lambda payload: b"\r\n\t " + json.dumps(payload, sort_keys=True).encode() + b"\n",
        lambda payload: json.dumps(payload).replace("lab", "\\u006cab").encode(),
    ],
)
def test_a_repeat_is_a_duplicate_at_the_position_of_the_first_however_it_is_spelled(
    server: LedgerServer,
    lab: str,
    spelling: Any,  # noqa: ANN401 -- a lambda
) -> None:
    payload = event(lab, "b", tests={"t": "completed"}, integrator="i")
    (position,) = server.record(payload)
    before = server.head()
    answer = server.send(spelling(payload))
    assert answer.json() == {"outcome": "duplicate", "position": position}
    assert server.head() == before


def test_an_unreadable_body_sent_again_is_a_duplicate(server: LedgerServer, lab: str) -> None:
    body = f"broken {lab}".encode()
    first = server.send(body).json()
    assert first["outcome"] == "unreadable"
    assert server.send(body).json() == {"outcome": "duplicate", "position": first["position"]}


def test_bodies_that_differ_in_white_space_and_are_no_json_are_two_events(
    server: LedgerServer, lab: str
) -> None:
    first, second = (server.send(f"broken{space}{lab}".encode()).json() for space in (" ", "  "))
    assert second["position"] > first["position"]


def test_each_of_many_concurrent_deliveries_is_told_its_own_outcome(
    server: LedgerServer, lab: str
) -> None:
    before = server.head()
    payloads = [event(lab, f"b{number % 40}") for number in range(160)]
    with ThreadPoolExecutor(16) as pool:
        answers = [answer.json() for answer in pool.map(server.send, payloads)]
    bills = [payload["data"]["billID"] for payload in payloads]
    stored = {item["bill_id"]: item["position"] for item in events_after(server, before)}
    assert len(stored) == 40
    assert [answer["position"] for answer in answers] == [stored[bill] for bill in bills]
    outcomes = [answer["outcome"] for answer in answers]
    assert (outcomes.count("recorded"), outcomes.count("duplicate")) == (40, 120)
    assert server.head() == before + 40


def test_an_event_of_an_unknown_type_is_recorded_and_never_folded(
    server: LedgerServer, lab: str
) -> None:
    answer = server.send(event(lab, "b", "lead.created", tests={"t": "completed"}))
    assert answer.json()["outcome"] == "recorded"
    server.settle()
    assert server.get(f"/v1/labs/{lab}/bills/b").status_code == 404
    assert server.items("/v1/bills", lab_id=lab) == []
    (item,) = server.items(f"/v1/labs/{lab}/bills/b/events")
    assert (item["event_type"], item["position"]) == ("lead.created", answer.json()["position"])


def test_an_event_of_an_unknown_type_needs_no_data(server: LedgerServer, lab: str) -> None:
    payload = {"labID": lab, "eventType": "booking.created", "eventTime": BASE, "data": 7}
    assert server.send(payload).json()["outcome"] == "recorded"


@pytest.mark.parametrize(
    "content_type",
    [None, "text/plain", "application/x-www-form-urlencoded", "multipart/form-data", "nonsense;;"],
)
def test_the_content_type_is_ignored(
    server: LedgerServer, lab: str, content_type: str | None
) -> None:
    headers = {} if content_type is None else {"Content-Type": content_type}
    assert server.send(event(lab, "b"), headers=headers).json()["outcome"] == "recorded"


# --- bad input --------------------------------------------------------------------------------

DEEP = 100_000


def good(lab: str, **changes: object) -> bytes:
    return json.dumps({**event(lab, "bill", "bill.created"), **changes}).encode()


def with_data(lab: str, **changes: object) -> bytes:
    return good(lab, data={"billID": "bill", **changes})


Maker = Callable[[str], bytes]

BAD: dict[str, Maker] = {
    "empty": lambda _: b"",
    "white space": lambda _: b" \n ",
    "broken JSON": lambda lab: b'{"labID": "' + lab.encode(),
    "two values": lambda lab: good(lab) + b" {}",
    "not UTF-8": lambda lab: good(lab, more="x").replace(b'"x"', b'"\xff\xfe"'),
    "UTF-16": lambda lab: good(lab).decode().encode("utf-16"),
    "NUL bytes": lambda lab: b"\x00" + lab.encode() + b"\x00",
    "an array": lambda lab: json.dumps([lab]).encode(),
    "a number": lambda lab: str(int(lab[4:], 16)).encode(),
    "a string": lambda lab: json.dumps(lab).encode(),
    "null": lambda _: b"null",
    "NaN": lambda lab: good(lab, more=float("nan")),
    "no field": lambda lab: json.dumps({"x": lab}).encode(),
    "no bill": lambda lab: good(lab, data={}),
    "data is an array": lambda lab: good(lab, data=[]),
    "lab is a number": lambda lab: good(lab, labID=int(lab[4:], 16)),
    "lab is empty": lambda lab: good(lab, labID="", more=lab),
    "lab is long": lambda lab: good(lab, labID=lab * 20),
    "type is null": lambda lab: good(lab, eventType=None),
    "time is a string": lambda lab: good(lab, eventTime="1705747800"),
    "time is a fraction": lambda lab: good(lab, eventTime=1705747800.5),
    "time is true": lambda lab: good(lab, eventTime=True),
    "time is absurd": lambda lab: good(lab, eventTime=10**30),
    "time is in milliseconds": lambda lab: good(lab, eventTime=BASE * 1000),
    "time is negative": lambda lab: good(lab, eventTime=-1),
    "time is beyond a float": lambda lab: good(lab).replace(str(BASE).encode(), b"1e999"),
    "time has 5000 digits": lambda lab: good(lab).replace(str(BASE).encode(), b"9" * 5000),
    "bill is an object": lambda lab: with_data(lab, billID={}),
    "integrator is a number": lambda lab: with_data(lab, integratorID=4),
    "status is a list": lambda lab: with_data(lab, billData={"status": []}),
    "tests is an object": lambda lab: with_data(lab, billData={"testData": {}}),
    "a test is a string": lambda lab: with_data(lab, billData={"testData": ["t"]}),
    "a test has no id": lambda lab: with_data(lab, billData={"testData": [{"status": "x"}]}),
    "NUL in the lab": lambda lab: good(lab, labID=f"{lab}\x00"),
    "NUL in the type": lambda lab: good(lab, eventType="bill.\x00created"),
    "NUL in the bill": lambda lab: with_data(lab, billID="b\x00"),
    "NUL in the integrator": lambda lab: with_data(lab, integratorID="i\x00"),
    "NUL in a test": lambda lab: with_data(lab, billData={"testData": [{"_id": "t\x00"}]}),
    "lone surrogate in the lab": lambda lab: good(lab, labID=f"{lab}\ud800"),
    "lone surrogate in the bill": lambda lab: with_data(lab, billID="\udfff"),
    "NUL in the status": lambda lab: with_data(lab, billData={"status": "a\x00b"}),
    "lone surrogate in the status": lambda lab: with_data(lab, billData={"status": "\ud800"}),
    "NUL in the address": lambda lab: with_data(lab, reportURL="\x00"),
    "deep arrays": lambda lab: b"[" * DEEP + lab.encode() + b"]" * DEEP,
    "deep objects": lambda lab: (
        good(lab, more=0)[:-2] + b'{"a":' * 20_000 + b"1" + b"}" * 20_000 + b"}"
    ),
    "deep and never closed": lambda lab: lab.encode().join((b"", b"[" * DEEP)),
}  # fmt: skip
"""Bodies that are unreadable, by what is wrong with them; each is made for a lab."""

ODD: dict[str, Maker] = {
    "every plane of Unicode": lambda lab: with_data(
        lab, billID="é漢\u202e\U0001f9ea\U0010ffff", integratorID="\u0001\u007f\uffff"
    ),
    "ids of 200 characters": lambda lab: with_data(
        lab,
        billID="\U0001f9ea" * 200,
        integratorID="\U0010fffd" * 200,
        billData={"status": "completed", "testData": [{"_id": "\U0001f600" * 200, "status": "x"}]},
    ),
    "10,000 tests": lambda lab: with_data(
        lab, billData={"testData": [{"_id": str(n), "status": None} for n in range(10_000)]}
    ),
    "a number beyond every range": lambda lab: good(lab, more=0)[:-2] + b"1e99999}",
    "a number of 5000 digits": lambda lab: good(lab, more=0)[:-2] + b"7" * 5000 + b"}",
    "a key twice": lambda lab: good(lab)[:-1] + b', "eventType": "bill.created"}',
    "everything null": lambda lab: with_data(
        lab, integratorID=None, reportURL=None, billData={"status": None, "testData": None}
    ),
}
"""Bodies that are readable all the same."""


@pytest.mark.parametrize("what", sorted(BAD))
def test_a_bad_body_is_kept_byte_for_byte_and_listed_with_the_reason(
    server: LedgerServer, lab: str, what: str
) -> None:
    body = BAD[what](lab)
    answer = server.send(body)
    assert answer.status_code == 200
    position = answer.json()["position"]
    if what not in {"empty", "white space", "null"}:  # which another test may have sent
        assert answer.json()["outcome"] == "unreadable"
    server.settle()
    (logged,) = loads(server.get("/v1/events", after=position - 1, limit=1).content)["items"]
    if logged["raw"] is None:
        assert logged["body"] == loads(body)
    else:
        assert logged["body"] is None
        assert base64.b64decode(logged["raw"], validate=True) == body
    page = loads(server.get("/v1/events/unreadable", after=position - 1, limit=1).content)
    listed = page["items"][0]
    assert listed["position"] == position
    assert {name: listed[name] for name in logged} == logged
    assert listed["reason"]
    assert listed["path"].startswith("$")
    assert listed["detail"]


@pytest.mark.parametrize("what", sorted(ODD))
def test_an_odd_body_that_is_readable_is_recorded_and_folded(
    server: LedgerServer, lab: str, what: str
) -> None:
    body = ODD[what](lab)
    answer = server.send(body)
    assert answer.status_code == 200
    assert answer.json()["outcome"] == "recorded"
    server.settle()
    (bill,) = server.items("/v1/bills", lab_id=lab)
    assert bill["position"] == answer.json()["position"]
    data = loads(body)["data"]
    assert bill["bill_id"] == data["billID"]
    assert bill["integrator_id"] == data.get("integratorID")
    tests = (data.get("billData") or {}).get("testData") or []
    assert bill["reports_total"] == len(tests)
    assert len(server.items("/v1/reports", lab_id=lab, limit=1000)) == len(tests)


def test_hostile_bodies_neither_fail_nor_delay_the_good_ones_of_their_batch(
    server: LedgerServer, lab: str
) -> None:
    hostile = [make(lab) for make in (*BAD.values(), *ODD.values())]
    fine = [event(lab, f"good_{number}") for number in range(len(hostile) * 3)]
    mixed: list[object] = []
    for number, payload in enumerate(fine):
        mixed += [payload, hostile[number % len(hostile)]]
    before = server.head()

    def timed(payload: object) -> tuple[httpx.Response, float]:
        began = time.monotonic()
        return server.send(payload), time.monotonic() - began

    with ThreadPoolExecutor(32) as pool:
        answers = list(pool.map(timed, mixed))
    assert {answer.status_code for answer, _ in answers} == {200}
    assert max(seconds for _, seconds in answers) < ANSWER_SECONDS
    told = [answer.json()["position"] for answer, _ in answers[::2]]
    assert [answer.json()["outcome"] for answer, _ in answers[::2]] == ["recorded"] * len(fine)
    head = server.settle()
    positions = [
        item["position"]
        for start in range(before, head, 20)
        for item in loads(server.get("/v1/events", after=start, limit=20).content)["items"]
    ]
    assert positions == list(range(before + 1, head + 1))
    bills = {item["bill_id"]: item for item in server.items("/v1/bills", lab_id=lab, limit=1000)}
    assert [bills[f"good_{number}"]["position"] for number in range(len(fine))] == told
    assert server.get("/v1/projection").json()["parked"] == 0


def test_what_an_unreadable_body_says_of_its_bill_is_listed_with_the_bill(
    server: LedgerServer, lab: str
) -> None:
    (first,) = server.record(event(lab, "bill"))
    second = server.send(good(lab, eventTime="yesterday")).json()["position"]
    server.settle()
    items = server.items(f"/v1/labs/{lab}/bills/bill/events")
    assert [item["position"] for item in items] == [first, second]
    assert server.get(f"/v1/labs/{lab}/bills/bill").json()["events"] == 1


def test_the_log_holds_the_bytes_as_they_came(server: LedgerServer, lab: str) -> None:
    body = b'\n{ "eventTime" : 1705747800 ,"labID":"' + lab.encode() + (
        b'", "eventType":"bill.created","data":{"billID":"b" , "x":1.50E+2, "x":"\\u0041"} }\t'
    )  # fmt: skip
    position = server.send(body).json()["position"]
    text = server.get("/v1/events", after=position - 1, limit=1).content
    assert body.strip() in text
    exported = server.run("export", "--after", str(position - 1), "--upto", str(position)).stdout
    line = json.loads(exported)
    assert base64.b64decode(line["raw"]) == body


def test_a_delivery_waits_for_nobody_who_sends_slowly(server: LedgerServer, lab: str) -> None:
    stalled = httpx.Client(base_url=server.url, trust_env=False)

    def never_ending() -> Iterator[bytes]:
        yield b'{"labID":'
        began = time.monotonic()
        assert server.send(event(lab, "b")).status_code == 200
        assert time.monotonic() - began < ANSWER_SECONDS / 2
        yield b"1}"

    with stalled:
        answer = stalled.post(
            "/webhooks/flabs", content=never_ending(), headers={"Authorization": TOKEN}
        )
    assert answer.json()["outcome"] in {"unreadable", "duplicate"}
