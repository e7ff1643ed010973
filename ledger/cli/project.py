"""`ledger project`."""

import rich_click as click

from ledger.cli.common import check_schema_if_reachable


@click.command()
@click.option("--end-with-parent", is_flag=True, hidden=True)
def project(*, end_with_parent: bool) -> None:
    """Fold new events into the state until stopped.

    Several may run: one leads, the others wait to take over.
    """
    import signal
    from types import FrameType

    from ledger import processes
    from ledger.log import configure_logging
    from ledger.projection.follow import Projector
    from ledger.settings import Settings

    configure_logging()
    if end_with_parent:
        processes.end_with_parent()
    url = Settings.from_environment().require_database()
    check_schema_if_reachable(url)
    projector = Projector(url)

    def stop(_number: int, _frame: FrameType | None) -> None:
        projector.stop()

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, stop)
    projector.run()
