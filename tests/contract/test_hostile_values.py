"""No value that a client sends makes the server fail, at any parameter of any operation."""

import base64
import json
from collections.abc import Iterator
from contextlib import closing
from email.message import Message
from http.client import HTTPConnection
from typing import Any, NamedTuple

import pytest

from tests.support.server import ROOT, LedgerServer

pytestmark = pytest.mark.slow

OPENAPI: dict[str, Any] = json.loads((ROOT / "api_schema" / "openapi.json").read_bytes())
PARAMETERS = [
    (method.upper(), path, parameter["name"], parameter["in"])
    for path, operations in OPENAPI["paths"].items()
    for method, operation in operations.items()
    for parameter in operation.get("parameters", ())
    if path.startswith("/v1/")
]
HEADERS = ["Accept", "Authorization", "Content-Type", "If-None-Match", "Range", "Content-Encoding"]


def cursor(content: bytes) -> str:
    return base64.urlsafe_b64encode(content).decode().rstrip("=")


VALUES: list[bytes] = [
    b"", b" ", b"-1", b"0", b"1", b"1.5", b"1e400", b"NaN", b"inf", b"true", b"null", b"+1", b"1_0",
    b"9" * 18, b"9" * 19, b"9" * 20, b"9" * 60, b"9" * 5000, b"-" + b"9" * 5000, b"0" * 5000,
    b"2147483648", b"9223372036854775807", b"9223372036854775808",
    "٣".encode(), "\U0001f469".encode(), b"\x00", b"a\x00b", b"\xed\xa0\x80", b"\xff\xfe",
    b"a" * 5000, b"'; DROP TABLE event_log --", b"%s %(x)s {0} \\", b"../../etc", b"..", b"/",
    b"0001-01-01T00:00:00Z", b"9999-12-31T23:59:59-12:00", b"2100-01-01T00:00:00Z",
    b"2024-01-20T10:00:00.123456789Z", b"-4713-01-01T00:00:00Z", b"infinity",
    b"text/csv;q=x", b"text/csv;q=inf", b"text/csv;q=nan", b";", b"/;q=0", b"*/*;q=0.0000001",
    *(
        cursor(content).encode()
        for content in (
            b"[]", b"[[[[]]]]", b"[" * 5000, b"{}", b"[1e400]", b"[NaN]", b"[true]", b"[null]",
            b"[9223372036854775807]", b"[9223372036854775808]", b"[%s]" % (b"9" * 5000), b"[-1]",
            b'[9223372036854775807,"a"]', b'[0,"\\u0000"]', b'[0,"\\ud800"]', b'[0,"\xff"]',
            b'[9223372036854775807,"a","b","c","d"]',
            b'[253402300800000000,"a","b","c","d"]', b'[0,"","","",""]',
        )
    ),
]  # fmt: skip


def quoted(value: bytes) -> bytes:
    return b"".join(b"%%%02X" % byte for byte in value)


class Answer(NamedTuple):
    """An answer as the standard library reads it, for HTTPX looks at each character of an URL."""

    status_code: int
    headers: Message
    text: str

    def json(self) -> Any:  # noqa: ANN401 -- as in HTTPX
        return json.loads(self.text)


class Client:
    """One connection, made again where the server has closed it."""

    def __init__(self, server: LedgerServer) -> None:
        self._connection = HTTPConnection("127.0.0.1", server.port, timeout=30)
        self._authorization = server.api.headers["authorization"].encode()

    def request(
        self, method: str, path: str, headers: dict[bytes, bytes], body: bytes = b""
    ) -> Answer:
        asked = (method, path, headers, body)
        try:
            return self._ask(*asked)
        except ConnectionError:  # closed after the last answer; a new one must be answered
            self._connection.close()
            return self._ask(*asked)

    def _ask(self, method: str, path: str, headers: dict[bytes, bytes], body: bytes) -> Answer:
        self._connection.putrequest(method, path, skip_accept_encoding=True)
        sent = {b"Authorization": self._authorization, b"Content-Length": b"%d" % len(body)}
        for name, value in {**sent, **headers}.items():
            self._connection.putheader(name.decode(), value)
        self._connection.endheaders(body)
        with self._connection.getresponse() as answer:
            return Answer(answer.status, answer.headers, answer.read().decode())

    def close(self) -> None:
        self._connection.close()


