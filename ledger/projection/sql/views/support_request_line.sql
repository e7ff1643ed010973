CREATE OR REPLACE VIEW ledger.support_request_line AS
SELECT
    l.request AS number,
    l.lab_id,
    l.bill_id,
    l.integrator_id,
    l.event_type,
    nullif(l.test_id, '') AS test_id,
    l.certainty,
    l.count,
    l.state,
    l.received_position,
    l.reason,
    l.previous,
    l.requested_at,
    l.evidence_position,
    l.evidence_event_type,
    l.evidence_event_time,
    l.evidence_received_at
FROM state.request_line l;

COMMENT ON VIEW ledger.support_request_line IS 'One row per missing event that a support request asks for.';
COMMENT ON COLUMN ledger.support_request_line.number IS 'The number of the request.';
COMMENT ON COLUMN ledger.support_request_line.lab_id IS 'The lab.';
COMMENT ON COLUMN ledger.support_request_line.bill_id IS 'The bill.';
COMMENT ON COLUMN ledger.support_request_line.integrator_id IS 'The integrator''s id of the bill, as it was when the request was made.';
COMMENT ON COLUMN ledger.support_request_line.event_type IS 'The type of the event asked for.';
COMMENT ON COLUMN ledger.support_request_line.test_id IS 'Its test; null if it concerns the bill, or the test is not known.';
COMMENT ON COLUMN ledger.support_request_line.certainty IS 'certain or possible, as it was when the request was made.';
COMMENT ON COLUMN ledger.support_request_line.count IS 'How many such events are asked for.';
COMMENT ON COLUMN ledger.support_request_line.state IS 'requested, received or closed.';
COMMENT ON COLUMN ledger.support_request_line.received_position IS 'Log position of the event that arrived.';
COMMENT ON COLUMN ledger.support_request_line.reason IS 'Why the line was closed.';
COMMENT ON COLUMN ledger.support_request_line.previous IS 'The earlier request that asked for the same event without result.';
COMMENT ON COLUMN ledger.support_request_line.requested_at IS 'When the request was made.';
COMMENT ON COLUMN ledger.support_request_line.evidence_position IS 'Log position of the event that proves the line''s event missing.';
COMMENT ON COLUMN ledger.support_request_line.evidence_event_type IS 'The type of that event.';
COMMENT ON COLUMN ledger.support_request_line.evidence_event_time IS 'When that event occurred.';
COMMENT ON COLUMN ledger.support_request_line.evidence_received_at IS 'When that event was received.';
