"""The demo of `ledger up --demo`: sends a simulated lab day with faults and shows the result."""

import asyncio
import shlex
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import rich_click as click

from ledger.cli.common import PATIENCE
from ledger.cli.local_stack import KEY_FILE, Stack
from ledger.credentials import new_secret
from ledger.flabs.client import FlabsClient
from ledger.flabs.subscriptions import Choice, subscribe
from ledger.model.coverage import FINDINGS
from ledger.model.operators import Operator
from ledger.operations.policy import agree
from ledger.operations.render.words import count
from ledger.simulator import SimulationOptions, SimulationSummary, read_truth, simulate
from ledger.simulator.history import lab_ids
from ledger.simulator.sandbox import Account, Options, Sandbox

SPEED = 60.0
"""How many times as fast the clock of the demo's sender is, so that its retries take seconds."""

RETRIES = {"LEDGER_RETRY_INTERVAL": "2", "LEDGER_RETRY_TIMEOUT": "1"}
"""The sender's retries by that clock: an event is overdue after 10 s instead of 400 s."""

BUDGET_SECONDS = 10.0


LABS = 3
"""Labs that are subscribed and send. The account has one more, which nobody has subscribed."""


@contextmanager
def demo_sandbox() -> Iterator[Sandbox]:
    """Give the sandbox of Flabs that the demo registers with."""
    options = Options(client_secret=new_secret(), needs_https=False)
    with Sandbox(Account(lab_ids(LABS + 1), options)) as sandbox:
        yield sandbox


def demo_settings(sandbox: Sandbox, public_url: str) -> dict[str, str]:
    """Return the settings of a demo: quick retries, and the account at the sandbox."""
    options = sandbox.account.options
    return {
        **RETRIES,
        "LEDGER_FLABS_URL": sandbox.url,
        "LEDGER_FLABS_CLIENT_ID": options.client_id,
        "LEDGER_FLABS_CLIENT_SECRET": options.client_secret,
        "LEDGER_PUBLIC_URL": public_url,
    }


def run_demo(stack: Stack, sandbox: Sandbox) -> None:
    """Register, send the day, wait until the lost events are overdue, and show both sides."""
    truth = stack.data / "demo-truth.jsonl"
    _register(stack)
    click.echo(
        "Sending a simulated lab day; some webhooks are lost, repeated, late or out of order ..."
    )
    options = SimulationOptions(
        bills=300,
        labs=LABS,
        seed=int(time.time()),
        test_data="delta",
        drop=0.02,
        late=0.05,
        duplicate=0.05,
        reorder=0.05,
        route=sandbox.route,
        speed=SPEED,
        timeout=SPEED,  # 1 s by the fast clock, as in RETRIES
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
        _show_coverage(client)
        click.echo(
            f"\nWaiting {BUDGET_SECONDS:.0f} s until the lost events are overdue (400 s in "
            "production) ..."
        )
        stack.pause(BUDGET_SECONDS)
        if not stack.stopping:
            _show_missing(client, truth, stack)


def _register(stack: Stack) -> None:
    """Subscribe the labs as `ledger flabs subscribe` does, all but the last."""
    click.echo("Registering with a sandbox of Flabs ...")
    settings = stack.settings()
    policy = agree(stack.database_url, settings)
    # A sandbox of an earlier demo knew what this one does not.
    choice = Choice(labs=tuple(lab_ids(LABS)), events=policy.events, again=True)
    with FlabsClient.of(settings) as client:
        report, _ = subscribe(
            stack.database_url,
            settings,
            client,
            choice,
            by=Operator("the demo"),
            patience=PATIENCE,
        )
    for item in report.subscriptions:
        click.echo(f"  lab {item.lab_id}: {item.outcome}, {count(len(item.events), 'event type')}")


def _show_coverage(client: httpx.Client) -> None:
    for lab in client.get("/v1/flabs/coverage").raise_for_status().json()["labs"]:
        for finding in lab["findings"]:
            click.echo(
                f"\nLab {lab['lab_id']} is {FINDINGS[finding]}: `ledger flabs coverage` shows it, "
                f"and\n`ledger flabs subscribe --lab {lab['lab_id']}` mends it."
            )


def _show_sent(summary: SimulationSummary) -> None:
    click.echo("\nThe sender reports:")
    for number, meaning in summary.in_words():
        click.echo(f"  {number:6,}  {meaning}")


def _wait_for_projection(client: httpx.Client) -> None:
    head = client.get("/v1/projection").json()["head"]
    client.get("/v1/projection", params={"min_position": head, "wait_ms": 20_000})


def _show_state(client: httpx.Client) -> None:
    projection = client.get("/v1/projection").json()
    states: dict[str, int] = {}
    for bill in _all(client, "/v1/bills", {}):
        states[bill["state"]] = states.get(bill["state"], 0) + 1
    click.echo(f"\nLedger recorded {count(projection['head'], 'event')} and folded them into")
    for state, number in sorted(states.items()):
        click.echo(f"  {number:6,}  {state} {'bill' if number == 1 else 'bills'}")


def _show_missing(client: httpx.Client, truth: Path, stack: Stack) -> None:
    overdue = list(_all(client, "/v1/missing-events", {"state": "overdue"}))
    certain = [item for item in overdue if item["certainty"] == "certain"]
    lost = sum(1 for event in read_truth(truth) if not event.delivered)
    click.echo(
        f"\n{count(lost, 'event was', 'events were')} lost on the way. Ledger found "
        f"{len(overdue):,} missing,\n{len(certain):,} of them with certainty. The first are"
    )
    for item in overdue[:5]:
        test = f" of {item['test_id']}" if item["test_id"] else ""
        click.echo(
            f"  {item['event_type']}{test} of bill {item['bill_id']} (lab {item['lab_id']}), "
            f"{item['certainty']}, shown by the {item['evidence']['event_type']} "
            f"at position {item['evidence']['position']}"
        )
    click.echo(
        "Not every loss leaves a trace: nothing is known of a bill if all its events were lost."
    )
    _ask_support(client, truth)
    key = shlex.quote(str(stack.data / KEY_FILE))
    click.echo(
        f"\nThe letter to support:\ncurl -sS '{stack.url}/v1/support-requests/1?format=markdown' "
        f'-H "Authorization: Bearer $(cat {key})"\n'
        f"\nThe report on missing events:\ncurl -sS '{stack.url}/v1/reconciliation?format=text' "
        f'-H "Authorization: Bearer $(cat {key})"\n'
    )


def _ask_support(client: httpx.Client, truth: Path) -> None:
    """Make a support request, and import what support might send: nine tenths of the events."""
    made = client.post("/v1/support-requests", json={"note": "the demo"})
    if made.status_code != httpx.codes.CREATED:
        return
    request = made.json()
    lost = [bytes(event.payload) for event in read_truth(truth) if not event.delivered]
    answer = b"".join(payload + b"\n" for payload in lost[: -(len(lost) // 10) or None])
    report = client.post("/v1/imports", content=answer).raise_for_status().json()
    click.echo(
        f"\nSupport request {request['number']} asks for {len(request['lines']):,} of them. "
        f"Support sends what it finds:\n"
        f"{count(report['recorded'], 'event was', 'events were')} recorded and settled "
        f"{count(report['settled_count'], 'line')} of the request; "
        f"{report['still_open_count']:,} still open."
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
