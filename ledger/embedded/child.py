"""Child processes that run as another user if we are root, and that end when we do."""

import os
import pwd
import signal
import subprocess
import sys
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from ledger.errors import EmbeddedPostgresError

# Not our environment: PGDATA and similar variables would change what the programs do.
_ENVIRONMENT: Final = {"LC_ALL": "C", "PATH": os.defpath}

# Gives up root, asks for a signal when the parent ends, and becomes the command. It is a process of
# its own, because Popen's preexec_fn can deadlock in a program with threads. The user is changed
# first, because Linux then forgets which signal was asked for.
_LAUNCHER: Final = """
import ctypes, os, sys
parent, death_signal, user, uid, gid, *command = sys.argv[1:]
if user:
    os.initgroups(user, int(gid))
    os.setgid(int(gid))
    os.setuid(int(uid))
if sys.platform == "linux":
    ctypes.CDLL(None).prctl(1, int(death_signal), 0, 0, 0)
    if os.getppid() != int(parent):
        sys.exit("the process that started this one has ended")
os.execv(command[0], command)
"""


@dataclass(frozen=True, kw_only=True)
class OtherUser:
    """The user that the server runs as, if it is not the current one."""

    name: str
    uid: int
    gid: int


def server_user() -> OtherUser | None:
    """Return the user to run the server as, None for the current one."""
    if os.geteuid() != 0:
        return None
    for name in ("postgres", "nobody"):
        try:
            entry = pwd.getpwnam(name)
        except KeyError:
            continue
        return OtherUser(name=name, uid=entry.pw_uid, gid=entry.pw_gid)
    message = (
        "PostgreSQL refuses to run as root, and neither of the users postgres and nobody exists: "
        "start Ledger as another user, or create one of the two"
    )
    raise EmbeddedPostgresError(message)


def run(command: list[str], user: OtherUser | None) -> subprocess.CompletedProcess[str]:
    """Run a command to its end; stdout of the result holds its output and its errors."""
    return subprocess.run(
        _launching(command, user, signal.SIGKILL),
        cwd="/",
        env=_ENVIRONMENT,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )


class Child:
    """A process in the background, started by a thread that waits for its end.

    Linux sends the signal of a parent's death when the *thread* that started the child ends, so
    that thread must live as long as the child.
    """

    def __init__(self, command: list[str], user: OtherUser | None, log: Path) -> None:
        self.ended: Final = threading.Event()
        # SIGINT is PostgreSQL's fast and clean shutdown.
        arguments = _launching(command, user, signal.SIGINT)
        handover: list[subprocess.Popen[bytes] | OSError] = []
        handed_over = threading.Event()

        def hold() -> None:
            try:
                process = _spawn(arguments, log)
            except OSError as failure:
                handover.append(failure)
                return
            else:
                handover.append(process)
            finally:
                handed_over.set()
            process.wait()
            self.ended.set()

        threading.Thread(target=hold, name="embedded-postgres", daemon=True).start()
        handed_over.wait()
        if isinstance(handover[0], OSError):
            raise handover[0]
        self._process: Final = handover[0]

    @property
    def pid(self) -> int:
        """Process id."""
        return self._process.pid

    def send(self, number: signal.Signals) -> None:
        """Send a signal, unless the process has ended."""
        self._process.send_signal(number)


def _spawn(command: list[str], log: Path) -> subprocess.Popen[bytes]:
    descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    try:
        return subprocess.Popen(
            command,
            cwd="/",
            env=_ENVIRONMENT,
            stdin=subprocess.DEVNULL,
            stdout=descriptor,
            stderr=descriptor,
            # Only we get Ctrl-C in a terminal, and stop the server when we no longer need it.
            start_new_session=True,
        )
    finally:
        os.close(descriptor)


def _launching(
    command: list[str], user: OtherUser | None, death_signal: signal.Signals
) -> list[str]:
    who = [user.name, str(user.uid), str(user.gid)] if user else ["", "", ""]
    parent = [str(os.getpid()), str(int(death_signal))]
    return [sys.executable, "-I", "-S", "-c", _LAUNCHER, *parent, *who, *command]
