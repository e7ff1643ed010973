"""The OpenAPI document says what the server answers, on every route and with every status."""

import copy
import json
import re
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import httpx
import psycopg
import pytest
from jsonschema import Draft202012Validator, FormatChecker

from ledger.api.openapi.descriptions import PARAMETERS, PROPERTIES
from tests.support.flabs import environment_for, fault, sandbox_of
from tests.support.server import ROOT, LedgerServer, run_ledger, wait_until

pytestmark = pytest.mark.slow

OPENAPI: dict[str, Any] = json.loads((ROOT / "api_schema" / "openapi.json").read_bytes())
OPERATIONS = [
    (path, method, operation)
    for path, operations in OPENAPI["paths"].items()
    for method, operation in operations.items()
]
AT = 1_705_747_800
MEDIA_TYPES = (
    "application/json",
    "text/csv",
    "text/markdown",
    "text/plain",
    "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet",
)


def resolved(schema: Any) -> dict[str, Any]:  # noqa: ANN401 -- any JSON
    """Give a schema with the components that it refers to."""
    return {**copy.deepcopy(schema), "components": OPENAPI["components"]}


def closed(schema: Any) -> Any:  # noqa: ANN401 -- any JSON
    """Make every object schema refuse what it does not name, so that nothing stays undocumented."""
    if isinstance(schema, list):
        return [closed(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    made = {name: closed(value) for name, value in schema.items()}
    if "properties" in made and made.get("type") == "object":
        made.setdefault("additionalProperties", False)
    return made


def path_of(template: str) -> re.Pattern[str]:
    return re.compile(re.sub(r"\\\{[^/]+\\\}", "[^/]+", re.escape(template)))


def operation_of(method: str, path: str) -> tuple[str, dict[str, Any]]:
    # Paths without a parameter come first, as they win over those with one.
    for template in sorted(OPENAPI["paths"], key=lambda text: text.count("{")):
        if path_of(template).fullmatch(path):
            return template, OPENAPI["paths"][template].get(method, {})
    raise AssertionError(f"{path} is not in the document")


def check(answer: httpx.Response) -> tuple[str, str]:
    """Check an answer with the document; return the operation and the status that it had."""
    path = answer.request.url.raw_path.decode().partition("?")[0]
    template, operation = operation_of(answer.request.method.lower(), path)
    status = str(answer.status_code)
    assert status in operation["responses"], f"{template} answered {status}: {answer.text}"
    response = operation["responses"][status]
    for header in response.get("headers", {}):
        assert header in answer.headers, f"{template} {status} has no {header}"
    content = response.get("content", {})
    if status == "204":
        assert answer.content == b""
        assert content == {}
        return f"{answer.request.method} {template}", status
    media_type = answer.headers["content-type"].partition(";")[0]
    assert media_type in content, f"{template} {status} is {media_type}"
    schema = content[media_type].get("schema", {})
    if media_type.endswith("json"):
        validator = Draft202012Validator(closed(resolved(schema)), format_checker=FormatChecker())
        errors = [
            f"{error.json_path}: {error.message}" for error in validator.iter_errors(answer.json())
        ]
        assert errors == [], f"{template} {status}: {errors}"
    return f"{answer.request.method} {template}", status


def payload(bill: str, kind: str, **bill_data: Any) -> dict[str, Any]:  # noqa: ANN401 -- any JSON
    data = {"billID": bill, "integratorID": "i", "billData": bill_data}
    return {"labID": "lab", "eventType": kind, "eventTime": AT, "data": data}


def every_answer(server: LedgerServer) -> Iterator[httpx.Response]:
    """Ask everything in every way that there is an answer for."""
    done = [{"_id": "t1", "status": "completed"}, {"_id": "t2"}]
    bodies: list[dict[str, Any] | bytes] = [
        payload("b1", "bill.created", testData=done),
        payload("b1", "bill.completed", testData=done, status="completed"),
        payload("b2", "bill.deleted"),
        payload("b3", "report.completed", testData=done),
        payload("b4", "bill.completed", testData=done),
        b"broken",
    ]
    for path in ("/webhooks/flabs", f"/webhooks/flabs/{server.token}"):
        for body in [*bodies, {**payload("b5", "bill.created"), "path": path}]:
            yield server.send(body, path=path)
        yield server.send(b"x" * 5001, path=path)
    yield server.send({}, token="wrong")
    yield server.send({}, path="/webhooks/flabs/wrong", token="")
    server.settle()
    assert server.run("seal").returncode == 0
    bill = "/v1/labs/lab/bills/b1"
    reads = [
        bill, f"{bill}?known_at=2100-01-01T00:00:00Z", f"{bill}/events", f"{bill}/findings",
        "/v1/bills",
        "/v1/reports", "/v1/events", "/v1/events/unreadable", "/v1/changes", "/v1/missing-events",
        "/v1/projection", "/v1/bills?limit=1", "/v1/reports?limit=1",
        "/v1/checkpoints", "/v1/events/1/proof",
    ]  # fmt: skip
    for path in reads:
        more = "&" if "?" in path else "?"
        yield server.api.get(path)
        yield server.anonymous.get(path)
        yield server.api.get(f"{path}{more}min_position=99999&wait_ms=0")
        yield server.api.get(f"{path}{more}nonsense=1")
    yield server.api.get("/v1/labs/lab/bills/none")
    yield server.api.get("/v1/labs/lab/bills/none/events")
    yield server.api.get("/v1/labs/lab/bills/none/findings")
    yield server.api.get("/v1/events/99999/proof")
    for path in ("/health/live", "/health/ready", "/metrics"):
        yield server.anonymous.get(path)
    yield from every_answer_of_the_desk(server)
    yield from every_answer_about_erasure(server)
    yield from every_answer_about_keys(server)
    yield from every_answer_about_tokens(server)
    yield from every_answer_about_flabs(server)


def every_answer_about_erasure(server: LedgerServer) -> Iterator[httpx.Response]:
    [position] = server.record(payload("b8", "lead.created"))
    for query in ("", "?dry_run=1", ""):
        yield server.api.post(f"/v1/events/{position}/erase{query}", json={"reason": "r"})
    for asked in ("false", "true"):
        yield server.api.get("/v1/events", params={"after": position - 1, "body": asked})


def every_answer_about_keys(server: LedgerServer) -> Iterator[httpx.Response]:
    wanted = {"name": "n", "scope": "read", "labs": ["lab"], "expires_at": "2100-01-01T00:00:00Z"}
    made = server.api.post("/v1/keys", json=wanted)
    yield made
    one = f"/v1/keys/{made.json()['key_id']}"
    reader = {"Authorization": f"Bearer {made.json()['key']}"}
    for path, body in (("/v1/keys", {}), (f"{one}/rotate", {}), (f"{one}/revoke", None)):
        asked = path if body is not None else f"{path}?nonsense=1"
        yield server.api.post(asked, json={"overlap_seconds": -1})
        yield server.anonymous.post(path)
        yield server.anonymous.post(path, headers=reader)
    yield server.api.post(f"{one}/rotate")
    for what in ("rotate", "revoke"):
        yield server.api.post(f"/v1/keys/none/{what}")
    for path, parameters in (
        ("/v1/keys", {}),
        ("/v1/keys", {"limit": "1"}),
        ("/v1/keys", {"nonsense": "1"}),
    ):
        yield server.api.get(path, params=parameters)
        yield server.anonymous.get(path, headers=reader)
        yield server.anonymous.get(path)
    for path, method, operation in OPERATIONS:
        if "403" in operation["responses"] and "/keys" not in path:
            names = {"number": 1, "lab_id": "x", "integrator_id": "i", "key_id": "k"}
            asked = path.format(**names, token_id="t", delivery_id="d", bill_id="b", position=1)
            takes = {parameter["name"] for parameter in operation.get("parameters", ())}
            query = {"body": "true"} if "body" in takes else None  # refused to who only reads
            yield server.anonymous.request(method, asked, headers=reader, params=query)
    yield server.api.post(f"{one}/revoke")


def every_answer_about_flabs(server: LedgerServer) -> Iterator[httpx.Response]:
    """Without an account, and with one at a sandbox."""
    calls = [
        ("GET", "labs"), ("GET", "coverage"), ("POST", "check"), ("POST", "subscriptions"),
        ("GET", "token-rotation"), ("POST", "token-rotation"),
    ]  # fmt: skip
    for method, name in calls:
        yield server.api.request(method, f"/v1/flabs/{name}")
        yield server.api.request(method, f"/v1/flabs/{name}", params={"nonsense": "1"})
        yield server.anonymous.request(method, f"/v1/flabs/{name}")
    with sandbox_of() as sandbox, TemporaryDirectory() as folder:
        other = LedgerServer(
            server.settings["LEDGER_DATABASE_URL"],
            Path(folder),
            settings={
                "LEDGER_RETRY_COUNT": "0",
                "LEDGER_RETRY_TIMEOUT": "0",
                **environment_for(sandbox, server.url),
            },
            token="a-token-that-may-be-rotated-away",
            project=False,
        )
        with other:
            for method, name in (("GET", "labs"), ("POST", "check"), ("POST", "subscriptions")):
                fault(sandbox, garbage=1)
                yield other.api.request(method, f"/v1/flabs/{name}")
                yield other.api.request(method, f"/v1/flabs/{name}")
            rotation = "/v1/flabs/token-rotation"
            yield other.api.get(rotation)
            yield other.api.post(rotation, json={"replace": ["none"]})
            yield other.api.post(rotation)
            yield other.api.get(rotation)
            yield other.api.get("/v1/flabs/coverage")


def every_answer_about_tokens(server: LedgerServer) -> Iterator[httpx.Response]:
    made = server.api.post("/v1/webhook-tokens", json={"labs": ["lab"], "name": "of lab"})
    yield made
    one = f"/v1/webhook-tokens/{made.json()['token_id']}"
    refused = "/v1/refused-deliveries"
    server.send(payload("b7", "bill.created"), token="wrong")
    wait_until(lambda: server.items(refused), "a delivery is in the box")
    [delivery] = server.items(refused)
    delivery_id = delivery["delivery_id"]
    for path in (one.rpartition("/")[0], refused, f"{refused}/{delivery_id}", f"{refused}/none"):
        for parameters in ({}, {"nonsense": "1"}, {"min_position": "99999", "wait_ms": "0"}):
            yield server.api.get(path, params=parameters)
        yield server.anonymous.get(path)
    bodies: tuple[dict[str, object], ...] = (
        {"all": True, "dry_run": True},
        {"ids": [delivery_id]},
        {"ids": ["none"]},
        {},
    )
    for what in ("accept", "drop"):
        for body in bodies:
            if what == "accept" or "ids" not in body:
                yield server.api.post(f"{refused}/{what}", json=body)
        yield server.api.post(f"{refused}/{what}", json={"ids": ["none"]})
        yield server.anonymous.post(f"{refused}/{what}")
    yield server.api.post("/v1/webhook-tokens", json={"labs": []})
    yield server.anonymous.post("/v1/webhook-tokens")
    yield server.api.post(f"{one}/revoke")
    yield server.api.post(f"{one}/revoke", params={"nonsense": "1"})
    yield server.api.post("/v1/webhook-tokens/none/revoke")
    yield server.anonymous.post(f"{one}/revoke")


def every_answer_of_the_desk(server: LedgerServer) -> Iterator[httpx.Response]:
    lab = "/v1/labs/lab/subscription"
    missing = {"lab_id": "lab", "bill_id": "b4", "event_type": "bill.created", "reason": "older"}
    window = {"from": "2024-01-01T00:00:00Z", "to": "2024-01-02T00:00:00Z", "reason": "all came"}
    long_ago = {"from": "2001-01-01T00:00:00Z", "to": "2001-01-02T00:00:00Z"}
    expected = {"expected_by": "2024-01-01T00:00:00Z"}
    operations: list[tuple[str, str, list[object]]] = [
        ("POST", "/v1/missing-events/waive", [missing, {**missing, "bill_id": "none"}, {}]),
        ("POST", "/v1/missing-events/unwaive", [missing, {**missing, "bill_id": "none"}, {}]),
        ("POST", "/v1/missing-events/waive-matching", [{"lab_id": "x", "reason": "r"}, {}]),
        ("POST", "/v1/support-requests", [None, None, {"lab_id": "none"}, {"x": 1}]),
        ("POST", "/v1/support-requests/1/close", [{"reason": "gone"}, {}]),
        ("POST", "/v1/support-requests/99/close", [{"reason": "gone"}]),
        ("POST", "/v1/loss-windows/close", [window, {**window, **long_ago}, {}]),
        ("PUT", "/v1/expected-bills/i9", [expected, {}]),
        ("DELETE", "/v1/expected-bills/i9", [None, None]),
        ("DELETE", "/v1/expected-bills/i9?nonsense=1", [None]),
        ("POST", "/v1/expected-bills", [{"integrator_id": "i8", **expected}, "neither"]),
        ("POST", "/v1/events/99999/erase", [{"reason": "r"}, {}]),
        ("POST", "/v1/imports", [payload("b6", "bill.created")]),
        ("POST", "/v1/imports?nonsense=1", [None]),
        ("PUT", lab, [{"events": ["bill.created"]}, {"events": None}, {}]),
    ]
    with psycopg.connect(server.settings["LEDGER_DATABASE_URL"]) as connection:
        connection.execute(
            "INSERT INTO ledger.liveness VALUES (gen_random_uuid(), '2023-12-31Z', '2024-01-01Z')"
        )
    for method, path, bodies in operations:
        for body in bodies:
            content = b"" if body is None else json.dumps(body).encode()
            yield server.api.request(method, path, content=content)
        yield server.anonymous.request(method, path)
    documents = ["/v1/reconciliation", "/v1/support-requests/1"]
    for path in documents:
        for form in ("json", "csv", "markdown", "xlsx", "text"):
            yield server.api.get(path, params={"format": form})
        yield server.api.get(path, headers={"Accept": "image/png"})
    lists = ["/v1/support-requests", "/v1/loss-windows", "/v1/expected-bills", "/v1/labs", lab]
    for path in [*documents, *lists]:
        yield server.api.get(path)
        yield server.anonymous.get(path)
        yield server.api.get(path, params={"nonsense": 1})
        yield server.api.get(path, params={"min_position": 99999, "wait_ms": 0})
    yield server.api.get("/v1/support-requests/99")


NEEDS_A_FAULT = {
    ("ReceiveWebhook", "405"), ("ReceiveWebhookBySecret", "405"),  # of another method
    ("ReceiveWebhook", "503"), ("ReceiveWebhookBySecret", "503"),
    ("ReceiveWebhook", "202"), ("ReceiveWebhookBySecret", "202"),
    ("GetReadiness", "503"),
    ("RotateToken", "502"),  # tests/integration/test_flabs.py
    *(
        (operation["operationId"], status)
        for path, _, operation in OPERATIONS
        if "requestBody" in operation
        for status in ("408", "413")
        if status == "408" or ("requestBody" in operation and "webhooks" not in path)
    ),
    *((operation["operationId"], "429") for _, _, operation in OPERATIONS),
    *(
        (operation["operationId"], "503")
        for _, _, operation in OPERATIONS
        if operation.get("tags") in (["operate"], ["admin"])
    ),
}  # fmt: skip
"""What is answered in other tests, where something is wrong with the database or the sender."""


def test_every_answer_is_as_documented_and_every_documented_status_is_answered(
    server: LedgerServer,
) -> None:
    seen = {check(answer) for answer in every_answer(server)}
    documented = {
        (f"{method.upper()} {path}", status)
        for path, method, operation in OPERATIONS
        for status in operation["responses"]
        if (operation["operationId"], status) not in NEEDS_A_FAULT
    }
    assert documented - seen == set()


@pytest.mark.parametrize("method", ["GET", "PUT"])
def test_another_method_at_the_intake_is_answered_as_documented(
    server: LedgerServer, method: str
) -> None:
    for path in ("/webhooks/flabs", "/webhooks/flabs/{secret}"):
        answer = server.anonymous.request(method, path)
        response = OPENAPI["paths"][path]["post"]["responses"][str(answer.status_code)]
        assert set(response["headers"]) <= {name.title() for name in answer.headers}
        Draft202012Validator(
            resolved(response["content"]["application/problem+json"]["schema"])
        ).validate(answer.json())


@pytest.mark.parametrize("name", ["openapi.json", "webhook.json"])
def test_the_documents_that_are_checked_in_are_those_of_the_code(tmp_path: Path, name: str) -> None:
    assert run_ledger("openapi", "--output", str(tmp_path)).returncode == 0
    assert (tmp_path / name).read_bytes() == (ROOT / "api_schema" / name).read_bytes()


def test_every_schema_of_the_document_is_a_json_schema() -> None:
    for schema in OPENAPI["components"]["schemas"].values():
        Draft202012Validator.check_schema(schema)


def test_every_reference_of_the_document_leads_somewhere() -> None:
    for reference in re.findall(r'"\$ref": "#/([^"]+)"', json.dumps(OPENAPI)):
        found: Any = OPENAPI
        for part in reference.split("/"):
            found = found[part.replace("~1", "/").replace("~0", "~")]


def test_every_operation_has_an_id_of_its_own_and_a_description() -> None:
    ids = [operation["operationId"] for _, _, operation in OPERATIONS]
    assert len(ids) == len(set(ids))
    assert all(operation["description"] for _, _, operation in OPERATIONS)


def properties() -> Iterator[tuple[str, dict[str, Any]]]:
    for component, schema in OPENAPI["components"]["schemas"].items():
        for name, content in schema.get("properties", {}).items():
            yield f"{component}.{name}", content


def parameters() -> Iterator[tuple[str, dict[str, Any]]]:
    for _, _, operation in OPERATIONS:
        for parameter in operation.get("parameters", ()):
            yield f"{operation['operationId']}.{parameter['name']}", parameter


def test_every_property_parameter_and_component_has_a_description() -> None:
    components = OPENAPI["components"]["schemas"].items()
    described = [*properties(), *parameters(), *components]
    assert [name for name, content in described if not content.get("description")] == []


def test_every_common_description_is_of_something() -> None:
    named = {name for name, _ in properties()} | {name for name, _ in parameters()}
    known = named | {name.partition(".")[2] for name in named}
    assert {*PROPERTIES, *PARAMETERS} - known == set()


def test_components_have_plain_names() -> None:
    assert [name for name in OPENAPI["components"]["schemas"] if not name.isalpha()] == []


def test_a_nullable_value_is_its_type_or_null_and_a_parameter_is_never_null() -> None:
    bill = OPENAPI["components"]["schemas"]["Bill"]["properties"]
    assert bill["report_url"]["anyOf"] == [{"type": "string"}, {"type": "null"}]
    waive = OPENAPI["components"]["schemas"]["WaiveMatchingBody"]["properties"]
    certainty = {"enum": ["certain", "possible"], "type": "string"}
    assert waive["certainty"]["anyOf"] == [certainty, {"type": "null"}]
    assert "null" not in json.dumps([parameter["schema"] for _, parameter in parameters()])


@pytest.mark.parametrize(
    ("path", "media_types"),
    [
        ("/v1/changes", {"text/event-stream"}),
        ("/v1/reconciliation", set(MEDIA_TYPES)),
        ("/v1/support-requests/{number}", set(MEDIA_TYPES)),
        ("/metrics", {"text/plain"}),
    ],
)
def test_every_media_type_is_documented(path: str, media_types: set[str]) -> None:
    content = OPENAPI["paths"][path]["get"]["responses"]["200"]["content"]
    wanted = media_types if path == "/metrics" else media_types | {"application/json"}
    assert set(content) == wanted


@pytest.mark.parametrize(
    "route",
    [
        "/webhooks/flabs", "/webhooks/flabs/{secret}", "/v1/labs/{lab_id}/bills/{bill_id}",
        "/v1/labs/{lab_id}/bills/{bill_id}/events", "/v1/bills", "/v1/reports", "/v1/events",
        "/v1/events/unreadable", "/v1/changes", "/v1/missing-events", "/v1/projection",
        "/v1/missing-events/waive", "/v1/labs", "/v1/loss-windows", "/v1/reconciliation",
        "/v1/support-requests", "/v1/support-requests/{number}",
        "/v1/support-requests/{number}/close", "/v1/expected-bills/{integrator_id}",
        "/v1/expected-bills", "/v1/imports", "/health/live", "/health/ready", "/metrics",
    ],
)  # fmt: skip
def test_the_document_has_every_route_of_the_contract(route: str) -> None:
    assert route in OPENAPI["paths"]


def test_every_read_takes_what_the_contract_gives_it() -> None:
    wanted = {
        "/v1/labs/{lab_id}/bills/{bill_id}": {"known_at", "as_of"},
        "/v1/bills": {"integrator_id", "lab_id", "state", "changed_after", "limit", "cursor"},
        "/v1/reports": {"lab_id", "test_id", "completed", "changed_after", "limit", "cursor"},
        "/v1/events": {"after", "limit"},
        "/v1/events/unreadable": {"reason", "limit", "cursor"},
        "/v1/changes": {"after", "limit", "lab_id", "Last-Event-ID"},
        "/v1/missing-events": {"state", "lab_id", "event_type", "certainty", "limit", "cursor"},
    }
    for path, method, operation in OPERATIONS:
        if path.startswith("/v1/") and method == "get" and operation["tags"] == ["read"]:
            taken = {parameter["name"] for parameter in operation["parameters"]}
            assert wanted.get(path, set()) | {"min_position", "wait_ms"} <= taken, path
