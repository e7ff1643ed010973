"""What the text of a setting means: each function returns the value, or raises `ValueError`."""

import re
from collections.abc import Callable
from ipaddress import ip_address, ip_network
from pathlib import Path
from urllib.parse import urlsplit

import psycopg
from msgspec import Struct
from psycopg.conninfo import conninfo_to_dict

from ledger.event_types import EVENT_TYPES


class Address(Struct, frozen=True):
    """Where a server listens. No port: it does not."""

    host: str
    port: int

    def __str__(self) -> str:
        """Return it as it is written in a setting."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


OFF = Address("", 0)
"""The address of what is not served."""

LAST_PORT = 65535
_DIGITS = 12
_LONGEST_LINE = 200
_SHORTEST_SECRET = 16
_FEWEST_CHARACTERS = 6
_OBVIOUS = re.compile(
    r"(admin|api|change|default|demo|example|flabs|key|ledger|me|my|pass(word)?|please"
    r"|qwerty|secret|test|token|webhook|your|\W|_|\d)+",
    re.IGNORECASE,
)


def weakness(secret: str) -> str | None:
    """Return why a secret can be guessed, as the rest of a sentence, or None."""
    if len(secret) < _SHORTEST_SECRET:
        return f"has fewer than {_SHORTEST_SECRET} characters and can be guessed"
    if len(set(secret)) < _FEWEST_CHARACTERS or _OBVIOUS.fullmatch(secret):
        return "is made of words or characters that can be guessed"
    return None


def whole_number(least: int, most: int) -> Callable[[str], int]:
    """Make a function that reads a number between two, both included."""

    def parse(text: str) -> int:
        word = text.strip()
        if not word.isdecimal() or len(word) > _DIGITS or not least <= int(word) <= most:
            raise ValueError(f"must be a whole number from {least} to {most}, not {text[:40]!r}")
        return int(word)

    return parse


def words(text: str) -> tuple[str, ...]:
    """Return what stands between commas, without empty words."""
    return tuple(word for part in text.split(",") if (word := part.strip()))


def tokens(text: str) -> tuple[str, ...]:
    """Return secrets separated by commas."""
    given = words(text)
    if any(not token.isascii() or not token.isprintable() or " " in token for token in given):
        # The value is a secret, so it is not shown.
        raise ValueError("must be tokens of printable ASCII without spaces, separated by commas")
    return given


def secret(text: str) -> str:
    """Return one secret, unchanged."""
    if not text.isascii() or not text.isprintable() or " " in text:
        raise ValueError("must be printable ASCII without spaces")
    return text


def event_types(text: str) -> tuple[str, ...]:
    """Return event types separated by commas."""
    types = words(text)
    wrong = [word for word in types if word not in EVENT_TYPES]
    if wrong or not types:
        raise ValueError(f"must be some of {', '.join(EVENT_TYPES)}, not {text!r}")
    return types


def urls(text: str) -> tuple[str, ...]:
    """Return Apprise's URLs, separated by spaces or commas."""
    # A comma may also be inside such a URL, between two of its targets.
    given = tuple(filter(None, re.split(r"[\s,]+(?=[A-Za-z][\w+.-]*://)", text.strip())))
    if any("://" not in url for url in given):
        raise ValueError("must be URLs of Apprise, such as mailto://... or slack://...")
    return given


def one_line(text: str) -> str:
    """Return words for people."""
    line = text.strip()
    if not line.isprintable() or len(line) > _LONGEST_LINE:
        raise ValueError(f"must be one line of at most {_LONGEST_LINE} printable characters")
    return line


def public_url(text: str) -> str:
    """Return the address under which others reach this server."""
    url = text.strip().rstrip("/")
    try:
        parts = urlsplit(url)
        usable = bool(parts.hostname) and parts.port != 0
    except ValueError:
        usable = False
    else:
        usable = usable and parts.scheme in {"http", "https"} and not parts.username
        usable = usable and url.isprintable() and not set(url) & set(" ?#")
        # The path below it may hold a token.
        usable = usable and "/webhooks/" not in f"{parts.path}/"
    if url and not usable:
        # Not shown: it may hold a token or a password.
        raise ValueError(
            "must be the address of the server alone, such as https://ledger.example, without "
            "/webhooks/flabs, a password or a query"
        )
    return url


