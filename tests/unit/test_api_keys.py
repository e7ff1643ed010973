"""The form of API keys, what one key may grant another, and the limit of reads."""

import string
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ledger.api import rate_limit
from ledger.api.permissions import Caller
from ledger.api.rate_limit import RateLimit
from ledger.errors import ForbiddenError
from ledger.operations.api_keys import SCOPES, Grant, Scope, digest_of, make_key, read_key

ID = "a1b2c3d4e5"
KEY = make_key(ID)
SOON = datetime(2030, 1, 1, tzinfo=UTC)
LATER = SOON + timedelta(seconds=1)


def test_a_key_is_read_by_its_form() -> None:
    found = read_key(KEY)
    assert found is not None
    assert (found.key_id, found.digest) == (ID, digest_of(KEY))
    assert KEY.startswith(f"ldg_{ID}_")


def test_no_two_keys_are_the_same() -> None:
    assert len({make_key(ID) for _ in range(100)}) == 100


@given(st.integers(0, len(KEY) - 1), st.sampled_from(string.printable))
def test_a_typing_error_is_found_without_the_database(place: int, character: str) -> None:
    typed = KEY[:place] + character + KEY[place + 1 :]
    assert typed == KEY or read_key(typed) is None


@pytest.mark.slow
@given(st.text() | st.builds(lambda end: KEY + end, st.text(min_size=1)))
def test_no_other_text_is_a_key(text: str) -> None:
    assert read_key(text) is None


@pytest.mark.parametrize("scope", SCOPES)
def test_a_scope_includes_those_before_it(scope: Scope) -> None:
    caller = Caller("k", scope, None)
    for needed in SCOPES:
        if SCOPES.index(needed) <= SCOPES.index(scope):
            caller.require(needed)
        else:
            with pytest.raises(ForbiddenError, match=f"the scope {needed}, and the key k has"):
                caller.require(needed)


GRANTS = [
    (Caller("k", "admin", None), Grant("admin"), True),
    (Caller("k", "admin", None), Grant("read", ("a",), SOON), True),
    (Caller("k", "operate", None), Grant("admin"), False),
    (Caller("k", "admin", ("a", "b")), Grant("admin", ("b",)), True),
    (Caller("k", "admin", ("a", "b")), Grant("read", ("b", "c")), False),
    (Caller("k", "admin", ("a", "b")), Grant("read"), False),
    (Caller("k", "admin", None, SOON), Grant("read", None, SOON), True),
    (Caller("k", "admin", None, SOON), Grant("read", None, LATER), False),
    (Caller("k", "admin", None, SOON), Grant("read"), False),
]


@pytest.mark.parametrize(("caller", "grant", "is_allowed"), GRANTS)
def test_a_key_makes_none_that_may_do_more(caller: Caller, grant: Grant, is_allowed: bool) -> None:  # noqa: FBT001 -- a case's value
    if is_allowed:
        caller.require_grant(grant)
    else:
        with pytest.raises(ForbiddenError):
            caller.require_grant(grant)


def test_what_a_key_is_not_for_is_looked_for_nowhere() -> None:
    caller = Caller("k", "read", ("a",))
    assert caller.bill_key("a", "b") == ("a", "b")
    assert len(caller.bill_key("z", "b")[0]) > 200
    assert caller.narrowed(None) == ("a",)
    assert caller.narrowed("a") == ("a",)
    assert caller.narrowed("z") == ()
    assert Caller("k", "read", None).narrowed("z") == ("z",)


class Clock:
    def __init__(self) -> None:
        self.now = 1_000.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    found = Clock()
    monkeypatch.setattr(rate_limit, "time", found)
    return found


def test_a_key_reads_so_often_and_then_waits(clock: Clock) -> None:
    limit = RateLimit(2)
    assert [limit.take("k") for _ in range(3)] == [0, 0, 1]
    assert limit.take("other") == 0
    assert not limit.allows("k")
    clock.now += 0.5
    assert limit.allows("k")
    assert [limit.take("k") for _ in range(2)] == [0, 1]
    clock.now += 3_600
    assert [limit.take("k") for _ in range(3)] == [0, 0, 1]


def test_without_a_rate_nothing_is_limited(clock: Clock) -> None:
    limit = RateLimit(0)
    assert not any(limit.take("k") for _ in range(10_000))
    assert clock.now == 1_000.0


def test_the_memory_of_the_limit_is_bounded(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rate_limit, "MOST_BUCKETS", 3)
    limit = RateLimit(1)
    for number in range(9):
        assert limit.take(str(number)) == 0
    assert limit.take("8") == 1
    assert limit.take("0") == 0  # forgotten
    assert clock.now == 1_000.0
