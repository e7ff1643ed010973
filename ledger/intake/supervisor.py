"""Uvicorn's supervisor of worker processes, for one group of workers or several.

It uses `Multiprocess` and its workers' pipes, which Uvicorn does not document: Uvicorn's supervisor
knows one application only, and waits 30 seconds for a worker that is killed while its health is
checked.
"""

import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from socket import socket

from msgspec import Struct
from uvicorn.config import Config
from uvicorn.supervisors import Multiprocess
from uvicorn.supervisors.multiprocess import Process


class Group(Struct, frozen=True):
    """Workers that run one application and accept connections from the same sockets."""

    config: Config
    listeners: list[socket]


class Supervisor(Multiprocess):
    """Replaces workers that end, at once, and workers that hang.

    Uvicorn's waits for each worker's sign of life in turn, with both ends of the pipe open here. So
    it waits for a worker that was killed after it was asked, and meanwhile replaces no other.
    """

    def __init__(self, groups: Sequence[Group]) -> None:
        super().__init__(groups[0].config, groups[0].listeners)
        self._groups = groups
        self._asked: dict[Process, float] = {}

    def init_processes(self) -> None:
        """Start the workers of all groups."""
        self._for_each_group(super().init_processes)

    def restart_all(self) -> None:
        """Replace every worker by a new one."""
        self._for_each_group(super().restart_all)

    def handle_ttin(self) -> None:
        """Add a worker to each group."""
        self._for_each_group(super().handle_ttin)

    def handle_ttou(self) -> None:
        """Take a worker from each group."""
        self._for_each_group(super().handle_ttou)

    def keep_subprocess_alive(self) -> None:
        """Ask workers for signs of life without waiting, and replace those that are gone."""
        now = time.monotonic()
        asked, self._asked = self._asked, {}
        for worker in self.processes:
            worker.child_conn.close()  # the worker has it: now its end is the pipe's
            since = asked.get(worker)
            with suppress(OSError, EOFError):
                if since is None or worker.parent_conn.poll():
                    if since is not None:
                        worker.parent_conn.recv()
                    worker.parent_conn.send(b"ping")
                    since = now
            self._asked[worker] = since if since is not None else now
            if now - self._asked[worker] > self.config.timeout_worker_healthcheck:
                worker.process.kill()
                worker.process.join()
        if any(not worker.process.is_alive() for worker in self.processes):
            self._for_each_group(super().keep_subprocess_alive)

    def _for_each_group(self, work: Callable[[], object]) -> None:
        """Do some work of Uvicorn's supervisor, which knows one group, for one after the other."""
        everyone, handled = self.processes, list[Process]()
        for group in self._groups:
            self.config, self.sockets = group.config, group.listeners
            self.processes = [worker for worker in everyone if worker.config is group.config]
            work()
            handled += self.processes
        self.processes = handled