@pytest.fixture(scope="module")
def client(server: LedgerServer) -> Iterator[Client]:
    with closing(Client(server)) as made:
        yield made


def is_sendable(value: bytes) -> bool:
    """Tell whether a header can hold a value at all; the HTTP parser refuses the others."""
    return not set(value) & set(b"\x00\r\n") and value.strip() == value


@pytest.mark.parametrize(("method", "path", "name", "place"), PARAMETERS)
def test_no_parameter_makes_the_server_fail(
    client: Client, method: str, path: str, name: str, place: str
) -> None:
    for value in VALUES:
        headers: dict[bytes, bytes] = {}
        asked = path
        if place == "path":
            asked = path.replace(f"{{{name}}}", quoted(value).decode())
        elif place == "query":
            asked = f"{path}?{name}={quoted(value).decode()}"
        elif is_sendable(value):
            headers = {name.encode(): value}
        asked = asked.replace("{number}", "1").replace("{", "").replace("}", "")
        if name == "wait_ms":
            asked += "&min_position=0"
        if name == "min_position":
            asked += "&wait_ms=0"
        answer = client.request(method, asked, headers)
        expected_503 = name == "min_position" and answer.status_code == 503
        assert answer.status_code < 500 or expected_503, (asked[:200], answer.text)
        if answer.status_code >= 400:
            assert answer.headers["content-type"] == "application/problem+json"
        if place == "query" and answer.status_code == 400:
            assert name in answer.json()["detail"]
            assert len(answer.json()["detail"]) < 1000


@pytest.mark.parametrize("name", HEADERS)
@pytest.mark.parametrize("path", ["/v1/reconciliation", "/v1/changes", "/v1/labs/l/bills/b"])
def test_no_header_makes_the_server_fail(client: Client, path: str, name: str) -> None:
    for value in filter(is_sendable, VALUES):
        answer = client.request("GET", path, {name.encode(): value})
        assert answer.status_code < 500, (value[:100], answer.text)


@pytest.mark.parametrize("value", [value for value in VALUES if is_sendable(value)])
def test_no_last_event_id_makes_a_stream_fail(server: LedgerServer, value: bytes) -> None:
    with server.api.stream(
        "GET",
        "/v1/changes",
        headers=[(b"Accept", b"text/event-stream"), (b"Last-Event-ID", value)],
    ) as answer:
        assert answer.status_code in {200, 400}


BODIES = [
    (method.upper(), path, operation["requestBody"]["content"]["application/json"]["schema"])
    for path, operations in OPENAPI["paths"].items()
    for method, operation in operations.items()
    if path.startswith("/v1/") and "requestBody" in operation
    if "schema" in operation["requestBody"]["content"].get("application/json", {})
]
"""Operations that take a JSON object."""


@pytest.mark.parametrize(("method", "path", "schema"), BODIES)
def test_no_body_makes_the_server_fail(
    client: Client, method: str, path: str, schema: dict[str, Any]
) -> None:
    component = OPENAPI["components"]["schemas"][schema["$ref"].rpartition("/")[2]]
    plain = path.replace("{number}", "9").replace("{", "").replace("}", "")
    texts = [
        b'"\\u0000"', b'"\\ud800"', b'"\xff"', b"9" * 5000, b"1e400", b"[" * 5000, b"null", b"{}",
        b'"0001-01-01T00:00:00Z"', b'"9999-12-31T23:59:59-12:00"', b'"' + b"a" * 100_000 + b'"',
    ]  # fmt: skip
    for name in component["properties"]:
        for text in texts:
            members = {"reason": b'"r"', "dry_run": b"true", name: text}
            body = b",".join(b'"%s":%s' % (key.encode(), value) for key, value in members.items())
            answer = client.request(method, plain, {}, b"{%s}" % body)
            assert answer.status_code < 500, (body[:100], answer.text)
            if answer.status_code >= 400:
                assert len(answer.text) < 2000
