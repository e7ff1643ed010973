-- When the first event after a position was received. A function for the reason of last_position.

CREATE FUNCTION ledger.received_after(given bigint) RETURNS timestamptz
LANGUAGE plpgsql
STABLE
SET enable_seqscan = off
AS $$
BEGIN
    RETURN (
        SELECT e.received_at
        FROM ledger.event_log e
        WHERE e.position > given
        ORDER BY e.position
        LIMIT 1
    );
END $$;

COMMENT ON FUNCTION ledger.received_after IS
    'When the first event after a position was received; null if there is none.';
