"""Ledger's own processes for tests: `ledger serve`, `ledger project` and single commands."""

import functools
import json
import os
import random
import signal
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

import httpx

from tests.support.forked import ForkedProcess, may_fork, run_forked

T = TypeVar("T")

ROOT = Path(__file__).parents[2]

TOKEN = "webhook-token-of-the-tests"
KEY = "api-key-of-the-tests"
START_SECONDS = 30.0
POLL_SECONDS = 0.02

FIRST_PORT = 10_000

LIMITS = httpx.Limits(max_connections=None, max_keepalive_connections=64)
"""More than a test has threads, for a client that has too many closes those of other threads."""


PLAIN = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
"""For clients of servers without TLS: each client's own context takes 24 ms to load."""


def wait_until(condition: Callable[[], T], what: str, *, seconds: float = 20.0) -> T:
    """Return what the condition gives as soon as that is true; fail when it never is."""
    deadline = time.monotonic() + seconds
    while True:
        if result := condition():
            return result
        assert time.monotonic() < deadline, f"not within {seconds} s: {what}"
        time.sleep(POLL_SECONDS)


def free_port() -> int:
    """Return a TCP port that nobody uses, and that no connection gets for its own end.

    So that a server that was killed finds it free when it starts again.
    """
    end = _first_port_of_connections()
    while True:
        port = random.randrange(FIRST_PORT, end) if end > 2 * FIRST_PORT else 0
        with socket.socket() as probe, suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return int(probe.getsockname()[1])


@functools.cache
def _first_port_of_connections() -> int:
    try:
        return int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    except OSError:
        return 32_768


