"""The settings: the only place that reads the environment.

Names, meanings and defaults are those of `Settings`; the documentation is tested against it.
"""

import difflib
import os
import re
from collections.abc import Callable, Mapping
from ipaddress import ip_address, ip_network
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import psycopg
from msgspec import Struct
from psycopg.conninfo import conninfo_to_dict

from ledger.errors import SettingsError
from ledger.event_types import EVENT_TYPES

PREFIX = "LEDGER_"
TEST_PREFIX = "LEDGER_TEST_"


class Address(Struct, frozen=True):
    """Where a server listens. No port: it does not."""

    host: str
    port: int

    def __str__(self) -> str:
        """Return it as it is written in a setting."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


OFF = Address("", 0)
"""The address of what is not served."""


class Settings(Struct, frozen=True, kw_only=True):
    """All settings. The variable LEDGER_RETRY_COUNT sets the field `retry_count`."""

    database_url: str = ""
    """The PostgreSQL database (15 to 18), as a URL or as `key=value` words. Required."""

    read_database_url: str = ""
    """A streaming replica of that database, of one server, from which the API's reads are answered.
    Without it they are answered from the database itself."""

    webhook_tokens: tuple[str, ...] = ()
    """Tokens that Flabs may send, separated by commas. All are valid, each for every lab, so that a
    token can be replaced without an interruption. `ledger tokens` keeps more in the database."""

    webhook_header: str = "authorization"
    """The header that carries the token, as `Bearer TOKEN` or `TOKEN`."""

    admin_key: str = ""
    """The first API key, which may do everything. `ledger keys` makes others."""

    read_rate: int = 1000
    """How often a second one API key may read from one process, and how often at once; more gets a
    429. 0: no limit."""

    spool_dir: Path | None = None
    """The folder for deliveries that the database cannot take: they are kept there and moved to
    the log later. Without it, such a delivery is answered with 503, and the sender retries."""

    spool_max_bytes: int = 128 * 1024 * 1024
    """How much space is reserved in that folder, for all workers of one server."""

    spool_after: int = 2
    """Seconds after which a delivery that is not committed goes to the spool."""

    seal_key: Path | None = None
    """A file with the private key that signs checkpoints of the log, as `ledger seal --new-key`
    makes it. Without it the log is hashed and nothing is signed."""

    seal_publish: Path | None = None
    """A file, to which each signed checkpoint is appended, or a folder, which gets a file for each.
    Where who can change the database cannot write."""

    seal_interval: int = 60
    """Seconds between two times that `ledger project` seals what is new."""

    seal_timestamp_url: str = ""
    """The address of a time stamping authority (RFC 3161), which confirms when a published
    checkpoint existed. Needs `ledger[timestamps]` and LEDGER_SEAL_PUBLISH."""

    seal_timestamp_interval: int = 86_400
    """Seconds between two time stamps at the least."""

    seal_timestamp_roots: Path | None = None
    """A file with the certificates (PEM) that the authority's time stamps must lead to. Without it
    a time stamp is kept if it is of the right checkpoint, whoever signed it."""

    host: str = "127.0.0.1"
    """The address to listen on."""

    port: int = 8000
    """The TCP port to listen on, 1 to 65535."""

    listen_intake: Address | None = None
    """Where the webhook's endpoint listens, as `host:port`, or `off`. Without it, at `host` and
    `port`. If the API listens elsewhere, this address has no other route than the endpoint and
    `/health/live`, and its processes act as `ledger_intake`."""

    listen_api: Address | None = None
    """Where the API listens, as `host:port`, or `off`. Without it, at `host` and `port`."""

    listen_status: Address | None = None
    """Where an intake with an address of its own also answers `/health/ready`, `/health/live` and
    `/metrics`, as `host:port`. Private; it takes no deliveries. Without it, or `off`, nowhere."""

    listen_projector: Address | None = None
    """Where `ledger project` answers `/metrics`, as `host:port`. Private. Without it, nowhere."""

    tls_certificate: Path | None = None
    """A file with the certificate and its chain (PEM). With it, every address of `ledger serve`
    speaks TLS 1.2 or 1.3. Read again when it changes."""

    tls_key: Path | None = None
    """A file with the certificate's private key (PEM), without a password."""

    trusted_proxies: tuple[str, ...] = ()
    """Addresses or networks of reverse proxies, separated by commas. Only they are believed in
    `X-Forwarded-For`, and only they may hold as many connections as they like."""

    path_prefix: str = ""
    """A path, such as `/ledger`, that a reverse proxy leaves before Ledger's own paths. Requests
    without it are answered as well."""

    workers: int = 1
    """Processes that serve, 1 to 64."""

    fast_intake: bool = True
    """`off` serves with the documented parts of Uvicorn alone, for the case that an update of it
    breaks Ledger's own HTTP protocol. Slower, and without Ledger's limits on connections and their
    time: put a reverse proxy with such limits in front."""

    log_format: str = "auto"
    """How lines of the log look: `json`, `text` for people, or `auto`: text on a terminal, JSON
    elsewhere. They go to standard error."""

    log_level: str = "info"
    """Which lines are logged: `debug`, `info`, `warning` or `error`, and what is graver. Those of
    libraries from warnings on."""

    events: tuple[str, ...] = EVENT_TYPES
    """The event types subscribed at Flabs. Only these can be missing."""

    retry_interval: int = 120
    """Seconds between two attempts of the sender to deliver an event."""

    retry_count: int = 3
    """Attempts of the sender after the first."""

    retry_timeout: int = 10
    """Seconds after which the sender gives up an attempt."""

    ask_again_after: int = 7 * 86_400
    """Seconds after which a new support request asks again for events that did not come."""

    alert_urls: tuple[str, ...] = ()
    """Where alerts are sent: URLs of Apprise (`mailto://...`, `slack://...`, `json://...`),
    separated by spaces. They are secrets. Without them no alert is sent."""

    sender_name: str = ""
    """The person who signs support requests; without it, the operator who made the request."""

    sender_organisation: str = ""
    """The organisation that holds the account at Flabs, as support requests name it."""

    sender_contact: str = ""
    """How Flabs' support reaches the sender, such as an address or a telephone number."""

    public_url: str = ""
    """The address at which Flabs reaches this server, such as `https://ledger.example`. Support
    requests name the webhook's endpoint there, never its token. Subscriptions need https."""

    flabs_url: str = "https://v2.flabs.in"
    """The base address of Flabs' account API: https, or http for a sandbox on this machine."""

    flabs_client_id: str = ""
    """The client id of the account at Flabs. With the secret, `ledger project` looks regularly
    whether the account's labs are subscribed, and `ledger flabs` can subscribe them."""

    flabs_client_secret: str = ""
    """The secret of the client id."""

    flabs_interval: int = 900
    """Seconds between two times that `ledger project` logs in at Flabs and lists the labs."""

    max_body: int = 1024 * 1024
    """The longest body in bytes; a longer one is answered with 413."""

    refused_rows: int = 10_000
    """Deliveries with a wrong token that are kept; one address gets at most half. 0 keeps none."""

    refused_bytes: int = 64 * 1024 * 1024
    """Bytes of such deliveries that are kept; one address gets at most half."""

    refused_days: int = 30
    """Days for which such deliveries are kept."""

    def __repr__(self) -> str:
        """Hide the values: five fields hold secrets, and a repr may end in a log."""
        return "Settings(...)"

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] | None = None) -> "Settings":
        """Read the settings. Raises `SettingsError` naming the first one that is unknown or bad."""
        values: dict[str, Any] = {}
        for name, text in given_settings(environment).items():
            field = name.removeprefix(PREFIX).lower()
            if field not in _PARSERS or name != name.upper():
                raise SettingsError(_unknown(name))
            try:
                values[field] = _PARSERS[field](text)
            except ValueError as error:
                raise SettingsError(f"{name} {error}") from None
        return cls(**values)

    def require_database(self) -> str:
        """Return the database's URL. Raises `SettingsError` if it is not set."""
        if not self.database_url:
            raise SettingsError(
                "LEDGER_DATABASE_URL is not set: set it to the PostgreSQL database to use, "
                "for example postgresql://ledger@localhost/ledger, "
                "or run `ledger up`, which brings its own"
            )
        return self.database_url

    def check_spool(self) -> None:
        """Raise `SettingsError` if a delivery of the greatest length may not fit into the spool."""
        needed = 5 * self.max_body * self.workers  # four files a worker, and some room
        if self.spool_dir and self.spool_max_bytes < needed:
            raise SettingsError(
                f"LEDGER_SPOOL_MAX_BYTES is {self.spool_max_bytes}, too little for bodies of "
                f"LEDGER_MAX_BODY {self.max_body} with {self.workers} workers: "
                f"set it to at least {needed}"
            )

    def addresses(self) -> tuple[Address, Address]:
        """Return where the intake and the API listen; `OFF` for what is not served.

        Raises `SettingsError` if neither is.
        """
        common = Address(self.host, self.port)
        intake = common if self.listen_intake is None else self.listen_intake
        api = common if self.listen_api is None else self.listen_api
        if intake == api == OFF:
            raise SettingsError(
                "LEDGER_LISTEN_INTAKE and LEDGER_LISTEN_API are both off: nothing would be served"
            )
        return intake, api

    def status_address(self) -> Address | None:
        """Return where the intake alone says how it is, None if nowhere. Raises `SettingsError`."""
        status = self.listen_status
        if status is None or status == OFF:
            return None
        intake, api = self.addresses()
        if intake in {OFF, api}:
            raise SettingsError(
                f"LEDGER_LISTEN_STATUS {status} is for an intake with an address of its own "
                "(LEDGER_LISTEN_INTAKE): the API's address has /health/ready and /metrics itself"
            )
        if status.port in {intake.port, api.port}:
            # Workers tell their addresses apart by the port.
            raise SettingsError(
                f"LEDGER_LISTEN_STATUS {status} needs a port that neither the intake ({intake}) "
                f"nor the API ({api if api != OFF else 'off'}) has"
            )
        return status

    def tls_files(self) -> tuple[Path, Path] | None:
        """Return the files of certificate and key, None without TLS. Raises `SettingsError`."""
        if self.tls_certificate and self.tls_key:
            return self.tls_certificate, self.tls_key
        if self.tls_certificate or self.tls_key:
            raise SettingsError(
                "LEDGER_TLS_CERTIFICATE and LEDGER_TLS_KEY belong together: set both"
            )
        return None

    def weak_secrets(self) -> list[str]:
        """Return a sentence for each secret that could be guessed, without its value."""
        advice = "replace it, for example by the output of `openssl rand -base64 24`"
        found = [
            f"a token in LEDGER_WEBHOOK_TOKENS {fault}: {advice}"
            for token in self.webhook_tokens
            if (fault := _weakness(token))
        ]
        if self.admin_key and (fault := _weakness(self.admin_key)):
            found.append(f"LEDGER_ADMIN_KEY {fault}: {advice}")
        if self.admin_key in self.webhook_tokens:
            found.append(
                "LEDGER_ADMIN_KEY is also a webhook token, so the sender of webhooks can read and "
                f"change everything: {advice}"
            )
        return found


