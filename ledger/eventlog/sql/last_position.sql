-- The last position of the log, without waiting for an append: to be shown. A function, because a query
-- that joins the log to anything cannot always be planned where the log is distributed.

CREATE FUNCTION ledger.last_position() RETURNS bigint
LANGUAGE plpgsql
STABLE
SET enable_seqscan = off
AS $$
BEGIN
    RETURN coalesce(
        (SELECT e.position FROM ledger.event_log e ORDER BY e.position DESC LIMIT 1), 0
    );
END $$;

COMMENT ON FUNCTION ledger.last_position IS 'The last position of the log, 0 if it is empty.';
