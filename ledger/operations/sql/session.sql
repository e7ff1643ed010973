-- Logins to the page. The cookie and the link hold the token; here is only its SHA-256.

CREATE TABLE ledger.session (
    digest      bytea       NOT NULL,
    key_id      text        NOT NULL COLLATE "C",
    proof       bytea       NOT NULL,
    operator    text        NOT NULL,
    created_at  timestamptz NOT NULL,
    expires_at  timestamptz NOT NULL,
    CONSTRAINT session_pkey PRIMARY KEY (digest),
    CONSTRAINT session_digest_check CHECK (octet_length(digest) = 32),
    CONSTRAINT session_proof_check CHECK (octet_length(proof) = 32)
);

CREATE INDEX session_expires_idx ON ledger.session (expires_at);

COMMENT ON TABLE ledger.session IS 'Logins to the page; one that ended has no row.';
COMMENT ON COLUMN ledger.session.digest IS 'SHA-256 of the token in the cookie.';
COMMENT ON COLUMN ledger.session.key_id IS 'The API key that was exchanged for the session.';
COMMENT ON COLUMN ledger.session.proof IS
    'SHA-256 of the token and the digest of the key: the session ends with this secret of the key.';
COMMENT ON COLUMN ledger.session.operator IS 'Who logged in, as they called themselves.';


CREATE TABLE ledger.login_link (
    digest      bytea       NOT NULL,
    key_id      text        NOT NULL COLLATE "C",
    proof       bytea       NOT NULL,
    operator    text        NOT NULL,
    expires_at  timestamptz NOT NULL,
    CONSTRAINT login_link_pkey PRIMARY KEY (digest),
    CONSTRAINT login_link_digest_check CHECK (octet_length(digest) = 32),
    CONSTRAINT login_link_proof_check CHECK (octet_length(proof) = 32)
);

COMMENT ON TABLE ledger.login_link IS 'Links that log in once; one that was used has no row.';
COMMENT ON COLUMN ledger.login_link.digest IS 'SHA-256 of the token in the link.';
COMMENT ON COLUMN ledger.login_link.key_id IS 'The API key that the link stands for.';
COMMENT ON COLUMN ledger.login_link.proof IS 'As in ledger.session.';
COMMENT ON COLUMN ledger.login_link.operator IS 'As in ledger.session.';
