"""PostgreSQL in a container, on a network of its own that can be taken away from it.

Ledger talks to the container's own address: a port that the engine publishes is a relay's, which
resets connections where a network only loses them.
"""

import functools
import os
import shutil
import subprocess
import uuid
from collections.abc import Mapping
from contextlib import suppress
from ipaddress import ip_network
from pathlib import Path

import psycopg

from tests.support.server import wait_until

IMAGE = os.environ.get("LEDGER_TEST_IMAGE", "postgres:18")
PORT = 5432
PASSWORD = "secret"  # noqa: S105 -- of a server that only this machine reaches
START_SECONDS = 60.0


@functools.cache
def missing() -> str | None:
    """Return why there can be no container here, or None."""
    if not shutil.which("docker") or _docker("info", check=False).returncode:
        return "no container engine is at hand"
    if not _docker("image", "inspect", IMAGE, check=False).returncode:
        return None
    if _docker("pull", "--quiet", IMAGE, check=False).returncode:
        return f"the image {IMAGE} cannot be had: set LEDGER_TEST_IMAGE"
    return None


@functools.cache
def cannot_filter() -> str | None:
    """Return why packets of a container cannot be dropped here, or None."""
    if os.geteuid() != 0:
        return "only root can drop the packets of a container"
    for program in ("nsenter", "iptables"):
        if not shutil.which(program):
            return f"{program} is not installed"
    return None


class Container:
    """A container with a server, which may be paused and cut off; `remove` ends it."""

    def __init__(self, folder: Path, settings: Mapping[str, str]) -> None:
        """`folder` gets what the server said."""
        self._output = folder / "postgres.log"
        self.name = f"ledger-faults-{uuid.uuid4().hex[:12]}"
        self._network = self.name
        try:
            self._host = self._make_network()
            given = [part for item in settings.items() for part in ("-c", "=".join(item))]
            _docker(
                *("run", "--detach", "--name", self.name),
                *("--network", self._network, "--ip", self._host, "--shm-size", "128m"),
                *("--env", f"POSTGRES_PASSWORD={PASSWORD}", "--env", "POSTGRES_DB=ledger"),
                *(IMAGE, "postgres", *given),
            )
            wait_until(self.answers, "the container's server answers", seconds=START_SECONDS)
        except BaseException:
            self.remove()
            raise

    @property
    def running(self) -> bool:
        """Whether the container has not ended."""
        state = _docker("inspect", "--format", "{{.State.Running}}", self.name)
        return state.stdout.strip() == "true"

    @property
    def pid(self) -> int:
        """Id of the postmaster, as this machine counts."""
        return int(_docker("inspect", "--format", "{{.State.Pid}}", self.name).stdout)

    def dsn(self, dbname: str = "ledger") -> str:
        """Give the URL of a database, the same after each fault."""
        return f"postgresql://postgres:{PASSWORD}@{self._host}:{PORT}/{dbname}"

    def kill(self) -> None:
        """Let the server crash."""
        _docker("kill", self.name)

    def stop(self) -> None:
        """Shut the server down."""
        _docker("stop", self.name)

    def start(self) -> None:
        """Start the stopped or killed server again."""
        _docker("start", self.name)
        wait_until(self.answers, "the container's server answers", seconds=START_SECONDS)

    def pause(self) -> None:
        """Let no process of the container run. Its kernel goes on acknowledging packets."""
        _docker("pause", self.name)

    def unpause(self) -> None:
        """End what `pause` began."""
        _docker("unpause", self.name)

    def disconnect(self) -> None:
        """Take its network away: packets get lost, and nobody is told."""
        _docker("network", "disconnect", self._network, self.name)

    def reconnect(self) -> None:
        """Give it its network and its address back."""
        _docker("network", "connect", "--ip", self._host, self._network, self.name)

    def drop(self, chain: str, *clients: int) -> None:
        """Drop the packets that it gets (`INPUT`) or sends (`OUTPUT`), or those of client ports."""
        self._filter("-A", chain, clients)

    def pass_on(self, chain: str, *clients: int) -> None:
        """End what `drop` began."""
        self._filter("-D", chain, clients)

    def remove(self) -> None:
        """Remove the container and its network, and keep what the server said."""
        with self._output.open("ab") as file:
            subprocess.run(["docker", "logs", self.name], stdout=file, stderr=file, check=False)  # noqa: S607
        _docker("rm", "--force", "--volumes", self.name, check=False)
        _docker("network", "rm", self._network, check=False)

    def _filter(self, change: str, chain: str, clients: tuple[int, ...]) -> None:
        side = "--sport" if chain == "INPUT" else "--dport"
        for client in clients or ("0:65535",):
            _run(
                *("nsenter", "--net", "--target", str(self.pid)),
                *("iptables", "-w", change, chain, "-p", "tcp", side, str(client), "-j", "DROP"),
            )

    def _make_network(self) -> str:
        """Make a network, and return an address in it.

        An address can be chosen, and kept, only in a network whose range was chosen, too. The
        engine knows which are free.
        """
        _docker("network", "create", self._network)
        form = "{{(index .IPAM.Config 0).Subnet}}"
        subnet = _docker("network", "inspect", "--format", form, self._network).stdout.strip()
        _docker("network", "rm", self._network)
        _docker("network", "create", "--subnet", subnet, self._network)
        return str(ip_network(subnet)[10])

    def answers(self) -> bool:
        """Return whether the server can be reached."""
        assert self.running, _docker("logs", self.name, check=False).stderr
        with suppress(psycopg.OperationalError):
            psycopg.connect(self.dsn(), connect_timeout=2).close()
            return True
        return False


def _docker(*words: str, check: bool = True) -> subprocess.CompletedProcess[str]:
    return _run("docker", *words, check=check)


def _run(*words: str, check: bool = True) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert not check or done.returncode == 0, f"{' '.join(words)}: {done.stderr.strip()}"
    return done
