"""What the holder of a key may send to the API, and how much of it at a time."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import ExitStack
from types import SimpleNamespace
from typing import Any

import httpx
import pytest

from ledger.api.http import uploads
from ledger.api.http.problems import ProblemError
from tests.support.server import KEY, LedgerServer, wait_until
from tests.support.wire import Wire, request

MIB = 1024 * 1024


def test_a_decision_is_short(server: LedgerServer) -> None:
    answer = server.api.post("/v1/missing-events/waive", content=b" " * (MIB + 1))
    assert answer.status_code == 413
    assert answer.headers["content-type"] == "application/problem+json"
    assert server.api.post("/v1/missing-events/waive", content=b" " * MIB).status_code == 400


@pytest.mark.parametrize("path", ["/v1/imports", "/v1/expected-bills"])
def test_files_come_a_few_at_a_time(server: LedgerServer, path: str) -> None:
    """Those that come slowly hold up no delivery and no question."""
    begun = request(b"", path=path, token=KEY).replace(b": 0", b": 1000") + b"x"

    def send() -> httpx.Response:
        return server.api.post(path, content=b"[]")

    assert send().status_code == 200
    with ExitStack() as slow:

        def one_more_is_refused() -> bool:
            slow.enter_context(Wire(server)).send(begun)
            return send().status_code == 503

        wait_until(one_more_is_refused, "one more is refused")
        assert send().headers["retry-after"] == "1"
        assert server.api.get("/v1/bills").status_code == 200
        assert server.send({}).status_code == 200
    wait_until(lambda: send().status_code == 200, "the next ones are taken")


def test_a_file_has_to_come_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(uploads, "RECEIVE_SECONDS", 0.05)

    async def stream() -> AsyncIterator[bytes]:
        while True:
            yield b"x"
            await asyncio.sleep(0.01)

    slow: Any = SimpleNamespace(headers={}, stream=stream)
    services: Any = SimpleNamespace(settings=SimpleNamespace(max_body=1))
    for _ in range(uploads.MOST_FILES + 1):  # each gives its place back
        with pytest.raises(ProblemError, match="did not come within") as raised:
            asyncio.run(uploads.work_on_file(slow, services, lambda *_: None))
        assert raised.value.status == 408
