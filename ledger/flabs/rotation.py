"""Replaces the webhook token that Flabs has, so that no delivery is refused meanwhile.

1. A new token is made; it is valid beside the old ones.
2. When every server knows it, each subscription is made again with it.
3. When the retries of the last delivery with an old token are over, the old tokens are dropped.

How far it has come is in `ledger.flabs_rotation`, and no secret is. Killed in step 1 or 2, the next
run begins again with another token, and drops the one that nobody knows any more with the others.
Killed after that, it goes on. Nothing is dropped before step 3, so each token that Flabs may have
is valid throughout.
"""

import time
from contextlib import closing
from datetime import UTC, datetime, timedelta
from typing import Any, Literal

import structlog
from msgspec import Struct
from psycopg import Connection

from ledger.errors import DecisionError, FlabsRefusedError, QuestionError
from ledger.flabs.account import look
from ledger.flabs.client import FlabsClient
from ledger.flabs.endpoint import SETTLE_SECONDS, Token, make_token, one_at_a_time, public_endpoint
from ledger.flabs.subscriptions import Wanted, ask, subscribed
from ledger.model.operator_events import FlabsTokenRotated
from ledger.model.operators import Operator
from ledger.operations import webhook_tokens
from ledger.operations.decisions import catch_up, deciding_without_state, record
from ledger.operations.policy import Policy
from ledger.postgres.connect import connect
from ledger.settings import Settings

QUIET = timedelta(seconds=130)
"""For how long after the last retry is watched whether Flabs still presents an old token. Twice
what it takes until a use is noted, and some."""

State = Literal["begun", "subscribed", "finished"]

_COLUMNS = """
    r.rotation, r.begun_at, r.begun_by, r.begun_by_key, r.replaced, r.token_id, r.subscribed_at,
    r.finished_at
"""

_OPEN = f"SELECT {_COLUMNS} FROM ledger.flabs_rotation r WHERE r.finished_at IS NULL"  # noqa: S608 -- constants
_LAST = f"SELECT {_COLUMNS} FROM ledger.flabs_rotation r ORDER BY r.rotation DESC LIMIT 1"  # noqa: S608 -- constants
_LOCK = f"{_OPEN} FOR UPDATE"

_BEGIN = """
INSERT INTO ledger.flabs_rotation (begun_at, begun_by, begun_by_key, replaced, token_id)
VALUES (%s, %s, %s, %s, %s)
RETURNING rotation
"""

_BEGIN_AGAIN = """
UPDATE ledger.flabs_rotation
SET replaced = %s, token_id = %s
WHERE rotation = %s
"""

_SUBSCRIBED = "UPDATE ledger.flabs_rotation SET subscribed_at = %s WHERE rotation = %s"
_FINISHED = "UPDATE ledger.flabs_rotation SET finished_at = %s WHERE rotation = %s"

# Those that Flabs was given and that are still valid.
_GIVEN = """
SELECT DISTINCT t.token_id
FROM state.flabs_subscription s
JOIN ledger.webhook_token t ON t.token_id = s.token_id
WHERE t.revoked_at IS NULL
ORDER BY t.token_id
"""

_LAST_USED = """
SELECT t.token_id, t.last_used_at
FROM ledger.webhook_token t
WHERE t.token_id = ANY(%s) AND t.last_used_at > %s
ORDER BY t.last_used_at DESC
LIMIT 1
"""

_log = structlog.get_logger(__name__)


class Rotation(Struct, frozen=True, kw_only=True):
    """A rotation: the new token's id, those it replaces, and how far it has come. Times are UTC.

    `drop_at` is when the replaced tokens may be dropped, null before everything is subscribed.
    """

    rotation: int
    state: State
    begun_at: datetime
    begun_by: str
    begun_by_key: str | None
    token_id: str
    replaced: list[str]
    subscribed_at: datetime | None
    drop_at: datetime | None
    finished_at: datetime | None


