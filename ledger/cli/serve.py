"""`ledger serve`."""

import logging
import socket
from contextlib import closing

import rich_click as click
import structlog
from uvicorn import Config
from uvicorn.config import STARTUP_FAILURE
from uvicorn.supervisors import Multiprocess

from ledger import processes
from ledger.cli.common import check_schema_if_reachable
from ledger.errors import DatabaseUnavailableError, LedgerError, SettingsError
from ledger.intake.protocol import Supervisor
from ledger.logging_setup import configure_logging
from ledger.operations.webhook_tokens import has_valid
from ledger.postgres.connect import connect
from ledger.settings import Settings, share_metrics_folder

STOP_SECONDS = 8
"""How long requests may take after a worker is asked to stop: longer than a delivery waits."""

IDLE_SECONDS = 75
"""How long an idle connection is kept: longer than reverse proxies keep theirs, so that the proxy
closes it and never sends a request on a connection that is being closed."""

HUNG_SECONDS = 30
"""A worker that gives no sign of life for this long is killed and replaced."""


@click.command()
@click.option("--end-with-parent", is_flag=True, hidden=True)
def serve(*, end_with_parent: bool) -> None:
    """Serve the intake and the API until stopped.

    LEDGER_HOST, LEDGER_PORT and LEDGER_WORKERS set the address and the number of processes. Several
    servers can share one database. Run `ledger project` as well.
    """
    configure_logging()
    if end_with_parent:
        processes.end_with_parent()
    log = structlog.get_logger("ledger.cli.serve")
    settings = Settings.from_environment()
    url = settings.require_database()
    check_schema_if_reachable(url)
    _require_tokens(url, settings)
    descriptors = processes.raise_descriptor_limit()
    listener = _listen(settings.host, settings.port)
    if not settings.admin_key:
        log.warning("LEDGER_ADMIN_KEY is not set: only keys of `ledger keys` can read over HTTP")
    for warning in settings.weak_secrets():
        log.warning(warning)
    config = Config(
        "ledger.app:create_app",
        factory=True,
        workers=settings.workers,
        http="ledger.intake.protocol:DeliveryProtocol" if settings.fast_intake else "h11",
        loop="uvloop",
        ws="none",
        lifespan="on",
        log_config=None,
        log_level="error",  # anybody can cause its warnings
        access_log=False,  # a path may hold a token
        proxy_headers=False,  # not needed, and they would hide the intake from the protocol
        server_header=False,
        timeout_keep_alive=IDLE_SECONDS,
        timeout_graceful_shutdown=STOP_SECONDS,
        timeout_worker_healthcheck=HUNG_SECONDS,
    )
    # The parent alone reports the ends of workers, at this level.
    logging.getLogger("uvicorn.error").setLevel(logging.INFO)
    # A single worker has a supervisor, too, so that it is replaced if it dies.
    supervisor = Supervisor if settings.fast_intake else Multiprocess
    with processes.temporary_folder("ledger-metrics-") as metrics:
        share_metrics_folder(str(metrics))
        log.info(
            "serving",
            host=settings.host,
            port=settings.port,
            workers=settings.workers,
            open_files=descriptors,
        )
        workers = supervisor(config, sockets=[listener])
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


def _listen(host: str, port: int) -> "socket.socket":
    """Return a socket bound to the address, from which the workers accept connections."""
    try:
        family, _, _, _, where = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    except OSError:
        raise SettingsError(f"LEDGER_HOST {host!r} is neither an address nor a host name") from None
    listener = socket.socket(family)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind(where)
    except OSError as error:
        listener.close()
        raise SettingsError(
            f"cannot listen on LEDGER_HOST {host} LEDGER_PORT {port}: {error.strerror}"
        ) from error
    return listener