def authority_url(text: str) -> str:
    """Return the address of an authority for time stamps."""
    url = text.strip()
    try:
        parts = urlsplit(url)
        usable = bool(parts.hostname) and parts.port != 0 and not parts.username
    except ValueError:
        usable = False
    else:
        usable = usable and parts.scheme in {"http", "https"}
        usable = usable and url.isascii() and url.isprintable() and " " not in url
    if url and not usable:
        raise ValueError("must be an address such as https://tsa.example, without a password")
    return url


def flabs_url(text: str) -> str:
    """Return the base address of Flabs' API."""
    url = text.strip().rstrip("/")
    try:
        parts = urlsplit(url)
        host = parts.hostname or ""
        usable = bool(host) and parts.port != 0 and not parts.username
    except ValueError:
        usable = False
    else:
        # The client's secret travels there, so it is encrypted unless it stays on this machine.
        usable = usable and (
            parts.scheme == "https" or (parts.scheme == "http" and is_loopback(host))
        )
        usable = usable and url.isascii() and url.isprintable() and not set(url) & set(" ?#")
    if not usable:
        raise ValueError(
            "must be the base address of Flabs' API, such as https://v2.flabs.in, without a query "
            "or a password; http is for a sandbox on this machine alone"
        )
    return url


def is_loopback(host: str) -> bool:
    """Return whether a host name or address is certainly this machine."""
    try:
        return host == "localhost" or ip_address(host).is_loopback
    except ValueError:
        return False


def switch(text: str) -> bool:
    """Return whether it is on."""
    word = text.strip().lower()
    if word not in {"on", "off"}:
        raise ValueError(f"must be on or off, not {text[:40]!r}")
    return word == "on"


def one_of(*known: str) -> Callable[[str], str]:
    """Make a function that takes one of some words."""

    def parse(text: str) -> str:
        word = text.strip().lower()
        if word not in known:
            raise ValueError(f"must be {', '.join(known[:-1])} or {known[-1]}, not {text[:40]!r}")
        return word

    return parse


def address(text: str) -> Address:
    """Return where to listen; `OFF` for nowhere."""
    word = text.strip()
    if word.lower() == "off":
        return OFF
    match = re.fullmatch(r"(?:\[([0-9A-Fa-f:.%\w]+)\]|([^:\s]+)):(\d{1,5})", word)
    if not match or not 1 <= int(match[3]) <= LAST_PORT:
        raise ValueError(
            f"must be an address such as 127.0.0.1:8000 or [::1]:8000, or off, not {text[:40]!r}"
        )
    return Address(match[1] or match[2], int(match[3]))


def networks(text: str) -> tuple[str, ...]:
    """Return addresses and networks separated by commas."""
    try:
        return tuple(str(ip_network(word)) for word in words(text))
    except ValueError:
        raise ValueError(
            "must be addresses or networks such as 10.0.0.0/8 or ::1, separated by commas, "
            f"not {text[:40]!r}"
        ) from None


def path(text: str) -> Path | None:
    """Return a file or a folder."""
    return Path(text) if text.strip() else None


def path_prefix(text: str) -> str:
    """Return what a proxy puts before each path; empty for nothing."""
    prefix = text.strip().rstrip("/")
    if prefix and not re.fullmatch(r"(/[A-Za-z0-9._~-]+)+", prefix):
        raise ValueError(
            f"must be a path such as /ledger, of letters, digits and ._~-, not {text[:40]!r}"
        )
    return prefix


def header(text: str) -> str:
    """Return the name of a header in lower case."""
    name = text.strip().lower()
    if not name or not name.replace("-", "").isalnum() or not name.isascii():
        raise ValueError(f"must be the name of an HTTP header, not {text!r}")
    return name


def database_url(text: str) -> str:
    """Return a connection string of PostgreSQL."""
    try:
        conninfo_to_dict(text)
    except psycopg.ProgrammingError:
        # Neither the value nor libpq's message is shown: both may hold a password.
        raise ValueError(
            "must be postgresql://user:password@host/database, with special characters written "
            "as %XX, or key=value words"
        ) from None
    return text.strip()


def replica_url(text: str) -> str:
    """Return a connection string that names one server."""
    url = database_url(text)
    host = str(conninfo_to_dict(url).get("host", ""))
    if "," in host:
        # Two connections could reach two servers, of which one has not yet what the other showed.
        raise ValueError(
            "must name one server: let several replicas serve by one `ledger serve` for each"
        )
    return url
