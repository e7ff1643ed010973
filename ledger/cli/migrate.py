"""`ledger migrate`."""

from contextlib import closing

import rich_click as click

from ledger import schema
from ledger.cli.common import dry_run_option, go_ahead, yes_option
from ledger.eventlog.distribution import is_distributed
from ledger.postgres.cluster import worker_nodes
from ledger.postgres.connect import connect_as_login
from ledger.settings import Settings, given_policy


@click.command()
@yes_option
@dry_run_option
def migrate(*, yes: bool, dry_run: bool) -> None:
    """Prepare an empty database, or bring an older one to this version.

    Runs as the user of LEDGER_DATABASE_URL, who must own the database and may create roles. Stores
    LEDGER_EVENTS, LEDGER_RETRY_* and LEDGER_ASK_AGAIN_AFTER, if set, for all processes.
    """
    settings = Settings.from_environment()
    url = settings.require_database()
    with closing(connect_as_login(url, "migrate")) as connection:
        version = schema.current_version(connection)
    before = f"at {version}" if version else "empty"
    if version == schema.SCHEMA_VERSION:
        what = f"The schema is {before}, the newest."
    else:
        what = f"The schema is {before} and will be brought to {schema.SCHEMA_VERSION}."
    if go_ahead(what, yes=yes or version == schema.SCHEMA_VERSION, dry_run=dry_run):
        schema.migrate(url, given_policy(settings))
        click.echo(f"The schema is at {schema.SCHEMA_VERSION}.")
        with closing(connect_as_login(url, "migrate")) as connection:
            if nodes := worker_nodes(connection):
                click.echo(_place_of_log(nodes, distributed=is_distributed(connection)))


def _place_of_log(nodes: int, *, distributed: bool) -> str:
    if distributed:
        return f"The log is distributed over {nodes} worker nodes; all else is on the coordinator."
    return f"The log is on the coordinator alone: `ledger distribute` moves it to {nodes} nodes."
