"""Row 4: reading a bill with five reports, against the same server answering a constant."""

from typing import Any

import httpx

from benchmarks import stage, wrk
from benchmarks.logs import EVENTS_OF_A_BILL, LABS, TESTS
from benchmarks.rebuild import rebuilt
from benchmarks.row import Figure, Row, Run, Target, ratios
from benchmarks.stage import MeasureError

EVENTS = 50_000
LOOKED_AT = 50
"""Answers that are read before the measurement, whether they are right."""


def measure(run: Run) -> list[Row]:
    """Read from each server in turn."""
    url = rebuilt(run, EVENTS)
    targets = {"Ledger": stage.LEDGER, "constant": "benchmarks.rivals:make_constant"}
    rates: dict[str, list[float]] = {name: [] for name in targets}
    bills = EVENTS // EVENTS_OF_A_BILL
    _compare(url)
    for _, name in run.turns(list(targets)):
        with stage.served(url, targets[name]) as address:
            rates[name].append(wrk.read(address, run.seconds, bills=bills, labs=LABS).rate)
    return [
        Row(
            number="4",
            what=f"GET one bill with {TESTS} reports, requests/s, {wrk.CONNECTIONS} connections",
            against="the same server, a Litestar route that answers a constant of the same shape",
            target=Target(at_least=0.70),
            values=ratios(rates["Ledger"], rates["constant"]),
            figures=[
                Figure("Ledger", rates["Ledger"], "/s"),
                Figure("constant", rates["constant"], "/s"),
            ],
            remarks=[f"{bills:,} bills are read in turn; right answers were made sure of."],
        )
    ]


def _compare(url: str) -> None:
    """Raise `MeasureError` unless Ledger's answers are right and the constant is one of them."""
    with stage.served(url, stage.LEDGER) as address:
        answers = [_answer(address, number) for number in range(LOOKED_AT)]
    for number, answer in enumerate(answers):
        bill = answer.json()
        whole = [report["status"] for report in bill["reports"]] == ["completed"] * TESTS
        right = bill["bill_id"] == f"bill_{number}" and bill["state"] == "completed"
        if not (whole and right and not bill["missing_events"]):
            raise MeasureError(f"a bill was read wrongly: {bill}")
    with stage.served(url, "benchmarks.rivals:make_constant") as address:
        constant = _answer(address, 0)
    if _shape(constant.json()) != _shape(answers[0].json()):
        raise MeasureError("benchmarks.rivals:make_constant has not the keys of a bill any more")
    length = len(answers[0].content)
    if abs(len(constant.content) - length) > 0.1 * length:
        raise MeasureError(f"the constant has {len(constant.content)} bytes, a bill {length}")


def _answer(address: str, number: int) -> httpx.Response:
    path = f"/v1/labs/lab_{number % LABS}/bills/bill_{number}"
    headers = {"Authorization": f"Bearer {stage.KEY}"}
    return httpx.get(address + path, headers=headers, trust_env=False).raise_for_status()


def _shape(value: Any) -> Any:  # noqa: ANN401 -- any JSON value
    if isinstance(value, dict):
        return {key: _shape(member) for key, member in value.items()}
    return [_shape(member) for member in value] if isinstance(value, list) else None
