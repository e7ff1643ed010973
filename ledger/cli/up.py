"""`ledger up`."""

from contextlib import ExitStack
from pathlib import Path

import rich_click as click

from ledger.cli.demo import demo_sandbox, demo_settings, run_demo
from ledger.cli.local_stack import Stack, server_url
from ledger.simulator.sandbox import Sandbox


@click.command()
@click.option(
    "--data",
    type=click.Path(file_okay=False, path_type=Path),
    default=Path("ledger-data"),
    show_default=True,
    metavar="DIR",
    help="The folder of the database, the token and the key.",
)
@click.option(
    "--port",
    type=click.IntRange(1, 65535),
    metavar="N",
    help="The TCP port to listen on, on 127.0.0.1.  [default: LEDGER_PORT, or 8000]",
)
@click.option("--demo", is_flag=True, help="Send a simulated lab day and show the result.")
def up(*, data: Path, port: int | None, demo: bool) -> None:
    """Run everything on an embedded PostgreSQL until stopped.

    This is the way to try Ledger. All data stays in one folder, and the next start continues with
    it. LEDGER_WEBHOOK_TOKENS and LEDGER_ADMIN_KEY are used if they are set, and made otherwise. The
    file env in the folder holds the variables that other commands need: . ledger-data/env
    """
    with ExitStack() as demonstration:
        sandbox, more_settings = None, {}
        if demo:
            sandbox = demonstration.enter_context(demo_sandbox())
            more_settings = demo_settings(sandbox, server_url(port))
        _run(Stack(data, port=port, more_settings=more_settings), sandbox)
    click.echo("Stopped.")


def _run(stack: Stack, sandbox: Sandbox | None) -> None:
    with stack.running():
        click.echo(stack.banner())
        if sandbox is not None:
            run_demo(stack, sandbox)
            click.echo(f"See it in a browser (the link logs in once):\n{stack.login_link()}\n")
        click.echo("Running. Ctrl-C stops everything; the data stays.")
        stack.watch()
