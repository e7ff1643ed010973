-- API keys. The keys themselves are nowhere: only the SHA-256 of each.

CREATE TABLE ledger.api_key (
    key_id                text        NOT NULL COLLATE "C",
    name                  text        NOT NULL,
    scope                 text        NOT NULL COLLATE "C",
    labs                  text[]               COLLATE "C",
    created_at            timestamptz NOT NULL,
    created_by            text        NOT NULL,
    created_by_key        text,
    expires_at            timestamptz,
    digest                bytea       NOT NULL,
    previous_digest       bytea,
    previous_valid_until  timestamptz,
    last_used_at          timestamptz,
    revoked_at            timestamptz,
    CONSTRAINT api_key_pkey PRIMARY KEY (key_id),
    CONSTRAINT api_key_scope_check CHECK (scope IN ('read', 'operate', 'admin')),
    CONSTRAINT api_key_labs_check CHECK (labs IS NULL OR (labs <> '{}' AND NOT '' = ANY (labs))),
    CONSTRAINT api_key_digest_check CHECK (octet_length(digest) = 32),
    CONSTRAINT api_key_previous_check
        CHECK ((previous_digest IS NULL) = (previous_valid_until IS NULL))
);

COMMENT ON TABLE ledger.api_key IS 'API keys; a revoked or expired key keeps its row.';
COMMENT ON COLUMN ledger.api_key.key_id IS 'The part of the key that is no secret.';
COMMENT ON COLUMN ledger.api_key.name IS 'What the key is for, or who has it.';
COMMENT ON COLUMN ledger.api_key.scope IS 'read, operate or admin; each includes those before it.';
COMMENT ON COLUMN ledger.api_key.labs IS 'The labs that the key is for; null: all.';
COMMENT ON COLUMN ledger.api_key.created_by IS 'Who created it, as they called themselves.';
COMMENT ON COLUMN ledger.api_key.created_by_key IS
    'The key that created it; null: the command line.';
COMMENT ON COLUMN ledger.api_key.digest IS 'SHA-256 of the key.';
COMMENT ON COLUMN ledger.api_key.previous_digest IS 'SHA-256 of the key before the last rotation.';
COMMENT ON COLUMN ledger.api_key.previous_valid_until IS 'Until when the key before is valid.';
COMMENT ON COLUMN ledger.api_key.last_used_at IS 'When it was last used, to about an hour.';

-- Not for last_used_at, which admits nobody and shuts nobody out.
CREATE TRIGGER api_key_changed
    AFTER INSERT OR DELETE OR UPDATE OF
        scope, labs, expires_at, digest, previous_digest, previous_valid_until, revoked_at
    ON ledger.api_key
    FOR EACH STATEMENT EXECUTE FUNCTION ledger.notify_credentials();
