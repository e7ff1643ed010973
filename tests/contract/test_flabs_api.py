"""Our reading of Flabs' documentation: the sandbox speaks it, and the client understands it."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpx
import pytest

from ledger.errors import (
    FlabsError,
    FlabsLoginError,
    FlabsRefusedError,
    FlabsUnavailableError,
    UndocumentedAnswerError,
)
from ledger.flabs.client import FlabsClient, Party
from ledger.simulator.sandbox import Account, Options, Sandbox
from tests.support.flabs import SECRET, fault

ENDPOINT = "https://ledger.example/webhooks/flabs"
EVENTS = ("bill.created", "bill.completed")
OPTIONS = Options(client_id="c", client_secret=SECRET)


@pytest.fixture
def sandbox() -> Iterator[Sandbox]:
    with Sandbox(Account(["lab_b", "lab_a"], OPTIONS)) as started:
        yield started


class Calls:
    """A client of a sandbox whose pauses are noted and not waited for, and with its own clock."""

    def __init__(self, url: str, secret: str = SECRET, *, seconds: float = 10.0) -> None:
        self.now = 0.0
        self.pauses: list[float] = []
        self.client = FlabsClient(
            url,
            "c",
            secret,
            timeout=httpx.Timeout(seconds),
            clock=lambda: self.now,
            sleep=self.pauses.append,
        )


@pytest.fixture
def calls(sandbox: Sandbox) -> Iterator[Calls]:
    made = Calls(sandbox.url)
    with made.client:
        yield made


def post(sandbox: Sandbox, path: str, body: object, token: str = "") -> httpx.Response:
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    return httpx.post(f"{sandbox.url}{path}", json=body, headers=headers, trust_env=False)


def log_in(sandbox: Sandbox) -> dict[str, Any]:
    answer = post(sandbox, "/client/auth/token", {"clientID": "c", "clientSecret": SECRET})
    assert answer.status_code == 200
    tokens: dict[str, Any] = answer.json()
    return tokens


def subscription(**changes: object) -> dict[str, object]:
    return {
        "events": list(EVENTS),
        "endpoint": ENDPOINT,
        "protocol": "https",
        "labID": "lab_a",
        **changes,
    }


def test_a_login_answers_two_tokens_and_600_seconds(sandbox: Sandbox) -> None:
    tokens = log_in(sandbox)
    assert set(tokens) == {"authToken", "refreshToken", "expiresIn"}
    assert tokens["expiresIn"] == 600


def test_a_refresh_answers_as_a_login_does_and_ends_the_refresh_token(sandbox: Sandbox) -> None:
    body = {"clientID": "c", "refreshToken": log_in(sandbox)["refreshToken"]}
    first = post(sandbox, "/client/auth/token/refresh", body)
    assert (first.status_code, first.json()["expiresIn"]) == (200, 600)
    assert post(sandbox, "/client/auth/token/refresh", body).status_code == 401


def test_every_other_call_needs_a_token(sandbox: Sandbox) -> None:
    assert httpx.get(f"{sandbox.url}/client/labs", trust_env=False).status_code == 401
    assert post(sandbox, "/client/events/subscribe", subscription()).status_code == 401
    assert post(sandbox, "/client/events/subscribe", subscription(), "x").status_code == 401


@pytest.mark.parametrize(
    "changes",
    [
        {"events": []},
        {"events": ["bill.invented"]},
        {"events": "bill.created"},
        {"endpoint": "http://ledger.example/webhooks/flabs"},
        {"endpoint": None},
        {"protocol": "http"},
        {"labID": "lab_z"},
        {"corporateUser": "p"},
    ],
)
def test_a_wrong_subscription_is_answered_with_400(
    sandbox: Sandbox, changes: dict[str, object]
) -> None:
    token = log_in(sandbox)["authToken"]
    answer = post(sandbox, "/client/events/subscribe", subscription(**changes), token)
    assert answer.status_code == 400
    assert answer.json()["success"] is False
    assert not sandbox.account.subscriptions


def test_a_subscription_is_answered_in_the_documented_words(sandbox: Sandbox) -> None:
    token = log_in(sandbox)["authToken"]
    answer = post(sandbox, "/client/events/subscribe", subscription(), token)
    assert answer.json() == {"success": True, "message": "Events subscribed successfully"}
    assert {one.event_type for one in sandbox.account.subscriptions} == set(EVENTS)


def test_an_account_of_parties_needs_one_and_refuses_a_second_webhook_of_it() -> None:
    options = Options(client_id="c", client_secret=SECRET, parties=("p1",))
    with Sandbox(Account(["lab_a"], options)) as sandbox:
        token = log_in(sandbox)["authToken"]
        path = "/client/events/subscribe"
        assert post(sandbox, path, subscription(), token).status_code == 400
        body = subscription(corporateUser="p1")
        assert post(sandbox, path, body, token).status_code == 200
        assert post(sandbox, path, body, token).status_code == 409
        calls = Calls(sandbox.url)
        with calls.client, pytest.raises(FlabsRefusedError, match="required for this account"):
            calls.client.subscribe(
                events=EVENTS, endpoint=ENDPOINT, lab_id="lab_a", auth_token="t" * 20
            )


def test_the_labs_are_listed_by_id(calls: Calls) -> None:
    assert [lab.lab_id for lab in calls.client.labs()] == ["lab_a", "lab_b"]


def test_a_branch_added_later_is_listed(calls: Calls, sandbox: Sandbox) -> None:
    calls.client.labs()
    fault(sandbox, add_lab="lab_c")
    assert [lab.lab_id for lab in calls.client.labs()] == ["lab_a", "lab_b", "lab_c"]


def test_a_token_is_used_until_shortly_before_its_end_and_then_refreshed(
    calls: Calls, sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    logins: list[str] = []
    for name in ("log_in", "refresh"):
        monkeypatch.setattr(sandbox.account, name, _noting(logins, getattr(sandbox.account, name)))
    calls.client.labs()
    calls.now = 560
    calls.client.labs()
    assert logins == ["log_in"]
    calls.now = 571
    calls.client.labs()
    assert logins == ["log_in", "refresh"]


def test_a_token_that_ends_early_costs_one_more_login(calls: Calls, sandbox: Sandbox) -> None:
    calls.client.labs()
    fault(sandbox, expire_tokens=True)
    assert len(calls.client.labs()) == 2


def _noting(names: list[str], method: Any) -> Any:  # noqa: ANN401 -- a method of the account
    def noted(*told: object) -> object:
        names.append(method.__name__)
        return method(*told)

    return noted


def test_a_dead_refresh_token_leads_to_a_new_login(calls: Calls, sandbox: Sandbox) -> None:
    calls.client.labs()
    sandbox.account._refresh.clear()  # noqa: SLF001 -- as after 30 days
    calls.now = 10_000
    assert len(calls.client.labs()) == 2


def test_failures_of_flabs_are_tried_again_with_growing_pauses(
    calls: Calls, sandbox: Sandbox
) -> None:
    calls.client.labs()
    fault(sandbox, errors=2)
    assert len(calls.client.labs()) == 2
    assert calls.pauses == [0.5, 2.0]
    fault(sandbox, errors=3)
    with pytest.raises(FlabsUnavailableError, match="answered with 500: Internal server error"):
        calls.client.labs()


def test_an_unreachable_flabs_is_told_in_a_sentence() -> None:
    with Sandbox(Account([], OPTIONS)) as sandbox:
        url = sandbox.url
    calls = Calls(url)
    with calls.client, pytest.raises(FlabsUnavailableError, match="did not get through"):
        calls.client.labs()
    assert calls.pauses == [0.5, 2.0]


def test_a_slow_answer_is_given_up_and_not_asked_for_again(sandbox: Sandbox) -> None:
    calls = Calls(sandbox.url, seconds=0.3)
    fault(sandbox, slow=1, seconds=30)
    with calls.client, pytest.raises(FlabsUnavailableError, match="not answered in time"):
        calls.client.labs()
    assert calls.pauses == []


def test_a_wrong_secret_is_one_sentence_without_it_and_no_second_try(
    sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    tries: list[str] = []
    monkeypatch.setattr(sandbox.account, "log_in", _noting(tries, sandbox.account.log_in))
    wrong = "the-wrong-secret"
    calls = Calls(sandbox.url, wrong)
    with calls.client, pytest.raises(FlabsLoginError) as caught:
        calls.client.labs()
    assert "LEDGER_FLABS_CLIENT_SECRET" in str(caught.value)
    assert "401" in str(caught.value)
    assert wrong not in str(caught.value)
    assert (len(tries), calls.pauses) == (1, [])


def test_an_undocumented_answer_is_told_with_its_status_and_its_beginning(
    calls: Calls, sandbox: Sandbox
) -> None:
    calls.client.labs()
    fault(sandbox, garbage=1)
    with pytest.raises(UndocumentedAnswerError, match=r"with 200 .*hotel's network") as caught:
        calls.client.labs()
    assert "hotel" not in caught.value.brief


@pytest.mark.parametrize(
    "said",
    [
        b'{"authToken": "SECRETSECRET", "expiresIn": 600}',
        b'{"authToken": "SECRETSECRET", "refreshToken": 7, "expiresIn": 600}',
        b'{"data": {"auth_token": "SECRETSECRET"}}',
        b"client_secret=SECRETSECRET was refused",
        SECRET.encode() * 20,
    ],
)
def test_an_answer_never_shows_a_secret(sandbox: Sandbox, said: bytes) -> None:
    calls = Calls(sandbox.url)
    with _saying(sandbox, 200, said), calls.client, pytest.raises(FlabsError) as caught:
        calls.client.labs()
    assert "SECRETSECRET" not in str(caught.value)
    assert SECRET not in str(caught.value)
    assert len(str(caught.value)) < 400


@pytest.mark.parametrize(
    "said",
    [
        b'["lab_a", "lab_b"]',
        b'{"labs": [{"labID": "lab_a", "name": "A"}, {"labID": "lab_b"}]}',
        b'{"data": [{"_id": "lab_b"}, {"_id": "lab_a", "labName": "A"}]}',
        b'{"success": true, "data": {"branches": [{"id": "lab_a"}, {"id": "lab_b"}]}}',
    ],
)
def test_each_way_to_list_labs_is_understood(calls: Calls, sandbox: Sandbox, said: bytes) -> None:
    calls.client.log_in()
    with _saying(sandbox, 200, said):
        assert [lab.lab_id for lab in calls.client.labs()] == ["lab_a", "lab_b"]


@pytest.mark.parametrize(
    "said", [b"{}", b"[1.5]", b'[{"x": 1}]', b'["a\\u0000"]', b"null", b"\xff"]
)
def test_other_lists_of_labs_are_not_guessed_at(
    calls: Calls, sandbox: Sandbox, said: bytes
) -> None:
    calls.client.log_in()
    with _saying(sandbox, 200, said), pytest.raises(UndocumentedAnswerError):
        calls.client.labs()


def test_a_redirect_is_not_followed(calls: Calls, sandbox: Sandbox) -> None:
    calls.client.log_in()
    with _saying(sandbox, 302, b""), pytest.raises(UndocumentedAnswerError, match="with 302"):
        calls.client.labs()


def test_what_is_there_already_is_no_failure() -> None:
    options = Options(client_id="c", client_secret=SECRET, parties=("p1",))
    with Sandbox(Account(["lab_a"], options)) as sandbox:
        calls = Calls(sandbox.url)
        with calls.client:
            told = [
                calls.client.subscribe(
                    events=EVENTS,
                    endpoint=ENDPOINT,
                    lab_id="lab_a",
                    auth_token="t" * 20,
                    party=Party("corporateUser", "p1"),
                ).outcome
                for _ in range(2)
            ]
    assert told == ["subscribed", "already"]


@contextmanager
def _saying(sandbox: Sandbox, status: int, body: bytes) -> Iterator[None]:
    """Make the sandbox answer every call of the API with these bytes."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sandbox.trouble, "next_answer", lambda: (status, body))
        yield
