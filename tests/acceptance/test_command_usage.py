"""What `ledger` says of itself: help, wrong usage, and the description of its API."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import rich_click as click
from click.testing import CliRunner

from ledger.cli import COMMANDS, ledger
from tests.support.commands import assert_sentence
from tests.support.server import ROOT, run_ledger

# --- help -------------------------------------------------------------------------------------


def test_help_lists_every_command_and_loads_none() -> None:
    heavy = ["litestar", "uvicorn", "httpx", "sqlalchemy", "ledger.projection", "ledger.operations"]
    code = (
        "import sys; from ledger.cli import ledger\n"
        "ledger.main(['--help'], prog_name='ledger', standalone_mode=False)\n"
        f"print('loaded:', [name for name in {heavy} if name in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT
    )
    assert done.stdout.endswith("loaded: []\n")
    for command in COMMANDS:
        assert f" {command} " in done.stdout


# Litestar warns of our use of its parameters, once, when the API's modules are loaded.
@pytest.mark.filterwarnings("ignore:Deprecated '(header|query)' parameter:DeprecationWarning")
@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_explains_itself(command: str) -> None:
    done = CliRunner().invoke(ledger, [command, "--help"], prog_name="ledger")
    assert done.exit_code == 0
    assert f"ledger {command}" in done.stdout
    assert not done.stderr


@pytest.mark.parametrize(
    "command", ["missing", "request", "status", "bill", "events", "windows", "reconcile"]
)
def test_every_listing_takes_json(command: str) -> None:
    loaded = ledger.get_command(click.Context(ledger), command)
    assert loaded is not None
    assert "--json" in {option for parameter in loaded.params for option in parameter.opts}


def test_commands_are_completed_without_loading_them() -> None:
    done = run_ledger(
        settings={
            "_LEDGER_COMPLETE": "bash_complete", "COMP_WORDS": "ledger re", "COMP_CWORD": "1"
        }
    )  # fmt: skip
    assert done.stdout.decode().split() == [
        f"plain,{name}" for name in ("rebuild", "reconcile", "request", "refused")
    ]


# --- wrong usage ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ("nonsense", ["there is no command 'nonsense'", "commands are up, "]),
        ("stauts", ["there is no command 'stauts'", "did you mean status?"]),
        ("--nonsense", ["--nonsense", "`ledger --help`"]),
        ("verify --nonsense", ["--nonsense", "`ledger verify --help`"]),
        ("import", ["name either a FILE or --archive DIR", "`ledger import --help`"]),
        ("missing --limit 0", ["--limit", "0 is not in the range"]),
        ("bill lab", ["missing argument 'BILL'"]),
        ("waive --lab l --test t --reason r", ["--test needs --bill"]),
        ("waive --bill b --reason r", ["--bill needs --lab"]),
        ("windows --close 2024-01-20T10:00:00Z 2024-01-20T11:00:00Z", ["--reason"]),
        ("windows --close now 2024-01-20T11:00:00Z --reason r", ["--close", "RFC 3339"]),
        ("events --reason not_json", ["--unreadable"]),
        ("request 1 --line 1", ["--line", "--close"]),
    ],
)
def test_wrong_usage_is_one_line_in_the_form_of_all_errors(
    arguments: str, words: list[str]
) -> None:
    done = run_ledger(*arguments.split())
    said = assert_sentence(done, *words, code=2)
    assert said.startswith("ledger: ")
    assert said.count("\n") == 1
    assert done.stdout == b""


# --- openapi ----------------------------------------------------------------------------------


def test_openapi_check_finds_a_drift(tmp_path: Path) -> None:
    folder = str(tmp_path)
    assert run_ledger("openapi", "--output", folder).returncode == 0
    assert run_ledger("openapi", "--output", folder, "--check").returncode == 0
    file = tmp_path / "webhook.json"
    file.write_bytes(file.read_bytes().replace(b"billID", b"billId"))
    done = run_ledger("openapi", "--output", folder, "--check")
    assert done.returncode == 3
    assert b"webhook.json" in done.stdout


def test_openapi_check_outside_a_checkout_is_a_sentence(tmp_path: Path) -> None:
    done = run_ledger("openapi", "--check", cwd=tmp_path)
    assert_sentence(done, "no folder api_schema", str(tmp_path), "--output", code=2)


def test_openapi_prints_the_document() -> None:
    done = run_ledger("openapi")
    assert json.loads(done.stdout)["openapi"].startswith("3.1")
