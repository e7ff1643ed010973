"""`ledger import`."""

import sys

import rich_click as click

from ledger.cli.common import prepared_database


@click.command("import")
@click.argument("file")
def import_(*, file: str) -> None:
    """Take in events from FILE, - for standard input; gzip is recognised.

    JSON Lines: payloads of Flabs as support sends them, or what `ledger export` wrote. What is in
    the log already is not taken again, so an interrupted import is simply repeated.
    """
    from ledger.database import connect
    from ledger.eventlog.transfer import as_text, import_lines, open_lines

    tell = _tell if sys.stderr.isatty() else _say_nothing
    with (
        connect(prepared_database(), "import") as connection,
        open_lines(file, sys.stdin.buffer) as lines,
    ):
        imported = import_lines(connection, lines, on_progress=tell)
    click.echo(
        f"recorded {imported.recorded}, duplicate {imported.duplicate}, "
        f"unreadable {imported.unreadable}"
    )
    for line in imported.unreadable_lines:
        click.echo(as_text(line), err=True)
    more = imported.unreadable - len(imported.unreadable_lines)
    if more > 0:
        click.echo(f"and {more} more unreadable lines; GET /v1/events/unreadable has all", err=True)


def _tell(lines: int) -> None:
    click.echo(f"\r{lines:,} lines", nl=False, err=True)


def _say_nothing(_: int) -> None:
    """Where nobody looks, the result is enough."""
