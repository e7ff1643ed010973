"""What processes do for each other."""

import ctypes
import os
import signal
import sys

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
