#!/usr/bin/env python3
"""Follows changed bills into a database of your own; each change takes effect exactly once.

    KEY=ldg_... python3 follow_changes.py --ledger https://ledger.example --database postgresql://...

Kill it whenever you like and start it again. What a page of changes does, and the position up to
which it was done, are written in one transaction: both are there or neither is. Several may run;
one at a time works.

It keeps a copy of each bill, and a notice for each bill whose reports are all completed. Whoever
sends the notices takes them from that table, so a restart sends none twice and forgets none.

Needs `httpx` and `psycopg`.
"""

import argparse
import os
import sys
import time
from typing import Any

import httpx
import psycopg

WAIT_MS = 20_000
"""How long one question waits for something new."""

PAUSE_SECONDS = 1.0
"""The pause before the next try, when Ledger or the database did not answer."""

TABLES = """
CREATE TABLE IF NOT EXISTS followed_position (
    only_row boolean PRIMARY KEY DEFAULT true CHECK (only_row),
    position bigint NOT NULL
);
INSERT INTO followed_position (position) VALUES (0) ON CONFLICT DO NOTHING;
CREATE TABLE IF NOT EXISTS followed_bill (
    lab_id text,
    bill_id text,
    state text NOT NULL,
    reports_total integer NOT NULL,
    reports_completed integer NOT NULL,
    report_url text,
    position bigint NOT NULL,
    PRIMARY KEY (lab_id, bill_id)
);
CREATE TABLE IF NOT EXISTS bill_notice (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    lab_id text NOT NULL,
    bill_id text NOT NULL,
    report_url text
);
"""

FORMER_STATE = "SELECT state FROM followed_bill WHERE lab_id = %(lab_id)s AND bill_id = %(bill_id)s"

STORE = """
INSERT INTO followed_bill
VALUES (%(lab_id)s, %(bill_id)s, %(state)s, %(reports_total)s, %(reports_completed)s,
    %(report_url)s, %(position)s)
ON CONFLICT (lab_id, bill_id) DO UPDATE SET
    state = excluded.state,
    reports_total = excluded.reports_total,
    reports_completed = excluded.reports_completed,
    report_url = excluded.report_url,
    position = excluded.position
"""

NOTE = "INSERT INTO bill_notice (lab_id, bill_id, report_url) VALUES (%s, %s, %s)"


def main() -> None:
    """Follow until killed; after an error that passes, go on."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--ledger", required=True, metavar="URL", help="address of Ledger's API")
    parser.add_argument("--database", required=True, metavar="URL", help="your own PostgreSQL")
    parser.add_argument("--page", type=int, default=500, metavar="N", help="changes at a time")
    given = parser.parse_args()
    key = os.environ.get("KEY")
    if not key:
        parser.error("set KEY to an API key of Ledger with the scope read")
    headers = {"Authorization": f"Bearer {key}"}
    with httpx.Client(base_url=given.ledger, headers=headers, timeout=60) as ledger:
        while True:
            try:
                follow(ledger, given.database, given.page)
            except (httpx.HTTPError, psycopg.OperationalError) as error:
                answer = getattr(error, "response", None)
                if answer is not None and answer.status_code in {400, 401, 403}:
                    sys.exit(f"Ledger refuses: {answer.text}")
                print(f"again in {PAUSE_SECONDS:g} s: {error}", file=sys.stderr)  # noqa: T201
                time.sleep(PAUSE_SECONDS)


def follow(ledger: httpx.Client, database: str, page: int) -> None:
    """Follow until something fails."""
    with psycopg.connect(database, autocommit=True) as own:
        own.execute(TABLES)
        position, more = take_page(ledger, own, page)
        refuse_older_log(ledger, position)
        while True:
            if not more:
                wait_for_more(ledger, position)
            position, more = take_page(ledger, own, page)


def take_page(ledger: httpx.Client, own: psycopg.Connection, page: int) -> tuple[int, bool]:
    """Take the next page of changes; return the new position, and whether more are waiting."""
    with own.transaction():
        # The lock on this row keeps a second consumer out until the transaction ends.
        row = own.execute("SELECT position FROM followed_position FOR UPDATE").fetchone()
        assert row is not None  # noqa: S101 -- the row is made with its table
        answer = ledger.get("/v1/changes", params={"after": row[0], "limit": page})
        answer.raise_for_status()
        changes = answer.json()
        for bill in changes["items"]:
            take_bill(own, bill)
        # After the last page, everything up to the position that the answer reflects was seen.
        reflected = int(answer.headers["Ledger-Position"])
        more = changes["next"] is not None
        position = changes["items"][-1]["position"] if more else max(reflected, row[0])
        own.execute("UPDATE followed_position SET position = %s", (position,))
    return position, more


def take_bill(own: psycopg.Connection, bill: dict[str, Any]) -> None:
    """Do what a changed bill is for; here: copy it, and note that it is completed."""
    former = own.execute(FORMER_STATE, bill).fetchone()
    own.execute(STORE, bill)
    if bill["state"] == "completed" and former != ("completed",):
        own.execute(NOTE, (bill["lab_id"], bill["bill_id"], bill["report_url"]))


def wait_for_more(ledger: httpx.Client, position: int) -> None:
    """Wait until Ledger has something after this position, or for `WAIT_MS`."""
    asked = {"after": position, "limit": 1, "min_position": position + 1, "wait_ms": WAIT_MS}
    answer = ledger.get("/v1/changes", params=asked)
    if answer.status_code == httpx.codes.SERVICE_UNAVAILABLE:  # nothing came, or it is away
        refuse_older_log(ledger, position)
    else:
        answer.raise_for_status()


def refuse_older_log(ledger: httpx.Client, position: int) -> None:
    """End with a sentence if Ledger's log ends before the position that was followed."""
    answer = ledger.get("/v1/projection")
    answer.raise_for_status()
    head = answer.json()["head"]
    if head < position:
        sys.exit(
            f"Ledger's log ends at {head}, before the position {position} that was followed: it "
            "was restored from an older backup. Set followed_position to a position before the "
            "backup; bills are then taken again, as they are now."
        )


if __name__ == "__main__":
    main()
