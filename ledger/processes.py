"""What a process asks of the operating system: signals, limits, temporary folders."""

import ctypes
import fcntl
import getpass
import os
import resource
import shutil
import signal
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType

_PR_SET_PDEATHSIG = 1


def end_with_parent(with_signal: int = signal.SIGTERM) -> None:
    """Have the kernel send this process a signal when its parent ends, however that ends.

    Does nothing on systems other than Linux: there, children outlive a killed parent.
    """
    if sys.platform != "linux":
        return
    parent = os.getppid()
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, with_signal)
    if os.getppid() != parent:  # it ended before the call
        os.kill(os.getpid(), with_signal)


def user_name() -> str:
    """Return the name of the user who runs this process; in a container, which few know, the id."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # the second since Python 3.13
        return f"user {os.getuid()}"


def before_stop(callback: Callable[[], object]) -> None:
    """Call a function when this process is asked to stop, before other handlers do their work.

    An event loop learns of a signal through a file descriptor that stays in place, so its own
    handlers run as well. Does nothing outside the main thread, which alone receives signals.
    """
    if threading.current_thread() is not threading.main_thread():
        return
    for number in (signal.SIGINT, signal.SIGTERM):
        former = signal.getsignal(number)

        def handle(
            number: int,
            frame: FrameType | None,
            former: Callable[[int, FrameType | None], object] | int | None = former,
        ) -> None:
            callback()
            if callable(former):
                former(number, frame)

        signal.signal(number, handle)


def raise_descriptor_limit() -> int:
    """Raise the soft limit of open files to the hard one, for this process and its children.

    Returns the limit that then holds. Connections are open files, and the usual soft limit of 1024
    is meant for programs that use `select`.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with suppress(ValueError, OSError):  # macOS names a hard limit above what it allows
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        soft = hard
    return soft


@contextmanager
def temporary_folder(prefix: str, within: Path | None = None) -> Iterator[Path]:
    """Give a folder that is deleted at the end, or, if this process is killed, by a later one.

    It lies in `within`, by default where temporary files lie. The folder's owner holds a lock on
    it, so a folder of this prefix without a lock is a leftover.
    """
    within = within or Path(tempfile.gettempdir())
    _delete_leftovers(prefix, within)
    while True:
        folder = Path(tempfile.mkdtemp(prefix=prefix, dir=within))
        descriptor = os.open(folder, os.O_RDONLY)
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        if folder.exists():  # else it was taken for a leftover before it was locked
            break
        os.close(descriptor)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        os.close(descriptor)


def _delete_leftovers(prefix: str, within: Path) -> None:
    for folder in within.glob(f"{prefix}*"):
        with suppress(OSError):  # of somebody else, in use, or already gone
            descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if os.fstat(descriptor).st_uid == os.getuid():
                    shutil.rmtree(folder, ignore_errors=True)
            finally:
                os.close(descriptor)
