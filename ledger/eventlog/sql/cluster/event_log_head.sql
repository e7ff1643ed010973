-- The last position of a distributed log, read while holding the append lock.

CREATE OR REPLACE FUNCTION ledger.event_log_head() RETURNS bigint
LANGUAGE plpgsql
AS $$
BEGIN
    PERFORM pg_advisory_xact_lock_shared(7402, 1);  -- Lock.APPEND
    RETURN (SELECT h.position FROM ledger.log_head h);
END $$;
