-- Bodies that the fold does not need: of event types that are only kept, and unreadable ones. They may
-- hold a person's data, so each may be erased; its event stays in the log. All others stand in the log,
-- which nothing can change.
--
-- The hash commits to the exact bytes, also once they are gone: seals are made of it.

CREATE TABLE ledger.erasable_body (
    lab_id      text   NOT NULL COLLATE "C",
    position    bigint NOT NULL,
    body_sha256 bytea  NOT NULL,
    body        bytea,
    erased_at   timestamptz,
    CONSTRAINT erasable_body_pkey PRIMARY KEY (lab_id, position),
    CONSTRAINT erasable_body_erased_check CHECK ((body IS NULL) = (erased_at IS NOT NULL)),
    CONSTRAINT erasable_body_sha256_check
        CHECK (octet_length(body_sha256) = 32 AND (body IS NULL OR body_sha256 = sha256(body)))
);

COMMENT ON TABLE ledger.erasable_body IS
    'Bodies of events that are not folded. ledger.erase_body empties them; nothing else changes them.';
COMMENT ON COLUMN ledger.erasable_body.lab_id IS 'The lab of the event.';
COMMENT ON COLUMN ledger.erasable_body.position IS 'The position of the event in the log.';
COMMENT ON COLUMN ledger.erasable_body.body_sha256 IS 'SHA-256 of the bytes as they were received.';
COMMENT ON COLUMN ledger.erasable_body.body IS 'The bytes as they were received; null once erased.';
COMMENT ON COLUMN ledger.erasable_body.erased_at IS
    'When the body was erased. The decision, an event of the log, was received then.';
