"""Commands of Ledger as processes that have its modules loaded when they start.

`python -m ledger` loads modules for half a second, which in hundreds of tests is most of their
time. One process loads them once, and each command is a fork of it: a process of its own, with its
own environment, folder, streams and signals, that runs `ledger/__main__.py`. What a fork cannot
show, for example what a command loads, needs a fresh interpreter, and `LEDGER_TEST_FORK=no` gives
every command one.
"""

import atexit
import contextlib
import gc
import importlib
import io
import os
import pickle
import runpy
import selectors
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Self

from tests.support.spawned import end, install

ROOT: Final = Path(__file__).parents[2]

MODULES: Final = (
    "alembic.command",
    "httptools",
    "jinja2",
    "litestar",
    "litestar.openapi",
    "sqlalchemy.dialects.postgresql.psycopg",
    "uvicorn.supervisors",
    "uvloop",
    *(
        f"ledger.cli.{path.stem}"
        for path in sorted((ROOT / "ledger" / "cli").glob("*.py"))
        # The two load `prometheus_client`, which looks at the environment when it is loaded.
        if path.stem not in {"__init__", "events", "openapi"}
    ),
)

_INTEGER: Final = struct.Struct("!q")


def may_fork() -> bool:
    """Tell whether commands are forks here."""
    return sys.platform == "linux" and os.environ.get("LEDGER_TEST_FORK") != "no"


@dataclass(frozen=True, kw_only=True)
class _Request:
    arguments: tuple[str, ...]
    environment: dict[str, str]
    cwd: str
    session: bool


class ForkedProcess:
    """A command of Ledger that was forked; what `subprocess.Popen` has for one that was not."""

    def __init__(
        self,
        arguments: tuple[str, ...],
        *,
        env: Mapping[str, str],
        cwd: Path,
        streams: tuple[int, int, int],
        session: bool = False,
    ) -> None:
        request = _Request(
            arguments=arguments, environment=dict(env), cwd=str(cwd), session=session
        )
        body = pickle.dumps(request)
        self.args = ("ledger", *arguments)
        self.returncode: int | None = None
        self._reading = threading.Lock()
        self._connection = _Parent.of_this_process().connect()
        socket.send_fds(self._connection, [_INTEGER.pack(len(body))], list(streams))
        self._connection.sendall(body)
        self.pid = _read_integer(self._connection)

    def __del__(self) -> None:
        """Close what is still open of a process that nobody waited for."""
        if connection := getattr(self, "_connection", None):
            connection.close()

    def poll(self) -> int | None:
        """Return the exit code, None while it runs."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.wait(0)
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        """Return the exit code when it has ended. Raises `subprocess.TimeoutExpired`."""
        with self._reading:
            if self.returncode is None:
                with selectors.DefaultSelector() as selector:
                    selector.register(self._connection, selectors.EVENT_READ)
                    if not selector.select(timeout):
                        raise subprocess.TimeoutExpired(self.args, timeout or 0.0)
                self.returncode = _read_integer(self._connection)
                self._connection.close()
            return self.returncode

    def send_signal(self, number: signal.Signals) -> None:
        """Send a signal, unless it has ended."""
        if self.poll() is None:
            os.kill(self.pid, number)

    def terminate(self) -> None:
        """Ask it to end."""
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """Kill it."""
        self.send_signal(signal.SIGKILL)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.wait()


def run_forked(
    arguments: tuple[str, ...], *, env: Mapping[str, str], cwd: Path, stdin: bytes, timeout: float
) -> subprocess.CompletedProcess[bytes]:
    """Run a command to its end, as `subprocess.run` with captured output does."""
    # Files instead of pipes: nobody has to read while it runs.
    with (
        tempfile.TemporaryFile() as given,
        tempfile.TemporaryFile() as out,
        tempfile.TemporaryFile() as err,
    ):
        given.write(stdin)
        given.seek(0)
        process = ForkedProcess(
            arguments, env=env, cwd=cwd, streams=(given.fileno(), out.fileno(), err.fileno())
        )
        try:
            code = process.wait(timeout)
        except BaseException:
            process.kill()
            process.wait()
            raise
        out.seek(0)
        err.seek(0)
        return subprocess.CompletedProcess(process.args, code, out.read(), err.read())


class _Parent:
    """The process whose forks are the commands of this process's tests."""

    _lock = threading.Lock()
    _started: "_Parent | None" = None

    def __init__(self) -> None:
        ours, its = socket.socketpair()
        # It leaves this process's environment of Ledger alone; each command gets its own.
        with its:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "tests.support.forked", str(its.fileno())],
                cwd=ROOT,
                stdin=subprocess.DEVNULL,
                pass_fds=[its.fileno()],
            )
        self._socket = ours
        self._sending = threading.Lock()
        atexit.register(self._end)

    @classmethod
    def of_this_process(cls) -> "_Parent":
        with cls._lock:
            if cls._started is None:
                cls._started = cls()
            return cls._started

    def connect(self) -> socket.socket:
        """Return a connection to a new fork."""
        ours, its = socket.socketpair()
        with its, self._sending:
            socket.send_fds(self._socket, [b"f"], [its.fileno()])
        return ours

    def _end(self) -> None:
        self._socket.close()
        self._process.wait()