def given_settings(environment: Mapping[str, str] | None = None) -> dict[str, str]:
    """Return the variables that are meant as settings, right or wrong: those named LEDGER_*.

    Variables for tests are not, and neither are those that Kubernetes and Docker set in each
    container next to a service called `ledger` or `ledger-...`.
    """
    given = os.environ if environment is None else environment
    return {
        name: text
        for name, text in given.items()
        if name.startswith(PREFIX)
        and not name.startswith(TEST_PREFIX)
        and not _SERVICE_LINK.fullmatch(name)
        and not (name.endswith("_PORT") and _SERVICE_ADDRESS.match(text))
    }


POLICY = ("events", "retry_interval", "retry_count", "retry_timeout", "ask_again_after")
"""The settings on which all processes must agree; the database keeps them."""


def given_policy(settings: "Settings") -> dict[str, Any]:
    """Return those of `POLICY` that were set, with their values."""
    given = {name.removeprefix(PREFIX).lower() for name in given_settings()}
    default = Settings()
    values = {name: getattr(settings, name) for name in POLICY}
    return {
        name: value
        for name, value in values.items()
        if name in given or value != getattr(default, name)
    }


_SERVICE_LINK = re.compile(
    r"LEDGER_(\w+_)?(SERVICE_HOST|SERVICE_PORT(_\w+)?|PORT_\d+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?)"
)
_SERVICE_ADDRESS = re.compile(r"(tcp|udp|sctp)://")
"""The value of LEDGER_PORT in such a container."""

