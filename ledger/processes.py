"""What processes do for each other."""

import ctypes
import os
import signal
import sys
import threading
from collections.abc import Callable
from types import FrameType

_PR_SET_PDEATHSIG = 1


def end_with_parent(with_signal: int = signal.SIGTERM) -> None:
    """Have the kernel send this process a signal when its parent ends, however that ends.

    Elsewhere than on Linux nothing is done, and a child of a killed parent lives on.
    """
    if sys.platform != "linux":
        return
    parent = os.getppid()
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, with_signal)
    if os.getppid() != parent:  # it ended before we asked
        os.kill(os.getpid(), with_signal)


def before_stop(callback: Callable[[], object]) -> None:
    """Have a function called when this process is asked to stop, before whoever else handles that.

    An event loop learns of a signal through a file descriptor that stays in place, so its own
    handlers run as well. Does nothing outside the main thread, which alone gets signals.
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