def _read_integer(connection: socket.socket) -> int:
    number: int = _INTEGER.unpack(_read(connection, _INTEGER.size))[0]
    return number


def _read(connection: socket.socket, size: int) -> bytes:
    body = b""
    while len(body) < size:
        part = connection.recv(size - len(body))
        if not part:
            raise EOFError("the parent of the tests' commands has ended")
        body += part
    return body


def _next_request(source: socket.socket) -> _Request:
    """Wait for requests; return, each in a process of its own, with every one of them."""
    with selectors.DefaultSelector() as selector:
        selector.register(source, selectors.EVENT_READ)
        while True:
            ready = selector.select(1.0)
            with contextlib.suppress(ChildProcessError):
                while os.waitpid(-1, os.WNOHANG)[0]:
                    pass
            if not ready:
                continue
            sign, descriptors, _, _ = socket.recv_fds(source, 1, 1)
            if not sign:
                os._exit(0)
            if os.fork() == 0:
                break
            os.close(descriptors[0])
    return _keep(socket.socket(fileno=descriptors[0]))


def _keep(connection: socket.socket) -> _Request:
    """Fork the command, in which this returns, and tell the test its id and its exit code."""
    head, streams, _, _ = socket.recv_fds(connection, _INTEGER.size, 3)
    body = _read(connection, _INTEGER.unpack(head)[0])
    pid = os.fork()
    if pid == 0:
        for standard, stream in enumerate(streams):
            os.dup2(stream, standard)
        os.closerange(3, max(3, connection.fileno(), *streams) + 1)
        connection.detach()
        request: _Request = pickle.loads(body)  # noqa: S301 -- ours
        return request
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    for stream in streams:
        os.close(stream)
    connection.sendall(_INTEGER.pack(pid))
    _, status = os.waitpid(pid, 0)
    with contextlib.suppress(OSError):  # the test has ended
        connection.sendall(_INTEGER.pack(os.waitstatus_to_exitcode(status)))
    os._exit(0)


def _become(request: _Request) -> None:
    """Make this process what a fresh one would be."""
    if request.session:
        os.setsid()
    os.environ.clear()
    os.environ.update(request.environment)
    time.tzset()
    os.chdir(request.cwd)
    sys.path[0] = request.cwd
    sys.argv[1:] = request.arguments
    if loaded := sys.modules.get("multiprocessing.process"):
        vars(loaded)["ORIGINAL_DIR"] = request.cwd
    install()
    unbuffered = bool(request.environment.get("PYTHONUNBUFFERED"))
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        former: io.TextIOWrapper = getattr(sys, name)
        descriptor = former.fileno()
        stream = io.TextIOWrapper(
            open(descriptor, f"{mode}b", buffering=-1, closefd=False),  # noqa: SIM115
            encoding=former.encoding,
            errors=former.errors,
            line_buffering=name == "stderr" or os.isatty(descriptor),
            write_through=unbuffered and mode == "w",
        )
        setattr(sys, name, stream)
        setattr(sys, f"__{name}__", stream)


def main() -> None:
    """Load the modules, and run each command that is asked for in a fork."""
    for module in MODULES:
        importlib.import_module(module)
    assert "prometheus_client" not in sys.modules
    source = socket.socket(fileno=int(sys.argv[1]))
    # Else each fork's garbage collector writes to all the pages that it shares, and copies them.
    gc.collect()
    gc.freeze()
    request = _next_request(source)
    source.detach()  # closed already
    _become(request)
    try:
        runpy.run_module("ledger", run_name="__main__", alter_sys=True)
    except SystemExit as done:
        end(done.code)
    end(0)


if __name__ == "__main__":
    main()
