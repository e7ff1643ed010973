"""The demo of `ledger up --demo`: a simulated lab day with faults, and what became of it."""

import asyncio
import shlex
import time
from pathlib import Path
from typing import Any

import httpx
import rich_click as click

from ledger.cli.local_stack import KEY_FILE, Stack
from ledger.simulator import SimulationOptions, SimulationSummary, read_truth, simulate

SPEED = 60.0
"""The demo's sender has a clock this many times as fast, so that nobody waits for retries."""

RETRIES = {"LEDGER_RETRY_INTERVAL": "2", "LEDGER_RETRY_TIMEOUT": "1"}
"""What the receiver is told of that clock: an event is overdue after 10 s, not 400 s."""

BUDGET_SECONDS = 10.0


def run_demo(stack: Stack) -> None:
    """Send the day, wait until what never came is overdue, and show both sides."""
    truth = stack.data / "demo-truth.jsonl"
    click.echo(
        "Sending a simulated lab day; some webhooks get lost, repeated, late or reordered ..."
    )
    options = SimulationOptions(
        bills=300,
        labs=3,
        seed=int(time.time()),
        test_data="delta",
        drop=0.02,
        late=0.05,
        duplicate=0.05,
        reorder=0.05,
        url=f"{stack.url}/webhooks/flabs",
        token=stack.token,
        speed=SPEED,
        timeout=SPEED,  # 1 s by its clock, as the receiver is told
        truth=truth,
    )
    summary = asyncio.run(simulate(options))
    _show_sent(summary)
    with httpx.Client(
        base_url=stack.url,
        headers={"Authorization": f"Bearer {stack.key}"},
        timeout=30,
        trust_env=False,
    ) as client:
        _wait_for_projection(client)
        _show_state(client)
        click.echo(
            f"\nWhat never came is overdue after {BUDGET_SECONDS:.0f} s (400 s in earnest) ..."
        )
        stack.pause(BUDGET_SECONDS)
        if not stack.stopping:
            _show_missing(client, truth, stack)


def _show_sent(summary: SimulationSummary) -> None:
    click.echo("\nThe sender says:")
    for count, meaning in summary.in_words():
        click.echo(f"  {count:6,}  {meaning}")


def _wait_for_projection(client: httpx.Client) -> None:
    head = client.get("/v1/projection").json()["head"]
    client.get("/v1/projection", params={"min_position": head, "wait_ms": 20_000})


def _show_state(client: httpx.Client) -> None:
    projection = client.get("/v1/projection").json()
    states: dict[str, int] = {}
    for bill in _all(client, "/v1/bills", {}):
        states[bill["state"]] = states.get(bill["state"], 0) + 1
    click.echo(f"\nThe ledger holds {projection['head']:,} events; of them it made")
    for state, count in sorted(states.items()):
        click.echo(f"  {count:6,}  {state} bills")


def _show_missing(client: httpx.Client, truth: Path, stack: Stack) -> None:
    overdue = list(_all(client, "/v1/missing-events", {"state": "overdue"}))
    certain = [item for item in overdue if item["certainty"] == "certain"]
    lost = sum(1 for event in read_truth(truth) if not event.delivered)
    click.echo(
        f"\n{lost:,} events of this day were lost. The ledger knows of {len(overdue):,} that"
    )
    click.echo(f"never came ({len(certain):,} of them for certain), the first of which are")
    for item in overdue[:5]:
        test = f" of {item['test_id']}" if item["test_id"] else ""
        click.echo(
            f"  {item['event_type']}{test} of bill {item['bill_id']} (lab {item['lab_id']}), "
            f"{item['certainty']}, known from the {item['evidence']['event_type']} "
            f"at position {item['evidence']['position']}"
        )
    click.echo(
        "Not every loss leaves a trace: of a bill whose every event was lost nothing is known."
    )
    _ask_support(client, truth)
    key = shlex.quote(str(stack.data / KEY_FILE))
    click.echo(
        f"\nThe letter to support:\ncurl -sS '{stack.url}/v1/support-requests/1?format=markdown' "
        f'-H "Authorization: Bearer $(cat {key})"\n'
        f"\nWhat is missing now:\ncurl -sS '{stack.url}/v1/reconciliation?format=text' "
        f'-H "Authorization: Bearer $(cat {key})"\n'
    )


def _ask_support(client: httpx.Client, truth: Path) -> None:
    """Make a support request of it, and take in what support would send: all but a few events."""
    made = client.post("/v1/support-requests", json={"note": "the demo"})
    if made.status_code != httpx.codes.CREATED:
        return
    request = made.json()
    lost = [bytes(event.payload) for event in read_truth(truth) if not event.delivered]
    answer = b"".join(payload + b"\n" for payload in lost[: -(len(lost) // 10) or None])
    report = client.post("/v1/imports", content=answer).raise_for_status().json()
    click.echo(
        f"\nSupport request {request['number']} asks for {len(request['lines']):,} of them. "
        f"Support sends what it finds;\nof that {report['recorded']:,} events were recorded, "
        f"which settled {report['settled_count']:,} lines of the request.\n"
        f"Still open are {report['still_open_count']:,}."
    )


def _all(client: httpx.Client, path: str, filters: dict[str, str]) -> Any:  # noqa: ANN401 -- JSON
    cursor: str | None = None
    while True:
        more = {"cursor": cursor} if cursor else {}
        answer = client.get(path, params={**filters, **more, "limit": "1000"})
        page = answer.raise_for_status().json()
        yield from page["items"]
        cursor = page["next"]
        if cursor is None:
            return
