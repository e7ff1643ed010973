"""Row 9: how long after the 2xx the state has an event, under half of the greatest load."""

import statistics
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

import psycopg

from benchmarks import stage, wrk
from benchmarks.probe import TABLE, Probed, probe
from benchmarks.row import Figure, Row, Run, Target
from benchmarks.stage import MeasureError
from benchmarks.together import until_followed

SAMPLES = 500
"""Events that a full run waits for, at the least."""


def measure(run: Run) -> list[Row]:
    """Load, project and probe, all at once, in each round."""
    seconds = run.size(12, 5)
    probes: list[Probed] = []
    full: list[float] = []
    achieved: list[float] = []
    for number, _ in run.turns([""], long=True):
        with run.logs.copied("log_0") as url:
            with psycopg.connect(url, autocommit=True) as connection:
                connection.execute(TABLE)
            with stage.ledger_serve(url) as (address, _):
                full.append(wrk.send(address, run.seconds, f"full{number}").rate)
                with stage.ledger_project(url):
                    until_followed(url)
                    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
                        prober = pool.submit(probe, url, address, seconds, f"probe{number}")
                        load = wrk.send_at(address, seconds + 2, f"half{number}", full[-1] / 2)
                        probes.append(prober.result())
            achieved.append(load.rate)
    samples = sum(len(one.lags) for one in probes)
    if samples < SAMPLES and not run.quick:
        raise MeasureError(f"only {samples} events were probed")
    lags = [_p99(one.lags) for one in probes]
    updates = [_p99(one.updates) for one in probes]
    return [
        Row(
            number="9",
            what="lag from the 2xx to the visible state, p99, at half the load of row 1",
            against="-",
            target=Target(at_most=250, unit="ms"),
            values=lags,
            figures=[
                Figure("p50 of the lag", [statistics.median(one.lags) for one in probes], "ms"),
                Figure("p99 of a single-row UPDATE meanwhile", updates, "ms"),
                Figure(
                    "p99 of the lag / p99 of the UPDATE",
                    [lag / update for lag, update in zip(lags, updates, strict=True)],
                    "",
                ),
                Figure("full load, nobody projecting", full, "/s"),
                Figure("load meanwhile", achieved, "/s"),
            ],
            remarks=[f"{samples:,} events were probed, one every 20 ms while wrk sent the rest."],
        )
    ]


def _p99(values: list[float]) -> float:
    return statistics.quantiles(values, n=100, method="inclusive")[98]
