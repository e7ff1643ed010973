"""Rows 1 to 3: durable webhooks, against a server that stores nothing and one built obviously."""

import psycopg

from benchmarks import rivals, stage, wrk
from benchmarks.row import Figure, Row, Run, Target, ratios
from benchmarks.wrk import Load

DATABASE = "intake"
"""Whose log is what wrk sent and nothing else."""


def measure(run: Run) -> list[Row]:
    """Load each server in turn."""
    ledger = stage.new_database(run.server, DATABASE)
    obvious = stage.new_database(run.server, "obvious")
    with psycopg.connect(obvious, autocommit=True) as connection:
        connection.execute(rivals.SEQUENCE)
    servers = {
        "Ledger": (ledger, stage.LEDGER, True),
        "obvious": (obvious, "benchmarks.rivals:make_obvious", True),
        "raw": (ledger, "benchmarks.rivals:raw", False),
        "unasked": (ledger, "benchmarks.rivals:Unasked", True),
    }
    loads: dict[str, list[Load]] = {name: [] for name in servers}
    for number, name in run.turns(list(servers)):
        url, target, factory = servers[name]
        with stage.served(url, target, factory=factory) as address:
            loads[name].append(wrk.send(address, run.seconds, f"{name}{number}"))
    rates = {name: [load.rate for load in loads[name]] for name in servers}
    p99s = {name: [load.p99 for load in loads[name]] for name in servers}
    what = f"durable webhooks/s, {wrk.CONNECTIONS} connections, one worker"
    ours = Figure("Ledger", rates["Ledger"], "/s")
    return [
        Row(
            number="1",
            what=what,
            against="the same server, a raw ASGI route that reads the body and answers 200",
            target=Target(at_least=0.60),
            values=ratios(rates["Ledger"], rates["raw"]),
            figures=[
                ours,
                Figure("raw route", rates["raw"], "/s"),
                Figure("the server's protocol alone", rates["unasked"], "/s"),
                Figure("ratio to that", ratios(rates["Ledger"], rates["unasked"]), ""),
            ],
            remarks=[
                "Ledger takes ordinary deliveries past ASGI: the protocol alone stores nothing."
            ],
        ),
        Row(
            number="2",
            what=what,
            against="the obvious handler: Litestar route, pool, one INSERT ... ON CONFLICT each",
            target=Target(at_least=4.0),
            values=ratios(rates["Ledger"], rates["obvious"]),
            figures=[ours, Figure("obvious handler", rates["obvious"], "/s")],
        ),
        Row(
            number="3",
            what="p99 latency of row 1",
            against="p99 of the obvious handler under its own full load",
            target=Target(at_most=0.5),
            values=ratios(p99s["Ledger"], p99s["obvious"]),
            figures=[
                Figure("Ledger", p99s["Ledger"], "ms"),
                Figure("obvious handler", p99s["obvious"], "ms"),
                Figure("raw route", p99s["raw"], "ms"),
            ],
        ),
    ]
