"""`ledger serve`."""

import socket
from contextlib import closing
from typing import Any

import rich_click as click
import structlog
from uvicorn import Config
from uvicorn.config import STARTUP_FAILURE
from uvicorn.supervisors import Multiprocess

from ledger import processes
from ledger.cli.common import check_schema_if_reachable
from ledger.errors import DatabaseUnavailableError, LedgerError, SettingsError
from ledger.intake.listener import Listener
from ledger.intake.supervisor import Group, Supervisor
from ledger.intake.tls import make_context
from ledger.logging_setup import configure_logging, show_lines_of
from ledger.operations.webhook_tokens import has_valid
from ledger.postgres.connect import INTAKE_ROLE, act_as, connect
from ledger.postgres.replica import check_replica_if_reachable
from ledger.setting_values import OFF, Address
from ledger.settings import Settings, share_metrics_folder

STOP_SECONDS = 8
"""How long requests may take after a worker is asked to stop: longer than a delivery waits."""

IDLE_SECONDS = 75
"""How long an idle connection is kept: longer than reverse proxies keep theirs, so that the proxy
closes it and never sends a request on a connection that is being closed."""

HUNG_SECONDS = 30
"""A worker that gives no sign of life for this long is killed and replaced."""

BOTH = "ledger.app:create_app"
API = "ledger.app:create_api"
INTAKE = "ledger.intake.application:create_application"


@click.command()
@click.option("--end-with-parent", is_flag=True, hidden=True)
def serve(*, end_with_parent: bool) -> None:
    """Serve the intake and the API until stopped.

    Both listen on LEDGER_HOST and LEDGER_PORT, or each on an address of its own
    (LEDGER_LISTEN_INTAKE, LEDGER_LISTEN_API), in LEDGER_WORKERS processes each. An intake with an
    address of its own is probed and scraped at LEDGER_LISTEN_STATUS. Several servers can share one
    database. Run `ledger project` as well.
    """
    if end_with_parent:
        processes.end_with_parent()
    settings = Settings.from_environment()
    configure_logging(settings)
    log = structlog.get_logger("ledger.cli.serve")
    url = settings.require_database()
    settings.check_spool()
    intake, api = settings.addresses()
    status = settings.status_address()
    if api == OFF:
        act_as(INTAKE_ROLE)
    Listener.of(settings)  # which a worker would fail to make
    check_schema_if_reachable(url, may_be_newer=True)
    if settings.read_database_url and api != OFF:
        check_replica_if_reachable(url, settings.read_database_url)
    if intake != OFF:
        _require_tokens(url, settings)
    descriptors = processes.raise_descriptor_limit()
    groups = [
        Group(_config(application, settings), [_listen(address, settings)])
        for application, address in _applications(intake, api).items()
    ]
    if status:
        groups[0].listeners.append(_listen(status, settings))  # the intake's, which comes first
    if api != OFF and not settings.admin_key:
        log.warning("LEDGER_ADMIN_KEY is not set: only keys of `ledger keys` can read over HTTP")
    for warning in settings.weak_secrets():
        log.warning("a secret can be guessed", advice=warning)
    # The parent alone reports the ends of workers, at this level.
    show_lines_of("uvicorn.error", settings)
    with processes.temporary_folder("ledger-metrics-") as metrics:
        share_metrics_folder(str(metrics))
        log.info(
            "serving",
            intake="off" if intake == OFF else str(intake),
            api="off" if api == OFF else str(api),
            status=str(status) if status else "off",
            tls=settings.tls_files() is not None,
            workers=settings.workers,
            open_files=descriptors,
        )
        workers = _supervisor(groups, settings)
        workers.run()
    if any(worker.exitcode == STARTUP_FAILURE for worker in workers.processes):
        raise LedgerError("a worker could not start; the lines above say why")
    log.info("stopped")


def _require_tokens(url: str, settings: Settings) -> None:
    """Raise `SettingsError` if there is no webhook token anywhere.

    Without the database it is not known whether it has any, so the server starts.
    """
    if settings.webhook_tokens:
        return
    try:
        with closing(connect(url, "check")) as connection:
            found = has_valid(connection)
    except DatabaseUnavailableError:
        return  # the check of the schema has said so
    if not found:
        raise SettingsError(
            "there is no webhook token, and without one nobody could deliver: create one with "
            "`ledger tokens create` and give it to Flabs, or set LEDGER_WEBHOOK_TOKENS to the "
            "token that was given to Flabs, or to several separated by commas"
        )


def _applications(intake: Address, api: Address) -> dict[str, Address]:
    """Return which applications are served, and where."""
    if intake == api:
        return {BOTH: api}
    return {name: at for name, at in {INTAKE: intake, API: api}.items() if at != OFF}


def _config(application: str, settings: Settings) -> Config:
    return Config(
        application,
        factory=True,
        workers=settings.workers,
        loop="uvloop",
        ws="none",
        lifespan="on",
        log_config=None,
        log_level="error",  # anybody can cause its warnings
        access_log=False,  # a path may hold a token
        server_header=False,
        timeout_keep_alive=IDLE_SECONDS,
        timeout_graceful_shutdown=STOP_SECONDS,
        timeout_worker_healthcheck=HUNG_SECONDS,
        **(_OWN_PROTOCOL if settings.fast_intake else _plain_protocol(settings)),
    )


_OWN_PROTOCOL: dict[str, Any] = {
    "http": "ledger.intake.delivery_protocol:DeliveryProtocol",
    "proxy_headers": False,  # the protocol reads them, and Uvicorn's would hide the intake from it
}


def _plain_protocol(settings: Settings) -> dict[str, Any]:
    """Return how Uvicorn's own protocol does what Ledger's does by itself."""
    trusted = list(settings.trusted_proxies)
    chosen: dict[str, Any] = {
        "http": "h11",
        "proxy_headers": bool(trusted),
        "forwarded_allow_ips": trusted,
    }
    if files := settings.tls_files():
        certificate, key = files
        chosen |= {
            "ssl_certfile": certificate,
            "ssl_keyfile": key,
            "ssl_context_factory": make_context,
        }
    return chosen


def _supervisor(groups: list[Group], settings: Settings) -> Multiprocess:
    # A single worker has a supervisor, too, so that it is replaced if it dies.
    if settings.fast_intake or len(groups) > 1:
        return Supervisor(groups)
    return Multiprocess(groups[0].config, sockets=groups[0].listeners)


def _listen(address: Address, settings: Settings) -> "socket.socket":
    """Return a socket bound to the address, from which the workers accept connections."""
    said = _settings_of(address, settings)
    try:
        family, _, _, _, where = socket.getaddrinfo(
            address.host, address.port, type=socket.SOCK_STREAM
        )[0]
    except OSError:
        raise SettingsError(
            f"{said}: {address.host!r} is neither an address nor a host name"
        ) from None
    listener = socket.socket(family)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind(where)
    except OSError as error:
        listener.close()
        raise SettingsError(f"cannot listen on {said}: {error.strerror}") from error
    return listener


def _settings_of(address: Address, settings: Settings) -> str:
    """Name the settings that gave an address, with their values."""
    if address == settings.listen_intake:
        return f"LEDGER_LISTEN_INTAKE {address}"
    if address == settings.listen_api:
        return f"LEDGER_LISTEN_API {address}"
    if address == settings.listen_status:
        return f"LEDGER_LISTEN_STATUS {address}"
    return f"LEDGER_HOST {address.host} LEDGER_PORT {address.port}"
