"""The faults of the sandbox, which a test or a reader asks for: POST /sandbox/faults."""

from msgspec import Struct

from ledger.simulator.sandbox.account import Account


class Faults(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What goes wrong from now on.

    `expire_tokens` ends all tokens at once; `errors` of the next calls are answered with 500;
    `slow` of the next calls wait for `seconds`; `garbage` of the next calls are answered with a
    page of HTML; `drop_subscriptions` forgets those of a lab; `add_lab` opens a branch and
    `remove_lab` closes one.
    """

    expire_tokens: bool = False
    errors: int = 0
    slow: int = 0
    seconds: float = 30.0
    garbage: int = 0
    drop_subscriptions: str | None = None
    add_lab: str | None = None
    remove_lab: str | None = None


class Trouble:
    """The faults that calls of the API still meet."""

    def __init__(self) -> None:
        self._errors = 0
        self._slow = 0
        self._seconds = 0.0
        self._garbage = 0

    def add(self, faults: Faults, account: Account) -> None:
        """Make what was asked for go wrong."""
        self._errors += faults.errors
        if faults.slow:
            self._slow += faults.slow
            self._seconds = faults.seconds
        self._garbage += faults.garbage
        if faults.expire_tokens:
            account.expire_tokens()
        if faults.drop_subscriptions is not None:
            account.drop_subscriptions(faults.drop_subscriptions)
        if faults.add_lab is not None:
            account.labs[faults.add_lab] = f"Branch {faults.add_lab}"
        if faults.remove_lab is not None:
            account.labs.pop(faults.remove_lab, None)

    def next_pause(self) -> float:
        """Return for how many seconds the next call waits."""
        if not self._slow:
            return 0.0
        self._slow -= 1
        return self._seconds

    def next_answer(self) -> tuple[int, bytes] | None:
        """Return what the next call is answered with in place of the truth; None: the truth."""
        if self._errors:
            self._errors -= 1
            return 500, b'{"success":false,"message":"Internal server error"}'
        if self._garbage:
            self._garbage -= 1
            return 200, b"<html><body>Welcome to the hotel's network</body></html>"
        return None
