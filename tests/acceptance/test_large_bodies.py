"""Bodies near the limit: lists of them stay small, and nobody waits for them."""

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from tests.support.payloads import event
from tests.support.server import LedgerServer

NEARLY_1_MIB = 1024 * 1024 - 2000
PART = 4 * 1024 * 1024


def large(lab: str, number: int) -> dict[str, Any]:
    return event(lab, "large") | {"more": f"{number:04}" + "x" * NEARLY_1_MIB}


def broken(number: int) -> bytes:
    return b"%04d" % number + b"x" * NEARLY_1_MIB


@pytest.mark.parametrize("path", ["/v1/events", "/v1/labs/{lab}/bills/large/events"])
def test_a_part_of_a_list_ends_where_its_bodies_become_many_bytes(
    server: LedgerServer, lab: str, path: str
) -> None:
    positions = [server.record(large(lab, number))[0] for number in range(11)]
    more: dict[str, Any] = {"after": positions[0] - 1} if path == "/v1/events" else {}
    seen, parts = [], 0
    while True:
        answer = server.get(path.format(lab=lab), limit=1000, **more)
        assert len(answer.content) < PART + 2 * NEARLY_1_MIB
        seen += [item["position"] for item in answer.json()["items"]]
        parts += 1
        if answer.json()["next"] is None:
            break
        more = {"cursor": answer.json()["next"]}
    assert seen == positions
    assert parts > 2


def test_a_part_of_the_unreadable_ends_likewise(server: LedgerServer) -> None:
    positions = [server.record(broken(number))[0] for number in range(6)]
    server.settle()
    first = server.get("/v1/events/unreadable", limit=1000, after=positions[0] - 1).json()
    assert 0 < len(first["items"]) < 6
    second = server.get("/v1/events/unreadable", limit=1000, cursor=first["next"]).json()
    assert [item["position"] for item in first["items"] + second["items"]] == positions


def test_others_are_recorded_while_a_slow_body_is_read(server: LedgerServer, lab: str) -> None:
    numbers = ",".join(f"{number}.5" for number in range(110_000))
    slow = b'{"numbers":[' + numbers.encode() + b"]}"
    others: list[int] = []
    with ThreadPoolExecutor() as pool:
        reading = pool.submit(server.record, slow)
        while not reading.done():
            others += server.record(event(lab, f"b{len(others)}"))
    (position,) = reading.result()
    # Were it read in their way, only those that came before all of it had come would be before it.
    assert sum(other < position for other in others) > 5
