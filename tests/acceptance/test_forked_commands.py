"""The processes of the tests themselves: a command that has begun can be killed at once."""

from pathlib import Path

import pytest

from tests.support.server import Process

pytestmark = pytest.mark.slow


def test_a_command_that_has_just_begun_can_be_killed(tmp_path: Path) -> None:
    away = {"LEDGER_DATABASE_URL": "postgresql://nobody@127.0.0.1:1/ledger"}
    for _ in range(20):
        process = Process("project", settings=away, output=tmp_path / "output")
        process.kill()
        assert not process.running
