"""A standby: a copy of a running embedded server that follows it."""

import shutil
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import urlsplit

from ledger.embedded import child
from ledger.embedded.home import USER, find_programs
from tests.support.postgres import PrivateServer

VERSION = 18


def copy_cluster(primary: PrivateServer, folder: Path, *options: str) -> None:
    """Copy a running primary into a folder that does not exist, ready for a server to start in."""
    folder.mkdir()
    shutil.copy2(primary.folder / "password", folder)
    user = child.server_user()
    if user:
        for path in (folder, folder / "password"):
            shutil.chown(path, user.uid, user.gid)
    place = urlsplit(primary.dsn())
    command = [
        str(find_programs(VERSION) / "pg_basebackup"),
        f"--dbname=postgresql://{USER}:{place.password}@127.0.0.1:{place.port}/",
        f"--pgdata={folder / 'cluster'}",
        "--checkpoint=fast",
        "--no-sync",
        *options,
    ]
    done = child.run(command, user)
    assert done.returncode == 0, done.stdout


def make_standby(
    primary: PrivateServer, folder: Path, *, settings: Mapping[str, str] | None = None
) -> PrivateServer:
    """Copy a running primary into a folder that does not exist, and start the copy."""
    copy_cluster(primary, folder, "--write-recovery-conf")
    return PrivateServer(folder, settings=settings)
