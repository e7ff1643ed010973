-- The last position of the log, read while holding the append lock.
--
-- On one node a reader's own snapshot would do. Where the log is distributed, a transaction commits on
-- one node after the other, and only the lock guarantees that all of them have.

CREATE FUNCTION ledger.event_log_head() RETURNS bigint
LANGUAGE plpgsql
SET enable_seqscan = off
AS $$
DECLARE
    head bigint;
BEGIN
    PERFORM pg_advisory_xact_lock_shared(7402, 1);  -- Lock.APPEND
    SELECT e.position INTO head FROM ledger.event_log e ORDER BY e.position DESC LIMIT 1;
    RETURN coalesce(head, 0);
END $$;

COMMENT ON FUNCTION ledger.event_log_head IS
    'The last position of the log, 0 if it is empty, read while holding the append lock.';
