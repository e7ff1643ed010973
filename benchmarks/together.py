"""Row 14: the whole product at once, intake and projector on the same processors."""

import time

import psycopg

from benchmarks import stage, wrk
from benchmarks.row import Figure, Row, Run, Target, ratios
from benchmarks.stage import MeasureError

LONGEST = 120
"""Seconds that the projector may take to reach the end of the log."""


def measure(run: Run) -> list[Row]:
    """Send at full load, first without and then with a projector, in each round."""
    alone: list[float] = []
    together: list[float] = []
    lags: list[float] = []
    for number, _ in run.turns([""], long=True):
        with run.logs.copied("log_0") as url, stage.ledger_serve(url) as (address, _):
            alone.append(wrk.send(address, run.seconds, f"alone{number}").rate)
            with stage.ledger_project(url):
                until_followed(url)
                together.append(wrk.send(address, run.seconds, f"together{number}").rate)
                lags.append(until_followed(url))
    return [
        Row(
            number="14",
            what="the whole product at once: durable webhooks/s while a projector follows",
            against="the same server without a projector",
            target=Target(at_least=0.60),
            values=ratios(together, alone),
            figures=[
                Figure("with a projector", together, "/s"),
                Figure("without", alone, "/s"),
                Figure("until the state had all of it, after the load", lags, "s"),
            ],
        )
    ]


def until_followed(url: str) -> float:
    """Wait until the state is at the end of the log; return how many seconds that took."""
    began = time.monotonic()
    with psycopg.connect(url, autocommit=True) as connection:
        while time.monotonic() < began + LONGEST:
            row = connection.execute(
                "SELECT position = (SELECT max(position) FROM ledger.event_log)"
                " FROM state.checkpoint"
            ).fetchone()
            if row and row[0]:
                return time.monotonic() - began
            time.sleep(0.02)
    raise MeasureError("the projector did not reach the end of the log")
