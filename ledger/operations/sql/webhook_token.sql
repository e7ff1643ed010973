-- Tokens that senders of webhooks present. Only their digests: a copy of the database lets nobody in.

CREATE TABLE ledger.webhook_token (
    token_id       text        NOT NULL COLLATE "C",
    digest         bytea       NOT NULL,
    labs           text[]      COLLATE "C",
    name           text,
    created_at     timestamptz NOT NULL,
    created_by     text        NOT NULL,
    created_by_key text,
    revoked_at     timestamptz,
    revoked_by     text,
    revoked_by_key text,
    last_used_at   timestamptz,
    CONSTRAINT webhook_token_pkey PRIMARY KEY (token_id),
    CONSTRAINT webhook_token_digest_key UNIQUE (digest),
    CONSTRAINT webhook_token_digest_check CHECK (octet_length(digest) = 32),
    CONSTRAINT webhook_token_labs_check CHECK (labs IS NULL OR (labs <> '{}' AND NOT '' = ANY (labs))),
    CONSTRAINT webhook_token_revoked_check CHECK ((revoked_at IS NULL) = (revoked_by IS NULL))
);

COMMENT ON TABLE ledger.webhook_token IS
    'Webhook tokens; a revoked one keeps its row.';
COMMENT ON COLUMN ledger.webhook_token.token_id IS
    'Names the token. Random, so that ids tell nothing of other labs'' tokens.';
COMMENT ON COLUMN ledger.webhook_token.digest IS 'SHA-256 of the token.';
COMMENT ON COLUMN ledger.webhook_token.labs IS 'The labs whose events it may bring; null for all.';
COMMENT ON COLUMN ledger.webhook_token.name IS 'What it is for, in the operator''s words; null if nobody said.';
COMMENT ON COLUMN ledger.webhook_token.created_at IS 'When it was created.';
COMMENT ON COLUMN ledger.webhook_token.created_by IS 'Who created it.';
COMMENT ON COLUMN ledger.webhook_token.created_by_key IS
    'With which API key; null: on the command line.';
COMMENT ON COLUMN ledger.webhook_token.revoked_at IS 'When it was revoked; null while it is valid.';
COMMENT ON COLUMN ledger.webhook_token.revoked_by IS 'Who revoked it.';
COMMENT ON COLUMN ledger.webhook_token.revoked_by_key IS
    'With which API key; null: on the command line.';
COMMENT ON COLUMN ledger.webhook_token.last_used_at IS
    'When it was last presented, to within a minute; null if it never was.';

-- Not when a use is noted.
CREATE TRIGGER webhook_token_changes_are_notified
    AFTER INSERT OR DELETE OR UPDATE OF digest, labs, revoked_at ON ledger.webhook_token
    FOR EACH STATEMENT EXECUTE FUNCTION ledger.notify_credentials();