def environment(settings: Mapping[str, str]) -> dict[str, str]:
    """Return this process's environment with these settings of Ledger and no others."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("LEDGER_")}
    return {**kept, "PYTHONUNBUFFERED": "1", **settings}


def run_ledger(
    *arguments: str,
    settings: Mapping[str, str] | None = None,
    stdin: bytes = b"",
    timeout: float = 60.0,
    cwd: Path = ROOT,
    fresh: bool = False,
) -> subprocess.CompletedProcess[bytes]:
    """Run a command of Ledger to its end; `fresh`: in an interpreter that has loaded nothing."""
    env = environment(settings or {})
    if may_fork() and not fresh:
        return run_forked(arguments, env=env, cwd=cwd, stdin=stdin, timeout=timeout)
    return subprocess.run(
        [sys.executable, "-m", "ledger", *arguments],
        env=env,
        cwd=cwd,
        input=stdin,
        capture_output=True,
        check=False,
        timeout=timeout,
    )


def is_worker(pid: int) -> bool:
    """Tell whether a child of a server is a worker that runs; another child tracks resources."""
    try:
        command = Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return False
    return bool(command) and b"resource_tracker" not in command


def group_runs(group: int) -> bool:
    """Tell whether a process of a group has not ended."""
    for path in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            state, _, of, *_ = path.read_text().rpartition(")")[2].split()
            if int(of) == group and state not in "ZX":
                return True
    return False


class Process:
    """A command of Ledger in the background, leader of a process group of its own."""

    def __init__(
        self,
        *arguments: str,
        settings: Mapping[str, str],
        output: Path,
        cwd: Path = ROOT,
        open_files: int | None = None,
    ) -> None:
        self._output = output
        self._popen: subprocess.Popen[bytes] | ForkedProcess
        env = environment(settings)
        limited = ["sh", "-c", f'ulimit -n {open_files}; exec "$@"', "sh"] if open_files else []
        with output.open("ab") as file, Path(os.devnull).open("rb") as nothing:
            if may_fork() and not limited:
                streams = (nothing.fileno(), file.fileno(), file.fileno())
                self._popen = ForkedProcess(
                    arguments, env=env, cwd=cwd, streams=streams, session=True
                )
                return
            self._popen = subprocess.Popen(
                [*limited, sys.executable, "-m", "ledger", *arguments],
                env=env,
                cwd=cwd,
                stdin=nothing,
                stdout=file,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    @property
    def pid(self) -> int:
        """Id of the process, and of its group."""
        return self._popen.pid

    @property
    def running(self) -> bool:
        """Whether it has not ended."""
        return self._popen.poll() is None

    @property
    def output(self) -> str:
        """All that it and those before it with the same file have written."""
        return self._output.read_text(errors="replace")

    def send_signal(self, number: signal.Signals) -> None:
        """Send a signal to the process alone."""
        self._popen.send_signal(number)

    def kill(self) -> None:
        """Kill the whole process group, as a crash of the machine would."""
        with suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)
        self.wait()
        # Its workers may end a little later, and hold its address until then.
        wait_until(lambda: not group_runs(self.pid), "its process group has ended")

    def terminate(self) -> int:
        """Ask for a clean end, and return the exit code."""
        if self.running:
            self._popen.terminate()
        return self.wait(20.0)

    def wait(self, seconds: float = 20.0) -> int:
        """Wait for the end, and return the exit code."""
        return self._popen.wait(seconds)


class LedgerServer:
    """One `ledger serve` with, unless told otherwise, one `ledger project`, on a database.

    Entering its `with` block starts both and, unless told otherwise, waits until all is ready.
    Leaving its `with` block kills both. `output` holds all that they said. `open_files` is the
    server's limit of open files, soft and hard; `tls` is what clients of a server with TLS trust.
    """

    def __init__(
        self,
        database_url: str,
        folder: Path,
        *,
        settings: Mapping[str, str] | None = None,
        token: str = TOKEN,
        key: str = KEY,
        project: bool = True,
        wait: bool = True,
        open_files: int | None = None,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self._open_files = open_files
        self.port = free_port()
        self.tls = tls
        self.url = f"{'https' if tls else 'http'}://127.0.0.1:{self.port}"
        self.token = token
        self.settings = {
            "LEDGER_DATABASE_URL": database_url,
            "LEDGER_WEBHOOK_TOKENS": token,
            "LEDGER_ADMIN_KEY": key,
            "LEDGER_PORT": str(self.port),
            **(settings or {}),
        }
        self._serve_output = folder / f"serve-{self.port}.log"
        self._project_output = folder / f"project-{self.port}.log"
        self._with_projector = project
        self._wait = wait
        self.api = httpx.Client(
            base_url=self.url,
            headers={"Authorization": f"Bearer {key}"},
            timeout=30,
            trust_env=False,
            verify=tls or PLAIN,
            limits=LIMITS,
        )
        self.anonymous = httpx.Client(
            base_url=self.url, timeout=30, trust_env=False, verify=tls or PLAIN, limits=LIMITS
        )
        self.serve: Process
        self.projector: Process | None = None

    def __enter__(self) -> Self:
        try:
            self.start(wait=self._wait)
        except BaseException:
            self._end()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        self._end()

    def _end(self) -> None:
        self.api.close()
        self.anonymous.close()
        self.kill_server()
        self.kill_projector()

    @property
    def output(self) -> str:
        """What the server and the projector have written."""
        files = (self._serve_output, self._project_output)
        return "".join(file.read_text(errors="replace") for file in files if file.exists())

    def start(self, *, wait: bool = True) -> None:
        """Start both; return when the server is ready."""
        self.start_server(wait=False)
        if self._with_projector:
            self.start_projector()
        if wait:
            self.wait_until_ready()

    def start_server(self, *, wait: bool = True) -> None:
        """Start the server, again on the same port."""
        self.serve = Process(
            "serve",
            settings=self.settings,
            output=self._serve_output,
            open_files=self._open_files,
        )
        if wait:
            self.wait_until_ready()

    def start_projector(self) -> None:
        """Start the projector."""
        self.projector = Process("project", settings=self.settings, output=self._project_output)

    def wait_until_ready(self) -> None:
        """Wait until the server says that it could make a delivery durable."""

        def ready() -> bool:
            assert self.serve.running, self.output
            with suppress(httpx.TransportError):
                return self.anonymous.get("/health/ready").status_code == 200
            return False

        wait_until(ready, "the server is ready", seconds=START_SECONDS)

    def kill_server(self) -> None:
        """Kill the server with all its workers."""
        if hasattr(self, "serve"):
            self.serve.kill()

    def kill_projector(self) -> None:
        """Kill the projector."""
        if self.projector:
            self.projector.kill()
            self.projector = None

    @contextmanager
    def without_projector(self) -> Iterator[None]:
        """Have no projector for a while."""
        self.kill_projector()
        try:
            yield
        finally:
            self.start_projector()

    def run(self, *arguments: str, **more: Any) -> subprocess.CompletedProcess[bytes]:  # noqa: ANN401 -- as `run_ledger`
        """Run a command on the server's database."""
        return run_ledger(*arguments, settings=self.settings, **more)

    def send(
        self,
        payload: object,
        *,
        token: str | None = None,
        headers: Mapping[str, str] | None = None,
        path: str = "/webhooks/flabs",
    ) -> httpx.Response:
        """Deliver a payload, or bytes as they are; an empty token sends none."""
        body = payload if isinstance(payload, bytes) else json.dumps(payload).encode()
        presented = self.token if token is None else token
        authorization = {"Authorization": f"Bearer {presented}"} if presented else {}
        return self.anonymous.post(path, content=body, headers={**authorization, **(headers or {})})

    def record(self, *payloads: object) -> list[int]:
        """Deliver payloads one after the other, all of which must be taken; return positions."""
        answers = [self.send(payload) for payload in payloads]
        assert [answer.status_code for answer in answers] == [200] * len(answers)
        return [answer.json()["position"] for answer in answers]

    def get(self, path: str, **parameters: object) -> httpx.Response:
        """Read with the key."""
        given: dict[str, Any] = {name: str(value) for name, value in parameters.items()}
        return self.api.get(path, params=given or None)

    def items(self, path: str, **parameters: object) -> list[dict[str, Any]]:
        """Return all items of a list, part by part."""
        found: list[dict[str, Any]] = []
        cursor: dict[str, str] = {}
        while True:
            answer = self.get(path, **{**parameters, **cursor})
            assert answer.status_code == 200, answer.text
            page = answer.json()
            found += page["items"]
            if page["next"] is None:
                return found
            cursor = {"cursor": page["next"]}

    def head(self) -> int:
        """Return the last position of the log."""
        head: int = self.get("/v1/projection").json()["head"]
        return head

    def settle(self) -> int:
        """Wait until the state is true for the head that the log has now; return that."""
        head = self.head()
        answer = self.get("/v1/projection", min_position=head, wait_ms=30_000)
        assert answer.status_code == 200, answer.text
        return head
