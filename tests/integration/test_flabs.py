"""Subscriptions, coverage, checks and rotations of the token, against the sandbox."""

import json
from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from typing import Any

import pytest
from msgspec.json import decode
from psycopg import Connection
from structlog.testing import capture_logs

from ledger.errors import (
    DecisionError,
    FlabsError,
    FlabsLoginError,
    FlabsRefusedError,
    FlabsUnavailableError,
    QuestionError,
    SettingsError,
)
from ledger.eventlog.append import Delivery, append
from ledger.flabs import rotation, subscriptions
from ledger.flabs.account import look
from ledger.flabs.answers import AccountLab
from ledger.flabs.client import FlabsClient
from ledger.flabs.endpoint import one_at_a_time
from ledger.flabs.rotation import Rotation, advance, finish
from ledger.flabs.subscriptions import Choice, SubscriptionReport, parse_party, subscribe
from ledger.flabs.watcher import FlabsWatcher, is_due
from ledger.model.operators import Operator
from ledger.operations import webhook_tokens
from ledger.operations.alerts.watcher import subjects
from ledger.operations.coverage import Coverage, LabCoverage, count_unregistered, read_coverage
from ledger.operations.decisions import catch_up
from ledger.operations.flabs_account import AccountCheck, read_check
from ledger.operations.missing_events.subscriptions import set_subscription
from ledger.operations.policy import Policy
from ledger.operations.silence import Hearings
from ledger.postgres.connect import connect
from ledger.settings import Settings
from ledger.simulator.sandbox import Sandbox
from tests.support.flabs import LABS, client_of, fault, sandbox_of, settings_for
from tests.support.payloads import event

pytestmark = pytest.mark.slow

BY = Operator("the tests")
POLICY = Policy.of(Settings(retry_interval=1, retry_count=0, retry_timeout=0))
ALL = POLICY.events
NOW = timedelta(0)
WEEK = timedelta(days=7)


class World:
    """A database and an account at a sandbox."""

    def __init__(self, url: str, sandbox: Sandbox) -> None:
        self.url = url
        self.sandbox = sandbox
        self.settings = settings_for(sandbox)
        self.connection = connect(url, "test")

    def subscribe(
        self,
        *labs: str,
        by: Operator = BY,
        **choice: Any,  # noqa: ANN401 -- of `Choice`
    ) -> SubscriptionReport:
        chosen = Choice(**{"labs": labs or None, "events": ALL, **choice})
        with client_of(self.sandbox) as client:
            report, _ = subscribe(self.url, self.settings, client, chosen, by=by, patience=20)
        return report

    def rotate(self, quiet: timedelta = NOW, **more: Any) -> Rotation:  # noqa: ANN401 -- of `advance`
        with client_of(self.sandbox) as client:
            return advance(
                self.url, self.settings, POLICY, client,
                by=BY, patience=20, settle=0, quiet=quiet, **more,
            )  # fmt: skip

    def finish(self, later: float = 60, quiet: timedelta = NOW, **more: Any) -> Rotation:  # noqa: ANN401
        now = datetime.now(UTC) + timedelta(seconds=later)
        found = finish(self.url, POLICY, by=BY, now=now, quiet=quiet, **more)
        assert found
        return found

    def hear(self, *labs: str) -> None:
        """Append an event of each lab."""
        append(
            self.connection,
            [
                Delivery.of(
                    _encode(event(lab, "bill")), received_at=datetime.now(UTC), source="webhook"
                )
                for lab in labs
            ],
        )

    def coverage(self, **more: Any) -> Coverage:  # noqa: ANN401 -- of `read_coverage`
        catch_up(self.url, self.connection, patience=20)
        return read_coverage(self.connection, POLICY, **more)

    def lab(self, lab_id: str) -> LabCoverage:
        return next(lab for lab in self.coverage().labs if lab.lab_id == lab_id)

    def decisions(self, tag: str) -> list[dict[str, Any]]:
        rows = self.connection.execute(
            "SELECT l.body FROM ledger.logged_event l WHERE l.source = 'operator'"
            " AND l.event_type = %s ORDER BY l.position",
            (tag,),
        )
        return [decode(body) for (body,) in rows]

    def valid(self) -> set[str]:
        return {one.token_id for one in webhook_tokens.read_valid(self.connection)}

    def tokens_at_flabs(self) -> set[str | None]:
        return {one.target.token for one in self.sandbox.account.subscriptions}


