"""What the tests of Ledger's commands share: settings, how a command says no, a terminal."""

import errno
import os
import pty
import subprocess
import sys
from collections.abc import Mapping

from tests.support.forked import ForkedProcess, may_fork
from tests.support.server import KEY, ROOT, TOKEN, environment


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


def run_on_terminal(
    *arguments: str, settings: Mapping[str, str], typed: str = ""
) -> tuple[int, str]:
    """Run a command on a terminal on which something was typed; return its code and the screen."""
    ours, its = pty.openpty()
    env = environment({"TERM": "xterm", "COLUMNS": "60", **settings})
    with _start(arguments, env, its) as process:
        os.close(its)
        os.write(ours, typed.encode())
        screen = b""
        while part := _read(ours):
            screen += part
        os.close(ours)
        return process.wait(60), screen.decode()


def _start(
    arguments: tuple[str, ...], env: dict[str, str], terminal: int
) -> subprocess.Popen[bytes] | ForkedProcess:
    if may_fork():
        streams = (terminal, terminal, terminal)
        return ForkedProcess(arguments, env=env, cwd=ROOT, streams=streams, session=True)
    return subprocess.Popen(
        [sys.executable, "-m", "ledger", *arguments],
        env=env,
        cwd=ROOT,
        stdin=terminal,
        stdout=terminal,
        stderr=terminal,
        start_new_session=True,
    )


def _read(terminal: int) -> bytes:
    try:
        return os.read(terminal, 65_536)
    except OSError as error:  # the last process has left the terminal
        if error.errno == errno.EIO:
            return b""
        raise
