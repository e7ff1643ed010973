"""Long work on a terminal: it asks, shows a bar, and ends."""

import pytest

from tests.support.commands import run_on_terminal, settings_of


@pytest.mark.parametrize(
    ("command", "end"), [("rebuild", "Rebuilt to position 0"), ("verify", "The log is ")]
)
def test_long_work_runs_on_a_terminal(module_database_url: str, command: str, end: str) -> None:
    settings = settings_of(module_database_url)
    code, screen = run_on_terminal(command, settings=settings, typed="y\n")
    assert code == 0, screen
    assert end in screen
    assert "0 events" in screen
    assert "Traceback" not in screen
