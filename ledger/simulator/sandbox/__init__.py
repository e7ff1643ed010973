"""A sandbox of Flabs: a server that speaks its account API and sends webhooks to who subscribed.

Source: Flabs' public documentation. Where that is silent, the sandbox can behave in each way that a
reader may believe, see `Options`.
"""

from ledger.simulator.sandbox.account import Account, Options
from ledger.simulator.sandbox.server import Sandbox

__all__ = ["Account", "Options", "Sandbox"]
