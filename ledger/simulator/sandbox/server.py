"""Serves the sandbox from a thread, so that a demo, a test or a command can go on beside it."""

import socket
import threading
from types import TracebackType
from typing import Self

import uvicorn

from ledger.errors import SimulationError
from ledger.simulator.history import Event
from ledger.simulator.sandbox.account import Account
from ledger.simulator.sandbox.api import Api
from ledger.simulator.sandbox.faults import Trouble
from ledger.simulator.sender import Target

POLL_SECONDS = 0.05
STOP_SECONDS = 5.0


class Sandbox:
    """Serves an account at an address while its `with` block runs; port 0 takes a free one.

    The port is taken at once. Raises `SimulationError` if it cannot be.
    """

    def __init__(self, account: Account, *, host: str = "127.0.0.1", port: int = 0) -> None:
        self.account = account
        self.trouble = Trouble()
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self._socket = socket.socket(family)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            self._socket.bind((host, port))
        except OSError as error:
            self._socket.close()
            raise SimulationError(f"cannot listen on {host}:{port}: {error.strerror}") from None
        shown = f"[{host}]" if ":" in host else host
        self.url = f"http://{shown}:{self._socket.getsockname()[1]}"
        config = uvicorn.Config(
            Api(account, self.trouble),
            lifespan="off",
            log_config=None,
            access_log=False,
            server_header=False,
            timeout_graceful_shutdown=1,
        )
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(target=self._run, name="sandbox", daemon=True)

    def __enter__(self) -> Self:
        self._socket.listen(128)  # from now on calls wait until the server answers
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        self._server.should_exit = True
        self._thread.join(STOP_SECONDS)
        self._socket.close()

    def route(self, event: Event) -> list[Target]:
        """Return where an event goes."""
        return self.account.targets(event.lab_id, event.event_type)

    def wait_for_subscription(self, stop: threading.Event) -> bool:
        """Wait until somebody has subscribed; return False if `stop` is set before."""
        while not self.account.subscriptions:
            if stop.wait(POLL_SECONDS):
                return False
        return True

    def _run(self) -> None:
        self._server.run(sockets=[self._socket])
