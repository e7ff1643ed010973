"""What `ledger` says of itself: help, wrong usage, and the description of its API."""

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from ledger.cli import ledger
from tests.support.server import (
    run_ledger,
)

COMMANDS = (
    "up", "serve", "project", "migrate", "rebuild", "verify", "import", "export", "status",
    "simulate", "openapi",
)  # fmt: skip


# --- help -------------------------------------------------------------------------------------


def test_help_lists_every_command() -> None:
    done = run_ledger("--help")
    assert done.returncode == 0
    for command in COMMANDS:
        assert command in done.stdout.decode()


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_explains_itself(command: str) -> None:
    done = CliRunner().invoke(ledger, [command, "--help"], prog_name="ledger")
    assert done.exit_code == 0
    assert f"ledger {command}" in done.stdout
    assert not done.stderr


def test_an_unknown_command_is_wrong_usage() -> None:
    assert run_ledger("nonsense").returncode == 2


def test_an_unknown_option_is_wrong_usage() -> None:
    assert CliRunner().invoke(ledger, ["verify", "--nonsense"]).exit_code == 2


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


def test_openapi_prints_the_document() -> None:
    done = run_ledger("openapi")
    assert json.loads(done.stdout)["openapi"].startswith("3.1")
