"""`ledger flabs`."""

import sys
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from datetime import UTC, datetime, timedelta

import rich_click as click
from msgspec.json import encode

from ledger.cli.common import (
    PATIENCE,
    dry_run_option,
    json_lines_option,
    json_option,
    operator_option,
    prepared_database,
)
from ledger.cli.flabs_words import (
    COVERAGE_COLUMNS,
    SUBSCRIPTION_COLUMNS,
    checked,
    coverage_cells,
    subscription_cells,
    where_rotation_stands,
)
from ledger.cli.table import print_table
from ledger.errors import FlabsError
from ledger.flabs import rotation
from ledger.flabs.account import look
from ledger.flabs.check import check as check_account
from ledger.flabs.client import FlabsClient
from ledger.flabs.endpoint import public_endpoint
from ledger.flabs.rotation import Rotation
from ledger.flabs.subscriptions import Choice, parse_party
from ledger.flabs.subscriptions import subscribe as subscribe_labs
from ledger.model.operators import Operator
from ledger.operations import webhook_tokens
from ledger.operations.coverage import coverage_findings, read_coverage
from ledger.operations.flabs_account import read_check
from ledger.operations.policy import Policy, agree
from ledger.operations.render.words import clock, count, lasting
from ledger.postgres.connect import connect
from ledger.settings import Settings

FOUND = 3
"""The exit code of a check that found something."""

WAIT_SECONDS = 1.0


@click.group()
def flabs() -> None:
    """Look after the account at Flabs: labs, subscriptions, the webhook token.

    LEDGER_FLABS_CLIENT_ID and LEDGER_FLABS_CLIENT_SECRET are the account's, LEDGER_PUBLIC_URL is
    where Flabs reaches this server.
    """


@flabs.command()
@click.option("--no-probe", is_flag=True, help="Send no event through the public address.")
@operator_option
@json_option
def check(*, no_probe: bool, by: Operator, as_json: bool) -> None:
    """Log in, and send an event of no lab through the public address to this log.

    Also says whether the certificate there is valid and whether every lab is registered. Exits with
    3 if something is wrong, and with 1 if the account cannot be used.
    """
    url = prepared_database()
    settings = Settings.from_environment()
    policy = agree(url, settings)
    with _client(url, settings) as client:
        report = check_account(url, settings, policy, client, by=by, probe=not no_probe)
    if as_json:
        click.echo(encode(report))
    else:
        for step in report.steps:
            click.echo(f"{'ok' if step.ok else 'WRONG':5}  {step.step}: {step.words}")
    if not report.ok:
        sys.exit(FOUND)


@flabs.command()
@json_lines_option
def labs(*, as_json: bool) -> None:
    """List the labs of the account, as Flabs says now."""
    url = prepared_database()
    settings = Settings.from_environment()
    with _client(url, settings) as client, closing(connect(url, "flabs")) as connection:
        found = look(connection, settings, client)
    if as_json:
        for lab in found:
            click.echo(encode(lab))
        return
    print_table(("lab", "name"), [(lab.lab_id, lab.name or "") for lab in found], whole=("lab",))


@flabs.command()
@click.option("--lab", "labs_", multiple=True, metavar="LAB", help="A lab; may be repeated.")
@click.option("--all-labs", is_flag=True, help="All labs of the account.")
@click.option(
    "--events",
    metavar="TYPES",
    help="Event types, separated by commas.  [default: those of the policy]",
)
@click.option(
    "--party",
    "parties",
    multiple=True,
    metavar="KIND:ID",
    help="For an account of parties: corporateUser:ID or organization:ID; may be repeated.",
)
@click.option(
    "--again",
    is_flag=True,
    help="Ask also for what the log says to be subscribed, in case Flabs has dropped it.",
)
@click.option(
    "--token-in-path",
    is_flag=True,
    help="Put the token into the endpoint's path, for an account that cannot send one.",
)
@dry_run_option
@operator_option
@json_lines_option
def subscribe(
    *,
    labs_: tuple[str, ...],
    all_labs: bool,
    events: str | None,
    parties: tuple[str, ...],
    again: bool,
    token_in_path: bool,
    dry_run: bool,
    by: Operator,
    as_json: bool,
) -> None:
    """Subscribe labs at Flabs to this server's endpoint.

    What is subscribed already, as the log or Flabs says, is no failure. The token is the first of
    LEDGER_WEBHOOK_TOKENS, or a new one in the database. Each subscription is recorded in the log.
    """
    if bool(labs_) == all_labs:
        raise click.UsageError("give either --lab, once or several times, or --all-labs")
    url = prepared_database()
    settings = Settings.from_environment()
    policy = agree(url, settings)
    chosen = policy.events if events is None else _words(events)
    choice = Choice(
        labs=labs_ or None,
        events=tuple(chosen),
        parties=tuple(map(parse_party, parties)),
        again=again,
        in_path=token_in_path,
    )
    public_endpoint(settings)  # what is wrong with it is said before anything is asked
    with _client(url, settings) as client:
        report, _ = subscribe_labs(
            url, settings, client, choice, by=by, patience=PATIENCE, dry_run=dry_run
        )
    if as_json:
        for item in report.subscriptions:
            click.echo(encode(item))
    else:
        print_table(SUBSCRIPTION_COLUMNS, map(subscription_cells, report.subscriptions))
    if dry_run:
        click.echo("Nothing was changed (--dry-run).", err=True)
    refused = sum(item.outcome == "refused" for item in report.subscriptions)
    if refused:
        raise click.ClickException(f"Flabs refused {count(refused, 'subscription')}; see above")


