"""The processes of `ledger up`: PostgreSQL, the server and the projector on one data folder."""

import fcntl
import secrets
import shlex
import signal
import socket
import subprocess
import sys
import sysconfig
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, closing, contextmanager, suppress
from pathlib import Path
from types import FrameType
from urllib.parse import urlsplit

import httpx
import rich_click as click

from ledger import embedded, schema
from ledger.api.permissions import ADMIN_KEY_ID
from ledger.errors import LedgerError
from ledger.operations import api_keys, sessions
from ledger.postgres.connect import connect, connect_as_login
from ledger.settings import POLICY, Settings, child_environment, given_settings

TOKEN_FILE = "webhook-token"  # noqa: S105 -- the name of a file
KEY_FILE = "admin-key"
ENVIRONMENT_FILE = "env"
"""Variables for other commands, to be read by a shell; holds the secrets."""

HOST = "127.0.0.1"

READY_SECONDS = 60.0
RESTARTS = 5
"""How many times processes that end by themselves are restarted before everything is stopped."""

STOP_SECONDS = 15.0

PORT_SECONDS = 3.0
"""How long a port may be taken: a server whose `ledger up` was killed needs a moment to end."""

_IGNORED = frozenset(
    {
        "LEDGER_LISTEN_INTAKE",
        "LEDGER_LISTEN_API",
        "LEDGER_LISTEN_STATUS",
        "LEDGER_TLS_CERTIFICATE",
        "LEDGER_TLS_KEY",
    }
)
"""Settings that are for servers which others reach."""

OPERATOR = "ledger up"
"""Who decides on the page, as far as the link that was printed knows."""

