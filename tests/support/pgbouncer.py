"""A pgbouncer of a test's own before a database."""

import os
import shutil
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest

from tests.support.server import free_port, wait_until


def found() -> str:
    """Return the path of pgbouncer, or skip the test."""
    path = shutil.which("pgbouncer", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin")
    if path is None:
        pytest.skip("pgbouncer is not installed (Debian and Ubuntu: apt install pgbouncer)")
    return path


@contextmanager
def pgbouncer(url: str, mode: str, folder: Path, *, servers: int = 20) -> Iterator[str]:
    """Give the URL of a database behind pgbouncer in a pool mode, with so many servers."""
    to = urlsplit(url)
    port = free_port()
    settings = folder / "pgbouncer.ini"
    settings.write_text(
        "[databases]\n"
        f"pooled = host={to.hostname} port={to.port} dbname={to.path.strip('/')}"
        f" user={to.username} password={unquote(to.password or '')}\n"
        "[pgbouncer]\n"
        f"listen_addr = 127.0.0.1\nlisten_port = {port}\nunix_socket_dir =\nauth_type = any\n"
        f"pool_mode = {mode}\ndefault_pool_size = {servers}\n"
        "ignore_startup_parameters = extra_float_digits\n"
    )
    # It refuses to run as root, and reads its settings before it gives that up.
    as_user = ["-u", "nobody"] if os.geteuid() == 0 else []
    process = subprocess.Popen(
        [found(), "-q", *as_user, str(settings)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )

    def listens() -> bool:
        assert process.poll() is None, "pgbouncer ended"
        with suppress(OSError):
            socket.create_connection(("127.0.0.1", port), 1).close()
            return True
        return False

    try:
        wait_until(listens, "pgbouncer listens")
        yield f"postgresql://{to.username}@127.0.0.1:{port}/pooled"
    finally:
        process.kill()
        process.wait()
