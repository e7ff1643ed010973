CREATE OR REPLACE VIEW ledger.report AS
SELECT
    r.lab_id,
    r.bill_id,
    r.test_id,
    b.integrator_id,
    r.status,
    r.completed_at,
    r.evidence,
    r.position
FROM state.report r
JOIN state.bill b ON b.lab_id = r.lab_id AND b.bill_id = r.bill_id;

COMMENT ON VIEW ledger.report IS 'The state of each report: a test of a bill.';
COMMENT ON COLUMN ledger.report.lab_id IS 'The lab.';
COMMENT ON COLUMN ledger.report.bill_id IS 'The bill.';
COMMENT ON COLUMN ledger.report.test_id IS 'The test, unique within its bill.';
COMMENT ON COLUMN ledger.report.integrator_id IS 'The integrator''s id of the bill, if it has one.';
COMMENT ON COLUMN ledger.report.status IS 'In Flabs'' words, as the newest event that mentions the test reports it.';
COMMENT ON COLUMN ledger.report.completed_at IS 'When the report was completed; null if it is not.';
COMMENT ON COLUMN ledger.report.evidence IS 'The event type that proves completed_at.';
COMMENT ON COLUMN ledger.report.position IS 'The position of the bill.';
