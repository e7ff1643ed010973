-- Tells every process that keys or tokens changed. Only a hint: processes also look every few seconds.

CREATE FUNCTION ledger.notify_credentials() RETURNS trigger
LANGUAGE plpgsql
AS $$
BEGIN
    PERFORM pg_notify('ledger_credentials', TG_TABLE_NAME);
    RETURN NULL;
END $$;

COMMENT ON FUNCTION ledger.notify_credentials IS
    'Notifies the channel ledger_credentials, with the name of the table that changed.';
