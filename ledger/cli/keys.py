"""`ledger keys`: create, list, rotate and revoke API keys."""

from contextlib import closing
from datetime import UTC, datetime

import rich_click as click
from msgspec.json import encode

from ledger.cli.common import (
    dry_run_option,
    go_ahead,
    json_lines_option,
    json_option,
    not_blank,
    operator_option,
    prepared_database,
    read_time,
    yes_option,
)
from ledger.cli.table import print_table
from ledger.model.operators import Operator
from ledger.operations import api_keys
from ledger.operations.api_keys import (
    DEFAULT_OVERLAP,
    LONGEST_OVERLAP,
    SCOPES,
    ApiKey,
    Grant,
    NewApiKey,
    Scope,
)
from ledger.operations.render.words import clock
from ledger.postgres.connect import connect

COLUMNS = ("id", "state", "scope", "labs", "created (UTC)", "expires (UTC)", "last used", "name")
PART = 1_000
"""Keys that are read at a time."""


@click.group()
def keys() -> None:
    """Create, list, rotate and revoke API keys.

    A key is shown once and not stored. Processes learn of a change within seconds.
    """


@keys.command()
@click.option("--name", required=True, callback=not_blank, metavar="WORDS", help="What it is for.")
@click.option(
    "--scope",
    type=click.Choice(SCOPES),
    default="read",
    show_default=True,
    help="What it may do; each scope includes those before it.",
)
@click.option("--lab", "labs", multiple=True, metavar="LAB", help="Only for this lab; repeatable.")
@click.option("--expires", metavar="TIME", help="Until when it is valid (RFC 3339).")
@json_option
@operator_option
def create(
    *,
    name: str,
    scope: Scope,
    labs: tuple[str, ...],
    expires: str | None,
    as_json: bool,
    by: Operator,
) -> None:
    """Create a key and print it. It is shown only now."""
    grant = Grant(scope, labs or None, read_time(expires, "--expires"))
    with closing(connect(prepared_database(), "keys")) as connection:
        made = api_keys.create_key(connection, name, grant, by=by)
    _print_new(made, as_json=as_json)


@keys.command(name="list")
@json_lines_option
def list_(*, as_json: bool) -> None:
    """List keys without their secrets, revoked and expired ones too."""
    found: list[ApiKey] = []
    with closing(connect(prepared_database(), "keys")) as connection:
        after = None
        while part := api_keys.list_keys(connection, after=after, limit=PART):
            found += part
            after = part[-1].key_id
    if as_json:
        for key in found:
            click.echo(encode(key))
    elif found:
        now = datetime.now(UTC)
        print_table(COLUMNS, (_cells(key, now) for key in found), whole=COLUMNS[:3])
    else:
        click.echo("There is no API key; `ledger keys create` makes one.", err=True)


@keys.command()
@click.argument("key_id", metavar="ID")
@click.option(
    "--overlap",
    type=click.IntRange(0, LONGEST_OVERLAP),
    default=DEFAULT_OVERLAP,
    show_default=True,
    metavar="SECONDS",
    help="How long the old secret stays valid.",
)
@json_option
@operator_option
@yes_option
@dry_run_option
def rotate(
    *, key_id: str, overlap: int, as_json: bool, by: Operator, yes: bool, dry_run: bool
) -> None:
    """Give a key a new secret and print it; the old one stays valid for a while.

    Only the last two secrets can be valid: the one before the old one ends at once.
    """
    with closing(connect(prepared_database(), "keys")) as connection:
        found = api_keys.find_key(connection, key_id)
        what = f"{_named(found)} gets a new secret; the old one stays valid for {overlap} s."
        if go_ahead(what, yes=yes, dry_run=dry_run, irreversible=True):
            rotated = api_keys.rotate_key(connection, key_id, overlap_seconds=overlap, by=by)
            _print_new(rotated, as_json=as_json)


@keys.command()
@click.argument("key_id", metavar="ID")
@operator_option
@yes_option
@dry_run_option
def revoke(*, key_id: str, by: Operator, yes: bool, dry_run: bool) -> None:
    """Revoke a key with all its secrets, for good."""
    with closing(connect(prepared_database(), "keys")) as connection:
        found = api_keys.find_key(connection, key_id)
        if found.revoked_at is not None:
            click.echo(f"{_named(found)} was revoked at {clock(found.revoked_at)} UTC.")
            return
        what = f"{_named(found)} will be revoked for good."
        if go_ahead(what, yes=yes, dry_run=dry_run, irreversible=True):
            api_keys.revoke_key(connection, key_id, by=by)
            click.echo(f"{_named(found)} is revoked.")


def _named(key: ApiKey) -> str:
    return f"The API key {key.key_id} ({key.name})"


def _print_new(made: NewApiKey, *, as_json: bool) -> None:
    if as_json:
        click.echo(encode(made))
        return
    click.echo(f"{_named(made)}, scope {made.scope}, is shown only now:", err=True)
    click.echo(made.key)


def _cells(key: ApiKey, now: datetime) -> tuple[str, ...]:
    state = "valid"
    if key.revoked_at is not None:
        state = "revoked"
    elif key.expires_at is not None and key.expires_at <= now:
        state = "expired"
    return (
        key.key_id,
        state,
        key.scope,
        "all" if key.labs is None else ", ".join(key.labs),
        clock(key.created_at),
        "" if key.expires_at is None else clock(key.expires_at),
        "" if key.last_used_at is None else clock(key.last_used_at),
        key.name,
    )
