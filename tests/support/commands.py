"""What the tests of Ledger's commands share: settings, and how a command says no."""

import subprocess

from tests.support.server import KEY, TOKEN


def settings_of(url: str) -> dict[str, str]:
    return {
        "LEDGER_DATABASE_URL": url,
        "LEDGER_WEBHOOK_TOKENS": TOKEN,
        "LEDGER_ADMIN_KEY": KEY,
    }


def assert_sentence(done: subprocess.CompletedProcess[bytes], *words: str, code: int = 1) -> str:
    """Check that a command ended with a sentence and not with a traceback."""
    said = done.stderr.decode()
    assert done.returncode == code, said
    assert "Traceback" not in said
    for word in words:
        assert word in said
    return said
