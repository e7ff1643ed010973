"""State as version 3 of the fold made it: what it said of a bill as JSON objects."""

from psycopg import Connection

from ledger.eventlog import read
from ledger.model.bill import fold
from ledger.projection.rows import BillEvents, encode, read_row

_TABLES = b"""
DROP VIEW state.report;
ALTER TABLE state.bill DROP COLUMN missing;
CREATE VIEW state.report AS
SELECT
    b.lab_id, b.bill_id, r.test_id, b.position, r.is_completed, b.integrator_id, r.report,
    b.completed AS bill_completed
FROM state.bill b
CROSS JOIN LATERAL ROWS FROM (
    unnest(b.test_ids), unnest(b.completed), json_array_elements(b.reports)
) AS r (test_id, is_completed, report);
UPDATE state.checkpoint SET fold_version = 3;
"""


def to_version_3(service: Connection) -> None:
    """Make that of the state that is there."""
    service.execute(_TABLES)
    for lab_id, bill_id in service.execute("SELECT lab_id, bill_id FROM state.bill").fetchall():
        history = BillEvents([], [])
        for row in read.of_bills(service, [(lab_id, bill_id)], read.head(service)):
            history.add(read_row(row))
        bill = fold(lab_id, bill_id, history.events, history.decisions)
        service.execute(
            "UPDATE state.bill SET summary = %s, reports = %s WHERE lab_id = %s AND bill_id = %s",
            (encode(bill.summary).decode(), encode(bill.reports).decode(), lab_id, bill_id),
        )
