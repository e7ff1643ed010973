"""`ledger up`."""

from pathlib import Path

import rich_click as click


@click.command()
@click.option(
    "--data",
    type=click.Path(file_okay=False, path_type=Path),
    default=Path("ledger-data"),
    show_default=True,
    metavar="DIR",
    help="Where the database, the token and the key are kept.",
)
@click.option(
    "--port",
    type=click.IntRange(1, 65535),
    default=8000,
    show_default=True,
    metavar="N",
    help="The TCP port to listen on, on 127.0.0.1.",
)
@click.option("--demo", is_flag=True, help="Send a simulated lab day and show what became of it.")
def up(*, data: Path, port: int, demo: bool) -> None:
    """Run everything on an embedded PostgreSQL until stopped: the way to try Ledger.

    All data stays in one folder; started again on it, Ledger goes on where it was.
    """
    from ledger.cli.demo import RETRIES, run_demo
    from ledger.cli.local_stack import Stack

    stack = Stack(data, port=port, more_settings=RETRIES if demo else {})
    with stack.running():
        click.echo(stack.banner())
        if demo:
            run_demo(stack)
        click.echo("Running. Ctrl-C stops everything; the data stays.")
        stack.watch()
    click.echo("Stopped.")