def _encode(payload: object) -> bytes:
    return json.dumps(payload).encode()


@pytest.fixture
def world(database_url: str) -> Iterator[World]:
    with sandbox_of() as sandbox:
        made = World(database_url, sandbox)
        with closing(made.connection):
            yield made


@pytest.fixture(scope="module")
def lasting_world(module_database_url: str) -> Iterator[World]:
    """Give a world with subscriptions, in which each test leaves no rotation unfinished."""
    with sandbox_of() as sandbox, pytest.MonkeyPatch.context() as patch:
        patch.setattr("ledger.flabs.endpoint.time.sleep", lambda _: None)
        made = World(module_database_url, sandbox)
        made.settings = settings_for(sandbox, webhook_tokens=())
        with closing(made.connection):
            made.subscribe()
            yield made


def outcomes(report: SubscriptionReport) -> dict[str | None, str]:
    return {item.lab_id: item.outcome for item in report.subscriptions}


# Subscriptions.


def test_all_labs_are_subscribed_and_each_is_recorded_with_who_decided(world: World) -> None:
    assert set(outcomes(world.subscribe()).values()) == {"subscribed"}
    assert {(one.lab_id, one.event_type) for one in world.sandbox.account.subscriptions} == {
        (lab, name) for lab in LABS for name in ALL
    }
    told = world.decisions("flabs.subscribed")
    assert [one["lab_id"] for one in told] == list(LABS)
    assert {one["by"] for one in told} == {"the tests"}
    assert world.tokens_at_flabs() == {"webhook-token-of-the-tests"}
    assert "webhook-token" not in str(told)


def test_what_is_subscribed_is_known_and_not_asked_for_again(world: World) -> None:
    world.subscribe("lab_0001")
    fault(world.sandbox, drop_subscriptions="lab_0001")
    told = outcomes(world.subscribe())
    assert told == {"lab_0001": "known", "lab_0002": "subscribed", "lab_0003": "subscribed"}
    assert not world.sandbox.account.targets("lab_0001", ALL[0])
    assert outcomes(world.subscribe("lab_0001", again=True)) == {"lab_0001": "subscribed"}
    assert world.sandbox.account.targets("lab_0001", ALL[0])


def test_only_the_event_types_that_are_new_are_asked_for(world: World) -> None:
    world.subscribe("lab_0001", events=("bill.created",))
    items = world.subscribe("lab_0001", events=("lead.created", "bill.created")).subscriptions
    assert [(item.outcome, item.events) for item in items] == [
        ("known", ["bill.created"]),
        ("subscribed", ["lead.created"]),
    ]


def test_a_dry_run_asks_and_records_nothing(world: World) -> None:
    with client_of(world.sandbox) as client:
        choice = Choice(labs=None, events=ALL)
        report, _ = subscribe(
            world.url, world.settings, client, choice, by=BY, patience=20, dry_run=True
        )
    assert set(outcomes(report).values()) == {"planned"}
    assert not world.sandbox.account.subscriptions
    assert world.decisions("flabs.subscribed") == []


def test_a_lab_or_type_that_does_not_exist_is_a_sentence(world: World) -> None:
    with pytest.raises(QuestionError, match="has no lab lab_9; it has lab_0001"):
        world.subscribe("lab_9")
    with pytest.raises(QuestionError, match=r"has no lab lab_9; it has lab_0002$"):
        world.subscribe("lab_9", by=Operator("x", "key", labs=("lab_0002", "lab_9")))
    with pytest.raises(QuestionError, match=r"has no lab lab_9; it has none of yours$"):
        world.subscribe("lab_9", by=Operator("x", "key", labs=("lab_9",)))
    with pytest.raises(QuestionError, match=r"bill\.invented"):
        world.subscribe(events=("bill.invented",))
    with pytest.raises(QuestionError, match="corporateUser:ID"):
        parse_party("p1")