_SHORTEST_SECRET = 16
_FEWEST_CHARACTERS = 6
_OBVIOUS = re.compile(
    r"(admin|api|change|default|demo|example|flabs|key|ledger|me|my|pass(word)?|please"
    r"|qwerty|secret|test|token|webhook|your|\W|_|\d)+",
    re.IGNORECASE,
)


def _weakness(secret: str) -> str | None:
    if len(secret) < _SHORTEST_SECRET:
        return f"has fewer than {_SHORTEST_SECRET} characters and can be guessed"
    if len(set(secret)) < _FEWEST_CHARACTERS or _OBVIOUS.fullmatch(secret):
        return "is made of words or characters that can be guessed"
    return None


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
    # A comma may also be inside such a URL, between two of its targets.
    urls = tuple(filter(None, re.split(r"[\s,]+(?=[A-Za-z][\w+.-]*://)", text.strip())))
    if any("://" not in url for url in urls):
        raise ValueError("must be URLs of Apprise, such as mailto://... or slack://...")
    return urls


def _one_line(text: str) -> str:
    line = text.strip()
    if not line.isprintable() or len(line) > _LONGEST_LINE:
        raise ValueError(f"must be one line of at most {_LONGEST_LINE} printable characters")
    return line


_LONGEST_LINE = 200