@flabs.command()
@click.option("--check", "check_", is_flag=True, help="Exit with 3 if something is wrong.")
@json_lines_option
def coverage(*, check_: bool, as_json: bool) -> None:
    """Show the account's labs, what is subscribed and what was heard of, side by side.

    Works without an account, too: then what operators said to be subscribed is compared with the
    log. The labs are those of the last look at the account; `ledger flabs labs` looks again.
    """
    url = prepared_database()
    policy = agree(url, Settings.from_environment())
    with closing(connect(url, "flabs")) as connection:
        found = read_coverage(connection, policy)
    if as_json:
        for lab in found.labs:
            click.echo(encode(lab))
    else:
        click.echo(checked(found.check, datetime.now(UTC)), err=True)
        print_table(COVERAGE_COLUMNS, map(coverage_cells, found.labs), whole=("lab",))
    if check_ and coverage_findings(found):
        sys.exit(FOUND)


@flabs.command("rotate-token")
@click.option(
    "--replace",
    multiple=True,
    metavar="ID",
    help="Drop this webhook token, too; may be repeated. Those that Ledger gave to Flabs are.",
)
@click.option("--no-wait", is_flag=True, help="End before the wait; `ledger project` drops them.")
@click.option("--drop", is_flag=True, help="Drop old tokens although Flabs still presents one.")
@click.option(
    "--quiet",
    type=click.IntRange(0, 86_400),
    default=int(rotation.QUIET.total_seconds()),
    show_default=True,
    metavar="SECONDS",
    help="How long to watch after the retries whether Flabs still presents an old token.",
)
@operator_option
@json_option
def rotate_token(
    *,
    replace: tuple[str, ...],
    no_wait: bool,
    drop: bool,
    quiet: int,
    by: Operator,
    as_json: bool,
) -> None:
    """Give Flabs a new webhook token, and drop the old ones when their retries are over.

    No delivery is refused meanwhile: old tokens are valid until then. Interrupted anywhere, run it
    again.
    """
    url = prepared_database()
    settings = Settings.from_environment()
    policy = agree(url, settings)
    watch = timedelta(seconds=quiet)
    with _client(url, settings) as client:
        found = rotation.advance(
            url, settings, policy, client, by=by, patience=PATIENCE, replace=replace, quiet=watch
        )
    if not as_json:
        click.echo(where_rotation_stands(found), err=True)
    if not no_wait:
        found = _finish(url, policy, found, by=by, drop=drop, quiet=watch)
    if as_json:
        click.echo(encode(found))
    elif found.finished_at:
        click.echo(where_rotation_stands(found))
    if found.finished_at and settings.webhook_tokens:
        with closing(connect(url, "flabs")) as connection:
            dropped = [
                token
                for token in settings.webhook_tokens
                if webhook_tokens.is_revoked(connection, token)
            ]
        if dropped:
            click.echo(
                f"{count(len(dropped), 'token')} of LEDGER_WEBHOOK_TOKENS is refused from now on: "
                "remove it there.",
                err=True,
            )


def _finish(
    url: str, policy: Policy, found: Rotation, *, by: Operator, drop: bool, quiet: timedelta
) -> Rotation:
    """Wait until the old tokens may be dropped, and drop them."""
    while found.finished_at is None and found.drop_at is not None:
        wait = (found.drop_at - datetime.now(UTC)).total_seconds()
        if wait > 0:
            time.sleep(min(wait, WAIT_SECONDS))
        now = datetime.now(UTC)
        found = rotation.finish(url, policy, by=by, now=now, drop=drop, quiet=quiet) or found
    return found


@contextmanager
def _client(url: str, settings: Settings) -> Iterator[FlabsClient]:
    """Give a client; say with an error of it when the account was last listed."""
    with FlabsClient.of(settings) as client:
        try:
            yield client
        except FlabsError as error:
            with closing(connect(url, "flabs")) as connection:
                last = read_check(connection)
            if last is None or last.succeeded_at is None:
                raise
            ago = lasting(datetime.now(UTC) - last.succeeded_at)
            raise click.ClickException(
                f"{error}. The account's labs were last listed {clock(last.succeeded_at)} UTC, "
                f"{ago} ago"
            ) from error


def _words(text: str) -> list[str]:
    return [word.strip() for word in text.split(",") if word.strip()]