_LINK_MINUTES = int(sessions.LINK_LASTING.total_seconds() // 60)

_STOPPED = "stopped before it was ready"


def server_url(port: int | None) -> str:
    """Return the address of the server; the port is None for the one in LEDGER_PORT."""
    return f"http://{HOST}:{port or Settings.from_environment().port}"


class Stack:
    """PostgreSQL, `ledger serve` and `ledger project` on one data folder.

    `port` is the server's, None for the one in LEDGER_PORT. `more_settings` are settings for the
    processes that override the environment. Raises `SettingsError` for a bad environment.
    """

    def __init__(self, data: Path, *, port: int | None, more_settings: Mapping[str, str]) -> None:
        self._given = Settings.from_environment()
        self.data = data.absolute()
        self._port = port or self._given.port
        self.url = server_url(port)
        self.token = ""
        self.key = ""
        self.database_url = ""
        self._more_settings = more_settings
        self._new_secrets: set[str] = set()
        self._postgres_port = 0
        self._environment: dict[str, str] = {}
        self._processes: dict[str, subprocess.Popen[bytes]] = {}
        self._stop = threading.Event()

    @contextmanager
    def running(self) -> Iterator[None]:
        """Start everything, and stop it at the end."""
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self._on_signal)
        with ExitStack() as cleanup:
            self._prepare_folder(cleanup)
            _refuse_taken_port(self._port)
            click.echo("Starting PostgreSQL ...", err=True)
            postgres = embedded.start(self.data / "postgres", say=_say)
            cleanup.callback(postgres.stop)
            postgres.ensure_database("ledger")
            self._postgres_port = postgres.port
            self.database_url = postgres.dsn("ledger")
            self._report_ignored_settings()
            self._migrate()
            # Made last, because they are shown once: a start that fails earlier must not make them.
            tokens = self._given.webhook_tokens
            self.token = self._secret(TOKEN_FILE, tokens[0] if tokens else "")
            self.key = self._secret(KEY_FILE, self._given.admin_key)
            self._environment = child_environment(
                {
                    "LEDGER_SPOOL_DIR": str(self._given.spool_dir or self.data / "spool"),
                    **self._more_settings,
                    "LEDGER_DATABASE_URL": self.database_url,
                    "LEDGER_WEBHOOK_TOKENS": ",".join(tokens or [self.token]),
                    "LEDGER_ADMIN_KEY": self.key,
                    "LEDGER_HOST": HOST,
                    "LEDGER_PORT": str(self._port),
                    **self._without_ignored(),
                }
            )
            _write_secret(self.data / ENVIRONMENT_FILE, self._exports())
            cleanup.callback(self._end_processes)
            for command in ("serve", "project"):
                self._start(command)
            self._wait_until_ready()
            yield

    def _report_ignored_settings(self) -> None:
        if self._given.database_url not in ("", self.database_url):
            _say("LEDGER_DATABASE_URL is ignored: `ledger up` runs a PostgreSQL of its own")
        if self._given.host != HOST:
            _say(f"LEDGER_HOST is ignored: `ledger up` listens on {HOST}")
        for name in _IGNORED & set(given_settings()):
            _say(f"{name} is ignored: `ledger up` serves everything on {self.url}")

    def _without_ignored(self) -> dict[str, str]:
        """Return values that undo what was given and cannot be heeded here."""
        same = f"{HOST}:{self._port}"
        return {name: same if "LISTEN" in name else "" for name in _IGNORED & set(given_settings())}

    def _secret(self, file: str, given: str) -> str:
        """Return a secret: the one given in the environment, the one kept in the file, a new one.

        The file then holds it.
        """
        path = self.data / file
        if given:
            _write_secret(path, given + "\n")
        elif not path.exists():
            _write_secret(path, secrets.token_urlsafe(24) + "\n")
            self._new_secrets.add(file)
        return path.read_text().strip()

    def _migrate(self) -> None:
        """Migrate the database, and say so for an older one, because a large log takes a while.

        The policy is that of this start, so that a demo's quick retries end with the demo.
        """
        with closing(connect_as_login(self.database_url, "migrate")) as connection:
            version = schema.current_version(connection)
        if version and version < schema.SCHEMA_VERSION:
            _say(f"Bringing the database from schema {version} to {schema.SCHEMA_VERSION} ...")
        settings = Settings.from_environment(child_environment(self._more_settings))
        schema.migrate(self.database_url, {name: getattr(settings, name) for name in POLICY})

    def _exports(self) -> str:
        """Return the shell code that lets other commands work with this stack."""
        variables = {
            "URL": self.url,
            "TOKEN": self.token,
            "KEY": self.key,
            **dict(sorted(given_settings(self._environment).items())),
        }
        scripts = sysconfig.get_path("scripts")
        # Read twice, the file must not add the folder twice.
        path = (
            f'case ":$PATH:" in *{shlex.quote(f":{scripts}:")}*) ;;'
            f' *) export PATH={shlex.quote(scripts)}:"$PATH" ;; esac\n'
        )
        exports = (f"export {name}={shlex.quote(value)}\n" for name, value in variables.items())
        return path + "".join(exports)

    def settings(self) -> Settings:
        """Return the settings of the processes."""
        return Settings.from_environment(self._environment)

    def banner(self) -> str:
        """Return what to print at the start: addresses, lines to paste, and secrets if new."""
        token, key = _quoted(self.data / TOKEN_FILE), _quoted(self.data / KEY_FILE)
        password = _quoted(self.data / "postgres" / "password")
        new_token = f"   {self.token}" if TOKEN_FILE in self._new_secrets else ""
        new_key = f"   {self.key}" if KEY_FILE in self._new_secrets else ""
        user = urlsplit(self.database_url).username
        example = (
            f'{{"labID": "lab_1", "eventType": "bill.created", "eventTime": {int(time.time())}, '
            '"data": {"billID": "bill_1", "billData": {"testData": [{"_id": "test_1"}]}}}'
        )
        environment = _quoted(self.data / ENVIRONMENT_FILE)
        return f"""
Page            {self.login_link()}   (logs in once, within {_LINK_MINUTES} minutes)
Ledger          {self.url}   (OpenAPI: {self.url}/schema)
Webhook token   in {token}{new_token}
API key         in {key}{new_key}
PostgreSQL      PGPASSWORD="$(cat {password})" psql -h {HOST} -p {self._postgres_port} \
-U {user} ledger
Commands        . {environment}; then `ledger status`, `ledger reconcile`, ...

Send a webhook:
curl -sS {self.url}/webhooks/flabs -H "Authorization: Bearer $(cat {token})" -d '{example}'

Ask for its bill:
curl -sS {self.url}/v1/labs/lab_1/bills/bill_1 -H "Authorization: Bearer $(cat {key})"
"""

    def login_link(self) -> str:
        """Return the address that logs in to the page once, as an administrator."""
        with closing(connect(self.database_url, "login")) as connection:
            token = sessions.make_link(
                connection, ADMIN_KEY_ID, api_keys.digest_of(self.key), operator=OPERATOR
            )
        return f"{self.url}{self._given.path_prefix}/login/link/{token}"

    def watch(self) -> None:
        """Wait for a signal to stop; restart a process that ends by itself."""
        restarts = 0
        while not self._stop.wait(1.0):
            for command, process in list(self._processes.items()):
                if process.poll() is None:
                    continue
                restarts += 1
                if restarts > RESTARTS:
                    raise LedgerError(
                        f"`ledger {command}` ended {restarts} times; its messages above say why"
                    )
                _say(f"`ledger {command}` ended with {process.returncode}; restarting it")
                self._start(command)

    @property
    def stopping(self) -> bool:
        """Whether a signal to stop has come."""
        return self._stop.is_set()

    def pause(self, seconds: float) -> None:
        """Wait, but no longer than until a signal to stop."""
        self._stop.wait(seconds)

    def _on_signal(self, _number: int, _frame: FrameType | None) -> None:
        self._stop.set()

    def _prepare_folder(self, cleanup: ExitStack) -> None:
        try:
            self.data.mkdir(parents=True, exist_ok=True)
            lock = cleanup.enter_context((self.data / "lock").open("w"))
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise LedgerError(f"another `ledger up` runs on {self.data}; stop it first") from None
        except OSError as error:
            raise LedgerError(f"cannot use {self.data}: {error.strerror}") from error

    def _start(self, command: str) -> None:
        self._processes[command] = subprocess.Popen(
            [sys.executable, "-m", "ledger", command, "--end-with-parent"],
            env=self._environment,
            stdin=subprocess.DEVNULL,
            # Only this process gets Ctrl-C; it then ends the others in order.
            start_new_session=True,
        )

    def _wait_until_ready(self) -> None:
        deadline = time.monotonic() + READY_SECONDS
        while time.monotonic() < deadline:
            if self._stop.is_set():
                raise LedgerError(_STOPPED)
            for command, process in self._processes.items():
                if process.poll() is not None:
                    raise LedgerError(f"`ledger {command}` ended; its messages above say why")
            with suppress(httpx.HTTPError):
                if (
                    httpx.get(f"{self.url}/health/ready", trust_env=False).status_code
                    == httpx.codes.OK
                ):
                    return
            self._stop.wait(0.1)
        raise LedgerError(f"the server did not become ready within {READY_SECONDS:.0f} s")

    def _end_processes(self) -> None:
        for process in self._processes.values():
            process.terminate()
        for process in self._processes.values():
            try:
                process.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _write_secret(path: Path, text: str) -> None:
    """Write a file that only its owner can read."""
    unfinished = path.with_suffix(".part")
    unfinished.unlink(missing_ok=True)
    unfinished.touch(mode=0o600)
    unfinished.write_text(text)
    unfinished.rename(path)


def _refuse_taken_port(port: int) -> None:
    deadline = time.monotonic() + PORT_SECONDS
    while error := _error_of_binding(port):
        if time.monotonic() > deadline:
            raise LedgerError(
                f"cannot listen on port {port}: {error.strerror}; choose another: "
                f"`ledger up --port {port + 1}` or `make up PORT={port + 1}`"
            ) from error
        time.sleep(0.1)


def _error_of_binding(port: int) -> OSError | None:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError as error:
            return error
    return None


def _quoted(path: Path) -> str:
    """Quote an absolute path for a shell, so that a pasted line works in any folder."""
    return shlex.quote(str(path))


def _say(words: str) -> None:
    click.echo(words, err=True)
