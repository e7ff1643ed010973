"""How many examples a property is tried with: fewer in each run, many in a thorough one."""

import os

TIMES = float(os.environ.get("LEDGER_TEST_EXAMPLES", "1"))
"""How many times as many as the tests name."""


def examples(usual: int) -> int:
    """Return how many examples to try instead of the usual number."""
    return max(1, round(usual * TIMES))
