-- The state of a missing event at a time: the SQL twin of `MissingEvent.state` in
-- ledger/model/missing_events.py. A test compares the two.

CREATE FUNCTION ledger.missing_event_state(
    waived_at    timestamptz,
    requested_at timestamptz,
    due_at       timestamptz,
    at           timestamptz
) RETURNS text
LANGUAGE sql
IMMUTABLE PARALLEL SAFE
RETURN CASE
    WHEN waived_at <= at THEN 'waived'
    WHEN requested_at <= at THEN 'requested'
    WHEN at < due_at THEN 'awaiting_retry'
    ELSE 'overdue'
END;

COMMENT ON FUNCTION ledger.missing_event_state IS
    'waived, requested, awaiting_retry or overdue: the state of a missing event at a time.';
