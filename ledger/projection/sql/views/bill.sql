CREATE OR REPLACE VIEW ledger.bill AS
SELECT
    b.lab_id,
    b.bill_id,
    b.integrator_id,
    b.state,
    b.flabs_status,
    b.created_at,
    b.completed_at,
    b.deleted_at,
    b.report_url,
    b.reports_total,
    b.reports_completed,
    CASE WHEN b.missing = 0 THEN 0 ELSE m.missing END AS missing,
    CASE WHEN b.missing = 0 THEN 0 ELSE m.overdue END AS overdue,
    b.findings,
    b.events,
    b.first_received_at,
    b.last_received_at,
    b.last_event_at,
    b.position
FROM state.bill b
LEFT JOIN LATERAL (
    SELECT
        count(*)::integer AS missing,
        (count(*) FILTER (WHERE e.is_overdue))::integer AS overdue
    FROM ledger.missing_event e
    WHERE b.missing > 0 AND e.lab_id = b.lab_id AND e.bill_id = b.bill_id
) m ON b.missing > 0;

COMMENT ON VIEW ledger.bill IS 'The state of each bill.';
COMMENT ON COLUMN ledger.bill.lab_id IS 'The lab.';
COMMENT ON COLUMN ledger.bill.bill_id IS 'The bill, unique within its lab.';
COMMENT ON COLUMN ledger.bill.integrator_id IS 'The integrator''s own id of the booking, if there is one.';
COMMENT ON COLUMN ledger.bill.state IS 'open, completed, reopened or deleted.';
COMMENT ON COLUMN ledger.bill.flabs_status IS 'The bill''s status in Flabs'' words, as last reported.';
COMMENT ON COLUMN ledger.bill.created_at IS 'When bill.created occurred; null if it has not arrived.';
COMMENT ON COLUMN ledger.bill.completed_at IS 'When the newest bill.completed occurred; null without one.';
COMMENT ON COLUMN ledger.bill.deleted_at IS 'When bill.deleted occurred; null without one.';
COMMENT ON COLUMN ledger.bill.report_url IS 'Where the complete report can be read.';
COMMENT ON COLUMN ledger.bill.reports_total IS 'How many tests the bill''s events mention.';
COMMENT ON COLUMN ledger.bill.reports_completed IS 'How many of them are completed.';
COMMENT ON COLUMN ledger.bill.missing IS 'How many rows of missing_event the bill has.';
COMMENT ON COLUMN ledger.bill.overdue IS 'How many of them are overdue now.';
COMMENT ON COLUMN ledger.bill.findings IS 'Codes of what is unusual about the bill, sorted.';
COMMENT ON COLUMN ledger.bill.events IS 'How many distinct events the bill has.';
COMMENT ON COLUMN ledger.bill.first_received_at IS 'When its first event was received.';
COMMENT ON COLUMN ledger.bill.last_received_at IS 'When its last event was received.';
COMMENT ON COLUMN ledger.bill.last_event_at IS 'When its newest event occurred.';
COMMENT ON COLUMN ledger.bill.position IS 'Log position of its last event: grows with each change.';
