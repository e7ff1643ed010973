"""`ledger serve`."""

import rich_click as click

from ledger.cli.common import check_schema_if_reachable


@click.command()
@click.option("--end-with-parent", is_flag=True, hidden=True)
def serve(*, end_with_parent: bool) -> None:
    """Serve the intake and the API until stopped.

    LEDGER_HOST, LEDGER_PORT and LEDGER_WORKERS say where and with how many processes. Several
    servers can share one database. `ledger project` must run beside it.
    """
    import shutil
    import tempfile

    import structlog
    from granian import Granian
    from granian.constants import HTTPModes, Interfaces
    from granian.log import LogLevels

    from ledger import processes
    from ledger.log import configure_logging
    from ledger.settings import Settings, share_metrics_folder

    configure_logging()
    if end_with_parent:
        processes.end_with_parent()
    log = structlog.get_logger("ledger.cli.serve")
    settings = Settings.from_environment()
    url = settings.require_database()
    settings.require_tokens()
    check_schema_if_reachable(url)
    address = _address(settings.host, settings.port)
    if not settings.admin_key:
        log.warning("LEDGER_ADMIN_KEY is not set: nobody can read over HTTP")
    metrics = tempfile.mkdtemp(prefix="ledger-metrics-")
    share_metrics_folder(metrics)
    log.info("serving", host=settings.host, port=settings.port, workers=settings.workers)
    try:
        Granian(
            "ledger.app:create_app",
            address=address,
            port=settings.port,
            interface=Interfaces.ASGI,
            workers=settings.workers,
            http=HTTPModes.http1,
            websockets=False,
            factory=True,
            log_access=False,  # a path may hold a token
            log_level=LogLevels.warning,
            respawn_failed_workers=True,
            workers_kill_timeout=10,
        ).serve()
    finally:
        shutil.rmtree(metrics, ignore_errors=True)
    log.info("stopped")


def _address(host: str, port: int) -> str:
    """Return the IP address to listen on, having tried that it is free."""
    import socket

    from ledger.errors import SettingsError

    try:
        family, _, _, _, where = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    except OSError:
        raise SettingsError(f"LEDGER_HOST {host!r} is no address and no host name") from None
    with socket.socket(family) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(where)
        except OSError as error:
            raise SettingsError(
                f"cannot listen on LEDGER_HOST {host} LEDGER_PORT {port}: {error.strerror}"
            ) from error
    return str(where[0])
