"""`ledger project`."""

import signal
from types import FrameType

import rich_click as click

from ledger import processes
from ledger.cli.common import check_schema_if_reachable
from ledger.cli.seal_settings import read_time_stamps
from ledger.flabs.watcher import FlabsWatcher
from ledger.logging_setup import configure_logging
from ledger.operations.alerts.channels import check_channels
from ledger.operations.alerts.seal_watch import SealWatch
from ledger.operations.alerts.watcher import AlertWatcher
from ledger.operations.policy import agree_if_reachable
from ledger.projection.projector import Observer, Projector
from ledger.seals.key_file import read_key_file
from ledger.seals.sealer import Sealer
from ledger.setting_values import OFF
from ledger.settings import Settings
from ledger.tracing import finish_tracing, start_tracing


@click.command()
@click.option("--end-with-parent", is_flag=True, hidden=True)
def project(*, end_with_parent: bool) -> None:
    """Fold new events into the state until stopped.

    Several projectors may run: one leads, the others stand by. With LEDGER_ALERT_URLS the command
    also sends alerts about overdue events, loss windows, unseen bills, parked bills and seals that
    stand still. It seals the log: with LEDGER_SEAL_KEY it signs checkpoints, with
    LEDGER_SEAL_PUBLISH it publishes them. With LEDGER_FLABS_CLIENT_ID and its secret it lists the
    labs of the account at Flabs.
    """
    if end_with_parent:
        processes.end_with_parent()
    settings = Settings.from_environment()
    configure_logging(settings)
    start_tracing()
    url = settings.require_database()
    if settings.alert_urls:
        check_channels(settings.alert_urls)
    key = read_key_file(settings.seal_key) if settings.seal_key else None
    check_schema_if_reachable(url)
    projector = Projector(url, _observer(settings))
    policy = agree_if_reachable(url, settings)
    flabs = FlabsWatcher(url, settings, policy)
    sealer = Sealer(
        url,
        key=key,
        publish_to=settings.seal_publish,
        interval=settings.seal_interval,
        time_stamps=read_time_stamps(settings, settings.seal_publish),
    )
    seals = SealWatch(lambda: sealer.trouble)
    alerts = AlertWatcher(url, policy, settings.alert_urls, spool=settings.spool_dir, seals=seals)

    def stop(_number: int, _frame: FrameType | None) -> None:
        projector.stop()
        alerts.stop()
        sealer.stop()
        flabs.stop()

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, stop)
    if settings.alert_urls:
        alerts.start()
    sealer.start()
    flabs.start()
    projector.run()
    finish_tracing()


def _observer(settings: Settings) -> Observer | None:
    """Return what counts for Prometheus, if it has an address at which it is asked."""
    at = settings.listen_projector
    if at is None or at == OFF:
        return None
    # Only here: it takes as long to load as all the rest.
    from ledger.projection.projector_metrics import ProjectorMetrics  # noqa: PLC0415 -- see above

    metrics = ProjectorMetrics()
    metrics.serve(at)
    return metrics
