"""A simulator of Flabs, the laboratory system that sends the webhooks.

>>> import asyncio
>>> from ledger.simulator import SimulationOptions, simulate
>>> options = SimulationOptions(url="http://127.0.0.1:8000/webhooks/flabs", token="t", drop=0.02)
>>> summary = asyncio.run(simulate(options))  # doctest: +SKIP
"""

from ledger.errors import SimulationError, SimulationOptionError
from ledger.simulator.options import SimulationOptions
from ledger.simulator.outages import Outage
from ledger.simulator.simulation import Progress, simulate
from ledger.simulator.summary import SimulationSummary
from ledger.simulator.truth import Delivery, EventTruth, read_truth, read_truth_outages

__all__ = [
    "Delivery",
    "EventTruth",
    "Outage",
    "Progress",
    "SimulationError",
    "SimulationOptionError",
    "SimulationOptions",
    "SimulationSummary",
    "read_truth",
    "read_truth_outages",
    "simulate",
]
