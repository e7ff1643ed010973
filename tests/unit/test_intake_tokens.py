"""Which token is valid for whom, and how much is done for callers without one."""

import asyncio
from collections.abc import Awaitable, Callable
from hashlib import sha256
from types import SimpleNamespace
from typing import Any

import pytest

from ledger.intake import allowance
from ledger.intake.allowance import A_SECOND, LONGEST, MOST_AT_ONCE, MOST_BYTES, Allowance
from ledger.intake.tokens import WebhookTokens
from ledger.operations.webhook_tokens import ValidToken

Receive = Callable[[], Awaitable[Any]]


def stored(number: int, secret: str, *labs: str) -> ValidToken:
    return ValidToken(str(number), sha256(secret.encode()).digest(), list(labs) or None)


def test_tokens_of_the_settings_and_of_the_database_are_valid() -> None:
    tokens = WebhookTokens(["one", "two"])
    tokens.replace_stored([stored(3, "three"), stored(4, "four", "a")])
    assert tokens.complete
    for secret in ("one", "two", "three", "four"):
        assert tokens.find(secret.encode()) is not None
    for wrong in (b"", b"thre", sha256(b"three").digest()):
        assert tokens.find(wrong) is None
    assert tokens.take_used() == ["3", "4"]
    assert tokens.take_used() == []
    tokens.replace_stored([stored(3, "three")])
    assert tokens.find(b"four") is None
    assert tokens.find(b"one") is not None


def test_a_token_of_the_settings_that_a_rotation_dropped_is_refused() -> None:
    tokens = WebhookTokens(["one", "two"])
    (one, two) = tokens.digests_of_settings
    tokens.replace_stored([ValidToken("1", one, None)])
    assert tokens.find(b"one")
    assert tokens.take_used() == ["1"]
    tokens.replace_stored([], [one])
    assert tokens.find(b"one") is None
    assert tokens.find(b"two") is not None
    tokens.replace_stored([], [two])
    assert tokens.find(b"one") is not None


@pytest.mark.parametrize(
    ("labs", "lab", "may"),
    [((), "a", True), ((), "", True), (("a", "b"), "b", True), (("a",), "b", False),
     (("a",), "A", False), (("a",), "", True)],
)  # fmt: skip
def test_a_token_is_for_all_labs_or_for_some(labs: tuple[str, ...], lab: str, *, may: bool) -> None:
    tokens = WebhookTokens()
    tokens.replace_stored([stored(1, "secret", *labs)])
    token = tokens.find(b"secret")
    assert token
    assert token.may_bring(lab) is may


def coming(*parts: bytes) -> Receive:
    """Give what a server does that has received a body in parts; after them the caller is gone."""
    left = [
        {"type": "http.request", "body": part, "more_body": number < len(parts)}
        for number, part in enumerate(parts, start=1)
    ]

    async def receive() -> Any:  # noqa: ANN401 -- a message
        return left.pop(0) if left else {"type": "http.disconnect"}

    return receive


async def never() -> Any:  # noqa: ANN401 -- a message
    await asyncio.Event().wait()


async def small(allowed: Allowance, client: str = "c") -> bytes | None:
    return await allowed.read(coming(b"{}"), 2, client)


@pytest.fixture(autouse=True)
def one_second(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Have all of a test happen within one second, until it says otherwise."""
    now = [1000.0]
    # Not the function of the module, which the event loop uses as well.
    monkeypatch.setattr(allowance, "time", SimpleNamespace(monotonic=lambda: now[0]))
    return now


def test_a_body_is_read_if_it_is_announced_as_short_enough_and_is() -> None:
    async def use() -> None:
        allowed = Allowance()
        assert await allowed.read(coming(b"ab", b"c"), 3, "c") == b"abc"
        assert await allowed.read(coming(b"ab", b"c"), None, "c") == b"abc"
        assert await allowed.read(coming(b""), None, "c") == b""
        assert await allowed.read(coming(b"a" * (LONGEST + 1)), None, "c") is None
        assert await allowed.read(coming(b"ab"), LONGEST + 1, "c") is None
        assert await allowed.read(coming(b""), 0, "c") is None
        assert await allowed.read(coming(), 2, "c") is None, "the caller went away"

    asyncio.run(use())


def test_one_address_gets_half_of_the_bodies_of_a_second(one_second: list[float]) -> None:
    async def use() -> None:
        allowed = Allowance()
        flood = [await small(allowed) for _ in range(A_SECOND)]
        assert flood.count(b"{}") == A_SECOND // 2
        assert await small(allowed, "other") == b"{}"
        others = [await small(allowed, f"{number}") for number in range(A_SECOND)]
        assert others.count(b"{}") == A_SECOND // 2 - 1
        one_second[0] += 1
        assert await small(allowed) == b"{}"

    asyncio.run(use())


def test_the_addresses_of_one_ipv6_network_count_as_one_client() -> None:
    async def use() -> None:
        allowed = Allowance()
        flood = [await small(allowed, f"2001:db8:1:2::{number:x}") for number in range(A_SECOND)]
        assert flood.count(b"{}") == A_SECOND // 2
        allowed.spend("2001:db8:9:9::1", allowance.LOOK_SECONDS / 2)
        assert await small(allowed, "2001:db8:9:9::2") is None
        assert await small(allowed, "2001:db8:1:3::1") == b"{}"

    asyncio.run(use())


def test_the_time_that_bodies_take_is_bounded_as_well(one_second: list[float]) -> None:
    async def use() -> None:
        allowed = Allowance()
        assert await small(allowed) == b"{}"
        allowed.spend("c", allowance.LOOK_SECONDS / 2)
        assert await small(allowed) is None
        assert await small(allowed, "other") == b"{}"
        allowed.spend("other", allowance.LOOK_SECONDS / 2)
        assert await small(allowed, "third") is None
        one_second[0] += 1
        assert await small(allowed) == b"{}"

    asyncio.run(use())


def test_who_is_waited_for_longest_makes_room() -> None:
    async def use() -> None:
        allowed = Allowance()
        held = [
            asyncio.create_task(allowed.read(never, 2, f"{number}"))
            for number in range(MOST_AT_ONCE)
        ]
        await asyncio.sleep(0)
        assert await small(allowed) == b"{}"
        assert await held[0] is None
        await asyncio.sleep(0)
        assert not any(task.done() for task in held[1:])
        large = [
            asyncio.create_task(allowed.read(never, LONGEST, f"large {number}"))
            for number in range(MOST_BYTES // LONGEST)
        ]
        await asyncio.gather(*held)
        assert not any(task.done() for task in large)
        for task in large:
            task.cancel()

    asyncio.run(use())


def test_a_body_that_does_not_come_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(allowance, "SECONDS", 0.01)
    assert asyncio.run(Allowance().read(never, 2, "c")) is None
