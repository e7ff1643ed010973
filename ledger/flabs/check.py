"""Finds out whether the account works, and whether the public address leads to this log."""

import socket
import ssl
import time
from contextlib import closing
from datetime import UTC, datetime, timedelta
from typing import Literal
from urllib.parse import urlsplit

import httpx
import msgspec
from msgspec import Struct
from psycopg import Connection

from ledger.credentials import new_secret
from ledger.errors import SettingsError, one_line
from ledger.event_types import PROBE
from ledger.flabs.account import look
from ledger.flabs.client import FlabsClient
from ledger.flabs.endpoint import Token, public_endpoint, token_for_probe
from ledger.model.digest import digest
from ledger.model.operators import Operator
from ledger.operations.coverage import Coverage, read_coverage
from ledger.operations.policy import Policy
from ledger.operations.render.words import count, lasting
from ledger.postgres.connect import connect
from ledger.settings import Settings

SECONDS = 10.0
"""How long each step may take: as long as Flabs would wait."""

SOON = timedelta(days=14)
"""A certificate that ends before then must be renewed."""

POLL_SECONDS = 0.1

Step = Literal["account", "public_url", "certificate", "probe", "coverage"]

_ARRIVED = """
SELECT e.position
FROM ledger.event_log e
WHERE e.lab_id = %s AND e.bill_id = '' AND e.digest = %s
"""


class CheckedStep(Struct, frozen=True):
    """One thing that was looked at: `ok`, or what is wrong, in words."""

    step: Step
    ok: bool
    words: str


class CheckReport(Struct, frozen=True):
    """What `ledger flabs check` found."""

    ok: bool
    steps: list[CheckedStep]


def check(
    url: str,
    settings: Settings,
    policy: Policy,
    client: FlabsClient,
    *,
    by: Operator,
    probe: bool = True,
) -> CheckReport:
    """Look at the account, the public address and the coverage.

    Raises `FlabsError` if the account cannot be used; the rest is told in the report.
    """
    with closing(connect(url, "flabs")) as connection:
        labs = look(connection, settings, client)
        steps = [_good("account", f"logged in; {count(len(labs), 'lab')}")]
        steps += _public_steps(connection, url, settings, by=by, probe=probe)
        steps.append(_coverage_step(read_coverage(connection, policy)))
    return CheckReport(all(step.ok for step in steps), steps)


def _good(step: Step, words: str) -> CheckedStep:
    return CheckedStep(step, ok=True, words=words)


def _bad(step: Step, words: str) -> CheckedStep:
    return CheckedStep(step, ok=False, words=words)


def _public_steps(
    connection: Connection, url: str, settings: Settings, *, by: Operator, probe: bool
) -> list[CheckedStep]:
    try:
        endpoint = public_endpoint(settings)
    except SettingsError as error:
        return [_bad("public_url", str(error))]
    steps = [_good("public_url", endpoint)]
    if endpoint.startswith("https:"):
        steps.append(certificate_step(endpoint))
    if probe and steps[-1].ok:
        steps.append(_probe_step(connection, url, settings, endpoint, by=by))
    return steps


def certificate_step(endpoint: str) -> CheckedStep:
    """Look at the certificate that an https endpoint shows."""
    parts = urlsplit(endpoint)
    host = parts.hostname or ""
    context = httpx.create_ssl_context()
    try:
        with (
            socket.create_connection((host, parts.port or 443), SECONDS) as plain,
            context.wrap_socket(plain, server_hostname=host) as secure,
        ):
            ends = str((secure.getpeercert() or {}).get("notAfter", ""))
    except ssl.SSLCertVerificationError as error:
        return _bad("certificate", f"it is not valid: {error.verify_message}")
    except OSError as error:
        return _bad("certificate", f"{host} cannot be reached: {one_line(error)}")
    return _judge_certificate(datetime.fromtimestamp(ssl.cert_time_to_seconds(ends), UTC))


def _judge_certificate(until: datetime) -> CheckedStep:
    left = until - datetime.now(UTC)
    if left > SOON:
        return _good("certificate", f"valid until {until:%F %T} UTC")
    return _bad("certificate", f"it ends {until:%F %T} UTC, in {lasting(left)}: renew it")


def _probe_step(
    connection: Connection, url: str, settings: Settings, endpoint: str, *, by: Operator
) -> CheckedStep:
    """Send an event through the public address, and look for it in the log."""
    with token_for_probe(url, settings, by=by) as token:
        words = _probe(connection, settings, endpoint, token)
    return CheckedStep("probe", words.startswith(_CAME), words)


_CAME = "a probe came back to this log"


def _probe(connection: Connection, settings: Settings, endpoint: str, token: Token) -> str:
    """Return in words what became of a probe; they begin with `_CAME` if all is well."""
    body = msgspec.json.encode(
        {
            "labID": PROBE,
            "eventType": PROBE,
            "eventTime": int(time.time()),
            "data": {"nonce": new_secret()},
        }
    )
    headers = {"Content-Type": "application/json", "User-Agent": "ledger-flabs-check"}
    headers[settings.webhook_header] = f"Bearer {token.secret}"
    try:
        answer = httpx.post(
            endpoint,
            content=body,
            headers=headers,
            timeout=SECONDS,
            trust_env=endpoint.startswith("https:"),
        )
    except httpx.HTTPError as error:
        return f"{endpoint} cannot be reached: {one_line(error) or type(error).__name__}"
    if not answer.is_success:
        return f"{endpoint} answered a probe with {answer.status_code}"
    deadline = time.monotonic() + SECONDS
    while True:
        row = connection.execute(_ARRIVED, (PROBE, digest(body))).fetchone()
        if row is not None:
            return f"{_CAME}, at position {row[0]}"
        if time.monotonic() > deadline or answer.status_code != httpx.codes.ACCEPTED:
            break
        time.sleep(POLL_SECONDS)  # it was spooled
    return (
        f"{endpoint} answered a probe with {answer.status_code}, and it is not in this log: "
        "LEDGER_PUBLIC_URL leads to another server"
    )


def _coverage_step(coverage: Coverage) -> CheckedStep:
    wrong = sum(bool(lab.findings) for lab in coverage.labs)
    if not wrong:
        return _good("coverage", "every lab is registered as it should be")
    words = (
        f"{count(wrong, 'lab is', 'labs are')} not registered correctly: "
        "`ledger flabs coverage` says how"
    )
    return _bad("coverage", words)