def _public_url(text: str) -> str:
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


def _authority_url(text: str) -> str:
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


def _flabs_url(text: str) -> str:
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


def _switch(text: str) -> bool:
    word = text.strip().lower()
    if word not in {"on", "off"}:
        raise ValueError(f"must be on or off, not {text[:40]!r}")
    return word == "on"


def _one_of(*words: str) -> Callable[[str], str]:
    def parse(text: str) -> str:
        word = text.strip().lower()
        if word not in words:
            raise ValueError(f"must be {', '.join(words[:-1])} or {words[-1]}, not {text[:40]!r}")
        return word

    return parse


def _address(text: str) -> Address:
    word = text.strip()
    if word.lower() == "off":
        return OFF
    match = re.fullmatch(r"(?:\[([0-9A-Fa-f:.%\w]+)\]|([^:\s]+)):(\d{1,5})", word)
    if not match or not 1 <= int(match[3]) <= _LAST_PORT:
        raise ValueError(
            f"must be an address such as 127.0.0.1:8000 or [::1]:8000, or off, not {text[:40]!r}"
        )
    return Address(match[1] or match[2], int(match[3]))


_LAST_PORT = 65535


def _networks(text: str) -> tuple[str, ...]:
    try:
        return tuple(str(ip_network(word)) for word in _words(text))
    except ValueError:
        raise ValueError(
            "must be addresses or networks such as 10.0.0.0/8 or ::1, separated by commas, "
            f"not {text[:40]!r}"
        ) from None


def _path(text: str) -> Path | None:
    return Path(text) if text.strip() else None


def _path_prefix(text: str) -> str:
    path = text.strip().rstrip("/")
    if path and not re.fullmatch(r"(/[A-Za-z0-9._~-]+)+", path):
        raise ValueError(
            f"must be a path such as /ledger, of letters, digits and ._~-, not {text[:40]!r}"
        )
    return path


def _header(text: str) -> str:
    name = text.strip().lower()
    if not name or not name.replace("-", "").isalnum() or not name.isascii():
        raise ValueError(f"must be the name of an HTTP header, not {text!r}")
    return name


