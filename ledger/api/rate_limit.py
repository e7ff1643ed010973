"""Limits how often a key may read: a token bucket for each key, in the memory of the process."""

import math
import time
from collections import OrderedDict

MOST_BUCKETS = 10_000
"""Keys remembered. One that was forgotten begins with a full bucket."""


class RateLimit:
    """Lets each key read `rate` times a second, and as many times at once; 0: without a limit."""

    def __init__(self, rate: int) -> None:
        self._rate = rate
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()
        """By key id: how many reads were left at a time, and that time."""

    def take(self, key_id: str) -> int:
        """Count a read; return 0, or the seconds to wait for one that is not allowed."""
        if not self._rate:
            return 0
        left = self._left(key_id)
        if left < 1:
            return math.ceil((1 - left) / self._rate)
        self._buckets[key_id] = (left - 1, time.monotonic())
        self._buckets.move_to_end(key_id)
        if len(self._buckets) > MOST_BUCKETS:
            self._buckets.popitem(last=False)
        return 0

    def allows(self, key_id: str) -> bool:
        """Return whether a read would be allowed now, without counting it."""
        return not self._rate or self._left(key_id) >= 1

    def _left(self, key_id: str) -> float:
        left, at = self._buckets.get(key_id, (float(self._rate), 0.0))
        return min(self._rate, left + (time.monotonic() - at) * self._rate)
