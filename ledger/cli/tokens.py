"""`ledger tokens`."""

from contextlib import closing

import rich_click as click
from msgspec.json import encode

from ledger.cli.common import (
    go_ahead,
    json_lines_option,
    json_option,
    operator_option,
    prepared_database,
    yes_option,
)
from ledger.cli.table import print_table
from ledger.model.event import MAX_LENGTH
from ledger.model.operators import Operator
from ledger.operations import webhook_tokens
from ledger.operations.render.words import clock
from ledger.operations.webhook_tokens import MOST_LABS, WebhookToken
from ledger.postgres.connect import connect

COLUMNS = ("id", "name", "labs", "created (UTC)", "by", "last used (UTC)", "revoked (UTC)")

PAGE = 1_000
"""Tokens read by one query."""


@click.group()
def tokens() -> None:
    """Create, list or revoke webhook tokens.

    Those of the setting LEDGER_WEBHOOK_TOKENS are valid for all labs, too, and are not listed. To
    replace a token without a gap, create one, give it to Flabs, and revoke the old one when it is
    no longer used.
    """


@tokens.command()
@click.option(
    "--lab",
    "labs",
    multiple=True,
    metavar="LAB",
    help="Only for events of this lab; may be given several times. Without it: of all labs.",
)
@click.option("--name", metavar="WORDS", help="What it is for.")
@operator_option
@json_option
def create(*, labs: tuple[str, ...], name: str | None, by: Operator, as_json: bool) -> None:
    """Create a webhook token and print it, this once: the database has only its SHA-256.

    It is valid within seconds, besides all others.
    """
    if len(labs) > MOST_LABS or not all(0 < len(lab) <= MAX_LENGTH for lab in labs):
        raise click.UsageError(
            f"--lab takes an id of 1 to {MAX_LENGTH} characters, at most {MOST_LABS} times"
        )
    if name is not None and not (name.strip() and len(name) <= MAX_LENGTH):
        raise click.UsageError(f"--name takes 1 to {MAX_LENGTH} characters")
    with closing(connect(prepared_database(), "tokens")) as connection:
        made = webhook_tokens.create_token(connection, labs=labs or None, name=name, by=by)
    if as_json:
        click.echo(encode(made))
        return
    whose = _labs(made) or "all labs"
    click.echo(f"Webhook token {made.token_id}, for {whose}; shown only now:", err=True)
    click.echo(made.token)


@tokens.command("list")
@json_lines_option
def list_(*, as_json: bool) -> None:
    """List the webhook tokens of the database, valid and revoked."""
    found: list[WebhookToken] = []
    with closing(connect(prepared_database(), "tokens")) as connection:
        after = None
        while page := webhook_tokens.list_tokens(connection, after=after, limit=PAGE):
            found += page
            after = page[-1].token_id
    if as_json:
        for token in found:
            click.echo(encode(token))
        return
    if not found:
        click.echo("There is none; `ledger tokens create` makes one.", err=True)
        return
    print_table(COLUMNS, map(_cells, found), whole=("id", *COLUMNS[3:4], *COLUMNS[5:]))


@tokens.command()
@click.argument("token_id", metavar="ID")
@operator_option
@yes_option
@json_option
def revoke(*, token_id: str, by: Operator, yes: bool, as_json: bool) -> None:
    """Revoke webhook token ID: within seconds, deliveries with it are refused.

    The command says when it was last used and asks for confirmation; without a terminal it needs
    --yes.
    """
    with closing(connect(prepared_database(), "tokens")) as connection:
        found = webhook_tokens.find_token(connection, token_id)
        if found.revoked_at is None:
            used = (
                f"last used {clock(found.last_used_at)} UTC" if found.last_used_at else "never used"
            )
            what = f"Webhook token {token_id} ({used}) will be refused from now on, for good."
            if not go_ahead(what, yes=yes, dry_run=False, irreversible=True):
                return
        found = webhook_tokens.revoke_token(connection, token_id, by=by)
    if as_json:
        click.echo(encode(found))
        return
    assert found.revoked_at  # noqa: S101 -- it was revoked
    click.echo(f"Webhook token {token_id} was revoked {clock(found.revoked_at)} UTC.")


def _labs(token: WebhookToken) -> str:
    return ", ".join(token.labs or ())


def _cells(token: WebhookToken) -> tuple[str, ...]:
    return (
        token.token_id,
        token.name or "",
        _labs(token) or "all",
        clock(token.created_at),
        token.created_by,
        clock(token.last_used_at) if token.last_used_at else "",
        clock(token.revoked_at) if token.revoked_at else "",
    )
