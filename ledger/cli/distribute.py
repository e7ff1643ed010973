"""`ledger distribute`."""

from contextlib import closing

import rich_click as click

from ledger import schema
from ledger.cli.common import dry_run_option, go_ahead, prepared_database, yes_option
from ledger.errors import SchemaError
from ledger.eventlog import distribution
from ledger.postgres.cluster import worker_nodes
from ledger.postgres.connect import connect_as_login


@click.command()
@yes_option
@dry_run_option
def distribute(*, yes: bool, dry_run: bool) -> None:
    """Distribute the log over the nodes of a Citus cluster, by lab.

    For a log with events; `ledger migrate` distributes an empty one. In one
    transaction: until it is done, deliveries go to the spool or are refused and sent again.
    Restart all other processes of Ledger afterwards. It cannot be taken back.
    """
    url = prepared_database()
    with closing(connect_as_login(url, "distribute")) as connection:
        if distribution.is_distributed(connection):
            raise SchemaError("the log is distributed already: there is nothing to do")
        nodes = worker_nodes(connection)
        distribution.require_nodes(nodes)
    what = (
        f"The log will be moved to {nodes} worker nodes, by lab, in {distribution.SHARDS} shards; "
        "the state and all else stay on the coordinator. Until it is done nothing is appended."
    )
    if go_ahead(what, yes=yes, dry_run=dry_run, irreversible=True):
        head = schema.distribute(url)
        click.echo(
            f"The log is distributed, up to position {head:,}. Restart all processes of Ledger."
        )
