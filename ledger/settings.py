"""The settings: the only place that reads the environment.

Names, meanings and defaults are those of `Settings`; the documentation is tested against it.
"""

import difflib
import os
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from msgspec import Struct

from ledger import setting_values as parse
from ledger.errors import SettingsError
from ledger.event_types import EVENT_TYPES
from ledger.setting_values import OFF, Address, weakness

PREFIX = "LEDGER_"
TEST_PREFIX = "LEDGER_TEST_"


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
            if (fault := weakness(token))
        ]
        if self.admin_key and (fault := weakness(self.admin_key)):
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


def _unknown(name: str) -> str:
    known = [PREFIX + field.upper() for field in _PARSERS]
    near = difflib.get_close_matches(name.upper(), known, n=1)
    hint = f"did you mean {near[0]}?" if near else f"known are {', '.join(sorted(known))}"
    return f"{name} is not a setting: {hint}"


_PARSERS: dict[str, Callable[[str], Any]] = {
    "database_url": parse.database_url,
    "read_database_url": parse.replica_url,
    "webhook_tokens": parse.tokens,
    "webhook_header": parse.header,
    "admin_key": parse.secret,
    "read_rate": parse.whole_number(0, 1_000_000),
    "spool_dir": parse.path,
    "spool_max_bytes": parse.whole_number(1, 1024**4),
    "spool_after": parse.whole_number(1, 5),
    "seal_key": parse.path,
    "seal_publish": parse.path,
    "seal_interval": parse.whole_number(1, 86_400),
    "seal_timestamp_url": parse.authority_url,
    "seal_timestamp_interval": parse.whole_number(1, 365 * 86_400),
    "seal_timestamp_roots": parse.path,
    "host": str.strip,
    "port": parse.whole_number(1, parse.LAST_PORT),
    "listen_intake": parse.address,
    "listen_api": parse.address,
    "listen_status": parse.address,
    "listen_projector": parse.address,
    "tls_certificate": parse.path,
    "tls_key": parse.path,
    "trusted_proxies": parse.networks,
    "path_prefix": parse.path_prefix,
    "workers": parse.whole_number(1, 64),
    "fast_intake": parse.switch,
    "log_format": parse.one_of("auto", "json", "text"),
    "log_level": parse.one_of("debug", "info", "warning", "error"),
    "events": parse.event_types,
    "retry_interval": parse.whole_number(1, 86_400),
    "retry_count": parse.whole_number(0, 100),
    "retry_timeout": parse.whole_number(0, 3_600),
    "ask_again_after": parse.whole_number(0, 365 * 86_400),
    "alert_urls": parse.urls,
    "sender_name": parse.one_line,
    "sender_organisation": parse.one_line,
    "sender_contact": parse.one_line,
    "public_url": parse.public_url,
    "flabs_url": parse.flabs_url,
    "flabs_client_id": parse.secret,
    "flabs_client_secret": parse.secret,
    "flabs_interval": parse.whole_number(1, 86_400),
    "max_body": parse.whole_number(1, 64 * 1024 * 1024),
    "refused_rows": parse.whole_number(0, 100_000),
    "refused_bytes": parse.whole_number(0, 1024**3),
    "refused_days": parse.whole_number(1, 3_650),
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
