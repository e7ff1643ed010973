"""`ledger simulate`."""

import asyncio
from pathlib import Path
from typing import Any

import rich_click as click
from rich.console import Console

from ledger.cli.simulate_run import make_sandbox, print_summary, run, run_sandbox
from ledger.simulator import SimulationError, SimulationOptionError, SimulationOptions
from ledger.simulator.options import parse_outage, parse_start
from ledger.simulator.sandbox import Options, Sandbox
from ledger.simulator.sandbox.account import Again

EPILOG = """\
The truth file is JSON Lines with one line per event: number, state (delivered, dropped, lost,
unfinished), delivered, outcome (the receiver's answer), fate (the faults planned for it),
deliveries (each HTTP attempt: attempt, repeat, sent_at, seconds, status, error, outcome, position)
and payload (the body, byte for byte). The last line is {"summary": ...}. If it is absent, the
simulation was killed, and events under way at that moment have no line. An event that is not
delivered may still have reached the receiver if an attempt ended with an error other than
"cannot connect". Outages of the receiver come first, one line {"outage": {"from", "to"}} each; an
attempt during an outage has the error "receiver away".

--serve is a sandbox of Flabs: it speaks the account API (POST /client/auth/token and
/client/auth/token/refresh, GET /client/labs, POST /client/events/subscribe) and sends the events to
who subscribed to them. It begins with the first subscription, and serves until it is stopped.
POST /sandbox/faults makes faults: {"expire_tokens": true}, {"errors": 2}, {"slow": 1, "seconds":
30}, {"garbage": 1}, {"drop_subscriptions": "LAB"}, {"add_lab": "LAB"}, {"remove_lab": "LAB"};
GET /sandbox/state shows who subscribed.

Concurrent deliveries may overtake each other; --concurrency 1 keeps their order.

Exit codes: 0 done, 1 stopped early or nothing was delivered, 2 wrong usage.
"""