def _database_url(text: str) -> str:
    try:
        conninfo_to_dict(text)
    except psycopg.ProgrammingError:
        # Neither the value nor libpq's message is shown: both may hold a password.
        raise ValueError(
            "must be postgresql://user:password@host/database, with special characters written "
            "as %XX, or key=value words"
        ) from None
    return text.strip()


def _replica_url(text: str) -> str:
    url = _database_url(text)
    host = str(conninfo_to_dict(url).get("host", ""))
    if "," in host:
        # Two connections could reach two servers, of which one has not yet what the other showed.
        raise ValueError(
            "must name one server: let several replicas serve by one `ledger serve` for each"
        )
    return url


_PARSERS: dict[str, Callable[[str], Any]] = {
    "database_url": _database_url,
    "read_database_url": _replica_url,
    "webhook_tokens": _tokens,
    "webhook_header": _header,
    "admin_key": _secret,
    "read_rate": _whole_number(0, 1_000_000),
    "spool_dir": _path,
    "spool_max_bytes": _whole_number(1, 1024**4),
    "spool_after": _whole_number(1, 5),
    "seal_key": _path,
    "seal_publish": _path,
    "seal_interval": _whole_number(1, 86_400),
    "seal_timestamp_url": _authority_url,
    "seal_timestamp_interval": _whole_number(1, 365 * 86_400),
    "seal_timestamp_roots": _path,
    "host": str.strip,
    "port": _whole_number(1, _LAST_PORT),
    "listen_intake": _address,
    "listen_api": _address,
    "listen_status": _address,
    "listen_projector": _address,
    "tls_certificate": _path,
    "tls_key": _path,
    "trusted_proxies": _networks,
    "path_prefix": _path_prefix,
    "workers": _whole_number(1, 64),
    "fast_intake": _switch,
    "log_format": _one_of("auto", "json", "text"),
    "log_level": _one_of("debug", "info", "warning", "error"),
    "events": _event_types,
    "retry_interval": _whole_number(1, 86_400),
    "retry_count": _whole_number(0, 100),
    "retry_timeout": _whole_number(0, 3_600),
    "ask_again_after": _whole_number(0, 365 * 86_400),
    "alert_urls": _urls,
    "sender_name": _one_line,
    "sender_organisation": _one_line,
    "sender_contact": _one_line,
    "public_url": _public_url,
    "flabs_url": _flabs_url,
    "flabs_client_id": _secret,
    "flabs_client_secret": _secret,
    "flabs_interval": _whole_number(1, 86_400),
    "max_body": _whole_number(1, 64 * 1024 * 1024),
    "refused_rows": _whole_number(0, 100_000),
    "refused_bytes": _whole_number(0, 1024**3),
    "refused_days": _whole_number(1, 3_650),
}


_METRICS_FOLDER = "PROMETHEUS_MULTIPROC_DIR"  # the name that prometheus_client looks for


def share_metrics_folder(folder: str) -> None:
    """Make this process and its children write their metrics to one folder."""
    os.environ[_METRICS_FOLDER] = folder


def metrics_are_shared() -> bool:
    """Return whether several processes write their metrics to one folder."""
    return _METRICS_FOLDER in os.environ


def metrics_folder() -> Path:
    """Return the folder that several processes write their metrics to."""
    return Path(os.environ[_METRICS_FOLDER])


def child_environment(more: Mapping[str, str]) -> dict[str, str]:
    """Return this process's environment with more variables, for a child."""
    return {**os.environ, **more}


def wants_traces() -> bool:
    """Return whether OpenTelemetry's own variables ask for traces; name the service if they do.

    Raises `SettingsError` for an exporter that is not there.
    """
    given = os.environ
    exporter = given.get("OTEL_TRACES_EXPORTER", "").strip().lower()
    if given.get("OTEL_SDK_DISABLED", "").strip().lower() == "true" or exporter == "none":
        return False
    if exporter not in {"", "otlp"}:
        raise SettingsError(f"OTEL_TRACES_EXPORTER must be otlp or none, not {exporter[:40]!r}")
    places = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")
    if not (exporter or any(given.get(place) for place in places)):
        return False
    given.setdefault("OTEL_SERVICE_NAME", "ledger")
    return True
