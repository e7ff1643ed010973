"""`ledger serve`."""

from typing import TYPE_CHECKING

import rich_click as click

from ledger.cli.common import check_schema_if_reachable

if TYPE_CHECKING:
    import socket

STOP_SECONDS = 8
"""How long requests may still take when a worker is asked to stop: longer than a delivery waits."""

IDLE_SECONDS = 75
"""How long an idle connection is kept: longer than a reverse proxy keeps its own, so that the proxy
is the one who closes it and never sends into a connection that ends."""

HUNG_SECONDS = 30
"""After how long without a sign of life a worker is killed, and another started in its place."""


@click.command()
@click.option("--end-with-parent", is_flag=True, hidden=True)
def serve(*, end_with_parent: bool) -> None:
    """Serve the intake and the API until stopped.

    LEDGER_HOST, LEDGER_PORT and LEDGER_WORKERS say where and with how many processes. Several
    servers can share one database. `ledger project` must run beside it.
    """
    import logging
    import shutil
    import tempfile

    import structlog
    from uvicorn import Config
    from uvicorn.config import STARTUP_FAILURE
    from uvicorn.supervisors import Multiprocess

    from ledger import processes
    from ledger.errors import LedgerError
    from ledger.logging_setup import configure_logging
    from ledger.settings import Settings, share_metrics_folder

    configure_logging()
    if end_with_parent:
        processes.end_with_parent()
    log = structlog.get_logger("ledger.cli.serve")
    settings = Settings.from_environment()
    url = settings.require_database()
    settings.require_tokens()
    check_schema_if_reachable(url)
    listener = _listen(settings.host, settings.port)
    if not settings.admin_key:
        log.warning("LEDGER_ADMIN_KEY is not set: nobody can read over HTTP")
    for warning in settings.weak_secrets():
        log.warning(warning)
    metrics = tempfile.mkdtemp(prefix="ledger-metrics-")
    share_metrics_folder(metrics)
    config = Config(
        "ledger.app:create_app",
        factory=True,
        workers=settings.workers,
        http="ledger.intake.protocol:DeliveryProtocol",
        loop="uvloop",
        ws="none",
        lifespan="on",
        log_config=None,
        log_level="error",  # warnings are of what strangers send
        access_log=False,  # a path may hold a token
        proxy_headers=False,  # they are not needed, and would hide the intake from the protocol
        server_header=False,
        timeout_keep_alive=IDLE_SECONDS,
        timeout_graceful_shutdown=STOP_SECONDS,
        timeout_worker_healthcheck=HUNG_SECONDS,
    )
    # Of the workers' lives, too, which the parent alone tells.
    logging.getLogger("uvicorn.error").setLevel(logging.INFO)
    log.info("serving", host=settings.host, port=settings.port, workers=settings.workers)
    workers = Multiprocess(config, sockets=[listener])  # a single one, too, is replaced if it dies
    try:
        workers.run()
    finally:
        shutil.rmtree(metrics, ignore_errors=True)
    if any(worker.exitcode == STARTUP_FAILURE for worker in workers.processes):
        raise LedgerError("a worker could not start; the lines above say why")
    log.info("stopped")


def _listen(host: str, port: int) -> "socket.socket":
    """Return a socket that is bound to the address, for the workers to accept from."""
    import socket

    from ledger.errors import SettingsError

    try:
        family, _, _, _, where = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    except OSError:
        raise SettingsError(f"LEDGER_HOST {host!r} is no address and no host name") from None
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
