"""The settings: the only place that reads the environment.

Names, meanings and defaults are those of `Settings`; the README's table is tested against it.
"""

import difflib
import os
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import psycopg
from msgspec import Struct
from psycopg.conninfo import conninfo_to_dict

from ledger.errors import SettingsError
from ledger.event_types import EVENT_TYPES

PREFIX = "LEDGER_"
TEST_PREFIX = "LEDGER_TEST_"


class Settings(Struct, frozen=True, kw_only=True):
    """What an operator can set. A field `retry_count` is set by `LEDGER_RETRY_COUNT`."""

    database_url: str = ""
    """PostgreSQL 15 to 18, as a URL or as `key=value` words. No default."""

    webhook_tokens: tuple[str, ...] = ()
    """Tokens that Flabs may send, separated by commas; all are valid, so that one can be replaced
    without a moment in which none is."""

    webhook_header: str = "authorization"
    """The header in which the token travels, as `Bearer TOKEN` or `TOKEN`."""

    admin_key: str = ""
    """An API key with every scope, to begin with."""

    spool_dir: Path | None = None
    """Where deliveries would wait while the database is away. Nothing is spooled yet: without the
    database a delivery gets a 503, and the sender tries again."""

    host: str = "127.0.0.1"
    """The address to listen on."""

    port: int = 8000
    """The TCP port to listen on, 1 to 65535."""

    workers: int = 1
    """Processes that serve, 1 to 64. They share the log through its lane."""

    events: tuple[str, ...] = EVENT_TYPES
    """The event types that are subscribed at Flabs: only these can be missing."""

    retry_interval: int = 120
    """Seconds between two attempts of the sender."""

    retry_count: int = 3
    """Attempts after the first."""

    retry_timeout: int = 10
    """Seconds that one attempt may take."""

    ask_again_after: int = 7 * 86_400
    """Seconds after which a support request that was not answered may be followed by another."""

    alert_urls: tuple[str, ...] = ()
    """Where alerts go, as Apprise writes it (`mailto://...`, `slack://...`, `json://...`), several
    separated by spaces. They hold secrets. Without them nobody is alerted."""

    max_body: int = 1024 * 1024
    """Bytes; a longer body is answered with 413."""

    def __repr__(self) -> str:
        """Show nothing: four of the fields are secrets, and a repr ends in a log."""
        return "Settings(...)"

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] | None = None) -> "Settings":
        """Read the settings. Raises `SettingsError` naming the first one that is unknown or bad."""
        given = os.environ if environment is None else environment
        values: dict[str, Any] = {}
        for name, text in given.items():
            if not name.startswith(PREFIX) or name.startswith(TEST_PREFIX):
                continue
            field = name.removeprefix(PREFIX).lower()
            if field not in _PARSERS or name != name.upper():
                raise SettingsError(_unknown(name))
            try:
                values[field] = _PARSERS[field](text)
            except ValueError as error:
                raise SettingsError(f"{name} {error}") from None
        return cls(**values)

    def require_database(self) -> str:
        """Return the database's URL, or raise `SettingsError` if it isn't set."""
        if not self.database_url:
            raise SettingsError(
                "LEDGER_DATABASE_URL is not set: give the PostgreSQL database to use, "
                "for example postgresql://ledger@localhost/ledger; "
                "or run `ledger up`, which brings its own"
            )
        return self.database_url

    def require_tokens(self) -> tuple[str, ...]:
        """Return the webhook tokens, or raise `SettingsError` if there are none."""
        if not self.webhook_tokens:
            raise SettingsError(
                "LEDGER_WEBHOOK_TOKENS is not set: without a token anybody could write to the log. "
                "Set the token that was given to Flabs, or several separated by commas"
            )
        return self.webhook_tokens


def _unknown(name: str) -> str:
    known = [PREFIX + field.upper() for field in _PARSERS]
    near = difflib.get_close_matches(name.upper(), known, n=1)
    hint = f"did you mean {near[0]}?" if near else f"known are {', '.join(sorted(known))}"
    return f"{name} is not a setting: {hint}"


_DIGITS = 12


def _whole_number(least: int, most: int) -> Callable[[str], int]:
    def parse(text: str) -> int:
        word = text.strip()
        if not word.isdecimal() or len(word) > _DIGITS or not least <= int(word) <= most:
            raise ValueError(f"must be a whole number from {least} to {most}, not {text[:40]!r}")
        return int(word)

    return parse


def _words(text: str) -> tuple[str, ...]:
    return tuple(word for part in text.split(",") if (word := part.strip()))


def _tokens(text: str) -> tuple[str, ...]:
    tokens = _words(text)
    if any(not token.isascii() or not token.isprintable() or " " in token for token in tokens):
        # The value is a secret, so it is not shown.
        raise ValueError("must be tokens of printable ASCII without spaces, separated by commas")
    return tokens


def _secret(text: str) -> str:
    if not text.isascii() or not text.isprintable() or " " in text:
        raise ValueError("must be printable ASCII without spaces")
    return text


def _event_types(text: str) -> tuple[str, ...]:
    types = _words(text)
    wrong = [word for word in types if word not in EVENT_TYPES]
    if wrong or not types:
        raise ValueError(f"must be some of {', '.join(EVENT_TYPES)}, not {text!r}")
    return types


def _urls(text: str) -> tuple[str, ...]:
    # A comma may also stand inside such a URL, between two of its targets.
    urls = tuple(filter(None, re.split(r"[\s,]+(?=[A-Za-z][\w+.-]*://)", text.strip())))
    if any("://" not in url for url in urls):
        raise ValueError("must be URLs of Apprise, such as mailto://... or slack://...")
    return urls


def _header(text: str) -> str:
    name = text.strip().lower()
    if not name or not name.replace("-", "").isalnum() or not name.isascii():
        raise ValueError(f"must be the name of an HTTP header, not {text!r}")
    return name


def _database_url(text: str) -> str:
    try:
        conninfo_to_dict(text)
    except psycopg.ProgrammingError:
        # Neither the value nor libpq's words about it are shown: both may hold a password.
        raise ValueError(
            "must be postgresql://user:password@host/database, with what is special in it written "
            "as %XX, or key=value words"
        ) from None
    return text.strip()


_PARSERS: dict[str, Callable[[str], Any]] = {
    "database_url": _database_url,
    "webhook_tokens": _tokens,
    "webhook_header": _header,
    "admin_key": _secret,
    "spool_dir": Path,
    "host": str.strip,
    "port": _whole_number(1, 65535),
    "workers": _whole_number(1, 64),
    "events": _event_types,
    "retry_interval": _whole_number(1, 86_400),
    "retry_count": _whole_number(0, 100),
    "retry_timeout": _whole_number(0, 3_600),
    "ask_again_after": _whole_number(0, 365 * 86_400),
    "alert_urls": _urls,
    "max_body": _whole_number(1, 64 * 1024 * 1024),
}


_METRICS_FOLDER = "PROMETHEUS_MULTIPROC_DIR"  # the name that prometheus_client looks for


def share_metrics_folder(folder: str) -> None:
    """Have this process and its children count into files of one folder."""
    os.environ[_METRICS_FOLDER] = folder


def metrics_are_shared() -> bool:
    """Tell whether several processes count into one folder."""
    return _METRICS_FOLDER in os.environ


def child_environment(more: Mapping[str, str]) -> dict[str, str]:
    """Return this process's environment with more settings, for a child."""
    return {**os.environ, **more}
