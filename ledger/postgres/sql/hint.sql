-- Wakes listeners, if there is room: a commit that notifies fails while the queue of notifications is
-- full. Every listener finds by polling what it was not told.

CREATE FUNCTION ledger.hint(channel text) RETURNS void
LANGUAGE sql
AS $$
    SELECT pg_notify(channel, '') WHERE pg_notification_queue_usage() < 0.5
$$;

COMMENT ON FUNCTION ledger.hint IS
    'Notifies a channel, unless the queue of notifications is half full: such a commit could fail.';
