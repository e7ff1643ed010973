-- Whether the log has an event. A statement of its own, which can be planned wherever the log lies.

CREATE FUNCTION ledger.is_logged(lab text, bill text, digest bytea) RETURNS boolean
LANGUAGE plpgsql
STABLE
SET enable_seqscan = off
AS $$
BEGIN
    PERFORM FROM ledger.event_log e
    WHERE e.lab_id = lab AND e.bill_id = bill AND e.digest = is_logged.digest;
    RETURN FOUND;
END $$;

COMMENT ON FUNCTION ledger.is_logged IS 'Whether the log has an event, found by its identity.';
