-- The last position of a distributed log, without waiting for an append: to be shown.

CREATE OR REPLACE FUNCTION ledger.last_position() RETURNS bigint
LANGUAGE plpgsql
STABLE
AS $$
BEGIN
    RETURN (SELECT h.position FROM ledger.log_head h);
END $$;