def test_a_public_address_without_https_is_refused_unless_flabs_is_a_sandbox(world: World) -> None:
    world.settings = settings_for(world.sandbox, flabs_url="https://v2.flabs.in")
    with pytest.raises(SettingsError, match="https"):
        world.subscribe()
    world.settings = settings_for(world.sandbox, public_url="")
    with pytest.raises(SettingsError, match="LEDGER_PUBLIC_URL"):
        world.subscribe()


def test_a_webhook_that_a_party_has_already_is_no_failure(database_url: str) -> None:
    with sandbox_of("lab_1", parties=("p1",)) as sandbox:
        world = World(database_url, sandbox)
        with closing(world.connection):
            refused = world.subscribe()
            assert [item.outcome for item in refused.subscriptions] == ["refused"]
            assert "is required for this account" in refused.subscriptions[0].words
            party = (parse_party("corporateUser:p1"),)
            world.subscribe(events=("bill.created",), parties=party)
            items = world.subscribe(parties=party, again=True).subscriptions
            assert [(item.outcome, item.events) for item in items] == [
                ("already", ["bill.created"]),
                *(("subscribed", [name]) for name in ALL[1:]),
            ]
            assert world.lab("lab_1").absent_events == []


def test_without_a_token_in_the_settings_one_is_made_and_not_shown(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ledger.flabs.endpoint.time.sleep", lambda _: None)
    world.settings = settings_for(world.sandbox, webhook_tokens=())
    world.subscribe()
    (made,) = webhook_tokens.list_tokens(world.connection, limit=9)
    assert {one["token_id"] for one in world.decisions("flabs.subscribed")} == {made.token_id}
    (token,) = world.tokens_at_flabs()
    assert token is not None
    assert token.startswith(webhook_tokens.PREFIX)


def test_a_token_that_flabs_did_not_take_is_revoked_and_without_need_none_is_made(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ledger.flabs.endpoint.time.sleep", lambda _: None)
    world.subscribe("lab_0001")
    (of_settings,) = world.valid()
    party = (parse_party("corporateUser:p1"),)
    assert set(outcomes(world.subscribe(parties=party)).values()) == {"refused"}
    assert world.valid() == {of_settings}
    world.settings = settings_for(world.sandbox, webhook_tokens=())
    assert outcomes(world.subscribe("lab_0001")) == {"lab_0001": "known"}
    assert len(webhook_tokens.list_tokens(world.connection, limit=9)) == 1
    by = Operator("a key for a lab", "k", labs=("lab_0001",))
    refused = world.subscribe("lab_0001", parties=party, by=by)
    assert outcomes(refused) == {"lab_0001": "refused"}
    assert len(webhook_tokens.list_tokens(world.connection, limit=9)) == 2
    assert world.valid() == {of_settings}
    world.subscribe("lab_0002")
    assert len(world.valid()) == 2


def test_a_token_in_the_path_is_in_no_record(world: World) -> None:
    report = world.subscribe("lab_0001", in_path=True)
    (subscription, *_) = world.sandbox.account.subscriptions
    assert subscription.target.endpoint.endswith("/webhooks/flabs/webhook-token-of-the-tests")
    assert subscription.target.token is None
    assert "webhook-token" not in str(world.decisions("flabs.subscribed")) + str(report)


def test_killed_between_two_labs_it_goes_on_with_the_rest(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    _killed_at(monkeypatch, FlabsClient, "subscribe", 2)
    with pytest.raises(KeyboardInterrupt):
        world.subscribe()
    monkeypatch.undo()
    told = outcomes(world.subscribe())
    assert told == {"lab_0001": "known", "lab_0002": "subscribed", "lab_0003": "subscribed"}


# Coverage.


def test_three_lists_are_compared(world: World) -> None:
    world.subscribe("lab_0001", events=ALL[:2])
    world.hear("lab_0001", "lab_9")
    found = world.coverage()
    assert {lab.lab_id: lab.findings for lab in found.labs} == {
        "lab_0001": ["events_not_subscribed"],
        "lab_0002": ["not_subscribed"],
        "lab_0003": ["not_subscribed"],
        "lab_9": ["not_in_account"],
    }
    assert found.totals == {
        "not_subscribed": 2, "never_heard": 0, "not_in_account": 1, "events_not_subscribed": 1,
    }  # fmt: skip
    assert world.lab("lab_0001").absent_events == list(ALL[2:])
    world.subscribe()
    assert world.lab("lab_0002").findings == ["never_heard"]
    world.hear("lab_0002")
    assert world.lab("lab_0002").findings == []


def test_a_branch_that_is_added_later_is_not_subscribed(world: World) -> None:
    world.subscribe()
    fault(world.sandbox, add_lab="lab_new", remove_lab="lab_0003")
    world.hear("lab_0003")
    with client_of(world.sandbox) as client:
        look(world.connection, world.settings, client)
    assert world.lab("lab_new").findings == ["not_subscribed"]
    assert world.lab("lab_0003").findings == ["not_in_account"]


def test_without_an_account_what_was_set_by_hand_is_compared_with_the_log(world: World) -> None:
    world.hear("lab_heard", "lab_other")
    for lab in ("lab_heard", "lab_silent"):
        set_subscription(world.url, POLICY, lab, ["bill.created"], by=BY, patience=20)
    found = world.coverage()
    assert found.check is None
    assert {lab.lab_id: (lab.in_account, lab.findings) for lab in found.labs} == {
        "lab_heard": (None, []),
        "lab_other": (None, []),
        "lab_silent": (None, ["never_heard"]),
    }


def test_a_question_about_some_labs_shows_no_other(world: World) -> None:
    world.subscribe()
    assert [lab.lab_id for lab in world.coverage(labs=("lab_0002",)).labs] == ["lab_0002"]


def test_each_finding_is_alerted_about_once_it_is_certain(world: World) -> None:
    world.subscribe("lab_0001", events=ALL[:2])
    world.hear("lab_0001", "lab_9")
    catch_up(world.url, world.connection, patience=20)

    def told(later: timedelta) -> set[tuple[str, str | None]]:
        now = datetime.now(UTC) + later
        found = subjects(world.connection, POLICY, now, Hearings())
        return {(one.kind, one.lab_id) for one in found if one.kind.startswith("flabs")}

    at_once = {("flabs_coverage", lab) for lab in ("lab_0001", "lab_0002", "lab_0003", "lab_9")}
    assert told(NOW) == at_once
    assert count_unregistered(world.coverage(), datetime.now(UTC)) == 4
    world.subscribe("lab_0002")
    assert told(NOW) == at_once - {("flabs_coverage", "lab_0002")}
    assert ("flabs_coverage", "lab_0002") in told(timedelta(days=2))
    found = world.coverage()
    assert count_unregistered(found, datetime.now(UTC)) == 3
    assert count_unregistered(found, datetime.now(UTC) + timedelta(days=2)) == 4


def test_an_account_that_cannot_be_used_is_alerted_about_after_a_while(world: World) -> None:
    _look_in_vain(world)
    told = {
        later: list(subjects(world.connection, POLICY, datetime.now(UTC) + later, Hearings()))
        for later in (NOW, timedelta(hours=2))
    }
    assert told[NOW] == []
    assert [one.kind for one in told[timedelta(hours=2)]] == ["flabs_check"]


# Looks at the account.


def _look_in_vain(world: World) -> None:
    with client_of(world.sandbox, "wrong-secret") as client, pytest.raises(FlabsLoginError):
        look(world.connection, world.settings, client)


def test_a_failed_look_is_kept_without_flabs_words_and_the_labs_stay(world: World) -> None:
    with client_of(world.sandbox) as client:
        look(world.connection, world.settings, client)
        fault(world.sandbox, garbage=1)
        with pytest.raises(FlabsError, match="hotel"):
            look(world.connection, world.settings, client)
    last = read_check(world.connection)
    assert last
    assert last.succeeded_at
    assert last.succeeded_at < last.checked_at
    assert last.failed_since == last.checked_at
    assert last.failure
    assert "with 200 and not as it documents" in last.failure
    assert "hotel" not in last.failure
    assert len(world.coverage().labs) == len(LABS)
    _look_in_vain(world)
    again = read_check(world.connection)
    assert again
    assert again.failed_since == last.failed_since


def test_another_account_has_other_labs(world: World) -> None:
    with client_of(world.sandbox) as client:
        look(world.connection, world.settings, client)
        fault(world.sandbox, errors=9)
        world.settings = settings_for(world.sandbox, flabs_client_id="another")
        with pytest.raises(FlabsUnavailableError):
            look(world.connection, world.settings, client)
    assert world.coverage().labs == []


def test_a_look_that_fails_is_repeated_ever_more_rarely() -> None:
    interval, now = timedelta(minutes=15), datetime(2026, 1, 1, tzinfo=UTC)

    def due(failing: timedelta | None, ago: timedelta) -> bool:
        at = now - ago
        last = AccountCheck("c", at, None, None if failing is None else at - failing, "x")
        return is_due(last, "c", interval, now)

    assert is_due(None, "c", interval, now)
    assert not due(None, timedelta(minutes=14))
    assert due(None, timedelta(minutes=15))
    assert due(timedelta(0), timedelta(minutes=15))
    assert not due(timedelta(hours=2), timedelta(hours=1))
    assert due(timedelta(days=9), timedelta(hours=6))


def test_the_watcher_looks_when_it_is_due_and_survives_an_account_that_is_away(
    world: World,
) -> None:
    watcher = FlabsWatcher(world.url, world.settings, POLICY)
    watcher.look_once()
    first = read_check(world.connection)
    assert first
    watcher.look_once()
    assert read_check(world.connection) == first
    fault(world.sandbox, garbage=1)
    FlabsWatcher(world.url, settings_for(world.sandbox, flabs_client_id="d"), POLICY).look_once()
    last = read_check(world.connection)
    assert last
    assert last.failure


# Rotations of the token.


def test_a_rotation_gives_flabs_a_new_token_and_drops_the_old_one_at_the_end(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ledger.flabs.endpoint.time.sleep", lambda _: None)
    world.settings = settings_for(world.sandbox, webhook_tokens=())
    world.subscribe()
    (old,) = world.valid()
    begun = world.rotate()
    assert (begun.state, begun.replaced) == ("subscribed", [old])
    assert world.valid() == {old, begun.token_id}
    (token,) = world.tokens_at_flabs()
    assert token
    assert world.finish(later=-1).state == "subscribed"
    assert world.valid() == {old, begun.token_id}
    assert world.finish().state == "finished"
    assert world.valid() == {begun.token_id}
    steps = world.decisions("flabs.token_rotated")
    assert [one["step"] for one in steps] == ["begun", "subscribed", "finished"]
    assert {one["by"] for one in steps} == {"the tests"}
    assert token not in str(steps) + str(world.decisions("flabs.subscribed"))
    # The next one drops the token of this one.
    assert world.rotate().replaced == [begun.token_id]


def test_without_a_subscription_there_is_nothing_to_rotate(world: World) -> None:
    with pytest.raises(QuestionError, match="ledger flabs subscribe"):
        world.rotate()
    assert world.valid() == set()


def test_after_a_rotation_a_token_of_the_settings_is_not_given_to_flabs_again(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ledger.flabs.endpoint.time.sleep", lambda _: None)
    world.subscribe("lab_0001")
    (old,) = world.valid()
    assert world.rotate().replaced == [old]
    world.subscribe("lab_0002")
    assert "webhook-token-of-the-tests" not in world.tokens_at_flabs()
    world.finish()
    assert webhook_tokens.is_revoked(world.connection, "webhook-token-of-the-tests")
    world.subscribe("lab_0003")
    assert "webhook-token-of-the-tests" not in world.tokens_at_flabs()


def test_nobody_subscribes_while_somebody_else_rotates(world: World) -> None:
    world.subscribe("lab_0001")
    with one_at_a_time(world.url):
        with pytest.raises(DecisionError, match="somebody else"):
            world.subscribe("lab_0002")
        with pytest.raises(DecisionError, match="somebody else"):
            world.rotate()


def _killed_at(
    patch: pytest.MonkeyPatch, owner: object, name: str, nth: int, *, after: bool = False
) -> None:
    """Make the nth call of a function, or its end, the last thing that happens."""
    real: Callable[..., Any] = getattr(owner, name)
    calls = 0

    def killed(*given: Any, **named: Any) -> Any:  # noqa: ANN401 -- any function
        nonlocal calls
        calls += 1
        if calls == nth:
            if after:
                real(*given, **named)
            raise KeyboardInterrupt
        return real(*given, **named)

    patch.setattr(owner, name, killed)


STEPS: list[tuple[object, str, int, bool]] = [
    (rotation, "make_token", 1, False),
    (rotation, "make_token", 1, True),
    (rotation, "_begin", 1, False),
    (rotation, "_record", 1, False),
    (rotation, "_record", 1, True),
    (rotation, "_begin", 1, True),
    *((FlabsClient, "subscribe", nth, after) for nth in (1, 2, 3) for after in (False, True)),
    (subscriptions, "record", 1, False),
    (subscriptions, "record", 2, True),
    (rotation, "_note_subscribed", 1, False),
    (rotation, "_record", 2, False),
    (rotation, "_record", 2, True),
    (rotation, "_note_subscribed", 1, True),
]


@pytest.mark.parametrize(("owner", "name", "nth", "after"), STEPS)
def test_killed_at_any_step_a_rotation_is_run_again_and_no_token_of_flabs_is_refused(
    lasting_world: World,
    owner: object,
    name: str,
    nth: int,
    after: bool,  # noqa: FBT001 -- a parameter of the cases
) -> None:
    world = lasting_world
    lost = len(world.valid()) - 1
    with pytest.MonkeyPatch.context() as patch:
        _killed_at(patch, owner, name, nth, after=after)
        with pytest.raises(KeyboardInterrupt):
            world.rotate()
    assert _all_are_valid(world)
    finish(world.url, POLICY, by=BY, now=datetime.now(UTC) + WEEK, quiet=NOW)  # `ledger project`
    assert _all_are_valid(world)
    assert world.rotate().state in {"subscribed", "finished"}
    assert _all_are_valid(world)
    with pytest.MonkeyPatch.context() as patch:
        _killed_at(patch, rotation, "_record", 1)
        if world.rotate().state == "subscribed":
            with pytest.raises(KeyboardInterrupt):
                world.finish()
    assert world.finish().state == "finished"
    assert _all_are_valid(world)
    # What nobody knows any more is not valid either; one that was never noted is not used.
    at_flabs = {digest_of(token) for token in world.tokens_at_flabs()}
    left = {one.digest for one in webhook_tokens.read_valid(world.connection)}
    assert at_flabs <= left
    assert len(left - at_flabs) <= lost + 1


def digest_of(token: str | None) -> bytes:
    return sha256((token or "").encode()).digest()


def _all_are_valid(world: World) -> bool:
    valid = {one.digest for one in webhook_tokens.read_valid(world.connection)}
    return {digest_of(token) for token in world.tokens_at_flabs()} <= valid


def test_flabs_that_fails_midway_leaves_all_tokens_valid_and_the_next_run_ends_it(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.subscribe()
    real = FlabsClient.labs

    def then_fail(client: FlabsClient) -> list[AccountLab]:
        found = real(client)
        fault(world.sandbox, errors=3)
        return found

    monkeypatch.setattr(FlabsClient, "labs", then_fail)
    with pytest.raises(FlabsUnavailableError):
        world.rotate()
    monkeypatch.undo()
    assert _all_are_valid(world)
    first = world.valid()
    assert len(first) == 2
    assert world.rotate(NOW).replaced == sorted(first)
    world.finish()
    assert len(world.valid()) == 1


def test_while_flabs_is_away_no_token_is_made(world: World) -> None:
    world.subscribe()
    before = world.valid()
    fault(world.sandbox, errors=3)
    with pytest.raises(FlabsUnavailableError):
        world.rotate()
    assert world.valid() == before


def test_a_lab_that_left_the_account_holds_up_no_rotation(world: World) -> None:
    world.subscribe()
    fault(world.sandbox, remove_lab="lab_0002", drop_subscriptions="lab_0002")
    world.rotate()
    assert world.finish().state == "finished"
    assert len(world.valid()) == 1
    assert _all_are_valid(world)
    for lab in ("lab_0001", "lab_0003"):
        fault(world.sandbox, remove_lab=lab)
    with pytest.raises(QuestionError, match="no lab that Ledger has subscribed is in the account"):
        world.rotate()


def test_a_webhook_that_flabs_keeps_leaves_the_old_token_valid(database_url: str) -> None:
    with sandbox_of("lab_1", again="refuse") as sandbox:
        world = World(database_url, sandbox)
        with closing(world.connection):
            world.subscribe()
            with pytest.raises(FlabsRefusedError, match="Ask Flabs' support to remove"):
                world.rotate()
            assert world.finish().state == "begun"
            assert _all_are_valid(world)
            assert world.tokens_at_flabs() == {"webhook-token-of-the-tests"}
            fault(sandbox, drop_subscriptions="lab_1")
            assert world.rotate().state == "subscribed"


def test_an_old_token_that_is_still_presented_is_not_dropped_unless_it_must_be(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ledger.flabs.endpoint.time.sleep", lambda _: None)
    world.settings = settings_for(world.sandbox, webhook_tokens=())
    world.subscribe()
    (old,) = world.valid()
    begun = world.rotate()
    assert begun.subscribed_at
    late = begun.subscribed_at + POLICY.budget + timedelta(seconds=1)
    webhook_tokens.note_use(world.connection, [old], late)
    with pytest.raises(DecisionError, match=f"{old} was still presented"):
        world.finish()
    assert old in world.valid()
    assert world.finish(drop=True).state == "finished"
    assert old not in world.valid()


def test_the_watcher_says_once_that_an_old_token_is_still_presented(
    world: World, service: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rotation, "QUIET", NOW)
    world.subscribe()
    (old,) = world.rotate().replaced
    service.execute(
        "UPDATE ledger.flabs_rotation SET subscribed_at = subscribed_at - interval '1 hour'"
    )
    watcher = FlabsWatcher(world.url, world.settings, POLICY)
    with capture_logs() as logs:
        for _ in range(3):
            webhook_tokens.note_use(world.connection, [old], datetime.now(UTC))
            watcher.look_once()
    (told,) = [one for one in logs if one["event"] == "the old webhook tokens were not dropped"]
    assert "still presented" in told["error"]
    assert old in world.valid()


def test_the_watcher_ends_a_rotation_whose_wait_is_over(
    world: World, service: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rotation, "QUIET", NOW)
    world.subscribe()
    world.rotate()
    service.execute(
        "UPDATE ledger.flabs_rotation SET subscribed_at = subscribed_at - interval '1 hour'"
    )
    FlabsWatcher(world.url, world.settings, POLICY).look_once()
    assert world.finish().state == "finished"
    assert world.decisions("flabs.token_rotated")[-1]["by"] == "ledger project"
