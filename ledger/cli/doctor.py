"""`ledger doctor`."""

import sys
from collections import Counter

import msgspec
import rich_click as click

from ledger.cli.common import json_option
from ledger.doctor.examine import examine
from ledger.doctor.findings import Finding, wrong
from ledger.errors import SettingsError
from ledger.logging_setup import configure_logging
from ledger.operations.render.words import count, shown
from ledger.settings import Settings


@click.command()
@json_option
def doctor(*, as_json: bool) -> None:
    """Look at everything that an installation can have wrong, and say what to do.

    Checks settings, secrets, certificate, spool, PostgreSQL, rights, and what runs. Changes
    nothing. Run it with the environment of the process that has a problem. Exits with 3 if
    something is wrong; warnings and what cannot be known do not count.
    """
    findings = list(_examine())
    if as_json:
        click.echo(msgspec.json.encode(findings))
    else:
        width = max(len(each.check) for each in findings)
        for each in findings:
            _print(each, width)
        click.echo(_summary(findings))
    if any(each.verdict == "wrong" for each in findings):
        sys.exit(3)


def _examine() -> list[Finding]:
    try:
        settings = Settings.from_environment()
    except SettingsError as error:
        configure_logging()
        return [wrong("settings", str(error), "nothing else could be checked")]
    configure_logging(settings)
    return list(examine(settings))


_COLORS = {"ok": "green", "unknown": "blue", "warning": "yellow", "wrong": "red"}


def _print(found: Finding, width: int) -> None:
    verdict = click.style(f"{found.verdict:7}", fg=_COLORS[found.verdict])
    click.echo(f"{verdict}  {found.check:{width}}  {shown(found.words)}")
    if found.advice:
        click.echo(f"{'':7}  {'':{width}}  -> {shown(found.advice)}")


def _summary(findings: list[Finding]) -> str:
    number = Counter(each.verdict for each in findings)
    if not number["wrong"] and not number["warning"]:
        return "Nothing is wrong."
    return f"{number['wrong']} wrong, {count(number['warning'], 'warning')}."
