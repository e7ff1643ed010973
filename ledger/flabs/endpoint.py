"""Where Flabs is to send webhooks, and with which token.

A token of the database is known in full only at the moment it is made; so each run that needs one
and finds none in the settings makes one.
"""

import time
from contextlib import closing
from urllib.parse import quote, urlsplit

from msgspec import Struct

from ledger.errors import SettingsError
from ledger.model.operators import Operator
from ledger.operations import webhook_tokens
from ledger.postgres.connect import connect
from ledger.settings import Settings

SETTLE_SECONDS = 5.0
"""After which a new token is valid in every server: those who missed the notification look again
within four."""

PATH = "/webhooks/flabs"


class Token(Struct, frozen=True):
    """A webhook token with its secret; `token_id` is None for one of the settings."""

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


def make_token(url: str, name: str, *, by: Operator, settle: float = SETTLE_SECONDS) -> Token:
    """Make a token in the database and wait until it is valid everywhere."""
    with closing(connect(url, "flabs")) as connection:
        made = webhook_tokens.create_token(connection, labs=None, name=name, by=by)
    time.sleep(settle)
    return Token(made.token, made.token_id)


def token_for(
    url: str, settings: Settings, name: str, *, by: Operator, settle: float = SETTLE_SECONDS
) -> Token:
    """Return the first token of the settings, or one that is made."""
    if settings.webhook_tokens:
        return Token(settings.webhook_tokens[0], None)
    return make_token(url, name, by=by, settle=settle)