def read_rotation(
    connection: Connection, policy: Policy, *, quiet: timedelta = QUIET
) -> Rotation | None:
    """Return the last rotation, or None."""
    row = connection.execute(_LAST.encode()).fetchone()
    return None if row is None else _rotation(row, policy, quiet)


def advance(
    url: str,
    settings: Settings,
    policy: Policy,
    client: FlabsClient,
    *,
    by: Operator,
    patience: float,
    replace: tuple[str, ...] = (),
    settle: float = SETTLE_SECONDS,
    quiet: timedelta = QUIET,
) -> Rotation:
    """Begin a rotation, or take up the one that was interrupted, up to the wait for the retries.

    `replace` are ids of tokens to drop besides those that Ledger gave to Flabs itself. Raises
    `QuestionError` if no lab of the account is subscribed, `FlabsError`; `FlabsRefusedError` if
    Flabs keeps the old token, `DecisionError` while somebody else subscribes or rotates.
    """
    endpoint = public_endpoint(settings)
    with one_at_a_time(url):
        with closing(connect(url, "flabs")) as connection:
            catch_up(url, connection, patience=patience)
            wanted = subscribed(connection)
            if not wanted:
                raise QuestionError(
                    "Ledger has subscribed nothing at Flabs, so there is no token to rotate: "
                    "`ledger flabs subscribe` first"
                )
            for token_id in replace:
                webhook_tokens.find_token(connection, token_id)  # which raises
            last = read_rotation(connection, policy, quiet=quiet)
            if last is not None and last.state == "subscribed":
                return last
            account = {lab.lab_id for lab in look(connection, settings, client)}
        wanted = _still_in_account(wanted, account)
        token = make_token(url, "Flabs, by a rotation", by=by, settle=0)
        number = _begin(url, token, replace, by=by)
        time.sleep(settle)
        _subscribe(url, client, endpoint, wanted, token, by=by)
        return _note_subscribed(url, number, policy, by=by, quiet=quiet)


def finish(
    url: str,
    policy: Policy,
    *,
    by: Operator,
    now: datetime,
    drop: bool = False,
    quiet: timedelta = QUIET,
) -> Rotation | None:
    """Drop the replaced tokens of a rotation whose wait is over; return the rotation, if any.

    Raises `DecisionError` if Flabs presented one of them after its retries were over, unless they
    are to be dropped all the same.
    """
    with deciding_without_state(url) as connection, connection.transaction():
        row = connection.execute(_LOCK.encode()).fetchone()
        if row is None:
            return read_rotation(connection, policy, quiet=quiet)
        found = _rotation(row, policy, quiet)
        if found.subscribed_at is None or found.drop_at is None or now < found.drop_at:
            return found
        if not drop:
            _refuse_used(connection, found, found.subscribed_at + policy.budget + quiet / 2)
        for token_id in found.replaced:
            webhook_tokens.revoke_token(connection, token_id, by=Operator(by.name, by.key))
        at = datetime.now(UTC)
        connection.execute(_FINISHED, (at, found.rotation))
        _record(connection, found.rotation, "finished", found.token_id, found.replaced, by=by)
        return read_rotation(connection, policy, quiet=quiet)


def _still_in_account(wanted: list[Wanted], account: set[str]) -> list[Wanted]:
    """Leave out labs that the account has no more: Flabs refuses to subscribe them."""
    gone = {one.lab_id for one in wanted if one.lab_id is not None} - account
    left = [one for one in wanted if one.lab_id not in gone]
    if not left:
        raise QuestionError(
            "no lab that Ledger has subscribed is in the account at Flabs any more, so there is "
            "no token to rotate: `ledger flabs subscribe` first"
        )
    if gone:
        _log.warning(
            "labs that left the account at Flabs are not given the new webhook token",
            labs=sorted(gone),
        )
    return left


