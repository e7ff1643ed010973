"""A page of a Flask application that asks Ledger for a bill.

    URL=https://ledger.example KEY=ldg_... flask --app flask_app run

Needs `flask` and `httpx`.
"""

import os
from typing import Any
from urllib.parse import quote

import httpx
from flask import Flask, abort

app = Flask(__name__)
ledger = httpx.Client(
    base_url=os.environ["URL"],
    headers={"Authorization": f"Bearer {os.environ['KEY']}"},
    timeout=5,
)


@app.get("/orders/<lab_id>/<bill_id>")
def order(lab_id: str, bill_id: str) -> dict[str, Any]:
    """Say how far a bill is."""
    # Ids may hold anything, also a slash.
    path = f"/v1/labs/{quote(lab_id, safe='')}/bills/{quote(bill_id, safe='')}"
    try:
        answer = ledger.get(path)
    except httpx.TransportError:
        abort(503, "the state of orders cannot be read now; try again")
    if answer.status_code == httpx.codes.NOT_FOUND:
        abort(404, "the lab has not told us of this bill yet")
    if answer.is_error:  # a problem (RFC 9457) that says what to do, or a proxy's page
        app.logger.error("Ledger: %s", answer.text)
        abort(503, "the state of orders cannot be read now; try again")
    bill = answer.json()
    return {
        "state": bill["state"],
        "reports": f"{bill['reports_completed']} of {bill['reports_total']}",
        "report_url": bill["report_url"],
        # Something was sent by the lab and has not arrived: the state may be older than it seems.
        "complete": not bill["missing_events"],
    }
