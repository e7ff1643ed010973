"""A page of a FastAPI application that asks Ledger for a bill.

    URL=https://ledger.example KEY=ldg_... uvicorn fastapi_app:app

Needs `fastapi`, `httpx` and `uvicorn`.
"""

import logging
import os
from urllib.parse import quote

import httpx
from fastapi import FastAPI, HTTPException
from pydantic import BaseModel

app = FastAPI()
ledger = httpx.AsyncClient(
    base_url=os.environ["URL"],
    headers={"Authorization": f"Bearer {os.environ['KEY']}"},
    timeout=5,
)


class Order(BaseModel):
    """How far a bill is."""

    state: str
    reports: str
    report_url: str | None
    complete: bool
    """False: something was sent by the lab and has not arrived."""


@app.get("/orders/{lab_id}/{bill_id}")
async def order(lab_id: str, bill_id: str) -> Order:
    """Say how far a bill is."""
    # Ids may hold anything, also a slash.
    path = f"/v1/labs/{quote(lab_id, safe='')}/bills/{quote(bill_id, safe='')}"
    try:
        answer = await ledger.get(path)
    except httpx.TransportError:
        raise HTTPException(503, "the state of orders cannot be read now; try again") from None
    if answer.status_code == httpx.codes.NOT_FOUND:
        raise HTTPException(404, "the lab has not told us of this bill yet")
    if answer.is_error:  # a problem (RFC 9457) that says what to do, or a proxy's page
        logging.getLogger(__name__).error("Ledger: %s", answer.text)
        raise HTTPException(503, "the state of orders cannot be read now; try again")
    bill = answer.json()
    return Order(
        state=bill["state"],
        reports=f"{bill['reports_completed']} of {bill['reports_total']}",
        report_url=bill["report_url"],
        complete=not bill["missing_events"],
    )
