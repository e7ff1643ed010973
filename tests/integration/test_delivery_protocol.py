"""Deliveries that the server's protocol hands to the intake, past the application."""

import asyncio
import ssl
import subprocess
import sys
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import uvloop
from psycopg import Connection
from uvicorn import Config
from uvicorn.server import ServerState

from ledger.eventlog.group_commit import GroupCommit
from ledger.intake.delivery_protocol import DeliveryProtocol
from ledger.intake.endpoint import Intake
from ledger.intake.listener import Listener
from ledger.intake.proxies import TrustedProxies
from ledger.intake.tls import Certificate
from ledger.intake.tokens import WebhookTokens
from tests.support.certificates import Authority
from tests.support.histories import body
from tests.support.sessions import one

if TYPE_CHECKING:
    from litestar.types import Receive, Scope, Send

PATIENCE = 10.0
TOKEN = "token"


class OnlyAnIntake:
    """An application that notes what it is asked, and refuses it."""

    def __init__(self, intake: Intake, listener: Listener | None) -> None:
        self.intake = intake
        self.listener = listener
        self.asked: list[str] = []

    async def __call__(self, scope: "Scope", _receive: "Receive", send: "Send") -> None:
        self.asked.append(scope["path"])
        headers = [(b"content-length", b"0")]
        await send({"type": "http.response.start", "status": 418, "headers": headers})
        await send({"type": "http.response.body", "body": b"", "more_body": False})


def request(path: str, content: bytes, *headers: str) -> bytes:
    lines = [f"POST {path} HTTP/1.1", "Host: x", f"Content-Length: {len(content)}", *headers]
    return "\r\n".join([*lines, "", ""]).encode() + content


ORDINARY = {
    "a header": request("/webhooks/flabs", body(), f"Authorization: Bearer {TOKEN}"),
    "the path": request(f"/webhooks/flabs/{TOKEN}", body()),
}
OTHERS = {
    "a wrong token": request("/webhooks/flabs", body(), "Authorization: wrong"),
    "another path": request("/v1/imports", body(), f"Authorization: {TOKEN}"),
    "a query": request("/webhooks/flabs?x", body(), f"Authorization: {TOKEN}"),
    "a long body": request(f"/webhooks/flabs/{TOKEN}", b"x" * 16 * 1024),
    "the last of a connection": request(f"/webhooks/flabs/{TOKEN}", body(), "Connection: close"),
}


def status_of(
    sent: bytes, url: str, listener: Listener | None = None, trusted: ssl.SSLContext | None = None
) -> tuple[int, list[str]]:
    """Return the status of the answer, and for which paths the application was asked."""

    async def use() -> tuple[int, list[str]]:
        lane = GroupCommit(url)
        lane.start()
        tokens = WebhookTokens((TOKEN,))
        intake = Intake(
            lane,
            tokens=tokens,
            box=None,
            header="authorization",
            max_body=100_000,
            retry_interval=timedelta(minutes=2),
        )
        application = OnlyAnIntake(intake, listener)
        config = Config(
            application,
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            proxy_headers=False,
        )
        config.load()
        server = await asyncio.get_running_loop().create_server(
            lambda: DeliveryProtocol(config, ServerState(), {}), "127.0.0.1", 0
        )
        reader, writer = await asyncio.open_connection(
            *server.sockets[0].getsockname(), ssl=trusted
        )
        try:
            writer.write(sent)
            return int((await reader.readline()).split()[1]), application.asked
        finally:
            writer.close()
            server.close()
            await lane.stop()

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(asyncio.wait_for(use(), PATIENCE))


@pytest.mark.parametrize("sent", ORDINARY.values(), ids=ORDINARY)
def test_an_ordinary_delivery_is_not_the_applications(
    database_url: str, service: Connection, sent: bytes
) -> None:
    assert status_of(sent, database_url) == (200, [])
    assert one(service, "SELECT body FROM ledger.logged_event") == body()


FORWARDED = {
    "one proxy": ["X-Forwarded-For: 203.0.113.7"],
    "two proxies": ["X-Forwarded-For: 203.0.113.7", "Via: 1.1 proxy", "X-Forwarded-For: 10.0.0.1"],
    "nonsense": ["X-Forwarded-For: ,;", "Forwarded: for=unknown"],
}


@pytest.mark.parametrize("headers", FORWARDED.values(), ids=FORWARDED)
@pytest.mark.parametrize("trusted", [("127.0.0.1", "10.0.0.0/8"), ()])
def test_an_ordinary_delivery_through_a_proxy_is_not_the_applications_either(
    database_url: str, headers: list[str], trusted: tuple[str, ...]
) -> None:
    sent = request("/webhooks/flabs", body(), f"Authorization: Bearer {TOKEN}", *headers)
    listener = Listener(proxies=TrustedProxies(trusted))
    assert status_of(sent, database_url, listener) == (200, [])


def test_an_ordinary_delivery_over_tls_is_not_the_applications_either(
    database_url: str, service: Connection, tmp_path: Path
) -> None:
    authority = Authority(tmp_path)
    listener = Listener(Certificate(authority.certificate, authority.key))
    sent = ORDINARY["a header"]
    assert status_of(sent, database_url, listener, authority.context()) == (200, [])
    assert one(service, "SELECT body FROM ledger.logged_event") == body()


@pytest.mark.parametrize("sent", OTHERS.values(), ids=OTHERS)
def test_all_else_is(database_url: str, service: Connection, sent: bytes) -> None:
    path = sent.split()[1].decode().removesuffix("?x")
    assert status_of(sent, database_url) == (418, [path])
    assert one(service, "SELECT count(*) FROM ledger.event_log") == 0


@pytest.mark.slow
def test_ledgers_own_application_has_an_intake() -> None:
    """In a process of its own, for what it imports warns."""
    asked = (
        "from ledger.app import create_app; from ledger.settings import Settings;"
        "settings = Settings(database_url='postgresql://x', webhook_tokens=('token',));"
        "print(type(create_app(settings).intake).__name__)"
    )
    done = subprocess.run([sys.executable, "-c", asked], capture_output=True, check=True)
    assert done.stdout.split()[-1] == b"Intake"
