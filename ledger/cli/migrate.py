"""`ledger migrate`."""

import rich_click as click

from ledger.cli.common import dry_run_option, go_ahead, yes_option


@click.command()
@yes_option
@dry_run_option
@click.option(
    "--downgrade",
    is_flag=True,
    help="Take the schema away again. Refused while the log holds events.",
)
def migrate(*, yes: bool, dry_run: bool, downgrade: bool) -> None:
    """Prepare an empty database, or bring an older one to this version.

    Runs as the user of LEDGER_DATABASE_URL, who must own the database and may create roles.
    """
    from contextlib import closing

    from ledger import schema
    from ledger.postgres.connect import connect_as_login
    from ledger.settings import Settings

    url = Settings.from_environment().require_database()
    with closing(connect_as_login(url, "migrate")) as connection:
        version = schema.current_version(connection)
    before = f"at {version}" if version else "empty"
    if downgrade:
        what = f"The schema is {before} and will be removed."
        if go_ahead(what, yes=yes, dry_run=dry_run, irreversible=True):
            schema.migrate(url, revision="base")
            click.echo("The schema is gone.")
        return
    if version == schema.SCHEMA_VERSION:
        what = f"The schema is {before}, the newest."
    else:
        what = f"The schema is {before} and will be brought to {schema.SCHEMA_VERSION}."
    if go_ahead(what, yes=yes or version == schema.SCHEMA_VERSION, dry_run=dry_run):
        schema.migrate(url)
        click.echo(f"The schema is at {schema.SCHEMA_VERSION}.")
