CREATE OR REPLACE VIEW ledger.missing_event AS
SELECT
    m.lab_id,
    m.bill_id,
    m.integrator_id,
    m.event_type,
    nullif(m.test_id, '') AS test_id,
    m.certainty,
    m.count,
    s.state,
    m.evidence_received_at + p.retry_budget AS due_at,
    s.state = 'overdue' AS is_overdue,
    m.evidence_position,
    m.evidence_event_type,
    m.evidence_event_time,
    m.evidence_received_at,
    CASE WHEN s.state = 'requested' THEN m.request END AS request,
    m.requested_at,
    m.waived_at
FROM state.missing_event m
CROSS JOIN ledger.current_policy p
CROSS JOIN LATERAL (
    SELECT ledger.missing_event_state(
        m.waived_at,
        m.requested_at,
        m.evidence_received_at + p.retry_budget,
        now()
    )
) s (state)
WHERE m.event_type = ANY (
    coalesce(
        (
            SELECT s.events
            FROM state.subscription s
            WHERE s.lab_id = m.lab_id
            ORDER BY s.position DESC
            LIMIT 1
        ),
        p.events
    )
);

COMMENT ON VIEW ledger.missing_event IS
    'Events that must have been sent, or probably were, and have not arrived.';
COMMENT ON COLUMN ledger.missing_event.lab_id IS 'The lab.';
COMMENT ON COLUMN ledger.missing_event.bill_id IS 'The bill that the event belongs to.';
COMMENT ON COLUMN ledger.missing_event.integrator_id IS 'The integrator''s id of the bill, if it has one.';
COMMENT ON COLUMN ledger.missing_event.event_type IS 'The type of the missing event.';
COMMENT ON COLUMN ledger.missing_event.test_id IS
    'The test whose report is missing; null if the event concerns the bill, or the test is not known.';
COMMENT ON COLUMN ledger.missing_event.certainty IS
    'certain: another event proves it; possible: what is unknown of the sender leaves room.';
COMMENT ON COLUMN ledger.missing_event.count IS 'How many such events are missing.';
COMMENT ON COLUMN ledger.missing_event.state IS
    'Now: awaiting_retry, overdue, requested or waived.';
COMMENT ON COLUMN ledger.missing_event.due_at IS 'When the sender''s last retry is over.';
COMMENT ON COLUMN ledger.missing_event.is_overdue IS
    'Now: the retries are over, and the event is neither requested nor waived.';
COMMENT ON COLUMN ledger.missing_event.evidence_position IS 'Log position of the event that proves it.';
COMMENT ON COLUMN ledger.missing_event.evidence_event_type IS 'The type of that event.';
COMMENT ON COLUMN ledger.missing_event.evidence_event_time IS 'When that event occurred.';
COMMENT ON COLUMN ledger.missing_event.evidence_received_at IS 'When that event was received.';
COMMENT ON COLUMN ledger.missing_event.request IS 'The support request that asks for it, while it is requested.';
COMMENT ON COLUMN ledger.missing_event.requested_at IS 'When support was asked for it.';
COMMENT ON COLUMN ledger.missing_event.waived_at IS 'When an operator decided not to ask for it.';
