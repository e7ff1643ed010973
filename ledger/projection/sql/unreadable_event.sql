-- Events that this version cannot read.

CREATE TABLE unreadable_event (
    lab_id   text   NOT NULL COLLATE "C",
    bill_id  text   NOT NULL COLLATE "C",
    position bigint NOT NULL,
    reason   text   NOT NULL COLLATE "C",
    path     text   NOT NULL,
    detail   text   NOT NULL
);

COMMENT ON TABLE unreadable_event IS 'Events that this version cannot read, and why.';
COMMENT ON COLUMN unreadable_event.path IS 'JSON path of what is wrong.';