def _begin(url: str, token: Token, replace: tuple[str, ...], *, by: Operator) -> int:
    """Note the new token, and which tokens are to be dropped; return the rotation's number."""
    assert token.token_id is not None  # noqa: S101 -- it was made in the database
    with deciding_without_state(url) as connection, connection.transaction():
        row = connection.execute(_LOCK.encode()).fetchone()
        given = {token_id for (token_id,) in connection.execute(_GIVEN)}
        old = sorted({*given, *replace, *((*row[4], row[5]) if row else ())} - {token.token_id})
        if row is None:
            values = (datetime.now(UTC), by.name, by.key, old, token.token_id)
            made = connection.execute(_BEGIN, values).fetchone()
            assert made  # noqa: S101 -- as RETURNING promises
            number = int(made[0])
        else:
            if row[6] is not None:
                raise DecisionError("another rotation of the token has just been made; look again")
            number = row[0]
            connection.execute(_BEGIN_AGAIN, (old, token.token_id, number))
        _record(connection, number, "begun", token.token_id, old, by=by)
        return number


def _subscribe(
    url: str,
    client: FlabsClient,
    endpoint: str,
    wanted: list[Wanted],
    token: Token,
    *,
    by: Operator,
) -> None:
    """Make every subscription again. Raises `FlabsRefusedError` if Flabs keeps the old token."""
    kept: list[str] = []
    for one in wanted:
        for item in ask(url, client, endpoint, one, token, by=by):
            if item.outcome != "subscribed":
                of = f"lab {item.lab_id}" if item.lab_id else "all labs"
                who = f" for {item.party}" if item.party else ""
                kept.append(f"{', '.join(item.events)} of {of}{who}: {item.words}")
    if kept:
        raise FlabsRefusedError(
            f"Flabs did not take the new token for {len(kept)} of the subscriptions, and goes on "
            "with the old one, which stays valid. Ask Flabs' support to remove these webhooks, "
            f"then run this again: {'; '.join(kept[:5])}",
            status=409,
        )


def _note_subscribed(
    url: str, number: int, policy: Policy, *, by: Operator, quiet: timedelta
) -> Rotation:
    with deciding_without_state(url) as connection, connection.transaction():
        row = connection.execute(_LOCK.encode()).fetchone()
        if row is None or row[0] != number or row[6] is not None:
            raise DecisionError("another rotation of the token has just been made; look again")
        connection.execute(_SUBSCRIBED, (datetime.now(UTC), number))
        _record(connection, number, "subscribed", row[5], row[4], by=by)
        found = read_rotation(connection, policy, quiet=quiet)
    assert found  # noqa: S101 -- it was locked above
    return found


def _refuse_used(connection: Connection, found: Rotation, since: datetime) -> None:
    row = connection.execute(_LAST_USED, (found.replaced, since)).fetchone()
    if row is not None:
        token_id, used = row
        raise DecisionError(
            f"the old token {token_id} was still presented at {used.astimezone(UTC):%F %T} UTC, "
            "after the retries of all that was sent with it: a webhook at Flabs still has it. It "
            "stays valid. Have that webhook removed and run this again, or drop the token with "
            "--drop"
        )


def _record(
    connection: Connection,
    number: int,
    step: State,
    token_id: str,
    replaced: list[str],
    *,
    by: Operator,
) -> None:
    decision = FlabsTokenRotated(
        at=datetime.now(UTC),
        by=by.name,
        by_key=by.key,
        rotation=number,
        step=step,
        token_id=token_id,
        replaced=replaced,
    )
    record(connection, [decision])


def _rotation(row: tuple[Any, ...], policy: Policy, quiet: timedelta) -> Rotation:
    number, begun_at, begun_by, by_key, replaced, token_id, subscribed_at, finished_at = row
    at = subscribed_at and subscribed_at.astimezone(UTC)
    state: State = "finished" if finished_at else "subscribed" if at else "begun"
    return Rotation(
        rotation=number,
        state=state,
        begun_at=begun_at.astimezone(UTC),
        begun_by=begun_by,
        begun_by_key=by_key,
        token_id=token_id,
        replaced=replaced,
        subscribed_at=at,
        drop_at=at and at + policy.budget + quiet,
        finished_at=finished_at and finished_at.astimezone(UTC),
    )
