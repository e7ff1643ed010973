"""`ledger project`."""

import signal
from types import FrameType

import rich_click as click

from ledger import processes
from ledger.cli.common import check_schema_if_reachable
from ledger.logging_setup import configure_logging
from ledger.operations.alerts.channels import check_channels
from ledger.operations.alerts.watcher import AlertWatcher
from ledger.operations.policy import agree_if_reachable
from ledger.projection.projector import Projector
from ledger.settings import Settings


@click.command()
@click.option("--end-with-parent", is_flag=True, hidden=True)
def project(*, end_with_parent: bool) -> None:
    """Fold new events into the state until stopped.

    Several projectors may run: one leads, the others stand by. With LEDGER_ALERT_URLS the command
    also sends alerts about overdue events, loss windows, unseen bills and parked bills.
    """
    configure_logging()
    if end_with_parent:
        processes.end_with_parent()
    settings = Settings.from_environment()
    url = settings.require_database()
    if settings.alert_urls:
        check_channels(settings.alert_urls)
    check_schema_if_reachable(url)
    projector = Projector(url)
    policy = agree_if_reachable(url, settings)
    alerts = AlertWatcher(url, policy, settings.alert_urls, spool=settings.spool_dir)

    def stop(_number: int, _frame: FrameType | None) -> None:
        projector.stop()
        alerts.stop()

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, stop)
    if settings.alert_urls:
        alerts.start()
    projector.run()
