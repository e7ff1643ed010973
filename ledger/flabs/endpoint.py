"""Where Flabs is to send webhooks, and with which token.

A token of the database is known in full only at the moment it is made; so each run that needs one
and finds none in the settings makes one.
"""

import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from urllib.parse import quote, urlsplit

from msgspec import Struct

from ledger.errors import DecisionError, SettingsError
from ledger.model.operators import Operator
from ledger.operations import webhook_tokens
from ledger.postgres.connect import connect
from ledger.postgres.locks import Lock, try_lock_session
from ledger.settings import Settings

SETTLE_SECONDS = 5.0
"""After which a new token is valid in every server: those who missed the notification look again
within four."""

PATH = "/webhooks/flabs"


_ROTATES = "SELECT r.rotation FROM ledger.flabs_rotation r WHERE r.finished_at IS NULL"


class Token(Struct, frozen=True):
    """A webhook token with its secret; `token_id` is None for one that has no row."""

    secret: str
    token_id: str | None

    def __repr__(self) -> str:
        """Hide the secret."""
        return f"Token({self.token_id!r})"


def public_endpoint(settings: Settings) -> str:
    """Return the endpoint's public address, without a token.

    Raises `SettingsError` if there is none, or if it is not https although Flabs is.
    """
    if not settings.public_url:
        raise SettingsError(
            "LEDGER_PUBLIC_URL is not set: set it to the address at which Flabs reaches this "
            "server, such as https://ledger.example"
        )
    # Flabs takes https alone. A sandbox on this machine may not.
    if urlsplit(settings.public_url).scheme != "https" and settings.flabs_url.startswith("https:"):
        raise SettingsError("LEDGER_PUBLIC_URL must begin with https: Flabs sends to nothing else")
    return settings.public_url + PATH


def presented(endpoint: str, token: Token, *, in_path: bool) -> tuple[str, str | None]:
    """Return the endpoint and the token that Flabs is given: the second, or in the first."""
    if in_path:
        return f"{endpoint}/{quote(token.secret, safe='')}", None
    return endpoint, token.secret


@contextmanager
def one_at_a_time(url: str) -> Iterator[None]:
    """Let nobody else subscribe or rotate meanwhile.

    So a token that a rotation is about to drop is not given to Flabs again. Raises `DecisionError`.
    """
    with closing(connect(url, "flabs")) as connection:
        if not try_lock_session(connection, Lock.FLABS):
            raise DecisionError(
                "somebody else subscribes at Flabs or rotates its token; try again when that is "
                "done"
            )
        yield


def make_token(url: str, name: str, *, by: Operator, settle: float = SETTLE_SECONDS) -> Token:
    """Make a token in the database and wait until it is valid everywhere."""
    with closing(connect(url, "flabs")) as connection:
        made = webhook_tokens.create_token(connection, labs=None, name=name, by=by)
    time.sleep(settle)
    return Token(made.token, made.token_id)


def token_for(
    url: str, settings: Settings, name: str, *, by: Operator, settle: float = SETTLE_SECONDS
) -> Token:
    """Return the first token of the settings, unless it is being replaced, or one that is made.

    That of the settings gets a row in the database: a rotation can then drop it, too.
    """
    if settings.webhook_tokens:
        secret = settings.webhook_tokens[0]
        with closing(connect(url, "flabs")) as connection:
            adopted = webhook_tokens.adopt_token(connection, secret, name=name, by=by)
            rotates = connection.execute(_ROTATES).fetchone() is not None
        if adopted.revoked_at is None and not rotates:
            return Token(secret, adopted.token_id)
    return make_token(url, name, by=by, settle=settle)


def revoke_made(url: str, settings: Settings, token: Token, *, by: Operator) -> None:
    """Revoke a token that `token_for` made; leave one of the settings, which others may have."""
    if token.secret not in settings.webhook_tokens:
        _revoke(url, token, by=by)


def _revoke(url: str, token: Token, *, by: Operator) -> None:
    with closing(connect(url, "flabs")) as connection:
        # It is for all labs, which the key of who asked may not be.
        webhook_tokens.revoke_token(connection, token.token_id or "", by=Operator(by.name, by.key))


@contextmanager
def token_for_probe(url: str, settings: Settings, *, by: Operator) -> Iterator[Token]:
    """Give a valid token; one that has to be made is revoked at the end."""
    with closing(connect(url, "flabs")) as connection:
        secrets = [
            secret
            for secret in settings.webhook_tokens
            if not webhook_tokens.is_revoked(connection, secret)
        ]
    if secrets:
        yield Token(secrets[0], None)
        return
    made = make_token(url, "a probe of `ledger flabs check`", by=by)
    try:
        yield made
    finally:
        _revoke(url, made, by=by)