@click.command("simulate", epilog=EPILOG)
@click.option(
    "--bills",
    type=int,
    default=100,
    show_default=True,
    metavar="N",
    help="Number of bills, about 5 events each; at most 5,000 per day.",
)
@click.option(
    "--days",
    type=int,
    metavar="N",
    help="Number of days to spread the bills over. [default: one per 5,000 bills]",
)
@click.option(
    "--labs",
    type=int,
    default=3,
    show_default=True,
    metavar="N",
    help="Number of labs to spread the bills over.",
)
@click.option(
    "--seed",
    type=int,
    default=1,
    show_default=True,
    metavar="S",
    help="Seed: the same seed, start, bills, days and labs give the same events, byte for byte.",
)
@click.option(
    "--start",
    "--day",
    metavar="TIME",
    help="Start of the simulated day: 2024-01-20 (midnight, UTC) or 2024-01-20T07:00:00Z. "
    "[default: so that it ends now]",
)
@click.option(
    "--snapshot/--delta",
    default=True,
    show_default=True,
    help="Whether a report.completed lists all tests of the bill, or only its own.",
)
@click.option(
    "--drop",
    type=float,
    default=0.0,
    metavar="P",
    help="Probability that all four attempts to deliver an event are lost on the way.",
)
@click.option(
    "--late",
    type=float,
    default=0.0,
    metavar="P",
    help="Probability that an event arrives only with its 2nd, 3rd or 4th attempt.",
)
@click.option(
    "--duplicate",
    type=float,
    default=0.0,
    metavar="P",
    help="Probability that an event is sent again although it was acknowledged.",
)
@click.option(
    "--reorder",
    type=float,
    default=0.0,
    metavar="P",
    help="Probability that an event is sent after later events of its bill.",
)
@click.option(
    "--lose-bills",
    type=float,
    default=0.0,
    metavar="P",
    help="Probability for each bill that all its events are lost on the way.",
)
@click.option(
    "--outage",
    multiple=True,
    metavar="FROM..TO",
    help="An outage of the receiver, during which attempts fail, such as "
    "2024-01-20T07:00..2024-01-20T08:00; may be given several times. With --output only.",
)
@click.option(
    "--outages",
    type=int,
    default=0,
    metavar="N",
    help="Number of random outages of the receiver: long, short and flapping ones in turn. "
    "With --output only.",
)
@click.option(
    "--url", metavar="URL", help="Address to send to, such as http://127.0.0.1:8000/webhooks/flabs."
)
@click.option(
    "--token", metavar="TOKEN", help="A webhook token of the receiver. [default: send none]"
)
@click.option(
    "--serve",
    metavar="HOST:PORT",
    help="Be a sandbox of Flabs at this address, see below, and send to who subscribes there.",
)
@click.option(
    "--client-id",
    default="sandbox",
    show_default=True,
    metavar="ID",
    help="The client id of the sandbox's account. With --serve.",
)
@click.option(
    "--client-secret",
    default="sandbox-secret",
    show_default=True,
    metavar="SECRET",
    help="Its secret. With --serve.",
)
@click.option(
    "--party",
    "parties",
    multiple=True,
    metavar="ID",
    help="Make the account one of parties, with this corporate user; may be given several times. "
    "With --serve.",
)
@click.option(
    "--again",
    type=click.Choice(["replace", "add", "refuse"]),
    default="replace",
    show_default=True,
    help="What a second subscription of a lab to an event does, which is not documented: replace "
    "the first, deliver as well, or be refused with 409. With --serve.",
)
@click.option(
    "--https-only",
    is_flag=True,
    help="Refuse endpoints without https, as documented. With --serve.",
)
@click.option(
    "--output",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE",
    help="Write the payloads as JSON Lines instead of sending them, for `ledger import`; "
    "- is standard output.",
)
@click.option(
    "--received",
    is_flag=True,
    help="Write the output in the form of `ledger export`, so that an imported event counts as "
    "received when it was sent.",
)
@click.option(
    "--truth",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE",
    help="Write the fate of each event to a file, see below. An old file is overwritten.",
)
@click.option(
    "--rate",
    type=float,
    default=0.0,
    metavar="R",
    help="First attempts per second; 0 is as fast as possible. [default: 0]",
)
@click.option(
    "--concurrency",
    type=int,
    default=16,
    show_default=True,
    metavar="N",
    help="Number of concurrent deliveries.",
)
@click.option(
    "--speed",
    type=float,
    default=1.0,
    show_default=True,
    metavar="X",
    help="Run the sender's clock X times as fast: both times below are divided by X.",
)
@click.option(
    "--retry-interval",
    type=float,
    default=120.0,
    show_default=True,
    metavar="SECONDS",
    help="Time between a failed attempt and the next one.",
)
@click.option(
    "--timeout",
    type=float,
    default=10.0,
    show_default=True,
    metavar="SECONDS",
    help="Time that one attempt may take.",
)
def simulate(
    *,
    start: str | None,
    snapshot: bool,
    outage: tuple[str, ...],
    serve: str | None,
    client_id: str,
    client_secret: str,
    parties: tuple[str, ...],
    again: Again,
    https_only: bool,
    **given: Any,  # noqa: ANN401 the options as click passes them; SimulationOptions checks them
) -> None:
    """Send a simulated lab day to a receiver, with faults.

    The sender behaves like Flabs: a 2xx within the timeout is success; otherwise it retries up to
    three times, and then the event is lost. Give --url, --output to write a file, or --serve to be
    a sandbox of Flabs that one subscribes at.

    \b
    ledger simulate --url http://127.0.0.1:8000/webhooks/flabs --token T --drop 0.02 --speed 60
    ledger simulate --serve 127.0.0.1:9000 --rate 20 --bills 5000
    ledger simulate --bills 1000 --output day.jsonl --truth truth.jsonl
    ledger simulate --bills 20000 --days 30 --outages 9 --received --output month.jsonl
    """  # noqa: D301 \b tells click not to rewrap
    to_standard_output = given["output"] == Path("-")
    sandbox: Sandbox | None = None
    try:
        if serve is not None:
            account = Options(
                client_id=client_id,
                client_secret=client_secret,
                parties=parties,
                again=again,
                needs_https=https_only,
            )
            sandbox = make_sandbox(serve, given["labs"], account)
            given["route"] = sandbox.route
        options = SimulationOptions(
            start=None if start is None else parse_start(start),
            test_data="snapshot" if snapshot else "delta",
            outage=tuple(parse_outage(each) for each in outage),
            **given,
        )
        if sandbox is not None:
            run_sandbox(sandbox, options, Console(stderr=True))
            return
        summary = asyncio.run(run(options, Console(stderr=True)))
    except SimulationOptionError as error:
        name = error.option.replace("_", "-")
        raise click.UsageError(f"--{name} {error.takes}") from None
    except SimulationError as error:
        raise click.ClickException(str(error)) from None
    print_summary(summary, Console(stderr=to_standard_output, highlight=False))
    if summary.failure is not None:
        raise click.ClickException(summary.failure)
