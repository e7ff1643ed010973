-- For people in psql. A body can hold anything; what jsonb cannot hold becomes null.

CREATE FUNCTION ledger.body_as_jsonb(body bytea) RETURNS jsonb
LANGUAGE plpgsql
IMMUTABLE STRICT PARALLEL SAFE
AS $$
BEGIN
    -- jsonb stores 1e9999 in a few bytes and prints it with all of its digits.
    IF convert_from(body, 'UTF8') ~ '[0-9][eE][+-]?[0-9]{4}' THEN
        RETURN NULL;
    END IF;
    RETURN convert_from(body, 'UTF8')::jsonb;
EXCEPTION WHEN data_exception OR statement_too_complex OR program_limit_exceeded THEN
    RETURN NULL;
END $$;

COMMENT ON FUNCTION ledger.body_as_jsonb IS
    'The body as jsonb; null if it is not JSON or PostgreSQL cannot represent it.';
